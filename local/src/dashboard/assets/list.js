// The list of deliveries. Only visible rows are in the document, so that 10,000 rows scroll as fast as ten.

import { connect, element, isForThePage, on } from "/assets/live.js";
import { draw, group } from "/assets/chart.js";

const MOST = 10_000;
const byId = (id) => document.getElementById(id);
const list = byId("list");
const space = byId("space");
const filters = byId("filters");

let all = []; // all rows, the oldest first; their ids have no gaps
let shown = []; // the rows that pass the filters
let selected = null; // the id of the selected row
let height = 30;

/* Filters, which are kept in the URL */

const NAMES = ["provider", "type", "outcome", "order"];

function wanted() {
  return Object.fromEntries(NAMES.map((name) => [name, filters.elements[name].value.trim()]));
}

function passes(row, want) {
  return (
    (!want.provider || row.provider === want.provider) &&
    (!want.outcome || row.outcome === want.outcome) &&
    (!want.type || (row.type ?? "").includes(want.type)) &&
    (!want.order || (row.order ?? "").includes(want.order) || (row.event_id ?? "").startsWith(want.order))
  );
}

function readUrl() {
  const asked = new URLSearchParams(location.search);
  for (const name of NAMES) filters.elements[name].value = asked.get(name) ?? "";
}

function writeUrl() {
  const asked = new URLSearchParams(Object.entries(wanted()).filter(([, value]) => value));
  const query = asked.toString();
  history.replaceState(null, "", query ? `/?${query}` : "/");
}

function filter() {
  const want = wanted();
  const some = NAMES.some((name) => want[name]);
  shown = some ? all.filter((row) => passes(row, want)) : all.slice();
  byId("clear").hidden = !some;
  byId("why").textContent = some ? "No delivery passes these filters." : "No deliveries yet.";
  render();
}

function clearFilters() {
  for (const name of NAMES) filters.elements[name].value = "";
  writeUrl();
  filter();
}

filters.addEventListener("input", () => {
  writeUrl();
  filter();
});
filters.addEventListener("submit", (event) => event.preventDefault());
byId("clear").addEventListener("click", clearFilters);
addEventListener("popstate", () => {
  readUrl();
  filter();
});

/* Rows */

const CELLS = ["at", "outcome", "provider", "shop", "type", "order", "took", "state"];
const pool = [];

function makeRow() {
  const row = element("a", "row");
  row.setAttribute("role", "row");
  row.cells = {};
  for (const name of CELLS) {
    const cell = element("span", `c-${name}`);
    cell.setAttribute("role", "cell");
    if (name === "order" || name === "shop") cell.append(element("bdi"));
    row.cells[name] = cell.firstChild ?? cell;
    row.append(cell);
  }
  space.append(row);
  return row;
}

const clock = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  fractionalSecondDigits: 3,
  hour12: false,
});
const took = (micros) => (micros < 10_000 ? (micros / 1000).toFixed(1) : Math.round(micros / 1000)) + " ms";

function fill(row, data) {
  if (row.data === data) return;
  row.data = data;
  row.href = `/deliveries/${data.id}`;
  const { cells } = row;
  cells.at.textContent = clock.format(data.at);
  cells.outcome.textContent = data.outcome.replace("_", " ");
  cells.outcome.className = `c-outcome ${group(data.outcome)}`;
  // What reconciliation stored was no request.
  const isRequest = data.outcome !== "reconciled";
  const answered = isRequest ? `answered ${data.status}` : "found by reconciliation";
  cells.outcome.title = data.reason ? data.reason.replaceAll("_", " ") : answered;
  cells.provider.textContent = data.provider ?? "";
  cells.shop.textContent = (data.shop ?? "").slice(0, 200);
  cells.type.textContent = data.type ?? (data.reason ?? "").replaceAll("_", " ");
  cells.order.textContent = (data.order ?? "").slice(0, 200);
  cells.took.textContent = isRequest ? took(data.micros) : "";
  const waits = data.state && data.state !== "published" && data.state !== data.outcome;
  cells.state.textContent = (waits ? data.state : data.state === "published" ? "published" : "") +
    (data.attempts > 0 ? ` · ${data.attempts} attempts` : "");
  cells.state.className = `c-state ${waits ? data.state : ""}`;
}

const at = (index) => shown[shown.length - 1 - index]; // the newest first

let asked = false;
function render() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    paint();
  });
}

function paint() {
  const head = space.offsetTop;
  const first = Math.max(0, Math.floor((list.scrollTop - head) / height) - 8);
  const last = Math.min(shown.length, first + Math.ceil(list.clientHeight / height) + 20);
  space.style.height = `${shown.length * height}px`;
  while (pool.length < last - first) pool.push(makeRow());
  // A row keeps its element while it is visible. Only rows that become visible are written.
  for (let index = first; index < first + pool.length; index += 1) {
    const row = pool[index % pool.length];
    const data = index < last ? at(index) : undefined;
    row.hidden = data === undefined;
    if (data === undefined) continue;
    row.style.transform = `translateY(${index * height}px)`;
    fill(row, data);
    row.classList.toggle("selected", data.id === selected);
  }
  if (pool.length && !performance.getEntriesByName("rows").length) performance.mark("rows");
  byId("none").hidden = shown.length > 0;
  byId("count").textContent = shown.length === all.length ? `${all.length}` : `${shown.length} of ${all.length}`;
}

list.addEventListener("scroll", render, { passive: true });
const measure = () => {
  height = parseFloat(getComputedStyle(list).getPropertyValue("--row")) || 30;
  render();
  picture();
};
addEventListener("resize", measure);

/* New rows */

const types = new Set();

function take(rows) {
  const want = wanted();
  const ascending = rows.slice().sort((one, other) => one.id - other.id);
  let added = 0;
  let again = false;
  for (const row of ascending) {
    if (row.type && !types.has(row.type)) {
      types.add(row.type);
      const option = element("option");
      option.value = row.type;
      byId("types").append(option);
    }
    const index = all.length ? row.id - all[0].id : 0;
    if (index < 0) continue;
    if (index < all.length) {
      all[index] = row;
      again = true;
    } else {
      all.push(row);
      if (passes(row, want)) {
        shown.push(row);
        added += 1;
      }
    }
  }
  if (all.length > MOST + 500) {
    all = all.slice(-MOST);
    again = true;
  }
  if (again) filter();
  // New rows do not move older ones that are being read.
  if (added && list.scrollTop > height) list.scrollTop += added * height;
  render();
  picture();
}

let drawn = false;
function picture() {
  if (drawn) return;
  drawn = true;
  requestAnimationFrame(() => {
    drawn = false;
    const said = draw(byId("chart"), all, Date.now());
    const parts = said.parts.map(({ kind, text }) => element("span", `dot ${kind}`, text));
    byId("legend").replaceChildren(
      element("span", "", `last 5 minutes: ${said.rate}`),
      ...parts,
      element("span", "", said.took),
    );
  });
}
setInterval(picture, 2000);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", picture);

/* Keys */

function select(index) {
  const data = at(Math.max(0, Math.min(shown.length - 1, index)));
  if (!data) return;
  selected = data.id;
  const place = shown.length - 1 - shown.indexOf(data);
  const top = space.offsetTop + place * height;
  const covered = space.offsetTop;
  if (top - covered < list.scrollTop) list.scrollTop = top - covered;
  if (top + height > list.scrollTop + list.clientHeight) list.scrollTop = top + height - list.clientHeight;
  render();
}

addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    document.activeElement?.blur();
    if (selected !== null) selected = null;
    else clearFilters();
    render();
    return;
  }
  if (!isForThePage(event)) {
    if (event.key === "Enter" && event.target.matches("input")) event.target.blur();
    return;
  }
  const place = shown.length - 1 - shown.findIndex((row) => row.id === selected);
  const now = place === shown.length ? -1 : place;
  if (event.key === "j") select(now + 1);
  else if (event.key === "k") select(now - 1);
  else if (event.key === "g") {
    list.scrollTop = 0;
    select(0);
  } else if (event.key === "Enter" && selected !== null && !event.target.matches("a, button")) {
    location.assign(`/deliveries/${selected}`);
  } else if (event.key === "/") {
    event.preventDefault();
    filters.elements.order.focus();
  } else return;
});

/* The start: first the rows of the page, then all rows */

readUrl();
on("rows", ({ rows }) => take(rows));
const first = JSON.parse(byId("rows").textContent);
all = first.rows.reverse();
shown = all.slice();
for (const row of all) if (row.type) types.add(row.type);
measure();
filter();
const load = async () => {
  let known = first;
  if (all.length && all[0].id > 1) {
    known = await (await fetch("/deliveries.json")).json();
    all = known.rows.reverse();
  }
  types.clear();
  take(all.slice(-1));
  for (const row of all) if (row.type) types.add(row.type);
  byId("types").replaceChildren(
    ...[...types].sort().map((type) => Object.assign(element("option"), { value: type })),
  );
  filter();
  picture();
  connect(`${known.run}-${known.change}`);
};
load();
