// Shows a snapshot.

import { byId, clockOf, count, el, item, millis, name, orderLink, percent, rate, record, rows, say, seconds, time, words } from "./dom.js";

/** Rejections and dead letters that are shown. */
const SHOWN = 20;
/** Shades of reasons there are; those after share the last. */
const SHADES = 5;

/** What a reason means, in a few words. */
function because(reason) {
  const of = reason.sku === undefined ? [] : [" ", item(reason)];
  switch (reason.reason) {
    case "insufficient_stock":
      return ["insufficient stock:", of, el("small", {}, ` asked ${count(reason.requested)}, there were ${count(reason.available)}`)];
    case "unknown_sku":
      return ["unknown SKU:", of];
    case "invalid_order":
      return ["invalid: ", name(reason.detail)];
    case "return_exceeds_deducted":
      return ["more than was taken:", of, el("small", {}, ` back ${count(reason.requested)}, left ${count(reason.left)}`)];
    case "limit_exceeded":
      return ["above the order limit:", of];
    default:
      return [words(reason.reason), of.length > 0 ? [":", of] : []];
  }
}

export function reasonList(reasons, more = 0) {
  const lines = reasons.map((reason) => el("span", {}, because(reason)));
  if (more > 0) lines.push(el("small", {}, `and ${more} more`));
  return el("div", { class: "why" }, lines);
}

/** A list that stands still while somebody points at it or is in it. */
function isHeld(body) {
  const card = body.closest(".held");
  const scroll = body.closest(".scroll");
  const pointsAt = matchMedia("(hover: hover)").matches && scroll.matches(":hover");
  const held = pointsAt || (scroll.contains(document.activeElement) && document.activeElement !== scroll);
  card.classList.toggle("paused", held);
  return held;
}

function list(id, all, key, make, empty) {
  const body = byId(id);
  if (!isHeld(body)) rows(body, all.slice(0, SHOWN), key, make, empty);
}

function bar(part, kind = "") {
  const filled = el("span");
  filled.style.width = `${Math.max(0, Math.min(1, part)) * 100}%`;
  return el("span", { class: `bar ${kind}`, "aria-hidden": "true" }, filled);
}

/** A bar of parts side by side. */
function split(id, parts, label) {
  const bar = byId(id);
  const whole = parts.reduce((sum, [, value]) => sum + value, 0);
  bar.setAttribute("aria-label", label);
  while (bar.children.length < parts.length) bar.append(el("span"));
  while (bar.children.length > parts.length) bar.lastChild.remove();
  parts.forEach(([shade, value], at) => {
    bar.children[at].className = shade;
    bar.children[at].style.width = whole > 0 ? `${(value / whole) * 100}%` : "0";
  });
}

/** A line through these numbers, the newest at the right end. */
function line(values, most, width, height) {
  const step = width / 119;
  const from = width - (values.length - 1) * step;
  const points = values.map((value, at) => {
    const y = height - (most > 0 ? value / most : 0) * (height - 4) - 1;
    return `${(from + at * step).toFixed(2)},${y.toFixed(2)}`;
  });
  return points.length > 0 ? `M${points.join("L")}` : "";
}

function rates(snapshot) {
  const all = snapshot.orders_per_second;
  const rejected = snapshot.rejected_per_second;
  const now = all.at(-1) ?? 0;
  const most = Math.max(...all, 0);
  say(byId("orders"), rate(now));
  say(byId("orders-more"), `most in ${all.length < 120 ? `${all.length} s` : "2 min"}: ${rate(most)}`);
  const top = line(all, most, 240, 56);
  byId("spark-line").setAttribute("d", top);
  byId("spark-area").setAttribute("d", top ? `${top}L240,56L${(240 - ((all.length - 1) * 240) / 119).toFixed(2)},56Z` : "");
  byId("spark-rejected").setAttribute("d", line(rejected, most, 240, 56));
  byId("spark").setAttribute("aria-label", `Orders a second: ${rate(now)} now, ${rate(most)} at most in the last ${all.length} seconds`);
  document.title = `${rate(now)} / s · Stock verifier`;
}

function lag(snapshot) {
  const partitions = snapshot.partitions;
  const records = partitions.reduce((sum, partition) => sum + partition.lag, 0);
  const oldest = Math.max(0, ...partitions.map((partition) => partition.lag_seconds));
  say(byId("lag"), count(records));
  say(byId("lag-more"), records > 0 ? `records not published, oldest ${seconds(oldest)}` : "records not published");
  rows(
    byId("partitions"),
    partitions,
    (one) => `${one.topic}[${one.partition}]`,
    (one) => [
      el("td", {}, el("bdi", { class: "mono" }, `${one.topic}[${one.partition}]`)),
      el("td", { class: "number" }, count(one.lag)),
      el("td", { class: "number" }, one.lag > 0 ? seconds(one.lag_seconds) : "–"),
    ],
    "This process has no partition now.",
  );
}

function stages(snapshot) {
  const now = snapshot.stages;
  if (!now) {
    // What was last stays, and says that it is not of now.
    say(byId("stages-more"), "Nothing was published in the last second.");
    return;
  }
  const figure = byId("latency");
  figure.replaceChildren(millis(now.p50_ms));
  say(byId("latency-more"), `median to published, p95 ${millis(now.p95_ms)}, p99 ${millis(now.p99_ms)}`);
  const parts = [
    ["s0", now.waiting_ms, "Waiting", "in Kafka, and until the batch is closed"],
    ["s1", now.deciding_ms, "Deciding", "one database transaction a batch"],
    ["s2", now.publishing_ms, "Publishing", "one Kafka transaction a batch"],
  ];
  split("stages-bar", parts, parts.map(([, ms, what]) => `${what} ${millis(ms)}`).join(", "));
  rows(
    byId("stages"),
    parts,
    ([shade]) => shade,
    ([shade, ms, what, more]) => [
      el("td", {}, el("i", { class: shade }), what),
      el("td", {}, more),
      el("td", {}, millis(ms)),
    ],
    "",
  );
  say(byId("stages-more"), `${count(now.records)} records in the last second, from their time stamps.`);
}

function reasons(snapshot) {
  const { ends, rejected_by: by, about, decided } = snapshot;
  const accepted = decided.reduce((sum, kind) => sum + kind.accepted, 0);
  const all = by.reduce((sum, reason) => sum + reason.count, accepted);
  const orders = decided.find((kind) => kind.type === "order.created") ?? { accepted: 0, rejected: 0 };
  const share = orders.accepted / Math.max(1, orders.accepted + orders.rejected);
  say(byId("accepted"), orders.accepted + orders.rejected > 0 ? percent(share) : "–");
  say(byId("accepted-more"), `of ${count(orders.accepted + orders.rejected)} orders`);
  const parts = [["c0", accepted, "accepted"], ...by.map((reason, at) => [`c${Math.min(at + 1, SHADES)}`, reason.count, reason.reason])];
  split("split", parts, parts.map(([, value, what]) => `${what} ${count(value)}`).join(", "));
  rows(
    byId("reasons"),
    [...parts, ["", ends.dead_letters, "dead_letters"], ["", ends.absorbed, "repetitions_absorbed"], ["", ends.ignored, "ignored_by_mapping"]].filter(
      ([shade, value]) => shade === "c0" || value > 0,
    ),
    ([, , what]) => what,
    ([shade, value, what]) => [
      el("td", {}, el("i", { class: shade }), words(what)),
      el("td", {}, shade ? bar(value / Math.max(1, all), shade === "c0" ? "" : "warn") : el("small", {}, "beside the decisions")),
      el("td", {}, count(value)),
    ],
    "",
  );
  for (const since of document.querySelectorAll(".since")) since.replaceChildren(time(about.since));
}

function hot(snapshot) {
  const most = snapshot.hot[0]?.wanted_per_second ?? 0;
  const shown = snapshot.hot.filter((one) => one.wanted_per_second >= 0.01);
  list(
    "hot",
    shown.map((one) => ({ ...one, part: one.wanted_per_second / Math.max(most, 0.1), are_known: snapshot.levels_as_of !== undefined })),
    (one) => JSON.stringify([one.sku, one.location]),
    (one) => [
      el("td", {}, item(one)),
      el("td", {}, el("div", { class: "asked" }, el("b", {}, rate(one.wanted_per_second)), bar(one.part))),
      el("td", { class: "number" }, left(one)),
    ],
    "Nothing was asked for lately.",
  );
}

function left(one) {
  if (one.available !== undefined) {
    return one.available > 0 ? count(one.available) : el("span", { class: "chip warn" }, one.available < 0 ? `${count(one.available)} promised` : "sold out");
  }
  return el("span", { class: "muted" }, one.are_known ? "never stocked" : "unknown now");
}

function faults(snapshot) {
  list(
    "rejections",
    snapshot.rejections,
    (one) => `${one.command.type}/${one.command.id}`,
    (one) => [
      el("td", { class: "tight" }, time(one.decided_at)),
      el("td", {}, one.order_id === undefined ? name(one.command.id) : orderLink(one.order_id),
        one.command.type === "order.created" ? null : el("small", {}, ` ${one.command.type}`)),
      el("td", {}, reasonList(one.reasons, one.more_reasons)),
      el("td", {}, record(one.source)),
    ],
    "None since this process began.",
  );
  list(
    "letters",
    snapshot.dead_letters,
    (one) => `${one.source.topic}[${one.source.partition}]@${one.source.offset}`,
    (one) => [
      el("td", { class: "tight" }, time(one.at)),
      el("td", {}, el("b", {}, words(one.error)), el("div", { class: "why" }, el("small", {}, name(one.detail)))),
      el("td", {}, record(one.source)),
    ],
    "None since this process began.",
  );
}

/** 0, 1, 2, 5 as 0–2, 5. */
function spans(numbers) {
  const spans = [];
  for (const number of [...numbers].sort((one, other) => one - other)) {
    const last = spans.at(-1);
    if (last && last[1] === number - 1) last[1] = number;
    else spans.push([number, number]);
  }
  return spans.map(([from, to]) => (from === to ? `${from}` : to === from + 1 ? `${from}, ${to}` : `${from}–${to}`)).join(", ");
}

function group(snapshot) {
  const { consumer_group: group, about } = snapshot;
  byId("group-scope").replaceChildren(
    "whole group ", name(about.group), ", by Kafka", ...(group.asked_at ? [" at ", time(group.asked_at)] : []),
  );
  // The members of one instance together.
  const instances = new Map();
  for (const member of group.members) {
    const instance = member.client_id.replace(/^stock-verifier-/, "").replace(/-(orders|adjustments|both)$/, "");
    const known = instances.get(instance) ?? { instance, host: member.host, partitions: {} };
    for (const [topic, numbers] of Object.entries(member.partitions)) {
      known.partitions[topic] = [...(known.partitions[topic] ?? []), ...numbers];
    }
    instances.set(instance, known);
  }
  rows(
    byId("members"),
    [...instances.values()].map((one) => ({ ...one, own: one.instance === about.instance })),
    (one) => one.instance,
    (one) => [
      el("td", {}, name(one.instance), one.own ? el("small", {}, " (this process)") : null, el("div", {}, el("small", {}, one.host.replace(/^\//, "")))),
      el("td", { class: "partitions" },
        Object.keys(one.partitions).length === 0 ? el("span", { class: "muted" }, "none") : null,
        Object.entries(one.partitions).map(([topic, numbers]) => el("div", {}, name(topic), ": ", el("b", {}, spans(numbers))))),
    ],
    group.unknown ? `Not known: ${group.unknown}.` : "Nobody is in the group.",
  );
}

function readiness(snapshot) {
  const { ready, stopping, dependencies, stopped_partitions: stopped } = snapshot.readiness;
  const state = byId("ready");
  const down = dependencies.filter((one) => one.state !== "up");
  state.hidden = ready;
  say(state, ready ? "" : stopping ? "Stopping" : down.length > 0 ? `Not ready: ${down.map((one) => `${one.name} ${one.state}`).join(", ")}` : "Not ready: a partition is stopped");
  state.className = "state unready";
  byId("stopped").replaceChildren(
    ...stopped.map((one) => el("p", { class: "note bad" }, el("bdi", { class: "mono" }, `${one.topic}[${one.partition}]`), " is stopped since ", time(one.since), ": a person must look (the log says why).")),
  );
}

/** Shows all of it. */
export function show(snapshot) {
  const { about } = snapshot;
  byId("about").replaceChildren(name(about.instance), " in group ", name(about.group), ` · ${about.version}`);
  for (const part of [rates, lag, stages, reasons, hot, faults, group, readiness]) part(snapshot);
  byId("live").classList.remove("stale");
}

/** Shows that what is seen is not of now. */
export function showCut(last, why) {
  byId("live").classList.add("stale");
  document.title = "cut · Stock verifier";
  return last ? `Cut since ${clockOf(last)}: ${why}. Trying again.` : `No data: ${why}. Trying again.`;
}
