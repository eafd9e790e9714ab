//! What programs can do, and what they cannot.

use std::time::Instant;

use proptest::prelude::*;

use super::*;

fn compiled(text: &str) -> Mapping {
    Mapping::compile("test.jq", text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn run(program: &str, value: &str) -> Result<Mapped, MapError> {
    compiled(program).run(value, &Facts::default())
}

fn value(program: &str, value: &str) -> String {
    match run(program, value) {
        Ok(Mapped::Value(value)) => value,
        other => panic!("{program} of {value}: {other:?}"),
    }
}

fn failure(program: &str, value: &str) -> String {
    match run(program, value) {
        Err(MapError::Failed(why) | MapError::NotJson(why)) => why,
        other => panic!("{program} of {value}: {other:?}"),
    }
}

#[test]
fn numbers_keep_their_digits() {
    for number in [
        "2",
        "-7",
        "2.0000",
        "1.50",
        "9007199254740993",
        "123456789012345678901234567890",
        "2e0",
        "1E+2",
        "0.1",
        "12345678901234567.8901234567890",
    ] {
        assert_eq!(value(".", &format!("{{\"n\":{number}}}")), format!("{{\"n\":{number}}}"));
        assert_eq!(value(".n | tostring", &format!("{{\"n\":{number}}}")), format!("\"{number}\""));
        assert_eq!(value("tonumber", &format!("\"{number}\"")), number);
    }
    assert_eq!(value(". + 1", "9007199254740993"), "9007199254740994");
    assert_eq!(value("\"o-\\(.)\"", "9007199254740993"), "\"o-9007199254740993\"");
}

#[test]
fn a_program_gives_one_value_or_nothing_or_says_what_is_wrong() {
    assert_eq!(run("empty", "{}"), Ok(Mapped::Nothing));
    assert_eq!(run(".lines[] | select(.x)", r#"{"lines":[{}]}"#), Ok(Mapped::Nothing));
    assert_eq!(value("{a: .b}", r#"{"b":[1,null,true,"ö\u0000\""]}"#), r#"{"a":[1,null,true,"ö\u0000\""]}"#);
    assert_eq!(failure("error(\"no \\(.what)\")", r#"{"what":"sku"}"#), "no sku");
    assert_eq!(failure("error({a: 1})", "{}"), r#"{"a":1}"#);
    assert_eq!(failure(".[]", "[1,2]"), "the mapping gives more than one value");
    assert_eq!(failure(".[] | if . == 2 then error(\"two\") else . end", "[1,2]"), "two");
    assert!(failure(".a.b", r#"{"a":"text"}"#).contains("cannot index"));
    assert!(failure("1 / 0", "{}").contains("calculate") || failure("infinite", "{}").contains("JSON"));
    assert!(failure("nan", "{}").contains("a number that JSON does not have"));
}

#[test]
fn at_most_two_outputs_are_asked_for() {
    // The third would never come.
    let program = "1, 2, (def f: f; f)";
    let begun = Instant::now();
    assert_eq!(failure(program, "{}"), "the mapping gives more than one value");
    assert!(begun.elapsed() < TIME_LIMIT);
}

#[test]
fn a_program_is_given_the_record_beside_the_value() {
    let mapping = compiled("[$headers, $key, $topic, $timestamp, $type, $aggregateid]");
    let headers: [(&str, Option<&[u8]>); 4] =
        [("a", Some(b"1")), ("b", None), ("a", Some(b"2")), ("c", Some("ö".as_bytes()))];
    let facts = Facts {
        headers: &headers,
        key: Some(b"k-1"),
        topic: "orders",
        timestamp_ms: Some(1_767_323_045_678),
        kind: Some("order.created"),
        aggregate_id: Some("o-1"),
    };
    assert_eq!(
        mapping.run("null", &facts),
        Ok(Mapped::Value(
            r#"[{"a":"2","b":null,"c":"ö"},"k-1","orders",1767323045678,"order.created","o-1"]"#.to_owned()
        ))
    );
    assert_eq!(
        mapping.run("null", &Facts::default()),
        Ok(Mapped::Value(r#"[{},null,"",null,null,null]"#.to_owned()))
    );
    let bytes = Facts { key: Some(b"\xff\xfe"), ..Facts::default() };
    assert_eq!(compiled("$key | length").run("null", &bytes), Ok(Mapped::Value("2".to_owned())));
    let why = compiled("$key").run("null", &bytes).unwrap_err();
    assert_eq!(why.to_string(), "the mapping gives bytes, which JSON does not have");
}

#[test]
fn what_does_not_compile_is_named_by_line_and_column() {
    for (text, line, column, why) in [
        ("{a: .b", 1, 1, "{ is not closed"),
        ("# one\n{a: .b}\n| .c ]", 3, 6, "expected"),
        ("{\n  a: order(.b)\n}", 2, 6, "undefined filter order"),
        ("{\"ä\": $shop}", 1, 7, "undefined variable $shop"),
        ("", 1, 1, "expected term, found the end of the program"),
        ("import \"x\" as x; .", 1, 0, "imports nothing"),
        ("[now]", 1, 2, "no clock"),
        ("$ENV.HOME", 1, 1, "environment"),
        ("env", 1, 1, "environment"),
        ("input", 1, 1, "input"),
        ("halt", 1, 1, "undefined filter halt"),
    ] {
        let error = Mapping::compile("test.jq", text).unwrap_err();
        assert!(error.why.contains(why), "{text}: {error}");
        // 0 stands for any.
        assert!((error.line, error.column) == (line, column) || column == 0, "{text}: {error}");
        assert!(error.to_string().starts_with(&format!("test.jq:{line}:")), "{error}");
    }
    let long = format!(". # {}", "x".repeat(MAX_PROGRAM_BYTES));
    assert!(Mapping::compile("test.jq", &long).unwrap_err().why.contains("bytes"));
}

#[test]
fn what_depends_on_more_than_the_record_or_writes_somewhere_is_not_there() {
    for name in [
        "now",
        "localtime",
        "strflocaltime(\"\")",
        "env",
        "$ENV",
        "input",
        "inputs",
        "input_filename",
        "debug",
        "debug(1)",
        "stderr",
        "halt",
        "halt_error",
        "halt(1)",
        "stderr_empty",
        "debug_empty",
    ] {
        assert!(Mapping::compile("test.jq", name).is_err(), "{name}");
    }
}

#[test]
fn jqs_own_functions_are_there() {
    for (program, given, gives) in [
        ("[range(3)]", "null", "[0,1,2]"),
        ("[range(1; 8; 3)]", "null", "[1,4,7]"),
        ("[range(3; 0; -1)]", "null", "[3,2,1]"),
        ("[limit(2; range(10))]", "null", "[0,1]"),
        ("IN(1, 2)", "2", "true"),
        ("IN(.[]; 2, 3)", "[1,3]", "true"),
        ("test(\"^GIFT-\")", "\"GIFT-1\"", "true"),
        ("sub(\" +\"; \"-\")", "\"a  b\"", "\"a-b\""),
        ("@base64d", "\"TVVH\"", "\"MUG\""),
        ("fromjson", "\"{\\\"a\\\":2.0}\"", "{\"a\":2.0}"),
        ("fromdate", "\"2026-01-02T03:04:05Z\"", "1767323045"),
        (
            "group_by(.sku) | map({sku: .[0].sku, quantity: map(.q) | add})",
            r#"[{"sku":"b","q":1},{"sku":"a","q":2},{"sku":"b","q":3}]"#,
            r#"[{"sku":"a","quantity":2},{"sku":"b","quantity":4}]"#,
        ),
        ("with_entries(select(.value != null))", r#"{"a":null,"b":1}"#, r#"{"b":1}"#),
        ("ltrimstr(\"gid://shopify/Order/\")", "\"gid://shopify/Order/1\"", "\"1\""),
    ] {
        assert_eq!(value(program, given), gives, "{program}");
    }
}

#[test]
fn a_program_that_never_ends_is_broken_off_and_can_be_run_again() {
    let limit = Duration::from_millis(50);
    for program in [
        "def f: f; f",
        "[range(0; 1e18)] | length",
        "last(repeat(1))",
        "reduce range(1e18) as $i (0; . + 1)",
        "[recurse(. + 1)] | length",
        "until(false; .)",
        "skip(1e18; repeat(0))",
    ] {
        let mapping = compiled(program);
        let begun = Instant::now();
        assert_eq!(
            mapping.run_for(Val::from(0_usize), &Facts::default(), limit),
            Err(MapError::TooSlow),
            "{program}"
        );
        assert!(begun.elapsed() < Duration::from_secs(2), "{program}: {:?}", begun.elapsed());
    }
    let sometimes = compiled("if . == 1 then def f: f; f else . end");
    assert_eq!(sometimes.run_for(Val::from(1_usize), &Facts::default(), limit), Err(MapError::TooSlow));
    assert_eq!(sometimes.run("2", &Facts::default()), Ok(Mapped::Value("2".to_owned())));
}

#[test]
fn a_program_that_calls_itself_too_deeply_is_broken_off() {
    // On a stack as tokio's threads have it.
    let thread = std::thread::Builder::new().stack_size(2 * 1024 * 1024);
    let ran = thread.spawn(|| failure("def f: 1 + f; f", "{}")).unwrap();
    assert_eq!(ran.join().unwrap(), "the mapping calls itself too deeply");
}

#[test]
fn values_are_bounded_in_depth_and_length() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert_eq!(value(".", &nested(100)), nested(100));
    assert!(failure(".", &nested(10_000)).contains("nested deeper"));
    // Not what is nested in a text, or side by side.
    let text = format!("[\"{}\",\"\\\"{}\"]", "[".repeat(1_000), "{".repeat(1_000));
    assert_eq!(value(".", &text), text);
    let flat = format!("[{}[]]", "[],".repeat(1_000));
    assert_eq!(value(".", &flat), flat);
    assert!(failure("reduce range(1000) as $i (0; [.])", "{}").contains("nested deeper"));
    assert!(failure("\"x\" * 9000000 | [., .]", "{}").contains("more than"));
    for no_json in ["{", "{\"a\":NaN}", "nan", "{} {}", "# text\n1", "b\"x\"", "01", "{\"a\":1,}"] {
        assert!(failure(".", no_json).starts_with("the value is not JSON"), "{no_json}");
    }
}

#[test]
fn what_a_program_nests_too_deeply_is_refused_and_let_go_of_without_a_recursion() {
    // On a stack as tokio's threads have it.
    let thread = std::thread::Builder::new().stack_size(2 * 1024 * 1024);
    let ran = thread.spawn(|| {
        let array = "reduce range(100000) as $i (0; [.])";
        let object = "reduce range(100000) as $i (0; {a: .})";
        for (program, why) in [
            (array.to_owned(), "nested deeper"),
            (object.to_owned(), "nested deeper"),
            (format!("{array} | error"), "nested deeper"),
            (format!("{array} | [., .]"), "nested deeper"),
            (format!("({array}), 1"), "more than one value"),
            (format!("1, ({object})"), "more than one value"),
            (format!("({array}), error(\"two\")"), "two"),
        ] {
            // Longer than any takes, on a machine that has other work, too.
            let limit = Duration::from_secs(300);
            let ran = compiled(&program).run_for(Val::Null, &Facts::default(), limit);
            assert!(matches!(&ran, Err(MapError::Failed(said)) if said.contains(why)), "{program}: {ran:?}");
        }
    });
    ran.unwrap().join().unwrap();
}

#[test]
fn a_number_of_more_than_a_thousand_characters_is_refused_before_it_is_read() {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    for number in [
        "7".repeat(1_000),
        format!("-{}", "7".repeat(999)),
        format!("0.{}", "7".repeat(998)),
        format!("7e{}", "7".repeat(998)),
    ] {
        let text = format!("{{\"a\":[{number},true,-7]}}");
        assert_eq!(value(".", &text), text);
        assert_eq!(value("tonumber", &quoted(&number)), number);
    }
    for number in [
        "7".repeat(1_001),
        "7".repeat(100_000),
        format!("-{}", "7".repeat(1_000)),
        format!("0.{}", "7".repeat(999)),
        format!("7E+{}", "7".repeat(998)),
    ] {
        let why = "the value has a number of more than 1000 characters";
        for text in [number.clone(), format!("[{number}]"), format!("{{\"a\":{number}}}")] {
            assert_eq!(failure("empty", &text), why);
        }
        for text in [number.clone(), format!(" {number} "), format!("[{number}]"), format!("# \"\n{number}")]
        {
            let said = failure("fromjson", &quoted(&text));
            assert!(said.starts_with(&format!("fromjson: {why}")), "{said:.200}");
        }
        assert!(failure("tonumber", &quoted(&number)).starts_with(&format!("fromjson: {why}")));
    }
    // Digits of a text are letters.
    let text = format!("[\"{0}\",{{\"{0}\":0}}]", "7".repeat(2_000));
    assert_eq!(value(".", &text), text);
    let text = format!("\"{}\"", "7".repeat(2_000));
    assert_eq!(value("fromjson", &quoted(&text)), text);
    // What a program makes of one is bounded, too.
    let given = "7".repeat(900);
    assert!(value(". + 1", &given).ends_with("778"));
    assert_eq!(failure(". * .", &given), "the mapping gives a number of more than 1000 digits");
}

#[test]
fn of_two_fields_of_one_name_none_is_taken_on_a_guess() {
    let many = |last: &str| {
        let fields: Vec<String> = (0..1_000).map(|number| format!(r#""f{number}":{{"f0":[]}}"#)).collect();
        format!(r#"{{{},"{last}":0}}"#, fields.join(","))
    };
    for (text, name) in [
        (r#"{"id":1,"id":1}"#, "id"),
        (r#"{"lines":[{"sku":"a"},{"sku":"b","quantity":1,"sku":"c"}]}"#, "sku"),
        (r#"{"a":{"b":[{}]},"c":{"b":1},"a":null}"#, "a"),
        (r#"[{"s\u006bu":1,"sku":2}]"#, "sku"),
        (r#"{"\"":1,"\u0022":2}"#, "\""),
        (r#"{ "" : 1 , "" : 2 }"#, ""),
        (&many("f999"), "f999"),
    ] {
        assert_eq!(run("empty", text), Err(MapError::Repeated(name.to_owned())), "{text}");
    }
    // Neither the names of objects in one another or side by side, nor what only looks like a name.
    for text in [
        r#"{"a":{"a":{"a":[{"a":1},{"a":2}]}},"b":"a","c":["a","a"],"A":"b"}"#,
        r#"{"a":"\"a\":1,\"a\":2","b":"{\"a\":1","\\":"\\","c":{}}"#,
        &many("f1000"),
    ] {
        assert_eq!(value(".", text), text);
    }
    assert!(failure(".", r#"{"\ud800":1}"#).starts_with("the value is not JSON"));
}

#[test]
fn json_in_a_text_is_read_as_a_records_value_is() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    for text in ["{\"a\":2.0}", "[1,\"2\"]", "\"o-1\"", "null", "9007199254740993", &nested(100)] {
        assert_eq!(value("fromjson", &quoted(text)), text);
    }
    for (text, why) in [
        // As deep as ends the process, where nothing bounds it.
        (&*nested(1_000_000), "fromjson: the value is nested deeper than 128 levels"),
        ("{\"a\":1,\"a\":2}", "fromjson: \"a\" comes more than once"),
        ("", "fromjson: the value is not JSON"),
        ("1 2", "fromjson: the value is not JSON"),
        ("[1] [2]", "fromjson: the value is not JSON"),
        ("[NaN]", "fromjson: the value is not JSON"),
        ("# \"\n[]", "fromjson: the value is not JSON"),
    ] {
        let said = failure("fromjson", &quoted(text));
        assert!(said.starts_with(why), "{why}: {said:.200}");
    }
    assert!(failure("fromjson", "7").contains("as string"));
    assert_eq!(value("map(tonumber)", r#"["+2","007"," 3 ",4]"#), "[2,7,3,4]");
    assert!(failure("tonumber", &quoted(&nested(1_000_000))).starts_with("fromjson: the value is nested"));
    assert!(failure("tonumber", "\"\"").starts_with("fromjson: the value is not JSON"));
}

#[test]
fn what_reads_which_record_is_told_by_its_offset() {
    let at = crate::ledger::TopicPartition::new("orders", 1);
    let held = |from: i64, program: Option<&str>| crate::ledger::HeldProgram {
        at: at.clone(),
        from: crate::ledger::NextOffset(from),
        program: program.map(str::to_owned),
    };
    let programs = Programs::of(&[held(10, Some("1")), held(20, Some("2")), held(30, None)]).unwrap();
    let reading = |partition: i32, offset: i64| {
        let at = crate::ledger::TopicPartition::new("orders", partition);
        programs
            .reading(&crate::ledger::Source { at, offset: crate::ledger::Offset(offset) })
            .map(Mapping::text)
    };
    let read: Vec<_> = [0, 9, 10, 19, 20, 29, 30, 1_000].map(|offset| reading(1, offset)).into();
    assert_eq!(read, [None, None, Some("1"), Some("1"), Some("2"), Some("2"), None, None]);
    assert_eq!(reading(0, 15), None);
    assert!(programs.last(&at).is_none());
    let broken = Programs::of(&[held(7, Some("{"))]).unwrap_err();
    assert!(broken.to_string().starts_with("the mapping of orders[1] from offset 7 on:1:1: "), "{broken}");
}

#[test]
fn every_preset_compiles_with_a_template_of_ids_too() {
    for Preset { name, .. } in PRESETS {
        compiled(&preset(name, None).unwrap());
        compiled(&preset(name, Some("{shop}-{id}")).unwrap());
    }
    let unknown = preset("shopfy", None).unwrap_err().to_string();
    assert!(unknown.contains("\"shopfy\"") && unknown.contains("shopify"), "{unknown}");
    for wrong in ["", "{shop}", "{id", "{id}}", "{order}-{id}", "\"{id}", "\\(.id)", "{id}\n"] {
        assert_eq!(preset("shopify", Some(wrong)), Err(NoPreset::Template(wrong.to_owned())), "{wrong}");
    }
}

#[test]
fn the_built_in_mappings_make_ids_of_text_and_whole_numbers_alone() {
    let plain = compiled(&preset("dapr", None).unwrap());
    let with_shop = compiled(&preset("dapr", Some("{shop}-{id}")).unwrap());
    let cancelled = |mapping: &Mapping, id: &str, shop: &str| {
        let value = format!(r#"{{"type":"order.cancelled","order_id":{id},"shop":{shop}}}"#);
        mapping.run(&value, &Facts::default())
    };
    let made = |id: &str| Mapped::Value(format!(r#"{{"type":"order.cancelled","order_id":{id}}}"#));
    for (given, id) in [
        ("\"o-1\"", "o-1"),
        ("\" \"", " "),
        ("\"1.5\"", "1.5"),
        ("0", "0"),
        ("-7", "-7"),
        ("9007199254740993", "9007199254740993"),
        ("90071992547409930000000000000000001", "90071992547409930000000000000000001"),
    ] {
        assert_eq!(cancelled(&plain, given, "null"), Ok(made(&format!("\"{id}\""))));
        assert_eq!(cancelled(&with_shop, given, "\"s\""), Ok(made(&format!("\"s-{id}\""))));
    }
    for none in ["\"\"", "1.5", "2.0", "1e3", "true", "false", "[]", "{\"id\":1}"] {
        for mapping in [&plain, &with_shop] {
            let read = cancelled(mapping, none, "\"s\"");
            assert!(matches!(read, Err(MapError::Failed(_))), "{none}: {read:?}");
        }
        let read = cancelled(&with_shop, "\"o-1\"", none);
        assert!(matches!(read, Err(MapError::Failed(_))), "{none}: {read:?}");
    }
    // What is missing is the contract's to refuse.
    for mapping in [&plain, &with_shop] {
        assert_eq!(cancelled(mapping, "null", "\"s\""), Ok(made("null")));
    }
    let why = cancelled(&with_shop, "\"o-1\"", "null").unwrap_err().to_string();
    assert!(why.contains("which shop"), "{why}");
}

proptest! {
    #[test]
    fn what_is_passed_on_is_what_came(json in json_value(4)) {
        prop_assert_eq!(value(".", &json), json);
    }

    #[test]
    fn no_text_breaks_compiling(text in "\\PC{0,40}") {
        if let Err(error) = Mapping::compile("test.jq", &text) {
            prop_assert!(error.line == 1 && error.column >= 1, "{}", error);
        }
    }
}

/// JSON as this project writes it, without spaces and repeated names.
fn json_value(depth: u32) -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        "[1-9][0-9]{0,40}\\.[0-9]{1,20}",
        "[a-zöß \\[\\]{}]{0,8}".prop_map(|text| format!("\"{text}\"")),
    ];
    leaf.prop_recursive(depth, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::btree_map("[a-z]{1,4}", inner, 0..4).prop_map(|members| {
                let members: Vec<String> =
                    members.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}
