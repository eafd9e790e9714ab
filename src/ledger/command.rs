//! What may be asked of the ledger.

use std::fmt;

use super::{HoldSeconds, Id, Item, Limits, Location, MAX_QUANTITY, Quantity, Reason};

/// What a command is about. Its number is stored: never reuse or change one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i16)]
pub enum CommandKind {
    /// An order asks for stock, for good or as a hold. Its id is the order's.
    OrderCreated = 1,
    /// Everything an order still has is given back. Its id is the order's.
    OrderCancelled = 2,
    /// Some of what an order took comes back. Its id is the return's.
    OrderReturned = 3,
    /// A hold becomes final. Its id is the confirmation's: the order's, unless its producer chose another.
    OrderConfirmed = 4,
    /// A hold is given back before it expires. Its id is the order's.
    OrderReleased = 5,
    /// A hold lasts longer. Its id is the extension's.
    HoldExtended = 6,
    /// A hold's time is over. Its id is the order's.
    HoldExpired = 7,
    /// Stock came in, is counted anew, or is stated. Its id is the adjustment's.
    Adjustment = 10,
}

impl CommandKind {
    /// Every kind there is.
    pub const ALL: [Self; 8] = [
        Self::OrderCreated,
        Self::OrderCancelled,
        Self::OrderReturned,
        Self::OrderConfirmed,
        Self::OrderReleased,
        Self::HoldExtended,
        Self::HoldExpired,
        Self::Adjustment,
    ];

    /// The kind a stored number stands for, if this version knows it.
    #[must_use]
    pub fn from_number(number: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// The number stored in the ledger.
    #[must_use]
    pub fn number(self) -> i16 {
        self as i16
    }

    /// Whether a command of this kind always has its order's id.
    #[must_use]
    pub fn has_id_of_order(self) -> bool {
        match self {
            Self::OrderCreated | Self::OrderCancelled | Self::OrderReleased | Self::HoldExpired => true,
            Self::OrderReturned | Self::OrderConfirmed | Self::HoldExtended | Self::Adjustment => false,
        }
    }

    /// The word that starts the id of its result event.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OrderCreated => "order.created",
            Self::OrderCancelled => "order.cancelled",
            Self::OrderReturned => "order.returned",
            Self::OrderConfirmed => "order.confirmed",
            Self::OrderReleased => "order.released",
            Self::HoldExtended => "order.hold_extended",
            Self::HoldExpired => "hold.expired",
            Self::Adjustment => "adjustment",
        }
    }
}

/// What makes a command the same command when it comes again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandKey {
    /// The id its producer gave it.
    pub id: Id,
    /// What it is about.
    pub kind: CommandKind,
}

impl fmt::Display for CommandKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.name(), self.id)
    }
}

/// A fingerprint of a command's content: equal exactly when the content is.
///
/// The first 16 bytes of BLAKE3, so a collision cannot be made on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 16]);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Digest {
    /// Starts a fingerprint of one type of content.
    fn builder(content_type: &str) -> DigestBuilder {
        let mut builder = DigestBuilder(Vec::with_capacity(DIGEST_BUFFER));
        builder.text(content_type);
        builder
    }

    /// That of a value which is refused for its content.
    fn of_invalid(value: &[u8]) -> Self {
        Self::builder("invalid").bytes(value).finish()
    }
}

/// Room for the content of an order of usual size.
const DIGEST_BUFFER: usize = 256;

/// Gathers content for a [`Digest`]. Lengths count, so that moving a byte from one part to the next shows. Gathered
/// first and hashed at once: each small part hashed by itself costs as much as all together.
struct DigestBuilder(Vec<u8>);

impl DigestBuilder {
    fn bytes(&mut self, part: &[u8]) -> &mut Self {
        self.0.extend_from_slice(&(part.len() as u64).to_le_bytes());
        self.0.extend_from_slice(part);
        self
    }

    fn text(&mut self, part: &str) -> &mut Self {
        self.bytes(part.as_bytes())
    }

    fn number(&mut self, part: i64) -> &mut Self {
        self.0.extend_from_slice(&part.to_le_bytes());
        self
    }

    fn item(&mut self, item: &Item) -> &mut Self {
        // No location has the empty name.
        self.text(item.sku.as_str()).text(item.location.as_ref().map_or("", Location::as_str))
    }

    fn lines(&mut self, lines: &[OrderLine]) -> &mut Self {
        lines.iter().fold(self, |digest, line| digest.item(&line.item).number(line.quantity))
    }

    fn finish(&self) -> Digest {
        let mut digest = [0; 16];
        digest.copy_from_slice(&blake3::hash(&self.0).as_bytes()[..16]);
        Digest(digest)
    }
}

/// One item of an order and how many of it, after lines of one item were summed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderLine {
    /// What is asked for.
    pub item: Item,
    /// How many pieces: at least 1. A sum of up to [`super::MAX_LINES`] quantities.
    pub quantity: i64,
}

/// What becomes of an order when not all of it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// All lines or none.
    #[default]
    AllOrNone,
    /// Line by line, as many pieces as there are.
    Partial,
}

/// On which terms an order takes stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Terms {
    /// What becomes of it when not all is there.
    pub policy: Policy,
    /// As a hold, which ends after so long unless it is confirmed; `None` takes for good.
    pub hold: Option<HoldSeconds>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Take the lines' quantities. Lines are sorted by item, each item once.
    Take {
        /// What is taken.
        lines: Vec<OrderLine>,
        /// On which terms.
        terms: Terms,
    },
    /// Reject for what was found wrong with the content when it was read.
    Refuse(Vec<Reason>),
    /// Give back all that the order of this command's id still has; or, before that order is decided, make sure that it
    /// takes nothing.
    Cancel,
    /// Give back these lines of an order, all of them or none.
    Return {
        /// The order that took them.
        order_id: Id,
        /// What comes back, sorted by item, each item once.
        lines: Vec<OrderLine>,
    },
    /// Make a hold final.
    Confirm {
        /// The order that holds.
        order_id: Id,
        /// What is kept, sorted by item, each item once; the rest is given back. `None` keeps all.
        lines: Option<Vec<OrderLine>>,
    },
    /// Give back the hold of this command's id.
    Release,
    /// Let a hold last longer.
    Extend {
        /// The order that holds.
        order_id: Id,
        /// By how much its end moves.
        by: HoldSeconds,
    },
    /// Give back the hold of this command's id, if its time is over. Asked by the verifier itself.
    Expire,
    /// Add pieces that came in. The first of an item makes it known.
    Receive {
        /// Which item.
        item: Item,
        /// How many pieces.
        quantity: Quantity,
    },
    /// Change the level of a known item by a difference, not below zero.
    Adjust {
        /// Which item.
        item: Item,
        /// Pieces found (positive) or missing (negative): never 0, at most [`MAX_QUANTITY`] either way.
        by: i64,
    },
    /// Make the level of an item this, if its version is the one expected. The first of an item makes it known.
    Set {
        /// Which item.
        item: Item,
        /// Its new level: 0 to [`MAX_QUANTITY`].
        available: i64,
        /// The version the level must have now; `None` sets it whatever it is.
        expected_version: Option<i64>,
    },
    /// State the limits of a known item.
    Limit {
        /// Which item.
        item: Item,
        /// What they are from now on.
        limits: Limits,
    },
}

/// A command whose id could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Which command it is.
    pub key: CommandKey,
    /// What it says, in short.
    pub digest: Digest,
    /// What to do.
    pub action: Action,
    /// What earlier versions had for the digest where they refused this very value for how it was written.
    pub refused_as: Option<Digest>,
}

impl Command {
    /// An order for these lines. Lines of one item are summed; their order does not matter.
    ///
    /// The caller bounds the lines at [`super::MAX_LINES`], which keeps the sums far from overflow.
    #[must_use]
    pub fn order_created(order_id: Id, lines: Vec<(Item, Quantity)>, terms: Terms) -> Self {
        let lines = sum_lines(lines);
        let digest = Digest::builder("order.created")
            .number(i64::from(terms.policy == Policy::Partial))
            .number(terms.hold.map_or(0, HoldSeconds::get))
            .lines(&lines)
            .finish();
        Self::of(order_id, CommandKind::OrderCreated, digest, Action::Take { lines, terms })
    }

    /// Whatever this order still has is given back.
    #[must_use]
    pub fn order_cancelled(order_id: Id) -> Self {
        Self::bare(order_id, CommandKind::OrderCancelled, Action::Cancel)
    }

    /// Some of what an order took comes back. Bounds and sums as in [`Command::order_created`].
    #[must_use]
    pub fn order_returned(return_id: Id, order_id: Id, lines: Vec<(Item, Quantity)>) -> Self {
        let lines = sum_lines(lines);
        let digest = Digest::builder("order.returned").text(order_id.as_str()).lines(&lines).finish();
        Self::of(return_id, CommandKind::OrderReturned, digest, Action::Return { order_id, lines })
    }

    /// A hold becomes final: these lines of it, or all. Bounds and sums as in [`Command::order_created`].
    #[must_use]
    pub fn order_confirmed(confirmation_id: Id, order_id: Id, lines: Option<Vec<(Item, Quantity)>>) -> Self {
        let lines = lines.map(sum_lines);
        let mut digest = Digest::builder("order.confirmed");
        digest.text(order_id.as_str()).number(i64::from(lines.is_some()));
        if let Some(lines) = &lines {
            digest.lines(lines);
        }
        let digest = digest.finish();
        Self::of(confirmation_id, CommandKind::OrderConfirmed, digest, Action::Confirm { order_id, lines })
    }

    /// A hold is given back.
    #[must_use]
    pub fn order_released(order_id: Id) -> Self {
        Self::bare(order_id, CommandKind::OrderReleased, Action::Release)
    }

    /// A hold ends later.
    #[must_use]
    pub fn hold_extended(extension_id: Id, order_id: Id, by: HoldSeconds) -> Self {
        let digest = Digest::builder("order.hold_extended").text(order_id.as_str()).number(by.get()).finish();
        Self::of(extension_id, CommandKind::HoldExtended, digest, Action::Extend { order_id, by })
    }

    /// A hold is given back if its time is over.
    #[must_use]
    pub fn hold_expired(order_id: Id) -> Self {
        Self::bare(order_id, CommandKind::HoldExpired, Action::Expire)
    }

    /// A command whose id could be read but whose content is wrong. The raw value is its content.
    #[must_use]
    pub fn invalid(id: Id, kind: CommandKind, faults: Vec<Reason>, value: &[u8]) -> Self {
        // There is one end of a hold, and no faulty question may use it up.
        debug_assert!(kind != CommandKind::HoldExpired);
        Self::of(id, kind, Digest::of_invalid(value), Action::Refuse(faults))
    }

    /// The same of a value that earlier versions refused for how it was written: what they decided of it stands when that
    /// very value comes again.
    #[must_use]
    pub fn refused_before(self, value: &[u8]) -> Self {
        Self { refused_as: Some(Digest::of_invalid(value)), ..self }
    }

    /// Pieces that came in.
    #[must_use]
    pub fn stock_received(adjustment_id: Id, item: Item, quantity: Quantity) -> Self {
        let digest = Digest::builder("stock.received").item(&item).number(quantity.get()).finish();
        Self::adjustment(adjustment_id, digest, Action::Receive { item, quantity })
    }

    /// Pieces found or missing. `by` is bounded by the caller: not 0, at most [`MAX_QUANTITY`] either way.
    #[must_use]
    pub fn stock_adjusted(adjustment_id: Id, item: Item, by: i64) -> Self {
        debug_assert!(by != 0 && by.abs() <= MAX_QUANTITY);
        let digest = Digest::builder("stock.adjusted").item(&item).number(by).finish();
        Self::adjustment(adjustment_id, digest, Action::Adjust { item, by })
    }

    /// States a SKU's level. `available` is clamped by the caller to 0..=[`MAX_QUANTITY`].
    #[must_use]
    pub fn stock_set(adjustment_id: Id, item: Item, available: i64, expected_version: Option<i64>) -> Self {
        debug_assert!((0..=MAX_QUANTITY).contains(&available));
        let digest = Digest::builder("stock.set")
            .item(&item)
            .number(available)
            .number(expected_version.unwrap_or(-1))
            .finish();
        Self::adjustment(adjustment_id, digest, Action::Set { item, available, expected_version })
    }

    /// States an item's limits, which the caller bounds: 0 and 1 to [`MAX_QUANTITY`].
    #[must_use]
    pub fn limits_set(adjustment_id: Id, item: Item, limits: Limits) -> Self {
        debug_assert!((0..=MAX_QUANTITY).contains(&limits.backorder));
        debug_assert!(limits.order.is_none_or(|limit| (1..=MAX_QUANTITY).contains(&limit)));
        let digest = Digest::builder("stock.limits_set")
            .item(&item)
            .number(limits.backorder)
            .number(limits.order.unwrap_or(-1))
            .finish();
        Self::adjustment(adjustment_id, digest, Action::Limit { item, limits })
    }

    fn adjustment(id: Id, digest: Digest, action: Action) -> Self {
        Self::of(id, CommandKind::Adjustment, digest, action)
    }

    /// A command that says nothing but which order it is for.
    fn bare(order_id: Id, kind: CommandKind, action: Action) -> Self {
        Self::of(order_id, kind, Digest::builder(kind.name()).finish(), action)
    }

    fn of(id: Id, kind: CommandKind, digest: Digest, action: Action) -> Self {
        Self { key: CommandKey { id, kind }, digest, action, refused_as: None }
    }

    /// The items whose levels must be read and locked to decide this command, beside those of the order it follows.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        let (lines, adjusted) = match &self.action {
            Action::Take { lines, .. } => (lines.as_slice(), None),
            Action::Receive { item, .. }
            | Action::Adjust { item, .. }
            | Action::Set { item, .. }
            | Action::Limit { item, .. } => (&[][..], Some(item)),
            // What is given back was taken by the order.
            Action::Refuse(_)
            | Action::Cancel
            | Action::Return { .. }
            | Action::Confirm { .. }
            | Action::Release
            | Action::Extend { .. }
            | Action::Expire => (&[][..], None),
        };
        lines.iter().map(|line| &line.item).chain(adjusted)
    }

    /// The order whose life this command goes on with, if it is not the one that begins it.
    #[must_use]
    pub fn follows(&self) -> Option<&Id> {
        match &self.action {
            Action::Cancel | Action::Release | Action::Expire => Some(&self.key.id),
            Action::Return { order_id, .. }
            | Action::Confirm { order_id, .. }
            | Action::Extend { order_id, .. } => Some(order_id),
            Action::Take { .. }
            | Action::Refuse(_)
            | Action::Receive { .. }
            | Action::Adjust { .. }
            | Action::Set { .. }
            | Action::Limit { .. } => None,
        }
    }
}

pub(super) fn sum_lines(mut lines: Vec<(Item, Quantity)>) -> Vec<OrderLine> {
    if lines.len() == 1 {
        return lines
            .into_iter()
            .map(|(item, quantity)| OrderLine { item, quantity: quantity.get() })
            .collect();
    }
    lines.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let mut summed: Vec<OrderLine> = Vec::with_capacity(lines.len());
    for (item, quantity) in lines {
        match summed.last_mut() {
            Some(last) if last.item == item => last.quantity += quantity.get(),
            _ => summed.push(OrderLine { item, quantity: quantity.get() }),
        }
    }
    summed
}
