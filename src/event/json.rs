//! Looking at some fields of a JSON object, whatever the others hold.
//!
//! For values that may be faulty. Nothing here recurses into a value and
//! nothing converts a number, so neither depth nor size can do harm: a field
//! is kept as the text it was written as ([`RawValue`]) and looked at alone.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Unexpected, Visitor};
use serde_json::value::RawValue;

/// A `T` that is written as a JSON object and nothing else.
///
/// Derived readers of structs accept an array of the fields' values too;
/// the contract does not.
#[derive(Debug)]
pub struct Object<T>(
    /// What was read.
    pub T,
);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

/// One of these words, written as a JSON string and nothing else.
///
/// Derived readers of enums accept an object with the word for its key too;
/// the contract does not.
pub(super) fn word<'de, T: Copy, D: Deserializer<'de>>(
    deserializer: D,
    words: &'static [(&'static str, T)],
) -> Result<T, D::Error> {
    struct WordVisitor<T: 'static>(&'static [(&'static str, T)]);
    impl<T: Copy> Visitor<'_> for WordVisitor<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("one of the contract's words")
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            let found = self.0.iter().find(|(word, _)| *word == text).map(|(_, meant)| *meant);
            found.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
        }
    }
    deserializer.deserialize_str(WordVisitor(words))
}

/// A string or `null`, borrowed where it holds no escapes, which derived readers do only outside of an [`Option`].
pub(super) fn borrowed_text<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Cow<'de, str>>, D::Error> {
    Ok(Option::<Text<'de>>::deserialize(deserializer)?.map(|text| text.0))
}

/// What was found of one field.
#[derive(Clone, Copy)]
pub(super) struct Field<'a> {
    /// The field's name.
    pub(super) name: &'static str,
    /// Its value; the first one where it came more than once. A `null` counts as absent.
    pub(super) value: Option<&'a RawValue>,
    /// Whether the name came more than once.
    pub(super) repeated: bool,
    /// Whether it was there, and its first value was `null`.
    pub(super) is_null: bool,
}

impl<'a> Field<'a> {
    /// The field's value as a kind of JSON value.
    pub(super) fn kind(&self) -> Option<ValueKind<'a>> {
        self.value.map(ValueKind::of)
    }

    /// Whether the field is left out, and not just unclear.
    pub(super) fn is_absent(&self) -> bool {
        self.value.is_none() && !self.repeated
    }
}

/// Why the fields of a text could not be looked at.
pub(super) enum NoFields {
    /// The text is not one JSON document.
    NotJson(serde_json::Error),
    /// It is, but no object.
    NotAnObject(&'static str),
}

/// The fields of these names; all others are passed over, however deep.
pub(super) fn fields<'a, const N: usize>(
    text: &'a str,
    names: [&'static str; N],
) -> Result<[Field<'a>; N], NoFields> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = FieldsSeed(names).deserialize(&mut reader).and_then(|fields| reader.end().map(|()| fields));
    read.map_err(|error| match serde_json::from_str::<&RawValue>(text) {
        Ok(value) if !matches!(ValueKind::of(value), ValueKind::Object) => {
            NoFields::NotAnObject(ValueKind::of(value).name())
        }
        Ok(_) => NoFields::NotJson(error),
        Err(error) => NoFields::NotJson(error),
    })
}

struct FieldsSeed<const N: usize>([&'static str; N]);

impl<'de, const N: usize> DeserializeSeed<'de> for FieldsSeed<N> {
    type Value = [Field<'de>; N];
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for FieldsSeed<N> {
    type Value = [Field<'de>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut seen = [false; N];
        let mut fields = self.0.map(|name| Field { name, value: None, repeated: false, is_null: false });
        while let Some(index) = map.next_key_seed(NameSeed(&self.0))? {
            let Some(index) = index else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let value = map.next_value::<&'de RawValue>()?;
            let field = &mut fields[index];
            if seen[index] {
                field.repeated = true;
            } else if value.get() == "null" {
                field.is_null = true;
            } else {
                field.value = Some(value);
            }
            seen[index] = true;
        }
        Ok(fields)
    }
}

/// Reads a key as the index of a name among those looked for.
struct NameSeed<'n>(&'n [&'static str]);

impl<'de> DeserializeSeed<'de> for NameSeed<'_> {
    type Value = Option<usize>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for NameSeed<'_> {
    type Value = Option<usize>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }
    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|known| *known == name))
    }
}

/// The members of an object in their order, as they are written, also those that come twice.
pub(super) struct Members<'a>(pub(super) Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    members.push((name, map.next_value::<&'de RawValue>()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// A JSON value by its kind, with the content of those a command is made of.
pub(super) enum ValueKind<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number, as it was written.
    Number(&'a str),
    /// A string; `None` when its escapes do not make text (half of a surrogate pair).
    String(Option<Cow<'a, str>>),
    /// An array.
    Array,
    /// An object.
    Object,
}

impl<'a> ValueKind<'a> {
    /// The kind of a value, known by its first character.
    pub(super) fn of(value: &'a RawValue) -> Self {
        let text = value.get();
        match text.as_bytes().first() {
            Some(b'"') => Self::String(serde_json::from_str::<Text<'a>>(text).ok().map(|text| text.0)),
            Some(b'{') => Self::Object,
            Some(b'[') => Self::Array,
            Some(b't' | b'f') => Self::Bool,
            Some(b'n') | None => Self::Null,
            Some(_) => Self::Number(text),
        }
    }

    /// The kind, for a person.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        }
    }
}

/// A string, borrowed where it holds no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
