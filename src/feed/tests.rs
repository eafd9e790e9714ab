//! Feeds read well and badly.

use proptest::prelude::*;

use super::*;
use crate::ledger::{Location, MAX_QUANTITY};

fn read_as(content: impl AsRef<[u8]>, settings: &FeedSettings) -> Feed {
    read(content.as_ref(), settings).unwrap()
}

fn plain(content: impl AsRef<[u8]>) -> Feed {
    read_as(content, &FeedSettings::default())
}

/// What is wrong with a feed, or with its rows.
fn faults_as(content: impl AsRef<[u8]>, settings: &FeedSettings) -> String {
    match read(content.as_ref(), settings) {
        Err(error) => format!("{error:#}"),
        Ok(feed) => feed.refused.iter().map(Refused::to_string).collect::<Vec<_>>().join("\n"),
    }
}

fn faults(content: impl AsRef<[u8]>) -> String {
    faults_as(content, &FeedSettings::default())
}

/// Each row as text: `MUG at north: 5`.
fn rows(feed: &Feed) -> Vec<String> {
    assert_eq!(feed.refused, []);
    feed.rows.iter().map(|row| format!("{}: {}", row.item, row.pieces)).collect()
}

fn named(columns: &[&str]) -> FeedSettings {
    let columns = columns.iter().map(|text| text.parse().unwrap()).collect();
    FeedSettings { columns, ..FeedSettings::default() }
}

fn in_encoding(name: &str) -> FeedSettings {
    FeedSettings { encoding: Some(name.parse().unwrap()), ..FeedSettings::default() }
}

#[test]
fn columns_are_found_by_name_in_any_order() {
    let feed = plain("sku,available\n\"MUG, red\",5\n");
    assert_eq!((feed.rows[0].record, feed.rows[0].line), (2, 2));
    assert_eq!(rows(&feed), ["MUG, red: 5"]);
    assert_eq!(rows(&plain(b"\xEF\xBB\xBFQuantity , SKU\r\n 5, A\r\n")), ["A: 5"]);
    assert_eq!(rows(&plain("location,sku,available\nnorth,A,1\n,A,2\n")), ["A at north: 1", "A: 2"]);
}

#[test]
fn what_stands_between_columns_is_found_by_looking_at_the_header() {
    for mark in [",", "\t", ";", "|"] {
        let text = "sku/location/available\nMUG/north/5\nHAT//1\n".replace('/', mark);
        assert_eq!(rows(&plain(&text)), ["MUG at north: 5", "HAT: 1"], "{mark:?}");
    }
    // A comma in a name is no delimiter where semicolons make the header.
    assert_eq!(rows(&plain("sku;available\nMUG, red;5\n")), ["MUG, red: 5"]);
    let with = |delimiter| FeedSettings { delimiter: Some(delimiter), ..FeedSettings::default() };
    assert_eq!(rows(&read_as("sku~available\nMUG~5\n", &with(b'~'))), ["MUG: 5"]);
    assert!(faults_as("sku;available\nMUG;5\n", &with(b',')).contains("it is sku;available"));
}

#[test]
fn columns_have_other_names_and_others_are_passed_over_where_that_is_said() {
    let file = "Price;Item Number;Qty;Store\n9,99;0012;5;N\n";
    let settings = named(&["sku=item_number", "available=QTY", "location=Store"]);
    let settings = FeedSettings { ignore_extra: true, ..settings };
    assert_eq!(rows(&read_as(file, &settings)), ["0012 at N: 5"]);
    let strict = FeedSettings { ignore_extra: false, ..settings };
    assert!(
        faults_as(file, &strict).ends_with("--ignore-extra passes over price"),
        "{}",
        faults_as(file, &strict)
    );
    assert_eq!(
        faults_as("sku,available\nA,1\n", &named(&["sku=Item"])),
        "line 1: no column is called item, the columns are sku,available"
    );
    for wrong in ["sku", "sku=", "price=Price", "=x", ""] {
        assert!(wrong.parse::<ColumnName>().is_err(), "{wrong:?}");
    }
}

#[test]
fn a_column_that_could_be_two_is_not_chosen_on_a_guess() {
    let extra = FeedSettings { ignore_extra: true, ..FeedSettings::default() };
    let both = "sku,available,quantity\nA,1,2\n";
    assert!(faults_as(both, &extra).contains("column available or quantity could be available"));
    let said = FeedSettings { ignore_extra: true, ..named(&["available=quantity"]) };
    assert_eq!(rows(&read_as(both, &said)), ["A: 2"]);
    assert!(faults_as("sku,sku,available\nA,B,1\n", &extra).contains("column sku or sku could be sku"));
}

#[test]
fn googles_local_inventory_feed_is_read_as_it_is() {
    let today = "store_code\tid\tquantity\tprice\tavailability\tpickup_method\n\
                 1234\tA2B4\t12\t14.99 USD\tin_stock\tbuy\n\
                 5678\tA2B4\t0\t15.49 USD\tout_of_stock\t\n";
    assert_eq!(rows(&plain(today)), ["A2B4 at 1234: 12", "A2B4 at 5678: 0"]);
    let before = "store code\titemid\tprice\tquantity\nBerlin 1\t0042\t9.99 EUR\t3\n";
    assert_eq!(rows(&plain(before)), ["0042 at Berlin 1: 3"]);
    // Without a quantity nobody knows how many there are.
    let none = "store code\tid\tavailability\n1\tA\tin stock\n";
    assert!(faults(none).starts_with("line 1: the header must be"), "{}", faults(none));
    let empty = "store code\tid\tquantity\n1\tA\t\n";
    assert_eq!(
        faults(empty),
        "line 2, column quantity: must be a whole number from 0 to 1000000000000, is \"\""
    );
    assert!(faults("<?xml version=\"1.0\"?><feed/>").starts_with("the file is XML"));
}

#[test]
fn a_byte_order_mark_or_a_name_says_the_encoding() {
    let utf_16 = |big: bool| -> Vec<u8> {
        let text = "\u{feff}sku,available\nGRÖSSE ❤,5\n".encode_utf16();
        text.flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
    };
    for big in [false, true] {
        assert_eq!(rows(&plain(utf_16(big))), ["GRÖSSE ❤: 5"]);
    }
    let latin = b"sku,available\nGR\xd6SSE,5\n\x80,1\n";
    for name in ["windows-1252", "cp1252", "Latin1"] {
        assert_eq!(rows(&read_as(latin, &in_encoding(name))), ["GRÖSSE: 5", "€: 1"], "{name}");
    }
    assert_eq!(
        faults(latin),
        "line 2, column sku: is not UTF-8: --encoding says what it is (windows-1252)\n\
         line 3, column sku: is not UTF-8: --encoding says what it is (windows-1252)"
    );
    assert_eq!(rows(&read_as(b"\xEF\xBB\xBFsku,available\nA,5\n", &in_encoding("utf8"))), ["A: 5"]);
    assert!(
        faults_as(b"\xEF\xBB\xBFsku,available\nA,5\n", &in_encoding("windows-1252"))
            .starts_with("the file begins with a byte order mark of UTF-8, and --encoding says windows-1252")
    );
    assert_eq!(
        faults_as(b"sku,available\nA,5\n\x81\xff,1\n", &in_encoding("Shift_JIS")),
        "line 3: is not Shift_JIS"
    );
    for end in ["\n", "\r\n", "\r"] {
        let file = [&b"sku,available"[..], b"A,5", b"\x81\xff,1"].join(end.as_bytes());
        assert_eq!(faults_as(file, &in_encoding("Shift_JIS")), "line 3: is not Shift_JIS", "{end:?}");
    }
    assert_eq!(faults(b"\xFF\xFEs\0k\0u"), "line 1: is not UTF-16LE");
    assert!("windoze".parse::<Encoding>().is_err());
}

#[test]
fn a_bad_row_is_named_by_line_and_column() {
    let found =
        faults(b"sku,available\nA,1\n,2\nB,-1\nC,1.5\nD\nE,1,2\nF,9999999999999\n\"G\nG\",1\nH,\xff\n");
    for text in [
        "line 3, column sku: must not be empty",
        "line 4, column available: must be a whole number from 0 to 1000000000000, is \"-1\"",
        "line 5, column available: must be a whole number",
        "line 6: has 1 columns, 2 are needed",
        "line 7: has 3 columns, 2 are needed",
        "line 8, column available",
        "line 9, column sku: must not contain control characters",
        "line 11, column available",
    ] {
        assert!(found.contains(text), "{text:?} is not in:\n{found}");
    }
    let found = faults(b"sku,available,location\nA,1\nB,1,\xff\n,x,\"a\nb\"\n");
    for text in [
        "line 2: has 2 columns, 3 are needed",
        "line 3, column location: is not UTF-8",
        "line 4, column sku: must not be empty",
        "line 4, column location: must not contain control characters",
        "line 4, column available: must be a whole number",
    ] {
        assert!(found.contains(text), "{text:?} is not in:\n{found}");
    }
}

#[test]
fn good_rows_are_read_beside_bad_ones() {
    let feed = plain("sku,available\nA,1\nB,many\nC,3\n");
    assert_eq!(feed.rows.iter().map(|row| (row.line, row.record)).collect::<Vec<_>>(), [(2, 2), (4, 4)]);
    assert_eq!(feed.refused.len(), 1);
}

#[test]
fn numbers_are_exact_and_zeros_of_a_sku_are_kept() {
    let file = "sku;available\n007;12.0\n08;0012\n";
    assert_eq!(rows(&plain(file)), ["007: 12", "08: 12"]);
    let file = "sku\tavailable\nA\t1,234\n";
    assert!(faults(file).ends_with("say --thousands ','"), "{}", faults(file));
    let thousands = FeedSettings { thousands: Some(",".parse().unwrap()), ..FeedSettings::default() };
    assert_eq!(rows(&read_as(file, &thousands)), ["A: 1234"]);
    let came_in = FeedSettings { pieces: 1..=MAX_QUANTITY, ..FeedSettings::default() };
    assert!(faults_as("sku,quantity\nA,0\n", &came_in).contains("from 1 to"));
}

#[test]
fn white_space_of_any_kind_around_a_name_is_trimmed() {
    let file = "sku,location,available\n\u{a0}MUG\u{a0},\u{2003},\u{a0}5\u{202f}\nM\u{200b}UG,north,6\n";
    assert_eq!(rows(&plain(file)), ["MUG: 5", "M<U+200B>UG at north: 6"]);
}

#[test]
fn an_item_on_two_lines_is_refused_on_both_unless_they_are_of_two_locations() {
    assert_eq!(
        faults("sku,quantity\nA,1\nB,1\nA,2\n"),
        "line 2, column sku: A is on line 4 too\nline 4, column sku: A is on line 2 already"
    );
    let file = "sku,location,quantity\nA,,1\nA,north,1\nA,south,1\nA,north,2\nA,north,2\n";
    assert_eq!(
        faults(file),
        "line 3, column sku: A at north is on line 5 too\nline 5, column sku: A at north is on line 3 already\n\
         line 6, column sku: A at north is on line 3 already"
    );
    let feed = plain(file);
    let left: Vec<_> = feed.rows.iter().map(|row| row.item.location.as_ref().map(Location::as_str)).collect();
    assert_eq!(left, [None, Some("south")]);
    let spaces = faults("sku,available\nMUG,1\nMUG\u{a0},2\n");
    assert!(spaces.ends_with("line 3, column sku: MUG is on line 2 already"), "{spaces}");
}

#[test]
fn an_item_on_two_lines_counts_on_neither_where_one_of_them_is_refused_for_its_number() {
    let file = "sku,available\nA,x\nB,1\nA,2\nC,3\nC,many\nC,many more\n";
    let feed = plain(file);
    assert_eq!(feed.rows.iter().map(|row| row.item.to_string()).collect::<Vec<_>>(), ["B"]);
    let found = faults(file);
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(lines.len(), 5, "{found}");
    // What is refused already is named once, for its number.
    for (line, says) in lines.iter().zip([
        "line 2, column available: must be",
        "line 4, column sku: A is on line 2 already",
        "line 5, column sku: C is on line 6 too",
        "line 6, column available: must be",
        "line 7, column available: must be",
    ]) {
        assert!(line.starts_with(says), "{says:?} is not in {line}");
    }
    // Of another location it is another item, and of a line without a number of its own nobody knows the item.
    let file = "sku,location,available\nA,north,x\nA,south,1\nA,,2\nA\n";
    assert_eq!(plain(file).rows.len(), 2);
    let file = "{\"sku\":\"A\",\"available\":1}\n{\"sku\":\"A\",\"available\":1.5}\n";
    assert!(plain(file).rows.is_empty());
    assert!(faults(file).starts_with("line 1, column sku: A is on line 2 too\nline 2, column available: "));
}

#[test]
fn rows_that_a_quote_joins_are_refused_by_all_their_lines() {
    let joined = "were read as one row: a quote that opens a column is not closed before the next delimiter";
    let extra = FeedSettings { ignore_extra: true, ..FeedSettings::default() };
    // An inch at the beginning of a name, and one in another.
    let file = "sku\tname\tavailable\nB\t\"Huge\t6\nC\tMug \"red\t7\nD\tPen\t8\n";
    let feed = read_as(file, &extra);
    assert_eq!(feed.rows.iter().map(|row| row.item.to_string()).collect::<Vec<_>>(), ["D"]);
    assert_eq!(faults_as(file, &extra), format!("line 2: lines 2 to 3 {joined}"));
    // One that never closes takes in all that follows.
    for end in ["", "\n", "\r\n\r\n"] {
        let file = format!("sku,available\n\nA,1\n\"B,2\nC,3\n\nD,4{end}");
        assert_eq!(faults(file), format!("line 4: lines 4 to 7 {joined}"), "{end:?}");
    }
    for end in ["\n", "\r\n", "\r"] {
        let file = ["sku,available", "A,1", "\"B,2", "C\" x,3", "D,4", ""].join(end);
        assert_eq!(faults(&file), format!("line 3: lines 3 to 4 {joined}"), "{end:?}");
        assert_eq!(plain(&file).rows.len(), 2, "{end:?}");
    }
    for row in ["\"Mug\" red,1", "A,\"1\"2", "\"A\"\"B,1", "A,\"", "\"\"\",1"] {
        let found = faults(format!("sku,available\n{row}"));
        assert!(found.starts_with("line 2: a quote that opens a column is not closed"), "{found}");
    }
    // A header, too: the rows that it takes in would be gone.
    let file = "sku\tavailable\t\"note\nA\t1\tx\nB\t2\ty\"!\nC\t3\tz\n";
    for delimiter in [None, Some(b'\t')] {
        let settings = FeedSettings { delimiter, ..extra.clone() };
        assert_eq!(faults_as(file, &settings), format!("line 1: lines 1 to 3 {joined}"));
    }
}

#[test]
fn quotes_that_close_where_their_column_ends_are_read_as_they_are_meant() {
    for end in ["\n", "\r\n", "\r"] {
        let rows_of = |lines: &[&str]| {
            let file = [&["sku,\"available\""][..], lines].concat().join(end);
            [rows(&plain(&file)), rows(&plain(file + end))]
        };
        for (line, row) in [
            ("\"A\",\"1\"", "A: 1"),
            ("\"A, red\" ,\"1\"\t", "A, red: 1"),
            ("\"19\"\" rack\",1", "19\" rack: 1"),
            ("\"\"\"A\"\"\",1", "\"A\": 1"),
            ("\"A\"\",\"\"B\",1", "A\",\"B: 1"),
            // Where none opens the column, it is a letter.
            ("19\" rack,1", "19\" rack: 1"),
            ("A\",\"1\"", "A\": 1"),
            (" \"A\",1", "\"A\": 1"),
        ] {
            for rows in rows_of(&[line, "B,2"]) {
                assert_eq!(rows, [row, "B: 2"], "{line} {end:?}");
            }
            for rows in rows_of(&["B,2", "", line]) {
                assert_eq!(rows, ["B: 2", row], "{line} {end:?}");
            }
        }
        // A line end that is quoted is one of the column, where it stands for itself.
        let extra = FeedSettings { ignore_extra: true, ..FeedSettings::default() };
        let file = ["sku;note;available", "A;\"one", "", "two; \"\"three\"\"\";1", "B;\"\";2"].join(end);
        assert_eq!(rows(&read_as(&file, &extra)), ["A: 1", "B: 2"], "{end:?}");
    }
    // A tab between columns is no blank.
    assert_eq!(rows(&plain("sku\tavailable\n\"A\"\t\"1\"\n")), ["A: 1"]);
}

#[test]
fn a_point_beside_semicolons_that_may_be_between_thousands_is_asked_about() {
    let file = "sku;available\nMUG;1.000\nHAT;12\n";
    let found = faults(file);
    assert!(found.starts_with("line 2, column available: must be a whole number"), "{found}");
    assert!(found.contains("--thousands '.'") && found.contains("--thousands ','"), "{found}");
    let with =
        |mark: &str| FeedSettings { thousands: Some(mark.parse().unwrap()), ..FeedSettings::default() };
    assert_eq!(rows(&read_as(file, &with("."))), ["MUG: 1000", "HAT: 12"]);
    assert_eq!(rows(&read_as(file, &with(","))), ["MUG: 1", "HAT: 12"]);
    for mark in [",", "\t", "|"] {
        assert_eq!(rows(&plain(file.replace(';', mark))), ["MUG: 1", "HAT: 12"], "{mark:?}");
    }
}

#[test]
fn a_number_in_a_string_of_json_is_read_as_in_a_column() {
    let line = |text: &str| format!("{{\"sku\":\"A\",\"available\":\"{text}\"}}\n");
    for text in ["12", "0012", "+12", "12.0", " 12 "] {
        assert_eq!(rows(&plain(line(text))), ["A: 12"], "{text:?}");
    }
    let thousands = FeedSettings { thousands: Some(",".parse().unwrap()), ..FeedSettings::default() };
    assert_eq!(rows(&read_as(line("1,234"), &thousands)), ["A: 1234"]);
    assert!(faults(line("1,234")).ends_with("say --thousands ','"), "{}", faults(line("1,234")));
    for text in ["1E+06", "2e1", "1.5", "", "x"] {
        assert!(faults(line(text)).contains(&format!("is \"{text}\"")), "{}", faults(line(text)));
    }
    // A number of JSON has no digits that were thrown away.
    assert_eq!(rows(&plain("{\"sku\":\"A\",\"available\":1E+06}\n")), ["A: 1000000"]);
}

#[test]
fn json_lines_are_read_with_every_digit() {
    let file = concat!(
        "{\"sku\":\"0012\",\"available\":5}\n",
        "\n",
        "{\"quantity\":\"12.0\",\"sku\":\"HAT\",\"location\":\"north\"}\r\n",
        "{\"sku\":\"TEE\",\"available\":2e1,\"location\":null}",
    );
    let feed = plain(file);
    assert_eq!(rows(&feed), ["0012: 5", "HAT at north: 12", "TEE: 20"]);
    assert_eq!(feed.rows.iter().map(|row| row.line).collect::<Vec<_>>(), [1, 3, 4]);
    let settings = FeedSettings { ignore_extra: true, ..named(&["sku=id", "available=stock"]) };
    assert_eq!(rows(&read_as("{\"id\":\"A\",\"stock\":1,\"note\":{\"a\":[]}}\n", &settings)), ["A: 1"]);
}

#[test]
fn json_lines_at_fault_are_named() {
    for (line, says) in [
        ("{\"sku\":\"A\"}", "line 2: the fields must be sku,available"),
        ("{\"sku\":\"A\",\"available\":1,\"note\":1}", "--ignore-extra passes over note"),
        ("{\"sku\":\"A\",\"sku\":\"B\",\"available\":1}", "column sku or sku could be sku"),
        ("{\"sku\":7,\"available\":1}", "line 2, column sku: must be a string"),
        ("{\"sku\":\"\",\"available\":1}", "line 2, column sku: must not be empty"),
        ("{\"sku\":\"A\",\"available\":1.5}", "line 2, column available: must be a whole number from 0"),
        ("{\"sku\":\"A\",\"available\":1.00000000000000000001}", "is 1.0000"),
        ("{\"sku\":\"A\",\"available\":-1}", "is -1"),
        ("{\"sku\":\"A\",\"available\":null}", "is null"),
        ("{\"sku\":\"A\",\"available\":1,\"location\":7}", "line 2, column location: must be a string"),
        ("{\"sku\":\"A\",\"available\":1", "line 2: is no JSON object"),
        ("[]", "line 2: is no JSON object"),
        ("{\"sku\":\"\\ud800\",\"available\":1}", "line 2, column sku: must be a string"),
    ] {
        let found = faults(format!("{{\"sku\":\"X\",\"available\":1}}\n{line}\n"));
        assert!(found.contains(says), "{line}: {says:?} is not in {found:?}");
    }
    assert!(faults("[{\"sku\":\"A\",\"available\":1}]").starts_with("the file is a JSON array"));
}

#[test]
fn a_wrong_header_and_an_empty_file_are_faults() {
    assert_eq!(faults(b""), "the file is empty");
    assert_eq!(faults(b"\xEF\xBB\xBF\r\n \n"), "the file is empty");
    assert!(faults(b"A,1\n").contains("it is a,1"));
    assert!(faults(b"sku,available,place\nA,1,x\n").contains("the header must be"));
    assert!(faults(b"sku,location\nA,x\n").contains("the header must be"));
    for header in ["sku,available", "sku,available\n", "sku,available\r", "sku,available\r\n\r\n"] {
        assert!(faults(header.as_bytes()).contains("no rows"), "{header:?}");
    }
}

/// Every row's record, line and SKU.
fn places(content: &str) -> Vec<(u64, u64, String)> {
    let feed = plain(content);
    assert_eq!(feed.refused, []);
    feed.rows.into_iter().map(|row| (row.record, row.line, row.item.sku.to_string())).collect()
}

#[test]
fn a_row_is_the_same_whatever_the_lines_end_with() {
    let row = |record, line, sku: &str| (record, line, sku.to_owned());
    let rows = [row(2, 2, "CUP"), row(3, 3, "MUG"), row(4, 4, "TEE")];
    for end in ["\n", "\r\n", "\r"] {
        let file = ["sku,available", "CUP,7", "MUG,12", "TEE,3"].join(end);
        assert_eq!(places(&file), rows, "{end:?}");
        assert_eq!(places(&(file + end)), rows, "{end:?}");
    }
    assert_eq!(places("sku,available\r\nCUP,7\rMUG,12\nTEE,3\r"), rows);
    // Empty lines are lines, and no rows.
    assert_eq!(
        places("sku,available\n\nCUP,7\r\r\rMUG,12\r\n\r\nTEE,3\n\n"),
        [row(2, 3, "CUP"), row(3, 6, "MUG"), row(4, 8, "TEE")]
    );
    // A line that ends within quotes is one, too.
    assert_eq!(
        places("sku,\"available\n\"\nCUP,\"7\r\"\nMUG,\"\r\n12\"\nTEE,3\n"),
        [row(2, 3, "CUP"), row(3, 5, "MUG"), row(4, 7, "TEE")]
    );
}

#[test]
fn a_bad_row_is_found_where_lines_end_with_cr() {
    assert!(faults(b"sku,available\rA,1\rB,x\r").starts_with("line 3, column available"));
    assert!(faults(b"sku,available\rA,1\rA,2\r").ends_with("line 3, column sku: A is on line 2 already"));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), start in 0..4_usize, encoded in any::<bool>()) {
        let start = ["", "sku,available\n", "store code\tid\tquantity\n", "{\"sku\":"][start];
        let content = [start.as_bytes(), &bytes].concat();
        let settings = if encoded { in_encoding("windows-1252") } else { FeedSettings::default() };
        if let Ok(feed) = read(&content, &settings) {
            prop_assert!(!feed.rows.is_empty() || !feed.refused.is_empty());
        }
    }
}
