//! Bad input, and input that only looks bad: what comes out of each kind.
//!
//! The table is data, so that the pipeline's test can send the same records
//! through a real broker and expect the same.

mod wrapped;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use stock_verifier::event::{
    Channel, FaultCode, Header, Record, TraceContext, dead_letter, read_command, result,
};
use stock_verifier::ledger::{
    Action, Command, Id, Level, MAX_ID_BYTES, MAX_LINES, Offset, Outcome, Quantity, Reason, Request, Seq,
    Sequenced, Sequences, Sku, Source, Stamp, Terms, TopicPartition, View, decide,
};

/// What becomes of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// It is an order for these lines (sorted by SKU, each SKU once), to be decided by the stock there is.
    Order(Vec<(&'static str, i64)>),
    /// It is an order, rejected for its content alone: the lines at fault, with a part of what is said of each.
    Invalid(Vec<(Option<u32>, &'static str)>),
    /// It is a dead letter.
    DeadLetter(FaultCode),
}

/// One kind of input.
#[derive(Debug, Clone)]
pub struct Case {
    /// What is bad about it, in a few words; no two cases have the same.
    pub name: &'static str,
    /// The id of its order: its own, so that all cases can go through one ledger. Meaningless for dead letters.
    pub order_id: String,
    /// The record's headers.
    pub headers: Vec<Header>,
    /// The record's value.
    pub value: Option<Vec<u8>>,
    /// What comes out.
    pub expected: Expected,
}

impl Case {
    /// The case as a record at this offset.
    pub fn record(&self, source: Source) -> Record {
        Record {
            source,
            key: Some(self.order_id.clone().into_bytes()),
            value: self.value.clone(),
            headers: self.headers.clone(),
            timestamp_ms: None,
            decoded: None,
        }
    }

    fn header(mut self, name: &str, value: &[u8]) -> Self {
        self.headers.push(Header { name: name.to_owned(), value: Some(value.to_vec()) });
        self
    }
}

/// `ID` in a value stands for the case's own order id.
fn bytes(name: &'static str, value: impl Into<Vec<u8>>, expected: Expected) -> Case {
    let order_id = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    Case { name, order_id, headers: Vec::new(), value: Some(value.into()), expected }
}

fn text(name: &'static str, value: &str, expected: Expected) -> Case {
    let mut case = bytes(name, "", expected);
    case.value = Some(value.replace("ID", &case.order_id).into_bytes());
    case
}

/// An order with these `lines`, as JSON.
fn lines(name: &'static str, lines: &str, expected: Expected) -> Case {
    text(name, &format!(r#"{{"type":"order.created","order_id":"ID","lines":{lines}}}"#), expected)
}

/// An order with one line of this quantity, as JSON.
fn quantity(name: &'static str, quantity: &str, said: &'static str) -> Case {
    lines(name, &format!(r#"[{{"sku":"MUG","quantity":{quantity}}}]"#), invalid(&[(Some(1), said)]))
}

/// An order with one line of this quantity, as JSON, which is exactly so many.
fn exact(name: &'static str, quantity: &str, pieces: i64) -> Case {
    lines(
        name,
        &format!(r#"[{{"sku":"MUG","quantity":{quantity}}}]"#),
        Expected::Order(vec![("MUG", pieces)]),
    )
}

fn invalid(faults: &[(Option<u32>, &'static str)]) -> Expected {
    Expected::Invalid(faults.to_vec())
}

fn dead(code: FaultCode) -> Expected {
    Expected::DeadLetter(code)
}

fn good() -> Expected {
    Expected::Order(vec![("MUG", 1)])
}

const GOOD: &str = r#"{"type":"order.created","order_id":"ID","lines":[{"sku":"MUG","quantity":1}]}"#;
const UNTYPED: &str = r#"{"order_id":"ID","lines":[{"sku":"MUG","quantity":1}]}"#;
const DEPTH: usize = 200_000;
const STRUCTURED: &[u8] = b"application/cloudevents+json; charset=UTF-8";

/// Every kind of input.
pub fn cases() -> Vec<Case> {
    let wrapped = wrapped::cases();
    [not_a_command(), identity(), quantities(), carts(), terms(), fields(), envelopes(), frames(), wrapped]
        .concat()
}

fn not_a_command() -> Vec<Case> {
    use FaultCode::{EmptyValue, MissingType, NotAnObject, NotJson, NotUtf8, UnknownType};
    let mut tombstone = bytes("tombstone", "", dead(EmptyValue));
    tombstone.value = None;
    vec![
        tombstone,
        bytes("no bytes", "", dead(EmptyValue)),
        bytes("white space only", " \n\t", dead(NotJson)),
        bytes("not UTF-8", b"{\"type\":\"order.created\",\"order_id\":\"\xff\"}", dead(NotUtf8)),
        bytes("not UTF-8 in an ignored field", b"{\"type\":\"order.created\",\"order_id\":\"x\",\"note\":\"\xc3\x28\",\"lines\":[{\"sku\":\"MUG\",\"quantity\":1}]}", dead(NotUtf8)),
        bytes("UTF-16", b"\xff\xfe{\0}\0", dead(NotUtf8)),
        bytes("gzip and nothing else", b"\x1f\x8b\x08\0\0\0\0\0", dead(NotUtf8)),
        bytes("random bytes", (0..=255).rev().collect::<Vec<u8>>(), dead(NotUtf8)),
        text("not JSON", "order o-1: 2 mugs", dead(NotJson)),
        text("XML", "<order id=\"o-1\"/>", dead(NotJson)),
        text("cut off", &GOOD[..GOOD.len() - 2], dead(NotJson)),
        text("two values in one record", &format!("{GOOD}{GOOD}"), dead(NotJson)),
        text("a trailing comma", r#"{"type":"order.created","order_id":"ID","lines":[],}"#, dead(NotJson)),
        text("single quotes", "{'type':'order.created'}", dead(NotJson)),
        text("NaN", r#"{"type":"order.created","order_id":"ID","lines":[{"sku":"MUG","quantity":NaN}]}"#, dead(NotJson)),
        text("a raw control character in a string", "{\"type\":\"order.created\",\"order_id\":\"a\nb\",\"lines\":[]}", dead(NotJson)),
        text("JSON null", "null", dead(NotAnObject)),
        text("a JSON number", "42", dead(NotAnObject)),
        text("an order as an array of its fields", r#"["order.created","ID",[{"sku":"MUG","quantity":1}]]"#, dead(NotAnObject)),
        text("nested very deep and closed", &("[".repeat(DEPTH) + &*"]".repeat(DEPTH)), dead(NotAnObject)),
        text("nested very deep and never closed", &r#"{"a":"#.repeat(DEPTH), dead(NotJson)),
        text("no type", UNTYPED, dead(MissingType)),
        text("a null type", r#"{"type":null,"order_id":"ID","lines":[]}"#, dead(MissingType)),
        text("an unknown type", r#"{"type":"order.cretaed","order_id":"ID","lines":[]}"#, dead(UnknownType)),
        text("a type that is a number", r#"{"type":1,"order_id":"ID","lines":[]}"#, dead(UnknownType)),
        text("a type in capitals", r#"{"type":"ORDER.CREATED","order_id":"ID","lines":[]}"#, dead(UnknownType)),
        text("a type of 1 MB", &format!(r#"{{"type":"{}","order_id":"ID"}}"#, "x".repeat(1 << 20)), dead(UnknownType)),
        text("an empty object", "{}", dead(MissingType)),
    ]
}

fn identity() -> Vec<Case> {
    use FaultCode::{DuplicateField, InvalidId, MissingId};
    let id = |name, id: &str, code| {
        text(
            name,
            &format!(r#"{{"type":"order.created","order_id":{id},"lines":[{{"sku":"MUG","quantity":1}}]}}"#),
            dead(code),
        )
    };
    let mut longest = bytes("an id of the greatest length", "", good());
    longest.order_id = "i".repeat(MAX_ID_BYTES);
    longest.value = Some(GOOD.replace("ID", &longest.order_id).into_bytes());
    let mut unicode = bytes("an id with escapes and other scripts", "", good());
    unicode.order_id = String::from("Größe \"42\" \\ 红 🦀");
    unicode.value = Some(GOOD.replace("ID", r#"Gr\u00f6\u00dfe \"42\" \\ 红 \ud83e\udd80"#).into_bytes());
    let mut number = bytes("an id that is a number beyond any float's digits", "", good());
    number.order_id = String::from("90071992547409930000000000000000001");
    number.value = Some(GOOD.replace("\"ID\"", &number.order_id).into_bytes());
    vec![
        text("no id", r#"{"type":"order.created","lines":[{"sku":"MUG","quantity":1}]}"#, dead(MissingId)),
        id("a null id", "null", MissingId),
        id("an empty id", "\"\"", InvalidId),
        id("an id with a fraction", "1001.0", InvalidId),
        id("an id with an exponent", "1e3", InvalidId),
        id("an id of 129 digits", &"9".repeat(MAX_ID_BYTES + 1), InvalidId),
        id("an id that is an object", "{\"id\":\"x\"}", InvalidId),
        id("an id nested very deep", &("[".repeat(DEPTH) + &*"]".repeat(DEPTH)), InvalidId),
        id("an id one byte too long", &format!("\"{}\"", "i".repeat(MAX_ID_BYTES + 1)), InvalidId),
        id("an id of 1 MB", &format!("\"{}\"", "i".repeat(1 << 20)), InvalidId),
        id("an id with a NUL", r#""a\u0000b""#, InvalidId),
        id("an id with half a surrogate pair", r#""a\ud83e""#, InvalidId),
        id("two ids", r#""one","order_id":"two""#, DuplicateField),
        id("the same id twice", r#""one","order_id":"one""#, DuplicateField),
        id("an id that comes again with an escaped name", r#""one","order\u005fid":"two""#, DuplicateField),
        id("two types", r#""one","type":"order.created""#, DuplicateField),
        longest,
        unicode,
        number,
    ]
}

fn quantities() -> Vec<Case> {
    vec![
        quantity("a zero quantity", "0", "between 1 and"),
        quantity("a negative zero quantity", "-0", "between 1 and"),
        quantity("a negative quantity", "-3", "between 1 and 1000000000000, is -3"),
        quantity("a fractional quantity", "1.5", "must be a whole number, is 1.5"),
        quantity(
            "a quantity a float takes for whole",
            "2.00000000000000000001",
            "must be a whole number, is 2.0",
        ),
        quantity("a fractional quantity in a string", "\"1.5\"", "must be a whole number, is 1.5"),
        quantity("a quantity of nothing with a fraction", "0.0", "between 1 and 1000000000000, is 0.0"),
        quantity("a quantity with a sign in a string", "\"+2\"", "must be a whole number, is a string"),
        quantity(
            "a quantity with zeros before it in a string",
            "\"02\"",
            "must be a whole number, is a string",
        ),
        quantity("a quantity with white space in a string", "\" 2\"", "must be a whole number, is a string"),
        quantity("a quantity with thousands in a string", "\"1,000\"", "must be a whole number, is a string"),
        quantity(
            "a quantity in hexadecimal digits in a string",
            "\"0x2\"",
            "must be a whole number, is a string",
        ),
        quantity("an empty quantity", "\"\"", "must be a whole number, is a string"),
        quantity("a quantity in words", "\"two\"", "must be a whole number, is a string"),
        exact("a whole quantity with a fraction", "1.0", 1),
        exact("a quantity with an exponent", "1e3", 1_000),
        exact("a quantity whose exponent makes it whole", "20e-1", 2),
        exact("a quantity in a string", "\"2\"", 2),
        exact("a quantity with a fraction in a string", "\"2.0000\"", 2),
        exact("a quantity with an exponent in a string", "\"0.2E+1\"", 2),
        exact("a quantity in a string with an escape", r#""\u0032""#, 2),
        exact("a whole quantity that a float would round", "999999999999.000000000000", 999_999_999_999),
        quantity("a quantity beyond the bound", "1000000000001", "between 1 and"),
        quantity("a quantity beyond 64 bits", "99999999999999999999", "is 99999999999999999999"),
        quantity("a quantity beyond any float", "1e999", "is 1e999"),
        quantity("a quantity of 100,000 digits", &"9".repeat(100_000), "…"),
        quantity("a boolean quantity", "true", "must be a whole number, is a boolean"),
        quantity("a null quantity", "null", "quantity is missing"),
        quantity("a quantity that is an array", "[1]", "is an array"),
        quantity("a quantity that is an object", "{\"value\":1}", "is an object"),
        quantity("two quantities", "1,\"quantity\":2", "quantity comes more than once"),
        lines(
            "the largest quantity",
            r#"[{"sku":"MUG","quantity":1000000000000}]"#,
            Expected::Order(vec![("MUG", 1_000_000_000_000)]),
        ),
    ]
}

fn carts() -> Vec<Case> {
    let many = |count: usize, line: &str| format!("[{}]", vec![line; count].join(","));
    let mug = r#"{"sku":"MUG","quantity":1}"#;
    let most = i64::try_from(MAX_LINES).expect("a thousand fits");
    vec![
        lines("an empty cart", "[]", invalid(&[(None, "must not be empty")])),
        text(
            "no lines",
            r#"{"type":"order.created","order_id":"ID"}"#,
            invalid(&[(None, "\"lines\" is missing")]),
        ),
        lines("null lines", "null", invalid(&[(None, "\"lines\" is missing")])),
        lines("lines that are an object", mug, invalid(&[(None, "must be an array, is an object")])),
        lines("lines that are a string", "\"MUG\"", invalid(&[(None, "must be an array, is a string")])),
        lines(
            "lines twice",
            &format!("[{mug}],\"lines\":[{mug}]"),
            invalid(&[(None, "comes more than once")]),
        ),
        lines("10,000 lines", &many(10_000, mug), invalid(&[(None, "has 10000 lines, at most 1000")])),
        lines(
            "10,000 lines all at fault",
            &many(10_000, "0"),
            invalid(&[(None, "has 10000 lines, at most 1000")]),
        ),
        lines("the most lines, of one SKU", &many(MAX_LINES, mug), Expected::Order(vec![("MUG", most)])),
        lines("a SKU in two lines", &many(2, mug), Expected::Order(vec![("MUG", 2)])),
        lines(
            "lines that are not objects",
            r#"[null,5,"MUG",["MUG",1],{"sku":"MUG","quantity":1},[[[]]]]"#,
            invalid(&[
                (Some(1), "is null"),
                (Some(2), "is a number"),
                (Some(3), "is a string"),
                (Some(4), "is an array"),
                (Some(6), "is an array"),
            ]),
        ),
        lines(
            "every line at fault in its own way",
            r#"[{"sku":"","quantity":1},{"sku":"MUG","quantity":0},{"sku":7,"quantity":-1},{"sku":"CUP","quantity":1},{}]"#,
            invalid(&[
                (Some(1), "sku must not be empty"),
                (Some(2), "quantity must be between"),
                (
                    Some(3),
                    "sku must be a string, is a number; quantity must be between 1 and 1000000000000, is -1",
                ),
                (Some(5), "sku is missing; quantity is missing"),
            ]),
        ),
        lines(
            "a SKU of 1 MB",
            &format!(r#"[{{"sku":"{}","quantity":1}}]"#, "s".repeat(1 << 20)),
            invalid(&[(Some(1), "sku is 1048576 bytes long, at most 128")]),
        ),
        lines(
            "a SKU with a line feed",
            r#"[{"sku":"a\nb","quantity":1}]"#,
            invalid(&[(Some(1), "control characters")]),
        ),
        lines(
            "a SKU with half a surrogate pair",
            r#"[{"sku":"\udc00","quantity":1}]"#,
            invalid(&[(Some(1), "surrogate")]),
        ),
        lines(
            "two SKUs in a line",
            r#"[{"sku":"MUG","sku":"CUP","quantity":1}]"#,
            invalid(&[(Some(1), "sku comes more than once")]),
        ),
        lines(
            "a line with a misspelt field",
            r#"[{"sku":"MUG","qty":1}]"#,
            invalid(&[(Some(1), "quantity is missing")]),
        ),
    ]
}

fn terms() -> Vec<Case> {
    let on = |name, terms: &str, expected| {
        let mug = r#"[{"sku":"MUG","quantity":1}]"#;
        text(name, &format!(r#"{{"type":"order.created","order_id":"ID",{terms},"lines":{mug}}}"#), expected)
    };
    let at = |name, location: &str, said| {
        let line = format!(r#"[{{"sku":"MUG","location":{location},"quantity":1}}]"#);
        lines(name, &line, invalid(&[(Some(1), said)]))
    };
    vec![
        on("the default policy", r#""policy":"all_or_none""#, good()),
        on("terms that are null", r#""policy":null,"hold_seconds":null"#, good()),
        on(
            "an unknown policy",
            r#""policy":"some""#,
            invalid(&[(None, "policy must be \"all_or_none\" or")]),
        ),
        on("a policy that is a number", r#""policy":2"#, invalid(&[(None, "must be a string, is a number")])),
        on("two policies", r#""policy":"partial","policy":"partial""#, invalid(&[(None, "more than once")])),
        on("a hold of no time", r#""hold_seconds":0"#, invalid(&[(None, "between 1 and 2678400, is 0")])),
        on("a hold too long", r#""hold_seconds":2678401"#, invalid(&[(None, "between 1 and 2678400")])),
        on(
            "a hold in a string and with a fraction of nothing",
            r#""hold_seconds":"900.5""#,
            invalid(&[(None, "must be a whole number, is 900.5")]),
        ),
        on("a hold in words", r#""hold_seconds":"15m""#, invalid(&[(None, "a whole number, is a string")])),
        at("an empty location", r#""""#, "location must not be empty"),
        at("a location that is a number", "7", "location must be a string, is a number"),
        at("a location with a line feed", r#""a\nb""#, "control characters"),
    ]
}

fn fields() -> Vec<Case> {
    let deep = "[".repeat(DEPTH) + &*"]".repeat(DEPTH);
    let with = |name, extra: &str, expected| {
        text(
            name,
            &format!(
                r#"{{"type":"order.created",{extra},"order_id":"ID","lines":[{{"sku":"MUG","quantity":1,{extra}}}]}}"#
            ),
            expected,
        )
    };
    vec![
        with("unknown fields", r#""note":{"gift":true},"price":1.5"#, good()),
        with("unknown fields twice", r#""note":1,"note":2"#, good()),
        with("an unknown field nested very deep", &format!("\"note\":{deep}"), good()),
        with("an unknown field with a number beyond any float", r#""note":1e999"#, good()),
        with("an unknown field with half a surrogate pair", r#""note":"\ud800""#, good()),
        text(
            "fields in another order and white space",
            " {\r\n\"lines\" : [ {\"quantity\":1 , \"sku\":\"MUG\"} ]\t, \"order_id\":\"ID\", \"type\":\"order.created\" }\n",
            good(),
        ),
        bytes(
            "a byte order mark",
            [b"\xef\xbb\xbf", GOOD.replace("ID", "a-byte-order-mark").as_bytes()].concat(),
            good(),
        ),
        text(
            "a fault beside an unknown field nested very deep",
            &format!(
                r#"{{"type":"order.created","note":{deep},"order_id":"ID","lines":[{{"sku":"MUG","quantity":0,"note":{deep}}}]}}"#
            ),
            invalid(&[(Some(1), "quantity must be between")]),
        ),
    ]
}

fn envelopes() -> Vec<Case> {
    use FaultCode::{BadEnvelope, NotAnObject, NotJson, NotUtf8, TypeConflict, UnknownType};
    let event = |name, rest: &str, expected| {
        let value =
            format!(r#"{{"specversion":"1.0","id":"e-1","source":"shop","type":"order.created"{rest}}}"#);
        text(name, &value, expected).header("content-type", STRUCTURED)
    };
    let encoded = BASE64_STANDARD.encode(UNTYPED.replace("ID", "a-structured-CloudEvent-in-base64"));
    vec![
        text("a CloudEvent in binary mode", UNTYPED, good()).header("ce_type", b"order.created"),
        text("a CloudEvent in binary mode that repeats its type", GOOD, good())
            .header("ce_type", b"order.created"),
        text("a CloudEvent in binary mode of an unknown type", UNTYPED, dead(UnknownType))
            .header("ce_type", b"order.shipped"),
        text("a header that contradicts the value's type", GOOD, dead(TypeConflict))
            .header("ce_type", b"order.cancelled"),
        text(
            "a value whose type contradicts the header",
            r#"{"type":"order.cancelled","order_id":"ID"}"#,
            dead(TypeConflict),
        )
        .header("ce_type", b"order.created"),
        text(
            "a value whose type is no string beside a header",
            r#"{"type":7,"order_id":"ID","lines":[]}"#,
            dead(TypeConflict),
        )
        .header("ce_type", b"order.created"),
        text("two type headers", UNTYPED, dead(TypeConflict))
            .header("ce_type", b"order.created")
            .header("ce_type", b"order.cancelled"),
        text("a type header that is not UTF-8", GOOD, dead(BadEnvelope)).header("ce_type", b"\xff"),
        text(
            "a faulty line in a CloudEvent in binary mode",
            r#"{"order_id":"ID","lines":[{"sku":"MUG","quantity":0}]}"#,
            invalid(&[(Some(1), "between")]),
        )
        .header("ce_type", b"order.created"),
        event("a structured CloudEvent", &format!(",\"data\":{UNTYPED}"), good()),
        event("a structured CloudEvent that repeats its type", &format!(",\"data\":{GOOD}"), good()),
        event("a structured CloudEvent in base64", &format!(",\"data_base64\":\"{encoded}\""), good()),
        event(
            "a structured CloudEvent with a faulty line",
            r#","data":{"order_id":"ID","lines":[{"sku":"MUG"}]}"#,
            invalid(&[(Some(1), "quantity is missing")]),
        ),
        event("a structured CloudEvent without data", "", dead(BadEnvelope)),
        event(
            "a structured CloudEvent with data twice over",
            &format!(r#","data":{UNTYPED},"data_base64":"e30=""#),
            dead(BadEnvelope),
        ),
        event("a structured CloudEvent with bad base64", r#","data_base64":"!!!""#, dead(BadEnvelope)),
        event("a structured CloudEvent with base64 of no text", r#","data_base64":"/w==""#, dead(NotUtf8)),
        event("a structured CloudEvent whose data is a word", r#","data":"none""#, dead(NotAnObject)),
        event(
            "a structured CloudEvent whose data is a JSON string without an id",
            r#","data":"{}""#,
            dead(FaultCode::MissingId),
        ),
        event(
            "a structured CloudEvent whose data has another type",
            r#","data":{"type":"order.cancelled","order_id":"ID"}"#,
            dead(TypeConflict),
        ),
        event("a structured CloudEvent that is cut off", ",\"data\":{", dead(NotJson)),
        event(
            "a structured CloudEvent with two types",
            ",\"type\":\"order.created\",\"data\":{}",
            dead(FaultCode::DuplicateField),
        ),
        event(
            "a structured CloudEvent whose header differs",
            &format!(",\"data\":{UNTYPED}"),
            dead(TypeConflict),
        )
        .header("ce_type", b"order.cancelled"),
        text(
            "a structured CloudEvent without a type",
            &format!(r#"{{"specversion":"1.0","data":{GOOD}}}"#),
            dead(BadEnvelope),
        )
        .header("Content-Type", STRUCTURED),
        text("a batch of CloudEvents", "[]", dead(BadEnvelope))
            .header("content-type", b"application/cloudevents-batch+json"),
        text("a CloudEvent in Avro", GOOD, dead(BadEnvelope))
            .header("content-type", b"application/cloudevents+avro"),
        text("a content type that is none", GOOD, good()).header("content-type", b"\xff\xfe"),
    ]
}

fn frames() -> Vec<Case> {
    use FaultCode::{BadFraming, EmptyValue, MissingType, NotAnObject, NotJson, NotUtf8};
    let framed = |name, value: &[u8], expected| bytes(name, [b"\0\0\0\x01\x02", value].concat(), expected);
    vec![
        framed("a framed order", GOOD.replace("ID", "a-framed-order").as_bytes(), good()),
        framed(
            "a framed order at fault",
            br#"{"type":"order.created","order_id":"a-framed-order-at-fault","lines":[]}"#,
            invalid(&[(None, "empty")]),
        ),
        framed("a frame with nothing in it", b"", dead(EmptyValue)),
        framed("framed Avro", b"\x0co-1001\x02\xfe\xff", dead(NotUtf8)),
        framed("a frame in a frame", &[b"\0\0\0\0\x01", GOOD.as_bytes()].concat(), dead(NotJson)),
        framed("framed Protobuf", b"\0\x0a\x03o-1", dead(NotJson)),
        framed("a framed word", b"order", dead(NotJson)),
        framed("a framed array of none", b"[]", dead(NotAnObject)),
        framed("a framed order without its type", br#"{"order_id":"o-1"}"#, dead(MissingType)),
        framed("half a framed order", &GOOD.as_bytes()[..40], dead(NotJson)),
        bytes("a frame cut off", b"\0\0\0", dead(BadFraming)),
        bytes("a zero byte", b"\0", dead(BadFraming)),
    ]
}

fn source(offset: usize) -> Source {
    let offset = i64::try_from(offset).expect("a table is short");
    Source { at: TopicPartition::new("orders", 0), offset: Offset(offset) }
}

fn order(id: &str, lines: &[(&str, i64)]) -> Command {
    let lines = lines
        .iter()
        .map(|(sku, quantity)| {
            (Sku::new(sku).expect("a good SKU").into(), Quantity::new(*quantity).expect("in bounds"))
        })
        .collect();
    Command::order_created(Id::new(id).expect("a good id"), lines, Terms::default())
}

/// The longest piece of text any output may make of a record, however long it is.
const MAX_SAID_CHARS: usize = 401;

fn check(case: &Case, record: &Record) {
    let read = read_command(record);
    match (&case.expected, read) {
        (Expected::Order(lines), Ok(command)) => {
            // Not the sums only: the digest too, so that the same order in another dress is the same order.
            let lines: Vec<_> = lines
                .iter()
                .flat_map(|(sku, sum)| {
                    if *sum > 1000 {
                        vec![(*sku, *sum)]
                    } else {
                        vec![(*sku, 1); usize::try_from(*sum).expect("small")]
                    }
                })
                .collect();
            // What an earlier version made of it is not what it says.
            let command = Command { refused_as: None, ..command };
            assert_eq!(command, order(&case.order_id, &lines), "{}", case.name);
        }
        (Expected::Invalid(faults), Ok(command)) => {
            assert_eq!(command.key.id.as_str(), case.order_id, "{}", case.name);
            let Action::Refuse(reasons) = command.action else {
                panic!("{}: is a good order", case.name);
            };
            assert_eq!(reasons.len(), faults.len(), "{}: {reasons:?}", case.name);
            for (reason, (line, said)) in reasons.iter().zip(faults) {
                let Reason::InvalidOrder { line: found, detail } = reason else {
                    panic!("{}: {reason:?}", case.name);
                };
                assert_eq!(found, line, "{}", case.name);
                assert!(detail.contains(said), "{}: {said:?} is not in {detail:?}", case.name);
                assert!(detail.chars().count() < MAX_SAID_CHARS, "{}", case.name);
            }
        }
        (Expected::DeadLetter(code), Err(fault)) => {
            assert_eq!(fault.code, *code, "{}: {fault}", case.name);
            assert!(fault.detail.chars().count() <= MAX_SAID_CHARS, "{}", case.name);
            let letter = dead_letter(record.clone(), &fault, "read");
            assert_eq!(letter.channel, Channel::DeadLetter);
            assert_eq!(
                (letter.key, letter.value),
                (record.key.clone(), record.value.clone()),
                "{}",
                case.name
            );
        }
        (expected, read) => panic!("{}: expected {expected:?}, is {read:?}", case.name),
    }
}

#[test]
fn every_kind_of_input_comes_out_as_the_table_says() {
    let cases = cases();
    assert!(cases.len() >= 35);
    let names: std::collections::BTreeSet<_> = cases.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), cases.len(), "two cases have one name");
    for (offset, case) in cases.iter().enumerate() {
        check(case, &case.record(source(offset)));
    }
}

#[test]
fn no_bad_record_harms_its_batch_mates() {
    let cases = cases();
    let mut requests = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let bad = case.record(source(index * 2));
        let mate =
            bytes("mate", GOOD.replace("ID", &format!("mate-{index}")), good()).record(source(index * 2 + 1));
        for record in [bad, mate] {
            if let Ok(command) = read_command(&record) {
                requests.push(Request { command, source: Some(record.source) });
            }
        }
    }
    let mug = Sku::new("MUG").expect("a good SKU").into();
    let levels =
        std::iter::once((mug, Level { available: 1_000_000, version: 1, ..Level::default() })).collect();
    let changes = decide(
        View { levels, ..View::default() },
        &requests,
        |_| false,
        Sequences::From(Sequenced { seq: Seq(1), at: Stamp(0) }),
    );
    let mut mates = 0;
    for (request, outcome) in requests.iter().zip(&changes.outcomes) {
        let Outcome::Decided(decision) = outcome else { panic!("{:?}: {outcome:?}", request.command.key) };
        let published = result(decision, None, TraceContext::NONE);
        let value: serde_json::Value =
            serde_json::from_slice(&published.value.expect("a result has a value")).expect("JSON");
        assert_eq!(value["order_id"], request.command.key.id.as_str());
        if request.command.key.id.as_str().starts_with("mate-") {
            assert_eq!(published.channel, Channel::Accepted);
            mates += 1;
        }
    }
    assert_eq!(mates, cases.len());
}
