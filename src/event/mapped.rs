//! Reading a record as its topic's mapping says: unwrapped, given to the program, and what that gives read as a command.

use super::fault::visible_echo;
use super::{
    CE_GATE_SOURCE, Fault, FaultCode, Record, envelope, read_as_decided, read_command, read_payload, types,
    unwrap,
};
use crate::ledger::{Command, Decision};
use crate::mapping::{Facts, MapError, Mapped, Mapping};

/// What a record comes to when it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// It asks for this.
    Command(Command),
    /// It asks for nothing: its mapping gave nothing for it, or it is a tombstone of a topic that has a mapping.
    Ignored,
    /// No command can be read from it: it is a dead letter.
    Faulty(Fault),
    /// Its mapping takes too long, so that nobody can say: what it is must not be guessed, nor passed over.
    TooSlow,
}

impl Reading {
    /// Its command, if it asks for one.
    ///
    /// # Errors
    /// Why it does not, for people.
    pub fn command(self) -> Result<Command, String> {
        match self {
            Self::Command(command) => Ok(command),
            Self::Ignored => Err("its mapping gives nothing for it".to_owned()),
            Self::Faulty(fault) => Err(fault.to_string()),
            Self::TooSlow => Err(MapError::TooSlow.to_string()),
        }
    }

    /// The command of a record that a command was read from before: where there is none now, that is a fault.
    ///
    /// # Errors
    /// [`Fault`] when there is none.
    pub fn as_before(self) -> Result<Command, Fault> {
        match self {
            Self::Command(command) => Ok(command),
            Self::Faulty(fault) => Err(fault),
            other => other.command().map_err(|why| Fault::new(FaultCode::MappingFailed, why)),
        }
    }
}

impl From<Result<Command, Fault>> for Reading {
    fn from(read: Result<Command, Fault>) -> Self {
        read.map_or_else(Self::Faulty, Self::Command)
    }
}

/// Reads a record by a mapping, or as it is where there is none.
///
/// What this program wrote to the topic by itself is read as it is too: the end of a hold, and what came by the gate.
#[must_use]
pub fn read_record(record: &Record, mapping: Option<&Mapping>) -> Reading {
    match mapping {
        Some(mapping) if !is_own(record) => read_by(record, mapping),
        _ => read_command(record).into(),
    }
}

/// Reads a record as it was read when this was decided of it, by the mapping that read it then.
#[must_use]
pub fn read_mapped_as_decided(record: &Record, decision: &Decision, mapping: Option<&Mapping>) -> Reading {
    match mapping {
        Some(mapping) if !is_own(record) => read_by(record, mapping),
        _ => read_as_decided(record, decision).into(),
    }
}

/// Whether this program wrote a record of the topic itself.
fn is_own(record: &Record) -> bool {
    let by_gate =
        |name: &str, value: Option<&[u8]>| name == "ce_source" && value == Some(CE_GATE_SOURCE.as_bytes());
    let hold_due = || {
        let value = record.value.as_deref().unwrap_or_default();
        let rest = value
            .strip_prefix(b"{\"type\":\"")
            .and_then(|rest| rest.strip_prefix(types::ORDER_HOLD_DUE.as_bytes()));
        rest.is_some_and(|rest| rest.starts_with(b"\","))
    };
    record.headers.iter().any(|header| by_gate(&header.name, header.value.as_deref())) || hold_due()
}

/// The same, with the JSON that the mapping gives of the record, where it gives any: for people who look.
#[must_use]
pub fn read_and_show(record: &Record, mapping: Option<&Mapping>) -> (Reading, Option<String>) {
    match mapping {
        Some(mapping) if !is_own(record) => map(record, mapping),
        _ => (read_command(record).into(), None),
    }
}

fn read_by(record: &Record, mapping: &Mapping) -> Reading {
    map(record, mapping).0
}

/// What a mapping gives is read as a record is that is not wrapped.
fn read_mapped(value: &str) -> Reading {
    match read_payload(None, value) {
        // No earlier version read what a mapping gives.
        Ok(command) => Reading::Command(Command { refused_as: None, ..command }),
        Err(fault) => {
            Reading::Faulty(Fault::new(fault.code, format_args!("what its mapping gives: {}", fault.detail)))
        }
    }
}

/// What a record comes to by a mapping, and what that gives, if it gives anything.
fn map(record: &Record, mapping: &Mapping) -> (Reading, Option<String>) {
    let value = record.value.as_deref().unwrap_or_default();
    let faulty = |fault| (Reading::Faulty(unwrap::name_compression(value, fault)), None);
    let envelope = match envelope::open(record, false) {
        Ok(envelope) => envelope,
        // A tombstone. What has no bytes is something else.
        Err(_) if record.value.is_none() => return (Reading::Ignored, None),
        Err(fault) => return faulty(fault),
    };
    let unwrapped = match unwrap::all(envelope.kind.as_deref(), envelope.payload.as_ref()) {
        Ok(unwrapped) => unwrapped,
        // A wrapped tombstone, or a row that was deleted.
        Err(fault) if fault.code == FaultCode::EmptyValue => return (Reading::Ignored, None),
        Err(fault) => return faulty(fault),
    };
    let headers: Vec<(&str, Option<&[u8]>)> =
        record.headers.iter().map(|header| (&*header.name, header.value.as_deref())).collect();
    let facts = Facts {
        headers: &headers,
        key: record.key.as_deref(),
        topic: &record.source.at.topic,
        timestamp_ms: record.timestamp_ms,
        kind: unwrapped.kind.as_deref(),
        aggregate_id: unwrapped.aggregate_id.as_deref(),
    };
    match mapping.run(&unwrapped.payload, &facts) {
        Ok(Mapped::Value(value)) => (read_mapped(&value), Some(value)),
        Ok(Mapped::Nothing) => (Reading::Ignored, None),
        Err(MapError::NotJson(why)) => faulty(envelope.explain(Fault::new(FaultCode::NotJson, why))),
        Err(MapError::Repeated(name)) => {
            let detail = format!("\"{}\" comes more than once", visible_echo(&name));
            faulty(envelope.explain(Fault::new(FaultCode::DuplicateField, detail)))
        }
        Err(MapError::Failed(why)) => (Reading::Faulty(Fault::new(FaultCode::MappingFailed, why)), None),
        Err(MapError::TooSlow) => (Reading::TooSlow, None),
    }
}
