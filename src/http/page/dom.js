// Makes elements and writes numbers and times. Text only ever becomes text: nothing here reads HTML.

/** An element with attributes, and children that are elements or text. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** What a reason or a fault is called, for people. */
export const words = (name) => (name === "" ? "unreadable" : name.replaceAll("_", " ").replace(/\bsku\b/, "SKU").replace(/\bjson\b/, "JSON").replace(/\butf8\b/, "UTF-8"));

/** Says a text where another may stand; leaves it alone where it is the same, so that nothing is read out twice. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A name that somebody else chose: in its own direction of writing, whatever signs it has. */
export const name = (text) => el("bdi", {}, text);

export const orderLink = (id) => el("a", { href: `#/order/${encodeURIComponent(id)}` }, name(id));
export const skuLink = (sku) => el("a", { href: `#/sku/${encodeURIComponent(sku)}` }, name(sku));

/** A SKU, and where it is. */
export function item(of) {
  return of.location === undefined ? skuLink(of.sku) : [skuLink(of.sku), el("small", {}, " at ", name(of.location))];
}

/** Where a record stands: as `kcat -t TOPIC -p PARTITION -o OFFSET` takes it. */
export function record(source) {
  if (!source) return el("span", { class: "muted" }, "by an operator");
  const text = `${source.topic}[${source.partition}]@${source.offset}`;
  return el("bdi", { class: "mono place", title: `topic ${source.topic}, partition ${source.partition}, offset ${source.offset}` }, text);
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });

export const count = (number) => whole.format(number);
export const rate = (number) => {
  if (number > 0 && number < 0.1) return "< 0.1";
  return number === 0 || number >= 100 ? whole.format(number) : tenths.format(number);
};
export const percent = (part) => (part > 0 && part < 0.001 ? "< 0.1 %" : `${tenths.format(part * 100)} %`);

/** Milliseconds, as short as they can be said. */
export function millis(ms) {
  if (ms < 10) return `${tenths.format(ms)} ms`;
  return ms < 10_000 ? `${whole.format(ms)} ms` : seconds(ms / 1000);
}

/** Seconds, the same. */
export function seconds(all) {
  if (all === 0) return "0 s";
  if (all < 1) return `${whole.format(all * 1000)} ms`;
  if (all < 100) return `${tenths.format(all)} s`;
  const [minutes, hours] = [Math.floor(all / 60) % 60, Math.floor(all / 3600)];
  if (hours === 0) return `${minutes} min ${Math.floor(all) % 60} s`;
  return hours < 48 ? `${hours} h ${minutes} min` : `${Math.floor(hours / 24)} days`;
}

const ofDay = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
const clock = new Intl.DateTimeFormat(undefined, ofDay);
const day = new Intl.DateTimeFormat(undefined, { ...ofDay, day: "numeric", month: "short", year: "numeric" });

/** A time of today by the clock, another with its day. */
export function time(iso) {
  const at = new Date(iso);
  const isToday = at.toDateString() === new Date().toDateString();
  return el("time", { datetime: iso, title: iso }, isToday ? clock.format(at) : day.format(at));
}

export const clockOf = (date) => clock.format(date);

/** Brings the rows of a table to these, each made or renewed by its key: what has the focus stays where it is. */
export function rows(body, all, key, make, empty) {
  const known = new Map([...body.children].map((row) => [row.dataset.key, row]));
  const wanted = all.map((one) => {
    const id = key(one);
    const content = JSON.stringify(one);
    const before = known.get(id);
    if (before && before.dataset.content === content) return before;
    const row = el("tr", {}, make(one));
    row.dataset.key = id;
    row.dataset.content = content;
    return row;
  });
  if (wanted.length === 0) {
    const columns = body.parentElement.querySelectorAll("thead th").length;
    wanted.push(el("tr", { class: "empty" }, el("td", { colspan: columns }, empty)));
  }
  const same = wanted.length === body.children.length && wanted.every((row, at) => row === body.children[at]);
  if (!same) body.replaceChildren(...wanted);
}
