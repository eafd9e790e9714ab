//! Values that are written by a schema registry's schemas, made JSON of: which schema, where it is had, and what it says.
//!
//! [`Registry::decode`] neither waits nor blocks: it decodes by what is known, and says which schema is missing. That one
//! is asked for by [`Registry::fetch`], which blocks, so whoever reads records chooses where: the gathering stage goes on
//! with its other partitions meanwhile, a replay waits ([`Registry::decode_waiting`]).
//!
//! What a schema makes of a value is exact, or a fault: no decimal goes through a float. Depth, and what is written, are
//! bounded whatever the value says of itself.

mod avro;
mod cache;
mod client;
mod protobuf;
mod text;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use self::cache::{Cache, Known};
pub use self::client::Away;
use self::client::{Client, Found};
use crate::config::RegistryArgs;
use crate::event::{Decoded, Fault, FaultCode, Framed, Record, SchemaId};

/// How often a registry is asked for an id before it counts as unknown: one that was just registered is not on every node
/// of a registry at once.
const UNKNOWN_ASKS: u32 = 3;
/// The pause between.
const UNKNOWN_PAUSE: Duration = Duration::from_millis(500);
/// Longest that a replay waits for a registry that is away.
const REPLAY_LIMIT: Duration = Duration::from_secs(30);
/// The pause between its tries.
const REPLAY_PAUSE: Duration = Duration::from_secs(1);
/// The largest number of a schema: it is an `int` of Java in Confluent's registry. A larger one is not asked for: the answer
/// would be that of any server that has no such path.
const MOST_NUMBER: u32 = i32::MAX.cast_unsigned();

/// A schema, ready to decode by.
enum Schema {
    /// Of JSON: the value stands for itself.
    Json,
    Avro(avro::Schema),
    Protobuf(protobuf::Schema),
    /// It cannot be used, and why.
    Unusable(String),
}

/// A schema registry, and what is known of it. Shared by all that reads records in a process.
pub struct Registry {
    client: Client,
    cache: Cache,
}

impl Registry {
    /// The registry that is named, if one is. It is not asked yet.
    ///
    /// # Errors
    /// When the authorities that are to vouch for it cannot be read.
    pub fn named(args: &RegistryArgs) -> Result<Option<Arc<Self>>> {
        let Some(url) = args.schema_registry_url.clone() else { return Ok(None) };
        let client = Client::new(url, args.clone())?;
        Ok(Some(Arc::new(Self { client, cache: Cache::default() })))
    }

    /// Decodes a record's value, if it says its schema. The schema that is to be fetched first, where it is not known.
    ///
    /// # Errors
    /// That schema's id. The record is left as it is.
    pub fn decode(&self, record: &mut Record) -> Result<(), SchemaId> {
        let Some(framed) = record.framed() else { return Ok(()) };
        let known = match framed.id {
            SchemaId::Number(number) if number > MOST_NUMBER => Some(Known::Absent),
            id => self.cache.get(id),
        };
        let decoded = match known {
            None => return Err(framed.id),
            Some(Known::Absent) => Some(Decoded::UnknownSchema),
            Some(Known::Incomplete(what)) => Some(unusable(
                framed.id,
                &format!("it refers to {what}, which the schema registry does not know"),
            )),
            Some(Known::Schema(schema)) => decode_by(&schema, framed),
        };
        record.decoded = decoded.map(Box::new);
        Ok(())
    }

    /// Asks the registry for a schema and all that it refers to, and remembers what it says. Blocks, for some seconds where
    /// the registry is slow or does not know it.
    ///
    /// # Errors
    /// [`Away`] when the registry does not say: then nothing is known.
    pub fn fetch(&self, id: SchemaId) -> Result<(), Away> {
        let mut asked = 1;
        let found = loop {
            match self.client.schema(id)? {
                Found::Absent | Found::Incomplete(_) if asked < UNKNOWN_ASKS => thread::sleep(UNKNOWN_PAUSE),
                found => break found,
            }
            asked += 1;
        };
        let known = match found {
            Found::Absent => Known::Absent,
            Found::Incomplete(what) => Known::Incomplete(what),
            Found::Unusable(why) => Known::Schema(Arc::new(Schema::Unusable(why))),
            Found::Schema(source) => Known::Schema(Arc::new(compile(&source))),
        };
        self.cache.put(id, known);
        Ok(())
    }

    /// Decodes a record's value, and waits for its schema where it is not known. Blocks.
    ///
    /// # Errors
    /// When the registry stays away.
    pub fn decode_waiting(&self, record: &mut Record) -> Result<()> {
        let begun = Instant::now();
        while let Err(id) = self.decode(record) {
            let Err(away) = self.fetch(id) else { continue };
            if begun.elapsed() > REPLAY_LIMIT {
                bail!(
                    "record {} needs schema {id}, and the schema registry does not answer: {away}",
                    record.source
                );
            }
            tracing::warn!("waiting for schema {id}: {away}");
            thread::sleep(REPLAY_PAUSE);
        }
        Ok(())
    }
}

/// Makes a schema ready; one that cannot be used says why, and so will every value of it.
fn compile(source: &client::Source) -> Schema {
    let made = match &*source.format {
        "AVRO" => avro::Schema::parse(source).map(Schema::Avro),
        "PROTOBUF" => protobuf::Schema::parse(source).map(Schema::Protobuf),
        "JSON" => Ok(Schema::Json),
        other => Err(format!("its type is {other:?}; known are AVRO, PROTOBUF and JSON")),
    };
    made.unwrap_or_else(Schema::Unusable)
}

/// What a schema makes of a value; `None` where the value stands for itself.
fn decode_by(schema: &Schema, framed: Framed<'_>) -> Option<Decoded> {
    let id = framed.id;
    let (format, text) = match schema {
        Schema::Json => return None,
        Schema::Avro(schema) => ("Avro", schema.json(framed.value)),
        Schema::Protobuf(schema) => ("Protobuf", schema.json(framed.value, framed.in_header)),
        Schema::Unusable(why) => return Some(unusable(id, why)),
    };
    Some(match text {
        Ok(text) => Decoded::Json { format, text },
        Err(why) => Decoded::Undecodable(Fault::new(
            FaultCode::BadEnvelope,
            format_args!("the value is not the {format} of schema {id}: {why}"),
        )),
    })
}

fn unusable(id: SchemaId, why: &str) -> Decoded {
    let detail = format_args!("schema {id}, which the value is written by, cannot be used: {why}");
    Decoded::Undecodable(Fault::new(FaultCode::BadEnvelope, detail))
}

#[cfg(test)]
mod tests;
