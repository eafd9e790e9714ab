//! The rule under everything that can happen, in any order: orders, gates and a Redis that die, levels and results that
//! come late and in any order.

use proptest::prelude::*;

use super::*;
use crate::ledger::{Command, Limits, Location, Quantity, Terms};

const ORDERS: u8 = 24;
const ITEMS: u8 = 3;
const GATES: usize = 2;
/// Nobody is still sending an order after so long.
const RESEND_AFTER: Millis = 10;

fn item(number: u8) -> Item {
    let sku = Sku::new(&format!("SKU-{}", number / 2)).unwrap();
    // Two of the three are one SKU at two locations.
    Item { sku, location: (number % 2 == 1).then(|| Location::new("berlin").unwrap()) }
}

fn id(number: u8) -> Id {
    Id::new(&format!("o-{number:02}")).unwrap()
}

/// An order: always the same for its number and variant.
fn asked(number: u8, variant: u8) -> Asked {
    let pieces = |many: u8| Quantity::new(i64::from(many)).unwrap();
    let mut lines = vec![(item(number % ITEMS), pieces(1 + variant % 2))];
    if number.is_multiple_of(4) {
        lines.push((item((number + 1) % ITEMS), pieces(1)));
    }
    let command = Command::order_created(id(number), lines, Terms::default());
    let crate::ledger::Action::Take { lines, .. } = command.action else { unreachable!("an order takes") };
    Asked { id: command.key.id, digest: command.digest, lines, all_or_none: true, buyer: None }
}

/// What may happen. A number chooses which of those that it can happen to.
#[derive(Debug, Clone)]
enum Event {
    Ask { gate: usize, number: u8, variant: u8 },
    Send { which: usize, end: SendEnd },
    NoteSent { which: usize },
    Decide { many: usize },
    Publish { many: usize },
    ReadResults { gate: usize, many: usize },
    BeginRead { gate: usize, item: u8 },
    Read { which: usize },
    StoreLevel { which: usize },
    Restock { item: u8, by: i64 },
    BeginEnding { gate: usize, which: usize },
    End { which: usize },
    Time { by: Millis },
    Forget { number: u8 },
    BeginFilling,
    Fill,
    KillGate { gate: usize },
    SaveRedis,
    RestoreRedis { which: usize },
    EmptyRedis,
}

#[derive(Debug, Clone, Copy)]
enum SendEnd {
    /// Kafka has it, and the gate is told so.
    Written,
    /// Kafka has it, and the gate is not told.
    WrittenUnknown,
    /// Kafka does not have it, and the gate cannot know.
    LostUnknown,
    /// It was never handed to the producer.
    NeverHanded,
}

/// An order that a gate let in.
#[derive(Debug, Clone)]
struct Flying {
    gate: usize,
    asked: Asked,
    /// The moment of an entry that is new.
    new_at: Option<Millis>,
    handed: bool,
}

/// A level on its way.
#[derive(Debug, Clone)]
struct Reading {
    gate: usize,
    item: Item,
    closes: BTreeSet<Id>,
    level: Option<Level>,
}

/// An entry that is to end by its bound.
#[derive(Debug, Clone)]
struct Ending {
    gate: usize,
    entry: Unsettled,
    end: usize,
}

/// The ledger, Kafka, Redis and the gates.
struct World {
    now: Millis,
    levels: BTreeMap<Item, Level>,
    decisions: BTreeMap<Id, (Digest, bool)>,
    orders: Vec<Asked>,
    applied: usize,
    /// Decided, and published up to here.
    results: Vec<(Id, bool)>,
    published: usize,
    cache: CachedStock,
    saved: Vec<CachedStock>,
    read: [usize; GATES],
    flying: Vec<Flying>,
    reading: Vec<Reading>,
    ending: Vec<Ending>,
    filling: Option<(usize, usize)>,
    /// Redis lost something, so that more than there is may have been let in.
    redis_lost: bool,
    /// Orders let in as enough that the ledger rejected.
    wrongly_admitted: usize,
}

fn results_partition() -> TopicPartition {
    TopicPartition::new("stock.accepted", 0)
}

fn offset(index: usize) -> NextOffset {
    NextOffset(i64::try_from(index).unwrap())
}

impl World {
    fn new() -> Self {
        let level = Level { available: 6, version: 1, limits: Limits::default() };
        let mut world = Self {
            now: 1_000,
            levels: (0..ITEMS).map(|number| (item(number), level)).collect(),
            decisions: BTreeMap::new(),
            orders: Vec::new(),
            applied: 0,
            results: Vec::new(),
            published: 0,
            cache: CachedStock::default(),
            saved: Vec::new(),
            read: [0; GATES],
            flying: Vec::new(),
            reading: Vec::new(),
            ending: Vec::new(),
            filling: None,
            redis_lost: false,
            wrongly_admitted: 0,
        };
        world.happen(&Event::BeginFilling);
        world.happen(&Event::Fill);
        assert!(world.cache.is_filled());
        world
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Ask { gate, number, variant } => {
                let asked = asked(*number, *variant);
                let new_at = match self.cache.admit(&asked, self.now, RESEND_AFTER) {
                    Admission::Admitted { at, .. } => Some(at),
                    Admission::Resend { .. } => None,
                    _ => return,
                };
                self.flying.push(Flying { gate: *gate, asked, new_at, handed: false });
            }
            Event::Send { which, end } => {
                let Some(index) = nth(&self.flying, *which, |flying| !flying.handed) else { return };
                let flying = &mut self.flying[index];
                match end {
                    SendEnd::Written => {
                        flying.handed = true;
                        self.orders.push(flying.asked.clone());
                    }
                    SendEnd::WrittenUnknown => {
                        self.orders.push(self.flying.remove(index).asked);
                    }
                    SendEnd::LostUnknown => drop(self.flying.remove(index)),
                    SendEnd::NeverHanded => {
                        let flying = self.flying.remove(index);
                        if let Some(at) = flying.new_at {
                            self.cache.give_back(&flying.asked.id, at);
                        }
                    }
                }
            }
            Event::NoteSent { which } => {
                let Some(index) = nth(&self.flying, *which, |flying| flying.handed) else { return };
                let asked = self.flying.remove(index).asked;
                self.cache.sent(&asked.id, &asked.digest);
            }
            Event::Decide { many } => (0..*many).for_each(|_| self.decide()),
            Event::Publish { many } => self.published = self.results.len().min(self.published + many),
            Event::ReadResults { gate, many } => self.read_results(*gate, *many),
            Event::BeginRead { gate, item: number } => {
                let item = item(*number);
                let closes = self.cache.waiting(&item);
                self.reading.push(Reading { gate: *gate, item, closes, level: None });
            }
            Event::Read { which } => {
                let Some(index) = nth(&self.reading, *which, |reading| reading.level.is_none()) else {
                    return;
                };
                self.reading[index].level = Some(self.levels[&self.reading[index].item]);
            }
            Event::StoreLevel { which } => {
                let Some(index) = nth(&self.reading, *which, |reading| reading.level.is_some()) else {
                    return;
                };
                let Reading { item, closes, level, .. } = self.reading.remove(index);
                self.cache.store_level(&item, level, &closes);
            }
            Event::Restock { item: number, by } => {
                let level = self.levels.get_mut(&item(*number)).unwrap();
                level.available = (level.available + by).max(0);
                level.version += 1;
            }
            Event::BeginEnding { gate, which } => {
                let unsettled = self.cache.unsettled(self.now.saturating_sub(RESEND_AFTER));
                // The bound is longer than any producer tries: nobody has it in hand any more.
                let over = |entry: &Unsettled| !self.flying.iter().any(|flying| flying.asked.id == entry.id);
                let Some(index) = nth(&unsettled, *which, over) else { return };
                let (entry, end) = (unsettled[index].clone(), self.orders.len());
                self.ending.push(Ending { gate: *gate, entry, end });
            }
            Event::End { which } => {
                let applied = self.applied;
                let Some(index) = nth(&self.ending, *which, |ending| ending.end <= applied) else { return };
                let Ending { entry, .. } = self.ending.remove(index);
                self.end(&entry);
            }
            Event::Time { by } => self.now += by,
            Event::Forget { number } => drop(self.cache.forget(&id(*number))),
            Event::BeginFilling => {
                if !self.cache.is_filled() {
                    self.filling = Some((self.published, self.orders.len()));
                }
            }
            Event::Fill => self.fill(),
            Event::KillGate { gate } => self.kill(*gate),
            Event::SaveRedis => self.saved.push(self.cache.clone()),
            Event::RestoreRedis { which } => {
                if let Some(index) = nth(&self.saved, *which, |_| true) {
                    self.cache = self.saved[index].clone();
                    self.redis_lost = true;
                }
            }
            Event::EmptyRedis => {
                self.cache = CachedStock::default();
                self.redis_lost = true;
            }
        }
    }

    /// The ledger takes its next order: the only one who decides.
    fn decide(&mut self) {
        let Some(order) = self.orders.get(self.applied).cloned() else { return };
        self.applied += 1;
        if self.decisions.contains_key(&order.id) {
            return;
        }
        let enough = order.lines.iter().all(|line| self.levels[&line.item].available >= line.quantity);
        if enough {
            for line in &order.lines {
                let level = self.levels.get_mut(&line.item).unwrap();
                level.available -= line.quantity;
                level.version += 1;
            }
        } else {
            self.wrongly_admitted += 1;
        }
        self.decisions.insert(order.id.clone(), (order.digest, enough));
        self.results.push((order.id, enough));
    }

    fn read_results(&mut self, gate: usize, many: usize) {
        let from = self.read[gate];
        let next = self.published.min(from + many);
        if next <= from {
            return;
        }
        let results = self.results[from..next].to_vec();
        match self.cache.settle(&results_partition(), offset(from), offset(next), &results) {
            Settled::Applied | Settled::Already => self.read[gate] = next,
            Settled::Gap(NextOffset(stored)) => self.read[gate] = usize::try_from(stored).unwrap(),
            Settled::Empty => {}
        }
    }

    fn end(&mut self, entry: &Unsettled) {
        match self.decisions.get(&entry.id) {
            Some((digest, accepted)) if *digest == entry.digest => {
                self.cache.settle_found(&entry.id, &entry.digest, *accepted);
            }
            _ => drop(self.cache.give_back(&entry.id, entry.at)),
        }
    }

    fn fill(&mut self) {
        let Some((results, orders)) = self.filling.take_if(|(_, orders)| self.applied >= *orders) else {
            return;
        };
        let _ = orders;
        self.cache.begin_offset(&results_partition(), offset(results));
        for (item, level) in &self.levels {
            self.cache.store_level(item, Some(*level), &BTreeSet::new());
        }
        self.cache.set_filled();
    }

    fn kill(&mut self, gate: usize) {
        self.flying.retain(|flying| flying.gate != gate);
        self.reading.retain(|reading| reading.gate != gate);
        self.ending.retain(|ending| ending.gate != gate);
        if let Some(NextOffset(stored)) = self.cache.offset(&results_partition()) {
            self.read[gate] = usize::try_from(stored).unwrap();
        }
    }

    /// Nothing new comes, and everything under way comes to its end.
    fn come_to_rest(&mut self) {
        self.flying.clear();
        self.happen(&Event::BeginFilling);
        self.happen(&Event::Decide { many: self.orders.len() });
        self.happen(&Event::Publish { many: self.results.len() });
        self.happen(&Event::Fill);
        self.now += RESEND_AFTER;
        // The levels that were under way come last of all: the newest first.
        let late = std::mem::take(&mut self.reading);
        for _ in 0..=GATES {
            // First to where Redis says that it is, then to the end.
            (0..GATES).for_each(|gate| self.read_results(gate, self.results.len()));
        }
        for entry in self.cache.unsettled(self.now) {
            self.end(&entry);
        }
        for number in 0..ITEMS {
            let item = item(number);
            let closes = self.cache.waiting(&item);
            self.cache.store_level(&item, Some(self.levels[&item]), &closes);
        }
        for Reading { item, closes, level, .. } in late.into_iter().rev() {
            if level.is_some() {
                self.cache.store_level(&item, level, &closes);
            }
        }
    }
}

/// The index of one of those that it can happen to.
fn nth<T>(all: &[T], which: usize, can: impl Fn(&T) -> bool) -> Option<usize> {
    let found: Vec<usize> = (0..all.len()).filter(|index| can(&all[*index])).collect();
    (!found.is_empty()).then(|| found[which % found.len()])
}

/// What happens while Redis loses nothing.
fn usual() -> impl Strategy<Value = Event> {
    let gate = 0..GATES;
    let which = 0..8_usize;
    let end = prop_oneof![
        6 => Just(SendEnd::Written),
        1 => Just(SendEnd::WrittenUnknown),
        1 => Just(SendEnd::LostUnknown),
        1 => Just(SendEnd::NeverHanded),
    ];
    prop_oneof![
        8 => (gate.clone(), 0..ORDERS, 0..2_u8)
            .prop_map(|(gate, number, variant)| Event::Ask { gate, number, variant }),
        8 => (which.clone(), end).prop_map(|(which, end)| Event::Send { which, end }),
        4 => which.clone().prop_map(|which| Event::NoteSent { which }),
        4 => (1..3_usize).prop_map(|many| Event::Decide { many }),
        4 => (1..3_usize).prop_map(|many| Event::Publish { many }),
        6 => (gate.clone(), 1..3_usize).prop_map(|(gate, many)| Event::ReadResults { gate, many }),
        4 => (gate.clone(), 0..ITEMS).prop_map(|(gate, item)| Event::BeginRead { gate, item }),
        4 => which.clone().prop_map(|which| Event::Read { which }),
        4 => which.clone().prop_map(|which| Event::StoreLevel { which }),
        1 => (0..ITEMS, 1..4_i64).prop_map(|(item, by)| Event::Restock { item, by }),
        2 => (gate.clone(), which.clone()).prop_map(|(gate, which)| Event::BeginEnding { gate, which }),
        2 => which.prop_map(|which| Event::End { which }),
        2 => (1..RESEND_AFTER).prop_map(|by| Event::Time { by }),
        1 => (0..ORDERS).prop_map(|number| Event::Forget { number }),
        1 => gate.prop_map(|gate| Event::KillGate { gate }),
    ]
}

/// All that happens.
fn anything() -> impl Strategy<Value = Event> {
    prop_oneof![
        30 => usual(),
        1 => (0..ITEMS, -4..0_i64).prop_map(|(item, by)| Event::Restock { item, by }),
        2 => Just(Event::SaveRedis),
        1 => (0..8_usize).prop_map(|which| Event::RestoreRedis { which }),
        1 => Just(Event::EmptyRedis),
        2 => Just(Event::BeginFilling),
        2 => Just(Event::Fill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn while_redis_loses_nothing_what_is_let_in_is_there(
        events in proptest::collection::vec(usual(), 1..160)
    ) {
        let mut world = World::new();
        for event in &events {
            world.happen(event);
            prop_assert_eq!(world.wrongly_admitted, 0, "after {:?}", event);
            for number in 0..ITEMS {
                let item = item(number);
                let amount = world.cache.amount(&item).unwrap();
                prop_assert!(amount <= world.levels[&item].available, "{amount} of {item:?} after {event:?}");
            }
        }
        prop_assert!(!world.redis_lost);
    }

    #[test]
    fn whatever_happens_at_rest_the_cached_amount_is_the_ledgers(
        events in proptest::collection::vec(anything(), 1..200)
    ) {
        let mut world = World::new();
        for event in &events {
            world.happen(event);
            prop_assert!(world.levels.values().all(|level| level.available >= 0), "oversold");
        }
        world.come_to_rest();
        for (item, level) in &world.levels {
            prop_assert_eq!(world.cache.amount(item), Some(level.available), "{:?}", item);
        }
        for (id, entry) in world.cache.entries() {
            prop_assert!(entry.open.is_empty(), "{} is {:?}", id, entry);
        }
    }
}

/// A world in which each order of these numbers is let in, and nothing else has happened yet.
fn admitted(numbers: &[u8]) -> World {
    let mut world = World::new();
    for number in numbers {
        world.happen(&Event::Ask { gate: 0, number: *number, variant: 0 });
    }
    assert_eq!(world.flying.len(), numbers.len());
    world
}

#[test]
fn a_level_whose_read_began_before_a_result_came_does_not_close_its_entry() {
    let mut world = admitted(&[1]);
    let at = item(1);
    world.happen(&Event::Send { which: 0, end: SendEnd::Written });
    world.happen(&Event::BeginRead { gate: 0, item: 1 });
    world.happen(&Event::Read { which: 0 });
    world.happen(&Event::Decide { many: 1 });
    world.happen(&Event::Publish { many: 1 });
    world.happen(&Event::ReadResults { gate: 1, many: 1 });
    world.happen(&Event::StoreLevel { which: 0 });
    assert_eq!(
        world.cache.amount(&at),
        Some(5),
        "the level from before the sale is stored, and still less the piece"
    );
    assert_eq!(world.cache.entry(&id(1)).unwrap().standing, Standing::Accepted);
    world.happen(&Event::BeginRead { gate: 1, item: 1 });
    world.happen(&Event::Read { which: 0 });
    world.happen(&Event::StoreLevel { which: 0 });
    assert_eq!(world.cache.amount(&at), Some(5));
    assert_eq!(world.cache.entry(&id(1)).unwrap().standing, Standing::Closed);
}

#[test]
fn a_line_whose_item_the_ledger_does_not_know_waits_for_no_level() {
    let mut cache = World::new().cache;
    let unknown = Item { sku: Sku::new("NOPE").unwrap(), location: None };
    let mut partial = asked(1, 0);
    let line = OrderLine { item: unknown.clone(), ..partial.lines[0].clone() };
    partial.lines.push(line);
    partial.all_or_none = false;
    let admitted = Admission::Admitted { undecided: true, at: 1_000 };
    assert_eq!(cache.admit(&partial, 1_000, RESEND_AFTER), admitted);
    cache.settle_found(&partial.id, &partial.digest, true);
    let closes = cache.waiting(&unknown);
    assert_eq!(closes.len(), 1);
    cache.store_level(&unknown, None, &closes);
    assert_eq!((cache.amount(&unknown), cache.pending(&unknown)), (None, 0));
    assert_eq!(cache.entry(&partial.id).unwrap().standing, Standing::Accepted, "another line waits");
    let known = item(1);
    let closes = cache.waiting(&known);
    cache.store_level(&known, cache.level(&known), &closes);
    assert_eq!(cache.entry(&partial.id).unwrap().standing, Standing::Closed);
}

#[test]
fn who_asks_again_is_answered_and_other_content_is_refused() {
    let mut world = admitted(&[1]);
    let (same, other) = (asked(1, 0), asked(1, 1));
    assert_eq!(world.cache.admit(&same, world.now, RESEND_AFTER), Admission::Sending);
    assert_eq!(world.cache.admit(&other, world.now, RESEND_AFTER), Admission::Conflict);
    let later = world.now + RESEND_AFTER;
    assert_eq!(world.cache.admit(&same, later, RESEND_AFTER), Admission::Resend { undecided: false });
    assert_eq!(world.cache.admit(&same, later, RESEND_AFTER), Admission::Sending, "one sends it again");
    assert!(!world.cache.give_back(&same.id, world.now), "it was handed over since");
    world.cache.sent(&same.id, &same.digest);
    assert_eq!(world.cache.admit(&same, later, RESEND_AFTER), Admission::Sent { undecided: false });
    world.cache.settle_found(&same.id, &same.digest, false);
    assert_eq!(world.cache.admit(&same, later, RESEND_AFTER), Admission::Decided);
    assert_eq!(world.cache.amount(&item(1)), Some(6), "given back, once");
    world.cache.settle_found(&same.id, &same.digest, false);
    assert_eq!(world.cache.amount(&item(1)), Some(6));
}

#[test]
fn a_buyer_has_what_is_allowed_in_a_time_and_what_was_rejected_does_not_count() {
    let mut world = World::new();
    let sku = item(0).sku;
    let buyer = Some(BuyerLimit { pieces: 2, window_ms: 1_000 });
    world.cache.set_sale(sku.clone(), Sale { opens_at: Some(2_000), closed: false, buyer });
    let by = |number, buyer: Option<&str>| Asked { buyer: buyer.map(str::to_owned), ..asked(number, 0) };
    let not_open = Admission::NotOpen { sku: sku.clone(), opens_at: Some(2_000) };
    assert_eq!(world.cache.admit(&by(1, Some("ann")), 1_999, 0), not_open);
    assert_eq!(world.cache.admit(&by(1, None), 2_000, 0), Admission::BuyerMissing { sku: sku.clone() });
    let admitted = |at| Admission::Admitted { undecided: false, at };
    // The SKU's two locations count together.
    assert_eq!(world.cache.admit(&by(1, Some("ann")), 2_000, 0), admitted(2_000));
    assert_eq!(world.cache.admit(&by(3, Some("ann")), 2_100, 0), admitted(2_100));
    let no_more = Admission::BuyerLimit { sku: sku.clone(), left: 0 };
    assert_eq!(world.cache.admit(&by(6, Some("ann")), 2_999, 0), no_more);
    assert_eq!(world.cache.admit(&by(6, Some("bob")), 2_999, 0), admitted(2_999));
    assert_eq!(world.cache.admit(&by(7, Some("ann")), 3_000, 0), admitted(3_000), "the first was long ago");
    world.cache.settle_found(&id(3), &asked(3, 0).digest, false);
    assert_eq!(world.cache.admit(&by(9, Some("ann")), 3_050, 0), admitted(3_050), "the second was rejected");
    world.cache.set_sale(sku.clone(), Sale { closed: true, ..Sale::default() });
    assert_eq!(world.cache.admit(&by(10, Some("eve")), 9_000, 0), Admission::NotOpen { sku, opens_at: None });
}

/// An order of one line that takes what there is.
fn partial(number: u8, item: &Item, pieces: &[i64]) -> Asked {
    let lines = pieces.iter().map(|pieces| (item.clone(), Quantity::new(*pieces).unwrap())).collect();
    let command = Command::order_created(id(number), lines, Terms::default());
    let crate::ledger::Action::Take { lines, .. } = command.action else { unreachable!("an order takes") };
    Asked { id: command.key.id, digest: command.digest, lines, all_or_none: false, buyer: None }
}

#[test]
fn for_an_order_that_takes_what_there_is_no_more_is_subtracted_than_one_order_may_take() {
    let mut cache = World::new().cache;
    let at = item(0);
    let limits = Limits { order: Some(2), ..Limits::default() };
    cache.store_level(&at, Some(Level { available: 6, version: 2, limits }), &BTreeSet::new());
    let buyer = Some(BuyerLimit { pieces: 2, window_ms: 1_000 });
    cache.set_sale(at.sku.clone(), Sale { buyer, ..Sale::default() });
    let greedy = Asked { buyer: Some("ann".to_owned()), ..partial(1, &at, &[1_000_000]) };
    let admitted = Admission::Admitted { undecided: true, at: 1_000 };
    assert_eq!(cache.admit(&greedy, 1_000, RESEND_AFTER), admitted, "nor does its buyer have more");
    assert_eq!((cache.amount(&at), cache.pending(&at)), (Some(4), 2));
    // Whoever wants all or none is refused, as by the ledger.
    let all = Asked { all_or_none: true, buyer: Some("bob".to_owned()), ..partial(2, &at, &[3]) };
    let over = LineRefusal::OverLimit { line: 0, limit: 2 };
    assert_eq!(cache.admit(&all, 1_000, RESEND_AFTER), Admission::Short(vec![over]));
    cache.settle_found(&greedy.id, &greedy.digest, false);
    assert_eq!(cache.amount(&at), Some(6), "all that was subtracted is given back");
    let again = Asked { buyer: Some("ann".to_owned()), ..partial(3, &at, &[2]) };
    assert_eq!(cache.admit(&again, 1_000, RESEND_AFTER), admitted, "and what its buyer had");
}

#[test]
fn no_more_is_subtracted_than_numbers_hold() {
    const MOST: i64 = crate::ledger::MAX_QUANTITY;
    let mut cache = World::new().cache;
    let unknown = Item { sku: Sku::new("NOPE").unwrap(), location: None };
    let large = [MOST; 1_000];
    for number in 0..9 {
        let admitted = cache.admit(&partial(number, &unknown, &large), 1_000, RESEND_AFTER);
        assert_eq!(admitted, Admission::Admitted { undecided: true, at: 1_000 });
    }
    let before = cache.clone();
    let no_more = Admission::Short(vec![LineRefusal::Short { line: 0, available: 0 }]);
    assert_eq!(cache.admit(&partial(9, &unknown, &large), 1_000, RESEND_AFTER), no_more);
    assert_eq!(cache, before, "nothing was changed");
    let left = MOST_PENDING - cache.pending(&unknown);
    let last: Vec<i64> = (0..left / MOST).map(|_| MOST).chain([left % MOST]).collect();
    let admitted = cache.admit(&partial(9, &unknown, &last), 1_000, RESEND_AFTER);
    assert_eq!(admitted, Admission::Admitted { undecided: true, at: 1_000 });
    assert_eq!(cache.pending(&unknown), MOST_PENDING);
    assert_eq!(cache.admit(&partial(10, &unknown, &[1]), 1_000, RESEND_AFTER), no_more);
}

#[test]
fn an_order_that_is_sent_again_once_it_is_forgotten_is_no_second_purchase_of_its_buyer() {
    let mut world = World::new();
    let sku = item(0).sku;
    let buyer = Some(BuyerLimit { pieces: 2, window_ms: 1_000_000 });
    world.cache.set_sale(sku.clone(), Sale { buyer, ..Sale::default() });
    let bought = Asked { buyer: Some("ann".to_owned()), ..asked(6, 1) };
    let admitted = |at| Admission::Admitted { undecided: false, at };
    assert_eq!(world.cache.admit(&bought, 1_000, RESEND_AFTER), admitted(1_000));
    assert!(!world.cache.forget(&bought.id), "it is under way");
    world.cache.settle_found(&bought.id, &bought.digest, true);
    let closes = world.cache.waiting(&item(0));
    world.cache.store_level(&item(0), world.cache.level(&item(0)), &closes);
    assert!(world.cache.forget(&bought.id));
    assert_eq!(world.cache.admit(&bought, 2_000, RESEND_AFTER), admitted(2_000), "it is the same purchase");
    let more = Asked { buyer: Some("ann".to_owned()), ..asked(9, 0) };
    assert_eq!(world.cache.admit(&more, 2_000, RESEND_AFTER), Admission::BuyerLimit { sku, left: 0 });
}
