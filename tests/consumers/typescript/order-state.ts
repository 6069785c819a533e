/**
 * Folds order events into the state of each order.
 *
 *     const history = new History();
 *     for (const event of events) history.add(event); // in any order, with duplicates and replays
 *     history.states(); // { "/selldone/main/1001": { ... } }
 *
 * Copy this file: it needs nothing but Node.js 20. events/README.md states the rules, and events/histories has examples
 * of events and states, to which this file is held. Run as a program, it reads a JSON list of events from standard
 * input and prints the states.
 */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };
export type Facts = { [name: string]: Json };

/** The fields of an event that are folded. All others are ignored. */
export interface Event {
  id: string;
  source: string;
  type: string;
  time: string;
  data: {
    provider: string;
    shop: string;
    test: boolean;
    received_at: string;
    partial: boolean;
    omitted: string[];
    order: { id?: string | null; updated_at?: string | null; [name: string]: unknown };
    refund?: { [name: string]: unknown } | null;
  };
}

/** What is left of an erased event. */
export interface Tombstone {
  id: string;
  erased: true;
}

/** The state of an order, as shared/schema/order-state.v1.schema.json describes it. */
export interface State {
  provider: string;
  shop: string;
  test: boolean;
  order: Facts;
  refunds: { event_id: string; refund: Facts }[];
  stated_by: { [pointer: string]: string };
  events: { id: string; type: string; time: string; updated_at: string | null }[];
}

/** A value, and the event that states it. */
type Stated<T> = readonly [value: T, event: Event];

// The members of these objects are facts of their own.
const GROUPS = ["totals", "shipping", "payment"];
// A fact is taken from the event that states the fact which it belongs to.
const BELONGS_TO = [
  ["/order/provider_status", "/order/status"],
  ["/order/provider_payment_status", "/order/payment_status"],
  ["/order/shipping/tracking_url", "/order/shipping/tracking_number"],
] as const;
// The facts about a line that are merged by the line's id.
const LINE_FACTS = ["status", "tracking_number", "return_tracking_number"];

/** Events of any number of orders. Adding events in another order, or several times, makes no difference. */
export class History {
  // undefined: the event was erased.
  readonly #events = new Map<string, Event | undefined>();

  /** Adds an event, or the tombstone of an erased event. */
  add(event: Event | Tombstone): void {
    const known = this.#events.get(event.id);
    if ("erased" in event) {
      this.#events.set(event.id, undefined);
    } else if (!this.#events.has(event.id) || (known !== undefined && precedes(event, known))) {
      this.#events.set(event.id, event);
    }
  }

  /** Adds the events of another history. */
  merge(other: History): void {
    for (const [id, event] of other.#events) this.add(event ?? { id, erased: true });
  }

  /** Returns the state of each order by `{source}/{order id}`. */
  states(): { [key: string]: State } {
    const orders = new Map<string, Event[]>();
    const withoutOrder = new Map<string, Event[]>();
    for (const event of this.#events.values()) {
      if (event === undefined) continue;
      const order = event.data.order.id;
      const [group, key] = order == null ? [withoutOrder, event.source] : [orders, `${event.source}/${order}`];
      group.set(key, [...(group.get(key) ?? []), event]);
    }
    const states: { [key: string]: State } = {};
    for (const [key, events] of orders) {
      states[key] = fold(events, withoutOrder.get(events[0]?.source ?? "") ?? []);
    }
    return states;
  }
}

/** Decides between two contents under one id: the one with fewer omitted parts, then the greater JSON text. */
function precedes(one: Event, other: Event): boolean {
  const parts = one.data.omitted.length - other.data.omitted.length;
  return parts === 0 ? compare(canonical(one), canonical(other)) > 0 : parts < 0;
}

/** Compares texts as UTF-8, as other languages do. */
function compare(one: string, other: string): number {
  return Buffer.compare(Buffer.from(one), Buffer.from(other));
}

function canonical(event: Event): string {
  const { unmapped: _unmapped, origin: _origin, ...data } = event.data as { [name: string]: unknown };
  return JSON.stringify({ ...event, data }, (_, value: unknown) => {
    if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
    return Object.fromEntries(Object.entries(value).sort(([one], [other]) => compare(one, other)));
  });
}

/**
 * Compares events by `order.updated_at` (or `time` if it is absent), then `time`, then `received_at`, then the id.
 *
 * Times are compared as text, because a Date has only milliseconds. Without the Z, "52" sorts before "52.5".
 */
function byPlace(one: Event, other: Event): number {
  const place = ({ id, time, data }: Event): string[] =>
    [data.order.updated_at ?? time, time, data.received_at].map((text) => text.replace(/Z$/, "")).concat(id);
  const [left, right] = [place(one), place(other)];
  const at = left.findIndex((part, index) => part !== right[index]);
  return at < 0 ? 0 : compare(left[at] ?? "", right[at] ?? "");
}

/** Returns the facts that an event states. Null states nothing, nor does an empty list of items. */
function statedFacts({ data }: Event): Map<string, Json> {
  const facts = new Map<string, Json>();
  const state = (pointer: string, value: unknown): void => {
    const isOmitted = data.omitted.some((part) => `/data${pointer}/`.startsWith(`${part}/`));
    if (value != null && !isOmitted) facts.set(pointer, value as Json);
  };
  for (const [name, value] of Object.entries(data.order)) {
    if (GROUPS.includes(name)) {
      for (const [member, fact] of Object.entries(value ?? {})) state(`/order/${name}/${member}`, fact);
    } else if (name !== "items" || (Array.isArray(value) && value.length > 0)) {
      state(`/order/${name}`, value);
    }
  }
  return facts;
}

/** Whether a fact of a later event replaces the known one. */
function replaces(pointer: string, value: Json, event: Event, [known, knownBy]: Stated<Json>): boolean {
  // The provider did not state the number that people see, so the event has the id in its place.
  if (pointer === "/order/number" && value === event.data.order.id) return known === value;
  // An address, another object or a list is one fact. A partial event may state less of it than a complete one.
  return !(typeof value === "object" && event.data.partial && !knownBy.data.partial);
}

/** Folds the events of one order, and those events of its shop that name items and no order. */
function fold(events: Event[], withoutOrder: Event[]): State {
  const known = new Map<string, Stated<Json>>();
  const [lines, adjustments] = [new Lines(), new Adjustments()];
  const refunds: State["refunds"] = [];
  for (const event of [...events, ...withoutOrder].sort(byPlace)) {
    const facts = statedFacts(event);
    const take = (pointer: string): Facts[] | undefined => {
      const list = facts.get(pointer);
      facts.delete(pointer);
      return list as Facts[] | undefined;
    };
    lines.apply(event, take("/order/items") ?? []);
    if (event.data.order.id == null) continue;
    adjustments.apply(event, take("/order/adjustments"));
    const { refund, omitted } = event.data;
    if (refund != null && !omitted.includes("/data/refund")) refunds.push({ event_id: event.id, refund: refund as Facts });
    for (const [pointer, leader] of BELONGS_TO) {
      if (!facts.has(leader)) {
        if (known.has(leader)) facts.delete(pointer);
      } else if (known.get(leader)?.[0] !== facts.get(leader)) {
        known.delete(pointer);
      }
    }
    for (const [pointer, value] of facts) {
      const before = known.get(pointer);
      if (before === undefined || replaces(pointer, value, event, before)) known.set(pointer, [value, event]);
    }
  }

  const groups: { [name: string]: Facts } = Object.fromEntries(GROUPS.map((name) => [name, {}]));
  const order: Facts = { ...groups };
  const statedBy: State["stated_by"] = {};
  for (const [pointer, [value, event]] of known) {
    const name = pointer.slice("/order/".length);
    const slash = name.indexOf("/");
    const group = groups[name.slice(0, slash)];
    if (slash > 0 && group !== undefined) group[name.slice(slash + 1)] = value;
    else order[name] = value;
    statedBy[pointer] = event.id;
  }
  lines.write(order, statedBy);
  adjustments.write(order, statedBy);
  const used = [...events, ...withoutOrder.filter((event) => lines.haveOneOf(event))].sort(byPlace);
  const [first] = [...events].sort(byPlace);
  if (first === undefined) throw new RangeError("an order has an event");
  return {
    provider: first.data.provider,
    shop: first.data.shop,
    test: events.some((event) => event.data.test),
    order,
    refunds,
    stated_by: statedBy,
    events: used.map(({ id, type, time, data }) => ({ id, type, time, updated_at: data.order.updated_at ?? null })),
  };
}

/** Returns the known facts with those that are stated later. Null states nothing. */
function merged(known: Facts, stated: Facts): Facts {
  const facts = Object.entries(stated).filter(([name, value]) => value !== null || !(name in known));
  return { ...known, ...Object.fromEntries(facts) };
}

/** Returns the ids that exactly one of the lines has. */
function uniqueIds(lines: Facts[]): Set<Json> {
  const ids = lines.map((line) => line["id"]).filter((id) => id != null);
  return new Set(ids.filter((id) => ids.indexOf(id) === ids.lastIndexOf(id)));
}

/** The items of an order: the list of the latest complete event, with what other events state about its lines. */
class Lines {
  #lines: Stated<Facts>[] = [];
  #stated: Event | undefined;
  /** By the id of the line and the name of the fact. */
  readonly #facts = new Map<string, Stated<Json>>();

  /** Applies the items of an event, which is later than all before. */
  apply(event: Event, lines: Facts[]): void {
    const ids = uniqueIds(lines);
    const isUnique = (line: Facts): boolean => ids.has(line["id"] ?? null);
    for (const line of lines.filter(isUnique)) {
      for (const fact of LINE_FACTS) {
        const value = line[fact];
        if (value != null) this.#facts.set(`${fact} ${line["id"]}`, [value, event]);
      }
    }
    if (lines.length === 0 || event.data.order.id == null) return;
    if (!event.data.partial) {
      this.#lines = lines.map((line) => [line, event]);
      this.#stated = event;
      return;
    }
    const hasComplete = this.#stated !== undefined && !this.#stated.data.partial;
    if (!hasComplete) {
      // Lines without an id cannot be matched, so only those of the latest event are kept.
      const known = this.#ids();
      this.#lines = this.#lines.filter(([line]) => known.has(line["id"] ?? null));
      this.#stated = event;
    }
    for (const line of lines) {
      const index = isUnique(line) ? this.#lines.findLastIndex(([known]) => known["id"] === line["id"]) : -1;
      const same = this.#lines[index];
      if (same === undefined) {
        if (isUnique(line) || !hasComplete) this.#lines.push([line, event]);
      } else if (same[1].data.partial) {
        this.#lines[index] = [merged(same[0], line), event];
      }
    }
  }

  /** Whether an event without an order names a line of the list. */
  haveOneOf(event: Event): boolean {
    const ids = this.#ids();
    return [...uniqueIds((statedFacts(event).get("/order/items") ?? []) as Facts[])].some((id) => ids.has(id));
  }

  write(order: Facts, statedBy: State["stated_by"]): void {
    const stated = this.#stated;
    if (stated === undefined) return;
    statedBy["/order/items"] = stated.id;
    const ids = this.#ids();
    order["items"] = this.#lines.map(([line, by], index) => {
      const pointer = `/order/items/${index}`;
      if (by.id !== stated.id) statedBy[pointer] = by.id;
      const complete = { ...line };
      for (const fact of LINE_FACTS) {
        const known = ids.has(line["id"] ?? null) ? this.#facts.get(`${fact} ${line["id"]}`) : undefined;
        if (known === undefined) continue;
        complete[fact] = known[0];
        if (known[1].id !== by.id) statedBy[`${pointer}/${fact}`] = known[1].id;
      }
      return complete;
    });
  }

  #ids(): Set<Json> {
    return uniqueIds(this.#lines.map(([line]) => line));
  }
}

/** The refunds and withdrawals of an order, as a set by their ids. */
class Adjustments {
  #stated: Event | undefined;
  readonly #byId = new Map<Json, Stated<Facts>>();
  #withoutId: Stated<Facts>[] = [];

  /** Applies the adjustments of an event, which is later than all before. */
  apply(event: Event, adjustments: Facts[] | undefined): void {
    if (adjustments === undefined) return;
    this.#stated = event;
    if (!event.data.partial) this.#withoutId = [];
    for (const adjustment of adjustments) {
      const id = adjustment["id"] ?? null;
      if (id === null) {
        this.#withoutId.push([adjustment, event]);
        continue;
      }
      this.#byId.set(id, [merged(this.#byId.get(id)?.[0] ?? {}, adjustment), event]);
    }
  }

  write(order: Facts, statedBy: State["stated_by"]): void {
    if (this.#stated === undefined) return;
    statedBy["/order/adjustments"] = this.#stated.id;
    order["adjustments"] = [...this.#byId.values(), ...this.#withoutId].map(([adjustment, event], index) => {
      statedBy[`/order/adjustments/${index}`] = event.id;
      return adjustment;
    });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const history = new History();
  for (const event of JSON.parse(readFileSync(0, "utf8")) as (Event | Tombstone)[]) history.add(event);
  process.stdout.write(JSON.stringify(history.states()));
}
