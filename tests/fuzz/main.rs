//! The whole of reading, fuzzed: decoding by schemas, unwrapping, mapping, parsing. Whatever bytes come, nothing panics, each ends
//! soon, and none takes more memory than it may.
//!
//! ```sh
//! cargo tests --test fuzz                      # some seconds, as in every run of the tests
//! FUZZ_SECONDS=60 cargo tests --test fuzz      # as CI does
//! FUZZ_SECONDS=3600 cargo tests --test fuzz    # by hand, before a release
//! FUZZ_SEED=7 cargo tests --test fuzz          # the same inputs once more
//! ```
//!
//! It runs on the stable compiler. cargo-fuzz wants a nightly one and all of the program built once more with sanitizers,
//! librdkafka's C among it, for which CI has no time. So no coverage leads it: instead, an input that ends as none did
//! before is kept, and changed further. It begins with what is really sent: the examples of the documents, the samples of
//! mappings, and values in Avro and Protobuf. A binary of its own, since it counts what is allocated.

// A test that cannot go on has failed; the backtrace says where.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod mutate;
#[path = "../support/registry.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod registry;
mod samples;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use stock_verifier::config::RegistryArgs;
use stock_verifier::event::{
    Fault, Header, Reading, Record, dead_letter, read_command, read_record, read_strictly,
};
use stock_verifier::ledger::{Offset, Source, TopicPartition};
use stock_verifier::mapping::{Mapping, PRESETS, preset};
use stock_verifier::registry::Registry;

use self::samples::Input;

/// How long it runs where nothing is said.
const USUAL_SECONDS: u64 = 4;
/// Fewest inputs, however long they take on a busy machine: the samples, and what reaches far.
const LEAST_INPUTS: u64 = 2_000;
/// Longest that one input may take. Most take microseconds; a busy machine may take a thread away for much longer, so what
/// took too long is tried again.
const MOST_TIME: Duration = Duration::from_millis(500);
const TRIES: usize = 3;
/// Most memory at once: so many times an input's own size, and what small ones take.
const MOST_TIMES: u64 = 64;
const MOST_BESIDES: u64 = 1 << 20;
/// The same of one that a schema is named for, which may say of itself that it is long: as JSON it has 16 MiB at most.
const MOST_DECODED: u64 = 160 << 20;
/// Most inputs that are kept.
const MOST_KEPT: usize = 20_000;
/// Longest input that is made: some pages, so that many are made. Depth needs no more.
pub const MOST_BYTES: usize = 64 << 10;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// What reads an input.
struct Readers {
    registry: Arc<Registry>,
    /// The built-in mappings, and one that does little with much: an input is mapped by one of them.
    mappings: Vec<Mapping>,
}

impl Readers {
    fn new(registry: Arc<Registry>) -> Self {
        let given = PRESETS.iter().map(|one| (one.name, preset(one.name, Some("{shop}-{id}")).unwrap()));
        let all =
            given.chain([("paths", "[paths] | {type: \"order.created\", order_id: length}".to_owned())]);
        Self { registry, mappings: all.map(|(name, text)| Mapping::compile(name, &text).unwrap()).collect() }
    }

    /// By the input alone, so that it is read in the same way once more.
    fn mapping_of(&self, input: &Input) -> &Mapping {
        let sum = input.value.iter().fold(input.len(), |sum, byte| sum.wrapping_mul(31) ^ u64::from(*byte));
        &self.mappings[usize::try_from(sum % self.mappings.len() as u64).unwrap()]
    }
}

/// What a fault says, without numbers and names, which differ from input to input.
fn in_short(fault: &Fault) -> String {
    assert!(fault.detail.chars().count() <= 401, "{fault}");
    fault.detail.chars().filter(|letter| letter.is_ascii_lowercase() || *letter == ' ').take(60).collect()
}

/// What became of an input, in short: the same for those that ended in the same place.
fn ending(readers: &Readers, input: &Input) -> String {
    let mut record = Record {
        source: Source { at: TopicPartition::new("orders", 0), offset: Offset(0) },
        key: Some(b"k".to_vec()),
        value: Some(input.value.clone()),
        headers: input
            .headers
            .iter()
            .map(|(name, value)| Header { name: name.clone(), value: Some(value.clone()) })
            .collect(),
        timestamp_ms: Some(0),
        decoded: None,
    };
    // A schema that is not known is asked for elsewhere: here the value stays as it is.
    let is_decoded = readers.registry.decode(&mut record).is_ok() && record.decoded.is_some();
    let strict = read_strictly(&record).is_ok();
    let mapping = readers.mapping_of(input);
    let mapped = match read_record(&record, Some(mapping)) {
        Reading::Command(command) => {
            assert!(!command.key.id.as_str().is_empty());
            command.key.kind.name().to_owned()
        }
        Reading::Ignored => "ignored".to_owned(),
        Reading::Faulty(fault) => in_short(&fault),
        Reading::TooSlow => panic!("{} takes too long", mapping.name()),
    };
    let ending = match read_command(&record) {
        Ok(command) => {
            assert!(!command.key.id.as_str().is_empty());
            format!("{:?}", std::mem::discriminant(&command.action)) + command.key.kind.name()
        }
        Err(fault) => {
            let short = in_short(&fault);
            let letter = dead_letter(record, &fault, "read");
            assert_eq!(letter.value.as_deref(), Some(&*input.value));
            short
        }
    };
    format!("{is_decoded} {strict} {ending}, {}: {mapped}", mapping.name())
}

/// Reads an input and looks at what that took.
fn look(readers: &Readers, input: &Input) -> String {
    let limit = if input.is_framed() { MOST_DECODED } else { MOST_BESIDES + MOST_TIMES * input.len() };
    let mut took = Vec::new();
    for _ in 0..TRIES {
        let begun = Instant::now();
        let mut ended = String::new();
        let memory = allocation_counter::measure(|| ended = ending(readers, input));
        assert!(memory.bytes_max <= limit, "took {} bytes at once, {limit} are allowed", memory.bytes_max);
        took.push(begun.elapsed());
        if begun.elapsed() <= MOST_TIME {
            return ended;
        }
    }
    panic!("took {took:?}");
}

#[test]
fn whatever_comes_is_read_or_refused_soon_and_in_little_memory() {
    let seconds = setting("FUZZ_SECONDS").unwrap_or(USUAL_SECONDS);
    let seed = setting("FUZZ_SEED").unwrap_or_else(|| rand::rng().random());
    println!("FUZZ_SEED={seed}");
    let server = registry::Registry::start(None);
    samples::register(&server);
    let url = Some(url::Url::parse(&(server.url() + "/")).unwrap());
    let registry = Registry::named(&RegistryArgs { schema_registry_url: url, ..RegistryArgs::default() })
        .unwrap()
        .unwrap();
    for id in samples::SCHEMAS {
        registry.fetch(id).unwrap();
    }
    let readers = Readers::new(registry);

    let mut random = StdRng::seed_from_u64(seed);
    let mut kept = samples::all();
    let begun_with = kept.len();
    assert!(begun_with > 60, "the samples are not where they were: {begun_with}");
    let (mut endings, mut inputs) = (HashSet::new(), 0_u64);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(seconds) || inputs < LEAST_INPUTS {
        let number = usize::try_from(inputs).unwrap();
        // First each sample as it is.
        let input =
            if number < begun_with { kept[number].clone() } else { mutate::one_of(&kept, &mut random) };
        let Ok(ending) = catch_unwind(AssertUnwindSafe(|| look(&readers, &input))) else {
            panic!("FUZZ_SEED={seed}, input {inputs}: {}", input.shown());
        };
        inputs += 1;
        if endings.insert(ending) && kept.len() < MOST_KEPT && number >= begun_with {
            kept.push(input);
        }
    }
    println!("{inputs} inputs in {:?} ended in {} ways", begun.elapsed(), endings.len());
    // That it reaches far more than the first line of reading.
    assert!(endings.len() > 100, "{} ways", endings.len());
}
