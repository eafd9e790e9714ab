//! `stock-verifier orders show`: what became of an order, as the ledger has it: its verdict, what moved, what came back,
//! its hold, and every event that publishes it.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow};
use clap::{Args, Subcommand};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::open::{Access, FEW_CONNECTIONS, open_ledger};
use crate::config::DatabaseArgs;
use crate::console;
use crate::event::{Channel, Outgoing, TraceContext, result};
use crate::http::{OrderStanding, OrderView};
use crate::ledger::{CommandKey, CommandKind, Decision, Id, Location, Reason, visible};
use crate::store::{AsOf, OrderLife, Store};

/// The arguments of `orders`.
#[derive(Debug, Args)]
pub struct OrdersArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    #[command(subcommand)]
    command: OrdersCommand,
}

/// The commands about orders.
#[derive(Debug, Subcommand)]
pub enum OrdersCommand {
    /// Show what became of an order: its verdict, movements, returns and hold, and the events that publish it
    ///
    /// All of it from the ledger, of one moment: a decision is published from it, with these very bytes. What stands on the
    /// topics, `replay diff --order-id` compares with it. Exit status: 0 shown; 1 nothing about it was decided, or the
    /// ledger cannot be read; 2 wrong arguments.
    Show(ShowArgs),
}

/// The arguments of `orders show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The order's id
    #[arg(value_name = "ID")]
    pub id: String,

    /// Print JSON: the members of the read API's answer, and `published`
    #[arg(long)]
    pub json: bool,
}

/// Runs a command about orders on the ledger the settings name.
///
/// # Errors
/// When nothing of the order is known, or the ledger cannot be read.
pub async fn run(args: OrdersArgs) -> Result<ExitCode> {
    let OrdersCommand::Show(show) = args.command;
    let id = Id::new(&show.id).with_context(|| format!("the order id {:?}", show.id))?;
    let store = open_ledger(&args.database, FEW_CONNECTIONS, Access::Read).await?;
    let shown = shown(&id, show.json, &*store).await;
    store.close().await;
    console::print(&shown?)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs a command about orders on a ledger; what it prints.
///
/// # Errors
/// As [`run`].
pub async fn execute(command: OrdersCommand, store: &dyn Store) -> Result<String> {
    let OrdersCommand::Show(show) = command;
    let id = Id::new(&show.id).with_context(|| format!("the order id {:?}", show.id))?;
    shown(&id, show.json, store).await
}

async fn shown(id: &Id, json: bool, store: &dyn Store) -> Result<String> {
    let AsOf { mut value, at, .. } = store.orders(std::slice::from_ref(id)).await?;
    let Some(life) = value.remove(id) else { return Err(unknown(id, store).await) };
    let found = AsOf::new(life, at);
    let view = OrderView::of(id.clone(), &found)?;
    let published = published(&found.value)?;
    if json { as_json(&view, &published) } else { Ok(as_text(&view, &published)) }
}

/// Why there is nothing to show, and what to do.
async fn unknown(id: &Id, store: &dyn Store) -> anyhow::Error {
    for kind in CommandKind::ALL {
        // What is known of the id otherwise is a help, no more: where it cannot be read, it is not said.
        let Ok(Some(decision)) = store.decision(&CommandKey { id: id.clone(), kind }).await else { continue };
        return match decision.follows() {
            Some(order) => anyhow!(
                "{id} is no order: it is the id of {} of the order {order}, which `stock-verifier orders show` shows",
                kind.name()
            ),
            None => anyhow!("{id} is no order: it is the id of a command of another kind, {}", kind.name()),
        };
    }
    anyhow!(
        "nothing about the order {id} was decided. Check how it is written; if it was sent, it is not read yet \
         (`stock-verifier doctor` says how far the group is) or is a dead letter (`stock-verifier replay diff --order-id \
         ID` looks for its record)"
    )
}

/// An event that publishes a decision.
#[derive(Debug, Serialize)]
struct Published {
    /// `accepted` or `rejected`: the topic that has this part, as the settings name it.
    channel: &'static str,
    /// What names the event: the same however often it is published.
    ce_id: String,
    /// Its value, byte for byte.
    value: Box<RawValue>,
}

impl Published {
    fn of(decision: &Decision) -> Result<Self> {
        let Outgoing { channel, value, headers, .. } = result(decision, None, TraceContext::NONE);
        let ce_id =
            headers.iter().find(|header| header.name == "ce_id").and_then(|header| header.value.as_deref());
        let value = String::from_utf8(value.unwrap_or_default()).context("a result is not UTF-8")?;
        Ok(Self {
            channel: if channel == Channel::Accepted { "accepted" } else { "rejected" },
            ce_id: String::from_utf8_lossy(ce_id.unwrap_or_default()).into_owned(),
            value: RawValue::from_string(value).context("a decision that is not readable")?,
        })
    }
}

fn published(life: &OrderLife) -> Result<Vec<Published>> {
    life.decisions.iter().map(|decision| Published::of(decision)).collect()
}

fn as_json(view: &OrderView, published: &[Published]) -> Result<String> {
    #[derive(Serialize)]
    struct Shown<'a> {
        #[serde(flatten)]
        order: &'a OrderView,
        published: &'a [Published],
    }
    Ok(serde_json::to_string_pretty(&Shown { order: view, published })? + "\n")
}

fn standing(standing: OrderStanding) -> &'static str {
    match standing {
        OrderStanding::Undecided => "is not decided yet; something else about it came before",
        OrderStanding::Rejected => "was rejected, and took nothing",
        OrderStanding::Accepted => "was accepted",
        OrderStanding::Held => "holds its stock",
        OrderStanding::Confirmed => "was a hold, and is confirmed",
        OrderStanding::Released => "was a hold, and was released: all of it was given back",
        OrderStanding::Expired => "was a hold, and its time was over: all of it was given back",
        OrderStanding::Cancelled => "was cancelled: all that it had was given back",
    }
}

/// A reason in one line: its name, and what it names besides.
fn reason(reason: &Reason) -> String {
    let Ok(Value::Object(members)) = serde_json::to_value(reason) else { return reason.name().to_owned() };
    let said = |(name, value): (&String, &Value)| match value {
        Value::String(text) => format!("{name} {}", visible(text)),
        value => format!("{name} {value}"),
    };
    let members: Vec<String> = members.iter().filter(|(name, _)| *name != "reason").map(said).collect();
    if members.is_empty() {
        reason.name().to_owned()
    } else {
        format!("{} ({})", reason.name(), members.join(", "))
    }
}

fn reasons(reasons: &[Reason]) -> String {
    reasons.iter().map(reason).collect::<Vec<_>>().join("; ")
}

/// Rows under a header, numbers to the right.
fn table(header: &[&str], numbers: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for (column, name) in table.column_iter_mut().zip(header) {
        if numbers.contains(name) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for row in rows {
        table.add_row(row);
    }
    table.trim_fmt() + "\n"
}

fn at(location: Option<&Location>) -> String {
    location.map_or_else(String::new, |location| visible(location.as_str()).into_owned())
}

fn as_text(view: &OrderView, published: &[Published]) -> String {
    // Writing to a String does not fail, here and below.
    let mut out = format!("The order {} {}.\n", view.order_id, standing(view.standing));
    if let Some(hold) = &view.hold {
        let _ = if hold.over {
            writeln!(out, "Its hold was over at {}, and is given back soon.", hold.expires_at)
        } else {
            writeln!(out, "It is held until {}.", hold.expires_at)
        };
    }
    if let Some(short) =
        view.decision.as_ref().map(|decision| &decision.short).filter(|short| !short.is_empty())
    {
        let _ = writeln!(out, "It got less than it asked for: {}.", reasons(short));
    }
    if !view.lines.is_empty() {
        let rows = view.lines.iter().map(|line| {
            let (taken, returned) = (line.taken.to_string(), line.returned.to_string());
            vec![visible(line.sku.as_str()).into_owned(), at(line.location.as_ref()), taken, returned]
        });
        let header = ["SKU", "LOCATION", "TAKEN", "GIVEN BACK"];
        let _ = write!(out, "\n{}", table(&header, &header[2..], rows));
    }
    if !view.movements.is_empty() {
        let rows = view.movements.iter().map(|movement| {
            let cause = format!("{} {}", movement.cause.kind, movement.cause.id);
            let (quantity, balance) = (format!("{:+}", movement.quantity), movement.balance.to_string());
            vec![
                visible(movement.sku.as_str()).into_owned(),
                at(movement.location.as_ref()),
                quantity,
                balance,
                cause,
            ]
        });
        let header = ["SKU", "LOCATION", "MOVED", "LEVEL AFTER", "BY"];
        let _ = write!(out, "\n{}", table(&header, &header[2..4], rows));
    }
    let source = view.decision.as_ref().and_then(|decision| decision.source.as_ref());
    let rows = view.decisions.iter().map(|decision| {
        let verdict = if decision.accepted { "accepted" } else { "rejected" };
        let mut why = reasons(&decision.reasons);
        if let Some(source) = source.filter(|_| decision.command.kind == CommandKind::OrderCreated.name()) {
            let record = format!("record {}[{}]@{}", source.topic, source.partition, source.offset);
            why = if why.is_empty() { record } else { format!("{why}; {record}") };
        }
        let command = format!("{} {}", decision.command.kind, decision.command.id);
        vec![decision.decided_at.clone(), command, verdict.to_owned(), why]
    });
    let _ = write!(
        out,
        "\n{}\nPublished, in this order:\n",
        table(&["DECIDED", "COMMAND", "VERDICT", ""], &[], rows)
    );
    for event in published {
        let _ = writeln!(out, "  {}  {}\n    {}", event.channel, event.ce_id, event.value.get());
    }
    let _ = writeln!(out, "\nAll of it as of {}.", view.as_of);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Sku;

    #[test]
    fn a_reason_names_what_it_is_about_and_hides_no_character() {
        let sku = Sku::new("MUG\u{a0}").unwrap();
        let short = Reason::InsufficientStock { sku, location: None, requested: 5, available: 2 };
        assert_eq!(reason(&short), "insufficient_stock (sku MUG<U+00A0>, requested 5, available 2)");
        assert_eq!(reason(&Reason::OrderNotFound), "order_not_found");
    }
}
