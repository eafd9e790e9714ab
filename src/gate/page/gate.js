// Asks the gate each second what it does, and shows it.

import { Refused, get } from "./api.js";
import { askToken, state } from "./ask.js";
import { byId, clockOf, count, el, name, rate, rows, say, seconds, time, words } from "./dom.js";

const EVERY_MS = 1_000;
/** Longest wait for an answer. */
const ANSWER_MS = 5_000;
/** What of the answers is an order let in; of the others those that are no refusal of a shopper's order. */
const LET_IN = new Set(["admitted", "undecided"]);
const NO_REFUSAL = new Set(["repeated", "decided", "sending"]);
/** Better words than the name's own. */
const WORDS = {
  admitted: "admitted",
  undecided: "admitted without a judgement",
  repeated: "asked again, in Kafka already",
  decided: "asked again, decided before",
  sending: "asked again, on its way",
  invalid: "no order",
  too_many: "too many at the door",
  kafka_unknown: "maybe sent: Kafka did not answer in time",
  kafka_away: "not sent: Kafka was away",
  cache_away: "cache away",
};

let before;
let last;
let asked = false;

function perSecond(view) {
  const passed = before ? (Date.parse(view.at) - Date.parse(before.at)) / 1000 : 0;
  return (answer) => {
    const more = view.answers[answer] - (before?.answers[answer] ?? 0);
    // Started again, it counts anew.
    return passed > 0 && more >= 0 ? more / passed : 0;
  };
}

const sum = (answers, value) => answers.reduce((all, answer) => all + value(answer), 0);

function show(view) {
  const answers = Object.keys(view.answers);
  const now = perSecond(view);
  const total = (answer) => view.answers[answer];
  const letIn = answers.filter((answer) => LET_IN.has(answer));
  const refused = answers.filter((answer) => !LET_IN.has(answer) && !NO_REFUSAL.has(answer));
  say(byId("admitted"), rate(sum(letIn, now)));
  say(byId("admitted-more"), `${count(sum(letIn, total))} since the gate began`);
  say(byId("refused"), rate(sum(refused, now)));
  say(byId("refused-more"), `${count(sum(refused, total))} since the gate began`);
  rows(
    byId("answers"),
    answers.filter((answer) => total(answer) > 0).sort((a, b) => total(b) - total(a)).map((answer) => ({ answer, orders: total(answer), now: rate(now(answer)) })),
    (one) => one.answer,
    (one) => [el("td", {}, WORDS[one.answer] ?? words(one.answer)), el("td", { class: "number" }, one.now), el("td", { class: "number" }, count(one.orders))],
    "no orders yet",
  );
  showCache(view.cache);
  const drift = view.drift_pieces;
  say(byId("drift"), drift === undefined ? "–" : count(drift));
  byId("drift").classList.toggle("bad", drift > 0);
  say(byId("drift-more"), drift === undefined ? "not compared yet" : drift > 0 ? "pieces: see audit --cache" : "pieces, when all was at rest last");
  byId("live").classList.remove("stale");
  before = view;
}

function showCache(cache) {
  const entries = byId("entries");
  if (cache === undefined) {
    say(entries, "–");
    say(byId("entries-more"), "Redis does not answer");
    say(byId("about"), "Redis is away");
    return;
  }
  const open = cache.waiting_for_result + cache.waiting_for_level;
  say(entries, count(open));
  const parts = `${count(cache.waiting_for_result)} wait for a result, ${count(cache.waiting_for_level)} for a level`;
  say(byId("entries-more"), open > 0 ? `${parts}, oldest ${seconds(cache.oldest_seconds)}` : "none waits");
  say(byId("about"), cache.filled ? "in front of Kafka, by amounts cached in Redis" : "the cache is being filled from the ledger");
  rows(
    byId("sales"),
    cache.sales,
    (one) => one.sku,
    (one) => [
      el("td", {}, name(one.sku)),
      el("td", { class: "number" }, one.left === undefined ? "unknown" : count(one.left)),
      el("td", { class: "number" }, count(one.of_entries)),
      el("td", {}, one.closed ? "no" : one.opens_at === undefined ? "yes" : ["from ", time(one.opens_at)]),
      el("td", { class: "number" }, one.buyer_limit === undefined ? "any" : count(one.buyer_limit)),
    ],
    "no SKU was opened or closed: all are sold",
  );
}

function cut(why) {
  byId("live").classList.add("stale");
  state("cut", last ? `Cut since ${clockOf(last)}: ${why}` : `Cut: ${why}`);
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

for (;;) {
  try {
    show(await get("v1/gate", AbortSignal.timeout(ANSWER_MS)));
    last = new Date();
    byId("ask").hidden = true;
    state("live", "Live");
  } catch (error) {
    if (error instanceof Refused && error.status === 401) {
      await askToken(asked ? error.message : "");
      asked = true;
      continue;
    }
    cut(error instanceof Refused ? error.message : "the gate does not answer");
  }
  await pause(EVERY_MS);
}
