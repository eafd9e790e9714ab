// The whole story of an order or a SKU, from the ledger, line by line.

import { get, Refused } from "./api.js";
import { byId, count, el, item, name, orderLink, record, time } from "./dom.js";
import { reasonList } from "./live.js";

/** Ledger lines that are read at once. */
const PAGE = 50;
/** Commands whose id is their order's: docs/contract.md. */
const OF_ORDER = ["order.created", "order.cancelled", "order.released", "hold.expired"];
/** How an order stands, with what it is shown as. */
const STANDINGS = { rejected: "warn", undecided: "warn", expired: "warn", cancelled: "warn", released: "warn" };

const facts = (...pairs) => el("dl", { class: "facts" }, pairs.filter(Boolean).map(([what, is]) => [el("dt", {}, what), el("dd", {}, is)]));
const signed = (number) => el("span", { class: number < 0 ? "" : "good" }, `${number > 0 ? "+" : ""}${count(number)}`);

function table(heads, lines) {
  const head = heads.map(([text, kind]) => el("th", { scope: "col", class: kind }, text));
  return el("div", { class: "scrollx" }, el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, lines)));
}

/** What caused a movement, with the way to the order where its id is the order's. */
function cause(of) {
  return [OF_ORDER.includes(of.type) ? orderLink(of.id) : name(of.id), " ", el("small", {}, of.type)];
}

function moved(movements) {
  const lines = movements.map((line) => el("tr", {},
    el("td", {}, item(line)),
    el("td", { class: "number" }, signed(line.quantity)),
    el("td", { class: "number" }, count(line.balance))));
  return table([["SKU"], ["Change", "number"], ["Level after it", "number"]], lines);
}

/** The decisions about an order, each with what it moved. */
function steps(order) {
  const all = order.decisions.map((decision) => {
    const { type, id } = decision.command;
    const movements = order.movements.filter((line) => line.cause.type === type && line.cause.id === id);
    return el("li", { class: decision.accepted ? "" : "rejected" },
      el("div", {}, el("b", {}, type), id === order.order_id ? null : [" ", name(id)], " ",
        el("span", { class: decision.accepted ? "chip" : "chip warn" }, decision.accepted ? "accepted" : "rejected"),
        " ", el("span", { class: "muted" }, time(decision.decided_at))),
      decision.reasons.length > 0 ? reasonList(decision.reasons) : null,
      movements.length > 0 ? moved(movements) : el("p", { class: "muted" }, "Nothing moved."));
  });
  return el("ol", { class: "steps" }, all);
}

function ofOrder(order) {
  const { decision, hold } = order;
  const taken = order.lines.map((line) => el("tr", {},
    el("td", {}, item(line)),
    el("td", { class: "number" }, count(line.taken)),
    el("td", { class: "number" }, count(line.returned))));
  return el("section", {},
    facts(
      decision && ["Decided", time(decision.decided_at)],
      decision && ["Record", record(decision.source)],
      decision?.short.length > 0 && ["Less than asked", reasonList(decision.short)],
      hold && ["Holds until", [time(hold.expires_at), hold.over ? el("span", { class: "warn" }, " (over; is given back soon)") : null]],
      ["As of", time(order.as_of)],
    ),
    taken.length > 0 ? [el("h3", {}, "What it took"), table([["SKU"], ["Taken", "number"], ["Came back", "number"]], taken)] : null,
    el("h3", {}, "In the ledger, line by line"),
    steps(order));
}

/** Ledger lines of a SKU, newest first, with a button for older ones. */
function lines(sku, first, hasPlaces) {
  const body = el("tbody");
  const line = (one) => el("tr", {},
    el("td", { class: "tight" }, `${one.version}`),
    hasPlaces ? el("td", {}, one.location === undefined ? el("span", { class: "muted" }, "default") : name(one.location)) : null,
    el("td", { class: "tight" }, one.decided_at ? time(one.decided_at) : "–"),
    el("td", { class: "number" }, signed(one.quantity)),
    el("td", { class: "number" }, count(one.balance)),
    el("td", {}, cause(one.cause)),
    el("td", {}, record(one.source)));
  const heads = [["Line"], hasPlaces && ["Location"], ["When"], ["Change", "number"], ["Level after it", "number"], ["By"], ["Record"]];
  const head = heads.filter(Boolean).map(([text, kind]) => el("th", { scope: "col", class: kind }, text));
  const older = el("button", { type: "button", class: "more" }, "Older lines");
  let next = first.next;
  const add = (page) => {
    body.append(...page.movements.map(line));
    next = page.next;
    older.hidden = next === undefined;
  };
  older.addEventListener("click", async () => {
    older.disabled = true;
    try {
      add(await movements(sku, next));
    } catch (error) {
      older.after(el("p", { class: "bad", role: "alert" }, error.message));
    } finally {
      older.disabled = false;
    }
  });
  add(first);
  if (first.movements.length === 0) return el("p", { class: "muted" }, "None.");
  return [el("div", { class: "scrollx lines", tabindex: "0", role: "group", "aria-label": "Ledger lines" },
    el("table", {}, el("thead", {}, el("tr", {}, head)), body)), older];
}

function movements(sku, before, signal) {
  const query = new URLSearchParams({ sku, limit: PAGE, ...(before === undefined ? {} : { before }) });
  return get(`v1/movements?${query}`, signal);
}

function ofSku(stock, page) {
  const levels = stock.levels.map((level) => el("tr", {},
    el("td", {}, level.location === undefined ? el("span", { class: "muted" }, "default") : name(level.location)),
    el("td", { class: "number" }, el("b", {}, count(level.available))),
    el("td", { class: "number" }, count(level.version)),
    el("td", { class: "number" }, count(level.backorder_limit)),
    el("td", { class: "number" }, level.order_limit === undefined ? "–" : count(level.order_limit))));
  const hasPlaces = stock.levels.some((level) => level.location !== undefined);
  return el("section", {},
    facts(["As of", time(stock.as_of)]),
    el("h3", {}, stock.more ? "What there is, at the first locations" : "What there is"),
    table([["Location"], ["Left", "number"], ["Ledger lines", "number"], ["Backorder limit", "number"], ["Order limit", "number"]], levels),
    el("h3", {}, "In the ledger, newest line first"),
    lines(stock.sku, page, hasPlaces));
}

/** An answer, or nothing where nothing is known of it. */
async function known(answer) {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof Refused && error.status === 404) return undefined;
    throw error;
  }
}

const findOrder = (id, signal) => known(get(`v1/orders/${encodeURIComponent(id)}`, signal));
const findSku = async (sku, signal) => {
  const [stock, page] = await Promise.all([known(get(`v1/stock/${encodeURIComponent(sku)}`, signal)), movements(sku, undefined, signal)]);
  return stock && [stock, page];
};

function title(kind, text, chip) {
  byId("story-title").replaceChildren(kind, " ", name(text), chip ?? "");
}

function standing(order) {
  return el("span", { class: `chip ${STANDINGS[order.standing] ?? ""}` }, order.standing);
}

/** What stands in the address after `#`: what is looked for, and by which name. */
export function wanted(hash) {
  const found = /^#\/(order|sku|find)\/(.+)$/.exec(hash);
  if (!found) return undefined;
  try {
    return { kind: found[1], text: decodeURIComponent(found[2]) };
  } catch {
    return undefined;
  }
}

/** Reads and shows a story. */
export async function tell({ kind, text }, signal) {
  const body = byId("story-body");
  const section = byId("story");
  section.hidden = false;
  section.setAttribute("aria-busy", "true");
  if (body.dataset.of !== `${kind}/${text}`) {
    title({ order: "Order", sku: "SKU", find: "Looking for" }[kind], text);
    body.replaceChildren(el("p", { class: "muted" }, "Reading …"));
  }
  body.dataset.of = `${kind}/${text}`;
  try {
    const [order, sku] = await Promise.all([
      kind === "sku" ? undefined : findOrder(text, signal),
      kind === "order" ? undefined : findSku(text, signal),
    ]);
    if (order && sku) {
      title("Order and SKU", text);
      body.replaceChildren(el("div", { class: "pair" },
        el("div", {}, el("h3", {}, "The order ", standing(order)), ofOrder(order)),
        el("div", {}, el("h3", {}, "The SKU"), ofSku(...sku))));
    } else if (order) {
      title("Order", text, standing(order));
      body.replaceChildren(ofOrder(order));
    } else if (sku) {
      title("SKU", text);
      body.replaceChildren(ofSku(...sku));
    } else {
      const what = { order: "no order of this id was decided", sku: "no stock of it was ever recorded", find: "no order of this id was decided, and no stock of such a SKU was ever recorded" };
      body.replaceChildren(el("p", {}, `Nothing is known of it: ${what[kind]}.`));
    }
  } catch (error) {
    if (signal.aborted) return;
    body.replaceChildren(el("p", { class: "bad", role: "alert" }, error instanceof Refused ? error.message : "The verifier does not answer."));
  }
  section.setAttribute("aria-busy", "false");
  byId("story-title").focus({ preventScroll: false });
}
