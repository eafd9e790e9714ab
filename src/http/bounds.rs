//! The bounds of the read API: on time, bodies, pages, and how much goes on at once.

use std::time::Duration;

use crate::ledger::MAX_LINES;

/// Longest time for an answer, waiting on purpose aside: above it the database is away, and who asks has given up.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Longest time for the head of a request, and longest a connection may be idle: who sends a byte now and then must not
/// keep a connection.
pub const HEAD_LIMIT: Duration = Duration::from_secs(15);
/// Longest time for a body to come, within [`REQUEST_LIMIT`]: a mebibyte at 2 Mbit/s. It comes before the request is let
/// in, so that who sends slowly takes no place from who asks.
pub const BODY_LIMIT: Duration = Duration::from_secs(5);
const _: () = assert!(BODY_LIMIT.as_secs() < REQUEST_LIMIT.as_secs());
/// Longest that the other side may take nothing of an answer, or not acknowledge it: then its connection ends, which it would
/// else keep for good. A network that is away for less than half a minute is survived.
pub const WRITE_LIMIT: Duration = Duration::from_secs(30);
/// Longest that requests under way are waited for when the process stops.
pub const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Longest `?wait=`: below the minute after which many proxies give a connection up.
pub const MAX_WAIT: Duration = Duration::from_secs(30);

/// Largest body: as many lines as an order may have, with ids of the greatest length, with room.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Bodies that are coming, all together, in KiB: each counts with the length that it states, or with the largest. A quarter
/// of the memory that a verifier is given (docs/operations.md), and room for as many usual ones as there are connections.
pub const MAX_BODIES_KIB: usize = 64 * 1024;
/// Largest head of a request, all headers and the address: three ids of the greatest length, percent-encoded, and a token.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Most items of one batch: as many as an order may have lines.
pub const MAX_ITEMS: usize = MAX_LINES;
/// Most locations of a SKU in one answer. Who has more asks for one at a time.
pub const MAX_LOCATIONS: usize = 1_000;
/// Most movements of one page.
pub const MAX_PAGE: usize = 500;
/// Movements of a page where nothing is said.
pub const DEFAULT_PAGE: usize = 100;

/// Requests that are answered at once. They wait for few connections to the database: more would only wait longer.
pub const MAX_REQUESTS: usize = 256;
/// Who waits for verdicts at once. Each keeps a connection and some hundred bytes, and asks the database nothing.
pub const MAX_WAITERS: usize = 2_048;
/// Most connections at once. Not above half of the files that the process may open: the rest is Kafka's and the database's.
pub const MAX_CONNECTIONS: usize = 4_096;

/// Time between two looks at the verdicts that are waited for: what another instance decides is known after that.
pub const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a look waits for others to join it: those who come together, and a batch's verdicts, are one look.
pub const LOOK_TOGETHER: Duration = Duration::from_millis(5);
/// Orders of one look.
pub const LOOK_AT: usize = 500;

/// Time between two looks at what readiness depends on.
pub const HEALTH_EVERY: Duration = Duration::from_secs(2);
/// Longest time for an answer to that.
pub const HEALTH_LIMIT: Duration = Duration::from_secs(5);

/// Time between two snapshots of the live page: what a person can follow.
pub const LIVE_EVERY: Duration = Duration::from_secs(1);
/// Age up to which a snapshot is new enough for who arrives: the next comes soon, and many who arrive together cost one.
pub const LIVE_FRESH: Duration = Duration::from_millis(500);
/// Most streams of the live page at once. Each keeps a connection and a copy of one snapshot on its way; who looks is a
/// handful of people, not a crowd.
pub const MAX_STREAMS: usize = 64;
/// Longest time for the levels of a snapshot: it does not wait for a database that is slow, and is sent without them.
pub const LIVE_LEVELS_LIMIT: Duration = Duration::from_millis(500);
/// Seconds that a snapshot looks back on.
pub const LIVE_HISTORY: usize = 120;
/// Time between two questions to Kafka who is in the group, while somebody looks.
pub const MEMBERS_EVERY: Duration = Duration::from_secs(5);
/// Longest time for an answer to that: longer than Kafka's client itself waits.
pub const MEMBERS_LIMIT: Duration = Duration::from_secs(10);
