//! Avro: a schema as its own crate parses it, and a value walked by it.
//!
//! The crate's decoder is not used for values. It takes a value that ends too early for one with nulls, follows a schema
//! that holds itself as deep as the value says, and makes of each element a value many times its size. This one writes
//! JSON as it goes, and so is bounded by what it writes.
//!
//! | Avro | JSON |
//! |---|---|
//! | record, map, array, union | object, object, array, the value itself |
//! | `decimal`, `big-decimal` | a number with every digit |
//! | `timestamp-…`, `local-timestamp-…` | RFC 3339 in UTC; without a zone |
//! | `date`, `time-…` | `2026-11-28`, `13:45:00.123` |
//! | `uuid`, enum | text |
//! | bytes, fixed | text in base64 |
//! | `duration` | an object of months, days and milliseconds |

use std::collections::HashMap;

use apache_avro::schema::{InnerDecimalSchema, NamespaceRef, UuidSchema};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::SignedDuration;
use jiff::civil::{DateTime, date};

use super::client::Source;
use super::text::{Json, MOST_DEPTH};
use crate::event::{decimal_text, write_guid};

/// A part of a schema; others are named by their number.
enum Node {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    Array(usize),
    Map(usize),
    Union(Vec<usize>),
    Record(Vec<(String, usize)>),
    Enum(Vec<String>),
    Fixed(usize),
    Logical(Logical),
    /// What has this name.
    Named(String),
}

/// What is written as something simpler and means more.
enum Logical {
    /// With a size where it is fixed.
    Decimal(Option<usize>, i32),
    BigDecimal,
    /// Of 16 bytes; `false` where their number is written before them.
    Uuid(bool),
    Date,
    /// Of so many in a second.
    Time(i64),
    Timestamp(i64),
    LocalTimestamp(i64),
    Duration,
}

/// A schema, ready to decode by.
pub(super) struct Schema {
    nodes: Vec<Node>,
    by_name: HashMap<String, usize>,
    root: usize,
}

const MILLIS: i64 = 1_000;
const MICROS: i64 = 1_000_000;
const NANOS: i64 = 1_000_000_000;

impl Schema {
    /// Parses a schema with those it refers to.
    pub(super) fn parse(source: &Source) -> Result<Self, String> {
        let references = source.references.iter().map(|(_, text)| text);
        let (root, references) = apache_avro::Schema::parse_str_with_list(&source.text, references)
            .map_err(|error| error.to_string())?;
        let mut schema = Self { nodes: Vec::new(), by_name: HashMap::new(), root: 0 };
        for reference in &references {
            schema.add(reference, None)?;
        }
        schema.root = schema.add(&root, None)?;
        let unknown = schema.nodes.iter().find_map(|node| match node {
            Node::Named(name) if !schema.by_name.contains_key(name) => Some(name),
            _ => None,
        });
        match unknown {
            Some(name) => Err(format!("it refers to {name}, which is nowhere")),
            None => Ok(schema),
        }
    }

    /// Adds a part with all parts of it; its number.
    fn add(&mut self, schema: &apache_avro::Schema, namespace: NamespaceRef<'_>) -> Result<usize, String> {
        use apache_avro::Schema as Avro;
        let node = match schema {
            Avro::Null => Node::Null,
            Avro::Boolean => Node::Boolean,
            Avro::Int => Node::Int,
            Avro::Long => Node::Long,
            Avro::Float => Node::Float,
            Avro::Double => Node::Double,
            Avro::Bytes => Node::Bytes,
            Avro::String | Avro::Uuid(UuidSchema::String) => Node::Text,
            Avro::Array(array) => Node::Array(self.add(&array.items, namespace)?),
            Avro::Map(map) => Node::Map(self.add(&map.types, namespace)?),
            Avro::Union(union) => {
                let variants = union.variants().iter().map(|variant| self.add(variant, namespace));
                Node::Union(variants.collect::<Result<_, _>>()?)
            }
            Avro::Record(record) => {
                let name = record.name.fully_qualified_name(namespace).into_owned();
                // Known before its fields, which may hold it.
                let number = self.keep_named(name.fullname(None), Node::Record(Vec::new()));
                let fields = record
                    .fields
                    .iter()
                    .map(|field| Ok((field.name.clone(), self.add(&field.schema, name.namespace())?)));
                self.nodes[number] = Node::Record(fields.collect::<Result<_, String>>()?);
                return Ok(number);
            }
            Avro::Enum(symbols) => {
                let name = symbols.name.fullname(namespace);
                return Ok(self.keep_named(name, Node::Enum(symbols.symbols.clone())));
            }
            Avro::Fixed(fixed) => {
                return Ok(self.keep_named(fixed.name.fullname(namespace), Node::Fixed(fixed.size)));
            }
            Avro::Decimal(decimal) => {
                let scale = i32::try_from(decimal.scale).map_err(|_| "a decimal's scale is too large")?;
                match &decimal.inner {
                    InnerDecimalSchema::Bytes => Node::Logical(Logical::Decimal(None, scale)),
                    InnerDecimalSchema::Fixed(fixed) => {
                        let node = Node::Logical(Logical::Decimal(Some(fixed.size), scale));
                        return Ok(self.keep_named(fixed.name.fullname(namespace), node));
                    }
                }
            }
            Avro::BigDecimal => Node::Logical(Logical::BigDecimal),
            Avro::Uuid(UuidSchema::Bytes) => Node::Logical(Logical::Uuid(false)),
            Avro::Uuid(UuidSchema::Fixed(fixed)) => {
                let node = Node::Logical(Logical::Uuid(true));
                return Ok(self.keep_named(fixed.name.fullname(namespace), node));
            }
            Avro::Date => Node::Logical(Logical::Date),
            Avro::TimeMillis => Node::Logical(Logical::Time(MILLIS)),
            Avro::TimeMicros => Node::Logical(Logical::Time(MICROS)),
            Avro::TimestampMillis => Node::Logical(Logical::Timestamp(MILLIS)),
            Avro::TimestampMicros => Node::Logical(Logical::Timestamp(MICROS)),
            Avro::TimestampNanos => Node::Logical(Logical::Timestamp(NANOS)),
            Avro::LocalTimestampMillis => Node::Logical(Logical::LocalTimestamp(MILLIS)),
            Avro::LocalTimestampMicros => Node::Logical(Logical::LocalTimestamp(MICROS)),
            Avro::LocalTimestampNanos => Node::Logical(Logical::LocalTimestamp(NANOS)),
            Avro::Duration(fixed) => {
                let node = Node::Logical(Logical::Duration);
                return Ok(self.keep_named(fixed.name.fullname(namespace), node));
            }
            Avro::Ref { name } => Node::Named(name.fullname(namespace)),
        };
        Ok(self.keep(node))
    }

    fn keep(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn keep_named(&mut self, name: String, node: Node) -> usize {
        let number = self.keep(node);
        self.by_name.insert(name, number);
        number
    }

    /// What a value says, as JSON.
    pub(super) fn json(&self, value: &[u8]) -> Result<String, String> {
        let mut walk = Walk { schema: self, rest: value, json: Json::default() };
        walk.value(self.root, 0)?;
        match walk.rest.len() {
            0 => Ok(walk.json.into_text()),
            left => Err(format!("{left} bytes are left after it")),
        }
    }
}

/// A walk through a value.
struct Walk<'a> {
    schema: &'a Schema,
    rest: &'a [u8],
    json: Json,
}

impl<'a> Walk<'a> {
    fn value(&mut self, number: usize, depth: usize) -> Result<(), String> {
        if depth > MOST_DEPTH {
            return Err(format!("it is nested deeper than {MOST_DEPTH} levels"));
        }
        let schema = self.schema;
        match &schema.nodes[number] {
            Node::Null => self.json.raw("null"),
            Node::Boolean => self.boolean(),
            Node::Int => {
                let int = self.int()?;
                self.json.value(&int)
            }
            Node::Long => {
                let long = self.long()?;
                self.json.value(&long)
            }
            Node::Float => self.float(),
            Node::Double => {
                let double = f64::from_le_bytes(self.array()?);
                self.json.float(double)
            }
            Node::Text => {
                let text = self.text()?;
                self.json.value(text)
            }
            Node::Bytes => {
                let bytes = self.sized()?;
                self.json.value(&BASE64_STANDARD.encode(bytes))
            }
            Node::Fixed(size) => {
                let bytes = self.bytes(*size)?;
                self.json.value(&BASE64_STANDARD.encode(bytes))
            }
            Node::Array(items) => {
                self.json.raw("[")?;
                self.blocks(|walk| walk.value(*items, depth + 1))?;
                self.json.raw("]")
            }
            Node::Map(values) => {
                self.json.raw("{")?;
                self.blocks(|walk| {
                    let name = walk.text()?;
                    walk.json.value(name)?;
                    walk.json.raw(":")?;
                    walk.value(*values, depth + 1)
                })?;
                self.json.raw("}")
            }
            Node::Union(variants) => {
                let number = self.long()?;
                let variant = usize::try_from(number).ok().and_then(|number| variants.get(number));
                let variant = variant
                    .ok_or_else(|| format!("it is number {number} of a union of {}", variants.len()))?;
                self.value(*variant, depth + 1)
            }
            Node::Record(fields) => self.record(fields, depth),
            Node::Enum(symbols) => self.symbol(symbols),
            Node::Logical(logical) => self.logical(logical),
            // Holds because parsing found every name.
            Node::Named(name) => self.value(schema.by_name[name], depth + 1),
        }
    }

    fn boolean(&mut self) -> Result<(), String> {
        match self.bytes(1)? {
            [0] => self.json.raw("false"),
            [1] => self.json.raw("true"),
            _ => Err("a boolean is neither 0 nor 1".to_owned()),
        }
    }

    fn float(&mut self) -> Result<(), String> {
        let float = f32::from_le_bytes(self.array()?);
        // By its own shortest digits, which those of the double are not.
        if float.is_finite() { self.json.value(&float) } else { self.json.float(float.into()) }
    }

    fn record(&mut self, fields: &[(String, usize)], depth: usize) -> Result<(), String> {
        self.json.raw("{")?;
        for (number, (name, field)) in fields.iter().enumerate() {
            self.json.raw(if number == 0 { "" } else { "," })?;
            self.json.value(name.as_str())?;
            self.json.raw(":")?;
            self.value(*field, depth + 1).map_err(|why| format!("{name}: {why}"))?;
        }
        self.json.raw("}")
    }

    /// One of an enum's symbols.
    fn symbol(&mut self, symbols: &[String]) -> Result<(), String> {
        let number = self.int()?;
        let symbol = usize::try_from(number).ok().and_then(|number| symbols.get(number));
        let symbol = symbol.ok_or_else(|| format!("it is number {number} of {} symbols", symbols.len()))?;
        self.json.value(symbol.as_str())
    }

    fn logical(&mut self, logical: &Logical) -> Result<(), String> {
        let text = match logical {
            Logical::Decimal(size, scale) => {
                let bytes = match size {
                    Some(size) => self.bytes(*size)?,
                    None => self.sized()?,
                };
                return self.decimal(bytes, *scale);
            }
            Logical::BigDecimal => {
                // Its own little value: the bytes and the scale.
                let mut inner = Walk { schema: self.schema, rest: self.sized()?, json: Json::default() };
                let (bytes, scale) = (inner.sized()?, inner.long()?);
                let scale = i32::try_from(scale).map_err(|_| "a decimal's scale is too large".to_owned())?;
                return self.decimal(bytes, scale);
            }
            Logical::Uuid(is_fixed) => {
                let bytes = if *is_fixed { self.bytes(16)? } else { self.sized()? };
                let guid = bytes.try_into().map_err(|_| format!("a UUID has {} bytes", bytes.len()))?;
                let mut text = String::with_capacity(36);
                write_guid(&mut text, guid).map_err(|error| error.to_string())?;
                text
            }
            Logical::Date => at(i64::from(self.int()?), 1, DAY)?.date().to_string(),
            Logical::Time(in_a_second) => {
                let since = if *in_a_second == MILLIS { i64::from(self.int()?) } else { self.long()? };
                let time = at(since, *in_a_second, 1)?;
                if time.date() != EPOCH.date() {
                    return Err(format!("{since} is no time of a day"));
                }
                time.time().to_string()
            }
            Logical::Timestamp(in_a_second) => format!("{}Z", at(self.long()?, *in_a_second, 1)?),
            Logical::LocalTimestamp(in_a_second) => at(self.long()?, *in_a_second, 1)?.to_string(),
            Logical::Duration => {
                let [months, days, millis] =
                    [self.array()?, self.array()?, self.array()?].map(u32::from_le_bytes);
                return self
                    .json
                    .raw(&format!(r#"{{"months":{months},"days":{days},"milliseconds":{millis}}}"#));
            }
        };
        self.json.value(&text)
    }

    fn decimal(&mut self, bytes: &[u8], scale: i32) -> Result<(), String> {
        let digits = decimal_text(bytes.to_vec(), scale).map_err(|fault| fault.detail)?;
        self.json.raw(&digits)
    }

    /// The elements of an array or a map, with commas between.
    fn blocks(&mut self, mut element: impl FnMut(&mut Self) -> Result<(), String>) -> Result<(), String> {
        let mut is_first = true;
        loop {
            let mut count = self.long()?;
            if count < 0 {
                // Its size in bytes follows, for who passes over it.
                self.long()?;
                count = count.checked_neg().ok_or("a block has more elements than can be counted")?;
            }
            if count == 0 {
                return Ok(());
            }
            // Each writes something, which is bounded; so a count that lies ends soon.
            for _ in 0..count {
                if !std::mem::take(&mut is_first) {
                    self.json.raw(",")?;
                }
                element(self)?;
            }
        }
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or("it ends too early")?;
        self.rest = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (array, rest) = self.rest.split_first_chunk().ok_or("it ends too early")?;
        self.rest = rest;
        Ok(*array)
    }

    /// Bytes with their number before them.
    fn sized(&mut self) -> Result<&'a [u8], String> {
        let count = self.long()?;
        let count = usize::try_from(count).map_err(|_| format!("it has {count} bytes"))?;
        self.bytes(count)
    }

    fn text(&mut self) -> Result<&'a str, String> {
        str::from_utf8(self.sized()?).map_err(|_| "a string is not UTF-8".to_owned())
    }

    fn int(&mut self) -> Result<i32, String> {
        let long = self.long()?;
        i32::try_from(long).map_err(|_| format!("{long} is no int"))
    }

    /// A number of seven bits a byte, the lowest first, with its sign in the last.
    fn long(&mut self) -> Result<i64, String> {
        let mut bits = 0_u64;
        for shift in (0..u64::BITS).step_by(7) {
            let [byte] = self.array()?;
            let part = u64::from(byte & 0x7f);
            if (part << shift) >> shift != part {
                break;
            }
            bits |= part << shift;
            if byte & 0x80 == 0 {
                return Ok((bits >> 1).cast_signed() ^ -(bits & 1).cast_signed());
            }
        }
        Err("a number has more than 64 bits".to_owned())
    }
}

const DAY: i64 = 86_400;
const EPOCH: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);

/// So long after 1970 began, in parts of a second, or in units of some seconds.
fn at(since: i64, in_a_second: i64, seconds: i64) -> Result<DateTime, String> {
    let out_of_range = || format!("{since} is out of the range of times");
    let whole = since.div_euclid(in_a_second).checked_mul(seconds).ok_or_else(out_of_range)?;
    let part = since.rem_euclid(in_a_second) * (NANOS / in_a_second);
    // Holds because it is less than a second.
    let part = i32::try_from(part).expect("less than a second");
    EPOCH.checked_add(SignedDuration::new(whole, part)).map_err(|_| out_of_range())
}
