//! `stock watch`: follows the level of a SKU, and says what changed it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::Serialize;

use super::get::LevelView;
use super::item;
use crate::causes;
use crate::cli::signals::Signals;
use crate::console;
use crate::http::MovementView;
use crate::ledger::{Item, Location, Sku, Stamp, visible};
use crate::store::{AsOf, DatedMovement, ItemLevel, LedgerQueries, MovementCursor, StoreError};

/// Most locations of one SKU that are followed: more are no longer watched by a person.
const MOST_LOCATIONS: usize = 1_000;
/// Most changes of one location printed after one look: what is more is counted, not read. A SKU that moves so often is
/// nothing that eyes can follow, and its movements are in the ledger.
const MOST_CHANGES: i64 = 1_000;
/// Movements read at once.
const PAGE: usize = 250;
/// Shortest and longest time between two looks. Each is one look-up by key; ten a second are nobody's burden.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));
/// How often it is said that the ledger cannot be read.
const AWAY_SAY: Duration = Duration::from_secs(10);
/// Longest that a look under way is waited for at a stop, so that its connection is left in order.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// The arguments of `stock watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Which SKU
    pub sku: String,

    /// One location; all of them when it is left out
    #[arg(long, value_name = "TEXT")]
    pub location: Option<String>,

    /// The time between two looks at the ledger
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_interval)]
    pub interval: Duration,

    /// Print a JSON object a line: levels first, then movements
    #[arg(long)]
    pub json: bool,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let (least, most) = INTERVALS;
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if (least..=most).contains(&interval) {
        return Ok(interval);
    }
    Err(format!("expected {} to {}", humantime::format_duration(least), humantime::format_duration(most)))
}

/// Follows a SKU until SIGTERM or Ctrl-C, or until nobody reads any more.
///
/// # Errors
/// When no stock of it was ever recorded, or the ledger cannot be read and will not be later.
pub(super) async fn watch(args: WatchArgs, store: &dyn LedgerQueries) -> Result<()> {
    let item = item(&args.sku, args.location.as_deref())?;
    let mut signals = Signals::listen().context("signals cannot be heard")?;
    let mut watched = Watched::new(item);
    let mut said: Option<Instant> = None;
    loop {
        let found = {
            let mut look = std::pin::pin!(watched.look(store));
            tokio::select! {
                found = &mut look => found,
                () = signals.next() => {
                    let _ = tokio::time::timeout(STOP_LIMIT, look).await;
                    return Ok(());
                }
            }
        };
        match found {
            Ok(lines) => {
                said = None;
                let text: String = lines.iter().map(|line| line.written(args.json)).collect();
                if !console::print_on(&text)? {
                    return Ok(());
                }
            }
            Err(error) if error.is_transient() => {
                if said.is_none_or(|at| at.elapsed() >= AWAY_SAY) {
                    tracing::warn!("the ledger cannot be read now; looking on: {}", causes::of(&error));
                    said = Some(Instant::now());
                }
            }
            Err(error) => return Err(error.into()),
        }
        if watched.seen.is_empty() && said.is_none() {
            bail!(
                "no stock of {} was ever recorded: `stock-verifier stock get` lists what there is",
                watched.named()
            );
        }
        tokio::select! {
            () = signals.next() => return Ok(()),
            () = tokio::time::sleep(args.interval) => {}
        }
    }
}

/// What is watched, and how far it was printed.
struct Watched {
    sku: Sku,
    /// The one location that is watched; `None` for all.
    only: Option<Location>,
    /// The last version printed, for each location.
    seen: BTreeMap<Option<Location>, i64>,
    has_begun: bool,
}

impl Watched {
    fn new(item: Item) -> Self {
        Self { sku: item.sku, only: item.location, seen: BTreeMap::new(), has_begun: false }
    }

    fn named(&self) -> String {
        Item { sku: self.sku.clone(), location: self.only.clone() }.to_string()
    }

    /// The levels at first, then what moved them since the last look, in the ledger's order.
    async fn look(&mut self, store: &dyn LedgerQueries) -> Result<Vec<Line>, StoreError> {
        let AsOf { value: levels, at, .. } = match &self.only {
            None => store.stock(&self.sku, MOST_LOCATIONS).await?,
            Some(location) => {
                let item = Item { sku: self.sku.clone(), location: Some(location.clone()) };
                store.stock_of(&[item]).await?
            }
        };
        if !self.has_begun && !levels.is_empty() {
            self.has_begun = true;
            self.seen.extend(levels.iter().map(|level| (level.item.location.clone(), level.level.version)));
            return Ok(levels.into_iter().map(|level| Line::Level { level, as_of: at.rfc3339() }).collect());
        }
        let (mut skipped, mut changes) = (Vec::new(), Vec::new());
        for ItemLevel { item, level } in levels {
            let seen = self.seen.get(&item.location).copied().unwrap_or(0);
            if level.version > seen {
                let (found, left_out) = self.movements(store, item.location.as_ref(), seen).await?;
                let newest = found.iter().map(|dated| dated.movement.version).max().unwrap_or(level.version);
                self.seen.insert(item.location.clone(), newest);
                skipped.extend((left_out > 0).then_some(Line::Skipped { item, changes: left_out }));
                changes.extend(found);
            }
        }
        changes.sort_by(|one, other| {
            let order = |dated: &DatedMovement| (dated.movement.seq, dated.movement.version);
            order(one).cmp(&order(other))
        });
        Ok(skipped.into_iter().chain(changes.into_iter().map(|dated| Line::Moved(Box::new(dated)))).collect())
    }

    /// The movements at a location after a version: the newest [`MOST_CHANGES`], and how many are left out before them.
    async fn movements(
        &self,
        store: &dyn LedgerQueries,
        location: Option<&Location>,
        after: i64,
    ) -> Result<(Vec<DatedMovement>, i64), StoreError> {
        let mut found: Vec<DatedMovement> = Vec::new();
        let mut before: Option<MovementCursor> = None;
        loop {
            let page = store.movements(&self.sku, Some(location), before.as_ref(), PAGE).await?.value;
            let is_last = page.len() < PAGE;
            for dated in page {
                let version = dated.movement.version;
                let newest = found.first().map_or(version, |first| first.movement.version);
                if version <= after {
                    return Ok((found, 0));
                }
                if newest - version >= MOST_CHANGES {
                    return Ok((found, version - after));
                }
                found.push(dated);
            }
            if is_last {
                return Ok((found, 0));
            }
            before = found.last().map(|last| MovementCursor::after(&last.movement));
        }
    }
}

/// What is printed.
enum Line {
    /// How much there was when it began.
    Level { level: ItemLevel, as_of: String },
    /// A change.
    Moved(Box<DatedMovement>),
    /// Changes that are not printed: too many since the last look.
    Skipped { item: Item, changes: i64 },
}

#[derive(Serialize)]
#[serde(untagged)]
enum LineView<'a> {
    Level {
        #[serde(flatten)]
        level: LevelView<'a>,
        as_of: &'a str,
    },
    Moved {
        sku: &'a Sku,
        #[serde(flatten)]
        movement: MovementView,
    },
    Skipped {
        sku: &'a Sku,
        #[serde(skip_serializing_if = "Option::is_none")]
        location: Option<&'a Location>,
        skipped: i64,
    },
}

impl Line {
    fn written(&self, json: bool) -> String {
        if json { self.as_json() } else { self.as_text() }
    }

    fn as_json(&self) -> String {
        let view = match self {
            Self::Level { level, as_of } => LineView::Level { level: LevelView::from(level), as_of },
            Self::Moved(dated) => LineView::Moved {
                sku: &dated.movement.item.sku,
                movement: MovementView::from((**dated).clone()),
            },
            Self::Skipped { item, changes } => {
                LineView::Skipped { sku: &item.sku, location: item.location.as_ref(), skipped: *changes }
            }
        };
        // Holds because a view is made of texts and numbers.
        serde_json::to_string(&view).expect("a line is valid JSON") + "\n"
    }

    fn as_text(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = match self {
            Self::Level { level: ItemLevel { item, level }, as_of } => {
                writeln!(out, "{as_of}  {item}: {} available, version {}", level.available, level.version)
            }
            Self::Skipped { item, changes } => {
                writeln!(out, "…  {item}: {changes} changes before the next ones are not shown")
            }
            Self::Moved(dated) => {
                let movement = &dated.movement;
                let at = dated.decided_at.map_or_else(|| "…".to_owned(), Stamp::rfc3339);
                let by = format!("{} {}", movement.cause.kind.name(), visible(movement.cause.id.as_str()));
                let record = dated.source().map_or_else(String::new, |source| format!("  {source}"));
                let (item, version) = (&movement.item, movement.version);
                writeln!(
                    out,
                    "{at}  {item}: {:+} to {}, version {version}  {by}{record}",
                    movement.quantity, movement.balance
                )
            }
        };
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_between_two_looks_has_its_bounds() {
        assert_eq!(parse_interval("100ms"), Ok(Duration::from_millis(100)));
        for wrong in ["0s", "99ms", "2h", "1", "soon"] {
            parse_interval(wrong).unwrap_err();
        }
    }
}
