//! The invariants of the design, proved by reading the ledger and the topics back.
//!
//! On purpose not with the program's own audit, nor with the code that writes the events: a proof that shares its
//! mistakes with what it proves is none. Only reading a command is shared; `tests/bad_input` holds that to a table.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use sha2::Digest as _;
use sqlx::Row as _;
use stock_verifier::event::{Record, read_command};

use super::kafka::header;
use super::process::Verifier;
use super::scene::Scene;

/// By when the last transactions have ended: their ends are marked soon after they are answered. One that was left open is
/// ended by Kafka only after ten seconds.
const ENDED_LIMIT: Duration = Duration::from_secs(8);

/// How the records of a scene ended.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Accept events.
    pub accepted: usize,
    /// Reject events.
    pub rejected: usize,
    /// Dead letters.
    pub dead: usize,
    /// Repetitions absorbed.
    pub absorbed: usize,
}

/// A decision as the ledger holds it.
struct Decided {
    accepted: bool,
    digest: Vec<u8>,
    detail: String,
    topic: Option<String>,
    partition: Option<i32>,
    offset: Option<i64>,
    time: String,
}

impl Scene {
    /// Waits until every order is decided and published, stops the verifiers, which must all have lived until then, and
    /// proves everything.
    #[track_caller]
    pub fn finish(&self, verifiers: impl IntoIterator<Item = Verifier>, limit: Duration) -> Ends {
        self.done(limit);
        let mut verifiers: Vec<Verifier> = verifiers.into_iter().collect();
        for verifier in &mut verifiers {
            assert!(verifier.ended().is_none(), "{} did not live through it", verifier.name());
        }
        for verifier in verifiers {
            verifier.stop();
        }
        self.prove()
    }

    /// Proves everything, at rest.
    pub fn prove(&self) -> Ends {
        self.prove_levels();
        self.prove_decisions();
        self.prove_rest();
        self.prove_again();
        self.prove_published()
    }

    /// The program's own word on all six, whatever crashed before: it decides everything again.
    pub fn prove_again(&self) {
        let ended = self.tool(&["audit", "--topics"]).output().expect("the program runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(ended.status.success(), "{}\n{}", text(&ended.stdout), text(&ended.stderr));
    }

    /// 1 and 2: no level below what may be promised; each is the sum of its movements; each balance follows from the one
    /// before. No test lowers a limit again, so that the one there is holds for all movements.
    pub fn prove_levels(&self) {
        for (wrong, sql) in [
            (
                "movements below what may be promised",
                "SELECT count(*) FROM movements JOIN levels USING (sku, location) WHERE balance < -backorder_limit",
            ),
            (
                "movements that do not follow from the one before",
                "SELECT count(*) FROM (
                     SELECT version, quantity, balance, lag(version, 1, 0::bigint) OVER chain AS version_before,
                            lag(balance, 1, 0::bigint) OVER chain AS balance_before
                     FROM movements WINDOW chain AS (PARTITION BY sku, location ORDER BY version)) AS chained
                 WHERE version <> version_before + 1 OR balance <> balance_before + quantity",
            ),
            (
                "levels that are not the sum of their movements",
                "SELECT count(*) FROM levels FULL JOIN (
                     SELECT sku, location, sum(quantity) AS total, max(version) AS last, count(*) AS moves
                     FROM movements GROUP BY sku, location) AS summed USING (sku, location)
                 WHERE available IS DISTINCT FROM total OR version IS DISTINCT FROM last OR version <> moves",
            ),
        ] {
            assert_eq!(self.database.number(sql), 0, "{wrong}");
        }
    }

    /// 3 and 5: accepted lines are movements and the other way round; each rejection was justified, each acceptance
    /// possible, at its ledger sequence. For scenes of plain orders at the default location.
    pub fn prove_decisions(&self) {
        let differing = self.database.number(
            r#"SELECT count(*) FROM (
                   SELECT d.seq, d.id, d.partition, d."offset", line->>'sku' AS sku,
                          coalesce(line->>'location', '') AS location, -(line->>'quantity')::bigint AS quantity, (line->>'balance')::bigint AS balance
                   FROM decisions AS d, jsonb_array_elements(d.detail::jsonb->'lines') AS line
                   WHERE d.accepted AND d.kind = 1) AS lines
               FULL JOIN (SELECT * FROM movements WHERE kind = 1) AS moved USING (seq, id, sku, location)
               WHERE (lines.quantity, lines.balance, lines.partition, lines."offset")
                     IS DISTINCT FROM (moved.quantity, moved.balance, moved.partition, moved."offset")"#,
        );
        assert_eq!(differing, 0, "accepted lines without a movement, or movements without an accepted line");

        let mut levels: HashMap<String, i64> = HashMap::new();
        let rows = self.database.rows(
            "SELECT d.id, d.kind, d.accepted, d.detail, m.sku, m.balance FROM decisions AS d
             LEFT JOIN movements AS m ON d.kind = 10 AND m.kind = 10 AND m.id = d.id ORDER BY d.seq",
        );
        for row in rows {
            let id: String = row.get("id");
            let kind: i16 = row.get("kind");
            if kind == 10 {
                levels.insert(row.get("sku"), row.get("balance"));
                continue;
            }
            assert_eq!(kind, 1, "{id} is no plain order");
            let detail: serde_json::Value = serde_json::from_str(row.get("detail")).expect("JSON");
            let parts = &detail[if row.get("accepted") { "lines" } else { "reasons" }];
            for part in parts.as_array().expect("a list") {
                let Some(sku) = part["sku"].as_str() else {
                    assert_eq!(part["reason"], "invalid_order", "{id}");
                    continue;
                };
                let level = levels.get(sku).copied();
                if row.get("accepted") {
                    let left = level.expect("a known SKU") - part["quantity"].as_i64().expect("a number");
                    assert!(left >= 0, "{id} was accepted beyond the stock of {sku}");
                    assert_eq!(part["balance"], left, "{id} {sku}");
                    levels.insert(sku.to_owned(), left);
                } else if part["reason"] == "unknown_sku" {
                    assert_eq!(level, None, "{id} was rejected for {sku} as unknown");
                } else {
                    assert_eq!(part["reason"], "insufficient_stock", "{id}");
                    assert_eq!(Some(part["available"].as_i64().expect("a number")), level, "{id} {sku}");
                    assert!(
                        part["requested"].as_i64() > level,
                        "{id} was rejected though there was enough {sku}"
                    );
                }
            }
        }
    }

    /// 6: at rest the ledger's position, the committed offset and the end of each partition are one.
    pub fn prove_rest(&self) {
        let orders = self.orders();
        let ends = self.kafka.ends(&orders, "read_uncommitted");
        let committed = self.kafka.committed(self.group(), &orders);
        for (partition, end) in ends.iter().enumerate() {
            let position = self.database.number(&format!(
                "SELECT max(next_offset) FROM positions WHERE topic = '{orders}' AND partition = {partition}"
            ));
            assert_eq!(position, *end, "the ledger's position of partition {partition}");
            assert_eq!(
                committed[partition].unwrap_or(0),
                *end,
                "the committed offset of partition {partition}"
            );
        }
        self.transactions_ended(ENDED_LIMIT);
    }

    fn decisions(&self) -> HashMap<String, Decided> {
        let rows = self.database.rows(
            r#"SELECT id, accepted, digest, detail, topic, partition, "offset",
                      to_char(decided_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS time
               FROM decisions WHERE kind = 1"#,
        );
        rows.iter()
            .map(|row| {
                let decided = Decided {
                    accepted: row.get("accepted"),
                    digest: row.get("digest"),
                    detail: row.get("detail"),
                    topic: row.get("topic"),
                    partition: row.get("partition"),
                    offset: row.get("offset"),
                    time: row.get("time"),
                };
                (row.get("id"), decided)
            })
            .collect()
    }

    /// 4: each record ended as exactly one of a result, a dead letter and an absorbed repetition, and each result
    /// says byte for byte what the ledger says.
    pub fn prove_published(&self) -> Ends {
        let decisions = self.decisions();
        let topics = ["orders", "accepted", "rejected", "dead"].map(|topic| self.topic(topic));
        let [orders, accepted, rejected, letters] =
            self.kafka.read_all(topics.each_ref().map(String::as_str));
        let mut published: BTreeMap<String, Record> = BTreeMap::new();
        for (records, kind) in [(accepted, "order.accepted"), (rejected, "order.rejected")] {
            for record in records {
                assert_eq!(header(&record, "ce_type"), Some(kind));
                let id = header(&record, "ce_id").expect("a ce_id").to_owned();
                if let Some(first) = published.insert(id.clone(), record.clone()) {
                    panic!("{id} was published twice: {} and {}", first.source, record.source);
                }
            }
        }
        let mut dead: BTreeMap<(String, String), Record> = BTreeMap::new();
        for record in letters {
            let name_of =
                |name: &str| header(&record, &format!("__connect.errors.{name}")).expect(name).to_owned();
            assert_eq!(name_of("topic"), self.orders());
            let source = (name_of("partition"), name_of("offset"));
            assert!(dead.insert(source.clone(), record).is_none(), "two dead letters of {source:?}");
        }
        let mut ends = Ends::default();
        for record in orders {
            let at = &record.source;
            let mut letter = |code: Option<&str>| {
                let source = (at.at.partition.to_string(), at.offset.to_string());
                let letter = dead.remove(&source).unwrap_or_else(|| panic!("no dead letter of {at}"));
                let found = header(&letter, "__connect.errors.exception.class.name");
                assert!(code.is_none_or(|code| found == Some(code)), "{at} is a dead letter for {found:?}");
                let bytes = record.value.as_deref().unwrap_or_default();
                match header(&letter, "stock_verifier.omitted.value.sha256") {
                    Some(digest) => {
                        assert_eq!(letter.value, None, "the dead letter of {at}");
                        assert_eq!(digest, format!("{:x}", sha2::Sha256::digest(bytes)), "of {at}");
                        let size = header(&letter, "stock_verifier.omitted.value.bytes");
                        assert_eq!(size, Some(&*bytes.len().to_string()), "of {at}");
                    }
                    None => assert_eq!(letter.value, record.value, "the dead letter of {at}"),
                }
                if header(&letter, "stock_verifier.omitted.key.sha256").is_none() {
                    assert_eq!(letter.key, record.key, "the dead letter of {at}");
                }
                ends.dead += 1;
            };
            let command = record.check_key().and_then(|()| read_command(&record));
            let Ok(command) = command else {
                letter(None);
                continue;
            };
            let id = command.key.id.as_str();
            let decided = decisions.get(id).unwrap_or_else(|| panic!("{at} ({id}) was never decided"));
            let is_source = decided.topic.as_deref() == Some(&*at.at.topic)
                && decided.partition == Some(at.at.partition)
                && decided.offset == Some(at.offset.0);
            if is_source {
                assert_eq!(decided.digest, command.digest.0, "{at} was decided for other content");
                let result = published.remove(&format!("order.created/{id}"));
                let result = result.unwrap_or_else(|| panic!("{at} ({id}) was decided but not published"));
                prove_result(&record, id, decided, &result);
                if decided.accepted { ends.accepted += 1 } else { ends.rejected += 1 }
            } else if decided.digest == command.digest.0 {
                ends.absorbed += 1;
            } else {
                letter(Some("order_conflict"));
            }
        }
        assert!(
            published.is_empty(),
            "results of no order: {:?}",
            published.keys().take(5).collect::<Vec<_>>()
        );
        assert!(dead.is_empty(), "dead letters of no record: {:?}", dead.keys().take(5).collect::<Vec<_>>());
        assert_eq!(ends.accepted + ends.rejected, decisions.len(), "each decision has one result");
        ends
    }
}

/// A result says what the ledger says, in the contract's bytes.
fn prove_result(order: &Record, id: &str, decided: &Decided, result: &Record) {
    let kind = if decided.accepted { "order.accepted" } else { "order.rejected" };
    let detail = decided.detail.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let json = |text: &str| serde_json::Value::from(text).to_string();
    let expected = format!(
        r#"{{"type":"{kind}","order_id":{},{},"source":{{"topic":{},"partition":{},"offset":{}}}}}"#,
        json(id),
        detail.expect("an object"),
        json(&order.source.at.topic),
        order.source.at.partition,
        order.source.offset,
    );
    let value = result.value.as_deref().map(String::from_utf8_lossy);
    assert_eq!(value.as_deref(), Some(expected.as_str()), "the result of {id}");
    assert_eq!(result.key.as_deref(), Some(order.key.as_deref().unwrap_or(id.as_bytes())), "the key of {id}");
    for (name, expected) in [
        ("ce_specversion", "1.0"),
        ("ce_source", "stock-verifier"),
        ("ce_type", kind),
        ("ce_time", &decided.time),
        ("content-type", "application/json"),
    ] {
        assert_eq!(header(result, name), Some(expected), "{name} of {id}");
    }
}
