//! Repairing a record before it is asked again: its headers, and its value as the pipeline reads it.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::envelope::{frame_and_text, is_content_type};
use super::json::Members;
use super::{ERROR_HEADERS, Header, OMITTED_HEADERS, Record};

/// What is changed of a record, in this order: its headers, then its value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repair {
    headers: Vec<(String, Option<String>)>,
    value: Option<NewValue>,
}

/// What becomes of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum NewValue {
    /// Changed by a JSON merge patch (RFC 7396).
    Merged(Map<String, Value>),
    /// This text, whatever it was.
    Replaced(String),
}

impl Repair {
    /// With a header of this name and no other, or without any.
    ///
    /// # Errors
    /// When the name is one that this program gives by itself: it would say where the record stood, which it does not.
    pub fn header(mut self, name: &str, value: Option<&str>) -> Result<Self, String> {
        let is_ours =
            ERROR_HEADERS.contains(&name) || OMITTED_HEADERS.contains(&name) || name.starts_with(OWN_HEADERS);
        if is_ours {
            return Err(format!("the header {name} is this program's own, and cannot be patched"));
        }
        if name.is_empty() {
            return Err("a header's name is not empty".to_owned());
        }
        self.headers.push((name.to_owned(), value.map(str::to_owned)));
        Ok(self)
    }

    /// With its value changed by this JSON merge patch (RFC 7396).
    ///
    /// # Errors
    /// When the text is no JSON object.
    pub fn merge(self, patch: &str) -> Result<Self, String> {
        let patch = serde_json::from_str(patch).map_err(|error| {
            format!("a merge patch is a JSON object of the fields to change, null for one to remove: {error}")
        })?;
        Ok(Self { value: Some(NewValue::Merged(patch)), ..self })
    }

    /// With this JSON for its value.
    #[must_use]
    pub fn replace(self, value: &RawValue) -> Self {
        Self { value: Some(NewValue::Replaced(value.get().to_owned())), ..self }
    }

    /// Whether nothing is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Changes a record. A schema registry's frame stays; a byte order mark, which nobody needs, does not. What the patch
    /// does not name stays as it was written: numbers of any length, and fields that come twice.
    ///
    /// # Errors
    /// Says why the record's value cannot be patched; then it is as it was.
    pub fn apply(&self, record: &mut Record) -> Result<(), String> {
        let value = match &self.value {
            None => None,
            Some(NewValue::Replaced(text)) => Some(text.clone().into_bytes()),
            Some(NewValue::Merged(patch)) => {
                let value = record.value.as_deref().unwrap_or_default();
                if value.is_empty() {
                    return Err(
                        "it has no value to patch: give it one (\"value\" in a --patch-file)".to_owned()
                    );
                }
                let (frame, text) =
                    frame_and_text(value).map_err(|fault| format!("its value cannot be patched: {fault}"))?;
                let merged = merge(text, patch)
                    .map_err(|why| format!("its value cannot be patched: {}", fit(&why, frame)))?;
                Some([frame, merged.as_bytes()].concat())
            }
        };
        if let Some(value) = value {
            record.value = Some(value);
        }
        for (name, value) in &self.headers {
            // As they are read: of this one name the case does not count.
            let is_it = |header: &Header| {
                header.name == *name || is_content_type(name) && is_content_type(&header.name)
            };
            record.headers.retain(|header| !is_it(header));
            let value = value.as_ref().map(|value| value.clone().into_bytes());
            record.headers.extend(value.map(|value| Header { name: name.clone(), value: Some(value) }));
        }
        Ok(())
    }
}

/// What this program's own headers begin with, but for those of dead letters.
const OWN_HEADERS: &str = "stock_verifier.";

/// Adds what a person would else have to find out.
fn fit(why: &str, frame: &[u8]) -> String {
    if frame.is_empty() { why.to_owned() } else { format!("{why} (it is framed: only JSON is read)") }
}

/// A text changed by a merge patch. By hand: read as a value of serde's, numbers would be rounded, and of two fields of one
/// name one would be taken on a guess.
fn merge(text: &str, patch: &Map<String, Value>) -> Result<String, String> {
    let document: &RawValue =
        serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
    let fields = if document.get().starts_with('{') {
        let Members(fields) =
            serde_json::from_str(document.get()).map_err(|error| format!("it is no JSON: {error}"))?;
        fields
    } else {
        // A merge patch makes an object of anything else.
        Vec::new()
    };
    let mut merged: Vec<(String, String)> = Vec::with_capacity(fields.len() + patch.len());
    for (name, value) in &fields {
        let is_done = merged.iter().any(|(known, _)| known == name);
        match patch.get(name) {
            None => merged.push((name.clone(), value.get().to_owned())),
            Some(Value::Null) => {}
            Some(Value::Object(inner)) => {
                if is_done {
                    return Err(format!("{name:?} comes more than once: state it whole, not field by field"));
                }
                merged.push((name.clone(), merge(value.get(), inner)?));
            }
            // Stated anew, it is there once.
            Some(_) if is_done => {}
            Some(stated) => merged.push((name.clone(), stated.to_string())),
        }
    }
    for (name, stated) in patch {
        if fields.iter().any(|(known, _)| known == name) {
            continue;
        }
        match stated {
            Value::Null => {}
            Value::Object(inner) => merged.push((name.clone(), merge("{}", inner)?)),
            stated => merged.push((name.clone(), stated.to_string())),
        }
    }
    let fields: Vec<String> =
        merged.into_iter().map(|(name, value)| format!("{}:{value}", Value::from(name))).collect();
    Ok(format!("{{{}}}", fields.join(",")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::read_command;
    use crate::ledger::{Offset, Source, TopicPartition};

    fn record(value: &[u8], headers: &[(&str, &[u8])]) -> Record {
        let headers = headers
            .iter()
            .map(|(name, value)| Header { name: (*name).to_owned(), value: Some(value.to_vec()) });
        Record {
            source: Source { at: TopicPartition::new("orders", 0), offset: Offset(0) },
            key: None,
            value: Some(value.to_vec()),
            headers: headers.collect(),
            timestamp_ms: None,
            decoded: None,
        }
    }

    fn merged(text: &str, patch: &str) -> Result<String, String> {
        let mut patched = record(text.as_bytes(), &[]);
        Repair::default().merge(patch)?.apply(&mut patched)?;
        Ok(String::from_utf8(patched.value.unwrap()).unwrap())
    }

    #[test]
    fn what_is_not_named_stays_as_it_was_written() {
        let text = r#"{"a":1e2,"b":123456789012345678901234567890,"c":{"d":1.0,"e":2},"f":[1]}"#;
        assert_eq!(
            merged(text, r#"{"a":null,"c":{"e":3,"g":null},"h":{"i":null,"j":"k"}}"#),
            Ok(r#"{"b":123456789012345678901234567890,"c":{"d":1.0,"e":3},"f":[1],"h":{"j":"k"}}"#
                .to_owned())
        );
        assert_eq!(merged(r#"{"a":1,"b":2,"a":3}"#, r#"{"b":4}"#), Ok(r#"{"a":1,"b":4,"a":3}"#.to_owned()));
        assert_eq!(merged(r#"{"a":1,"b":2,"a":3}"#, r#"{"a":4}"#), Ok(r#"{"a":4,"b":2}"#.to_owned()));
        assert_eq!(merged("[1]", r#"{"a":1}"#), Ok(r#"{"a":1}"#.to_owned()));
    }

    #[test]
    fn a_frame_stays_and_a_byte_order_mark_goes() {
        let repair = Repair::default().merge(r#"{"type":"order.cancelled"}"#).unwrap();
        let mut framed = record(b"\0\0\0\0\x07\xef\xbb\xbf{\"order_id\":\"o-1\"}", &[]);
        repair.apply(&mut framed).unwrap();
        assert_eq!(
            framed.value.as_deref(),
            Some(&b"\0\0\0\0\x07{\"order_id\":\"o-1\",\"type\":\"order.cancelled\"}"[..])
        );
        assert_eq!(read_command(&framed).unwrap().key.to_string(), "order.cancelled/o-1");
    }

    #[test]
    fn headers_are_set_once_and_removed() {
        let repair = Repair::default().header("ce_type", Some("order.cancelled")).unwrap();
        let repair = repair.header("content-type", None).unwrap();
        let headers: [(&str, &[u8]); 4] = [
            ("ce_type", b"a"),
            ("Content-Type", b"application/cloudevents+avro"),
            ("ce_type", b"b"),
            ("shop", b"7"),
        ];
        let mut typed = record(br#"{"order_id":"o-1"}"#, &headers);
        repair.apply(&mut typed).unwrap();
        let left: Vec<_> = typed.headers.iter().map(|header| header.name.as_str()).collect();
        assert_eq!(left, ["shop", "ce_type"]);
        assert_eq!(read_command(&typed).unwrap().key.to_string(), "order.cancelled/o-1");
        for own in ["__connect.errors.topic", "stock_verifier.replay.topic", OMITTED_HEADERS[0]] {
            assert!(Repair::default().header(own, None).unwrap_err().contains("own"), "{own}");
        }
    }

    #[test]
    fn what_cannot_be_patched_says_why_and_is_left_alone() {
        let said = |value: &[u8], patch: &str| {
            let mut record = record(value, &[]);
            let before = record.clone();
            let said = Repair::default().merge(patch).and_then(|repair| repair.apply(&mut record));
            assert_eq!(record, before);
            said.unwrap_err()
        };
        let patch = r#"{"a":{"b":1}}"#;
        assert!(said(b"", patch).contains("no value to patch"));
        assert!(said(b"{", patch).contains("it is no JSON"));
        assert!(said(b"\0\0\0\0\x07\x02avro", patch).contains("it is framed"));
        assert!(said(b"\0\0", patch).contains("bad_framing"));
        assert!(said(b"\xff", patch).contains("not_utf8"));
        assert!(said(br#"{"a":{},"a":{}}"#, patch).contains("comes more than once"));
        assert!(said(b"{}", "[1]").contains("a merge patch is a JSON object"));
        assert!(said(b"{}", "").contains("a merge patch is a JSON object"));
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-c\"\\\\é]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c\"]{1,2}", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_patch_does_what_the_rfc_says(document in json(), patch in json()) {
            prop_assume!(patch.is_object());
            let mut expected = document.clone();
            json_patch::merge(&mut expected, &patch);
            let merged = merged(&document.to_string(), &patch.to_string()).unwrap();
            let merged: Value = serde_json::from_str(&merged).unwrap();
            prop_assert_eq!(merged, expected);
        }
    }
}
