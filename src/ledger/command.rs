//! What may be asked of the ledger.

use std::fmt;

use super::{Id, MAX_QUANTITY, Quantity, Reason, Sku};

/// What a command is about. Its number is stored: never reuse or change one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i16)]
pub enum CommandKind {
    /// An order asks for stock: all its lines or none.
    OrderCreated = 1,
    /// Stock came in, is counted anew, or is stated.
    Adjustment = 10,
}

impl CommandKind {
    /// The kind a stored number stands for, if this version knows it.
    #[must_use]
    pub fn from_number(number: i16) -> Option<Self> {
        match number {
            1 => Some(Self::OrderCreated),
            10 => Some(Self::Adjustment),
            _ => None,
        }
    }

    /// The number stored in the ledger.
    #[must_use]
    pub fn number(self) -> i16 {
        self as i16
    }

    /// The word that starts the id of its result event.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OrderCreated => "order.created",
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
        let mut builder = DigestBuilder(blake3::Hasher::new());
        builder.text(content_type);
        builder
    }
}

/// Feeds content into a [`Digest`]. Lengths count, so that moving a byte from one part to the next shows.
struct DigestBuilder(blake3::Hasher);

impl DigestBuilder {
    fn bytes(&mut self, part: &[u8]) -> &mut Self {
        self.0.update(&(part.len() as u64).to_le_bytes());
        self.0.update(part);
        self
    }

    fn text(&mut self, part: &str) -> &mut Self {
        self.bytes(part.as_bytes())
    }

    fn number(&mut self, part: i64) -> &mut Self {
        self.0.update(&part.to_le_bytes());
        self
    }

    fn finish(&self) -> Digest {
        let mut digest = [0; 16];
        digest.copy_from_slice(&self.0.finalize().as_bytes()[..16]);
        Digest(digest)
    }
}

/// One SKU of an order and how many of it, after lines of one SKU were summed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderLine {
    /// What is asked for.
    pub sku: Sku,
    /// How many pieces: at least 1. A sum of up to [`super::MAX_LINES`] quantities.
    pub quantity: i64,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Take every line's quantity, or nothing. Lines are sorted by SKU, each SKU once.
    Take(Vec<OrderLine>),
    /// Reject for what was found wrong with the content when it was read.
    Refuse(Vec<Reason>),
    /// Add pieces that came in. The first of a SKU makes it known.
    Receive {
        /// Which SKU.
        sku: Sku,
        /// How many pieces.
        quantity: Quantity,
    },
    /// Change the level of a known SKU by a difference, not below zero.
    Adjust {
        /// Which SKU.
        sku: Sku,
        /// Pieces found (positive) or missing (negative): never 0, at most [`MAX_QUANTITY`] either way.
        by: i64,
    },
    /// Make the level of a SKU this, if its version is the one expected. The first of a SKU makes it known.
    Set {
        /// Which SKU.
        sku: Sku,
        /// Its new level: 0 to [`MAX_QUANTITY`].
        available: i64,
        /// The version the level must have now; `None` sets it whatever it is.
        expected_version: Option<i64>,
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
}

impl Command {
    /// An order for these lines. Lines of one SKU are summed; their order does not matter.
    ///
    /// The caller bounds the lines at [`super::MAX_LINES`], which keeps the sums far from overflow.
    #[must_use]
    pub fn order_created(order_id: Id, lines: Vec<(Sku, Quantity)>) -> Self {
        let lines = sum_lines(lines);
        let mut digest = Digest::builder("order.created");
        for line in &lines {
            digest.text(line.sku.as_str()).number(line.quantity);
        }
        let digest = digest.finish();
        Self {
            key: CommandKey { id: order_id, kind: CommandKind::OrderCreated },
            digest,
            action: Action::Take(lines),
        }
    }

    /// An order whose id could be read but whose content is wrong. The raw value is its content.
    #[must_use]
    pub fn invalid_order(order_id: Id, faults: Vec<Reason>, value: &[u8]) -> Self {
        Self {
            key: CommandKey { id: order_id, kind: CommandKind::OrderCreated },
            digest: Digest::builder("invalid order").bytes(value).finish(),
            action: Action::Refuse(faults),
        }
    }

    /// An adjustment whose id could be read but whose content is wrong. The raw value is its content.
    #[must_use]
    pub fn invalid_adjustment(adjustment_id: Id, faults: Vec<Reason>, value: &[u8]) -> Self {
        let digest = Digest::builder("invalid adjustment").bytes(value).finish();
        Self::adjustment(adjustment_id, digest, Action::Refuse(faults))
    }

    /// Pieces that came in.
    #[must_use]
    pub fn stock_received(adjustment_id: Id, sku: Sku, quantity: Quantity) -> Self {
        let digest = Digest::builder("stock.received").text(sku.as_str()).number(quantity.get()).finish();
        Self::adjustment(adjustment_id, digest, Action::Receive { sku, quantity })
    }

    /// Pieces found or missing. `by` is bounded by the caller: not 0, at most [`MAX_QUANTITY`] either way.
    #[must_use]
    pub fn stock_adjusted(adjustment_id: Id, sku: Sku, by: i64) -> Self {
        debug_assert!(by != 0 && by.abs() <= MAX_QUANTITY);
        let digest = Digest::builder("stock.adjusted").text(sku.as_str()).number(by).finish();
        Self::adjustment(adjustment_id, digest, Action::Adjust { sku, by })
    }

    /// States a SKU's level. `available` is clamped by the caller to 0..=[`MAX_QUANTITY`].
    #[must_use]
    pub fn stock_set(adjustment_id: Id, sku: Sku, available: i64, expected_version: Option<i64>) -> Self {
        debug_assert!((0..=MAX_QUANTITY).contains(&available));
        let digest = Digest::builder("stock.set")
            .text(sku.as_str())
            .number(available)
            .number(expected_version.unwrap_or(-1))
            .finish();
        Self::adjustment(adjustment_id, digest, Action::Set { sku, available, expected_version })
    }

    fn adjustment(id: Id, digest: Digest, action: Action) -> Self {
        Self { key: CommandKey { id, kind: CommandKind::Adjustment }, digest, action }
    }

    /// The SKUs whose levels must be read and locked to decide this command.
    pub fn skus(&self) -> impl Iterator<Item = &Sku> {
        let (lines, adjusted) = match &self.action {
            Action::Take(lines) => (lines.as_slice(), None),
            Action::Refuse(_) => (&[][..], None),
            Action::Receive { sku, .. } | Action::Adjust { sku, .. } | Action::Set { sku, .. } => {
                (&[][..], Some(sku))
            }
        };
        lines.iter().map(|line| &line.sku).chain(adjusted)
    }
}

fn sum_lines(mut lines: Vec<(Sku, Quantity)>) -> Vec<OrderLine> {
    if let [(sku, quantity)] = lines.as_slice() {
        return vec![OrderLine { sku: sku.clone(), quantity: quantity.get() }];
    }
    lines.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let mut summed: Vec<OrderLine> = Vec::with_capacity(lines.len());
    for (sku, quantity) in lines {
        match summed.last_mut() {
            Some(last) if last.sku == sku => last.quantity += quantity.get(),
            _ => summed.push(OrderLine { sku, quantity: quantity.get() }),
        }
    }
    summed
}
