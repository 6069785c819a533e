"""Folds order events into the state of each order.

    history = History()
    for event in events:      # in any order, with duplicates and replays
        history.add(event)
    history.states()          # {"/selldone/main/1001": {...}}

Copy this file: it needs nothing but Python 3.11. events/README.md states the rules, and events/histories has examples
of events and states, to which this file is held. Run as a program, it reads a JSON list of events from standard input
and prints the states.
"""

import json
import sys
from collections.abc import Iterable
from typing import Any, TypedDict

Event = dict[str, Any]
Pointer = str


class StatedRefund(TypedDict):
    """A refund, and the event that reported it."""

    event_id: str
    refund: dict[str, Any]


class FoldedEvent(TypedDict):
    """An event of the order."""

    id: str
    type: str
    time: str
    updated_at: str | None


class State(TypedDict):
    """The state of an order, as shared/schema/order-state.v1.schema.json describes it."""

    provider: str
    shop: str
    test: bool
    order: dict[str, Any]
    refunds: list["StatedRefund"]
    stated_by: dict[Pointer, str]
    events: list[FoldedEvent]


# The members of these objects are facts of their own.
GROUPS = ("totals", "shipping", "payment")
# A fact is taken from the event that states the fact which it belongs to.
BELONGS_TO = {
    "/order/provider_status": "/order/status",
    "/order/provider_payment_status": "/order/payment_status",
    "/order/shipping/tracking_url": "/order/shipping/tracking_number",
}
# The facts about a line that are merged by the line's id.
LINE_FACTS = ("status", "tracking_number", "return_tracking_number")


class History:
    """Events of any number of orders. Adding events in another order, or several times, makes no difference."""

    def __init__(self, events: Iterable[Event] = ()):
        # None: the event was erased.
        self.events: dict[str, Event | None] = {}
        for event in events:
            self.add(event)

    def add(self, event: Event):
        """Adds an event, or the tombstone of an erased event: `{"id": ..., "erased": true}`."""
        known = self.events.get(event["id"], event)
        if known is None or event.get("erased") is True:
            self.events[event["id"]] = None
        else:
            self.events[event["id"]] = max(known, event, key=precedence)

    def merge(self, other: "History"):
        """Adds the events of another history."""
        for event_id, event in other.events.items():
            self.add(event or {"id": event_id, "erased": True})

    def states(self) -> dict[str, State]:
        """Returns the state of each order by `{source}/{order id}`."""
        orders: dict[tuple[str, str | None], list[Event]] = {}
        for event in self.events.values():
            if event is not None:
                orders.setdefault((event["source"], event["data"]["order"].get("id")), []).append(event)
        return {
            f"{source}/{order}": fold(events, orders.get((source, None), []))
            for (source, order), events in orders.items()
            if order is not None
        }


def precedence(event: Event) -> tuple[int, str]:
    """Decides between two contents under one id: the one with fewer omitted parts, then the greater JSON text."""
    data = {name: value for name, value in event["data"].items() if name not in ("unmapped", "origin")}
    text = json.dumps(event | {"data": data}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return (-len(event["data"]["omitted"]), text)


def place(event: Event) -> tuple[str, str, str, str]:
    """Returns the sort key of an event: `order.updated_at` (or `time` if it is absent), `time`, `received_at`, the id.

    Times are compared as text, because a datetime has only microseconds. Without the Z, "52" sorts before "52.5".
    """
    time, received_at = event["time"].rstrip("Z"), event["data"]["received_at"].rstrip("Z")
    updated_at = event["data"]["order"].get("updated_at")
    return (updated_at.rstrip("Z") if updated_at else time, time, received_at, event["id"])


def stated_facts(event: Event) -> dict[Pointer, Any]:
    """Returns the facts that an event states. Null states nothing, nor does an empty list of items."""
    facts: dict[Pointer, Any] = {}
    for name, value in event["data"]["order"].items():
        if name in GROUPS:
            facts |= {f"/order/{name}/{member}": fact for member, fact in (value or {}).items()}
        else:
            facts[f"/order/{name}"] = value
    if facts.get("/order/items") == []:
        del facts["/order/items"]
    omitted = event["data"]["omitted"]
    return {
        pointer: value
        for pointer, value in facts.items()
        if value is not None and not any(f"/data{pointer}/".startswith(f"{part}/") for part in omitted)
    }


def fold(events: list[Event], without_order: list[Event]) -> State:
    """Folds the events of one order, and those events of its shop that name items and no order."""
    events = sorted(events, key=place)
    known: dict[Pointer, tuple[Any, Event]] = {}
    lines, adjustments, refunds = Lines(), Adjustments(), []
    for event in sorted(events + without_order, key=place):
        facts = stated_facts(event)
        names_order = event["data"]["order"].get("id") is not None
        lines.apply(event, facts.pop("/order/items", []), names_order)
        if not names_order:
            continue
        adjustments.apply(event, facts.pop("/order/adjustments", None))
        if event["data"].get("refund") is not None and "/data/refund" not in event["data"]["omitted"]:
            refunds.append({"event_id": event["id"], "refund": event["data"]["refund"]})
        for pointer, leader in BELONGS_TO.items():
            if leader in facts:
                if leader not in known or known[leader][0] != facts[leader]:
                    known.pop(pointer, None)
            elif leader in known:
                facts.pop(pointer, None)
        for pointer, value in facts.items():
            if pointer not in known or replaces(pointer, value, event, *known[pointer]):
                known[pointer] = (value, event)

    order: dict[str, Any] = {name: {} for name in GROUPS}
    stated_by: dict[Pointer, str] = {}
    for pointer, (value, event) in known.items():
        name = pointer.removeprefix("/order/")
        group, _, member = name.partition("/")
        if group in GROUPS:
            order[group][member] = value
        else:
            order[name] = value
        stated_by[pointer] = event["id"]
    lines.write(order, stated_by)
    adjustments.write(order, stated_by)
    used = [event for event in without_order if lines.have_one_of(event)]
    return {
        "provider": events[0]["data"]["provider"],
        "shop": events[0]["data"]["shop"],
        "test": any(event["data"]["test"] for event in events),
        "order": order,
        "refunds": refunds,
        "stated_by": stated_by,
        "events": [
            {
                "id": event["id"],
                "type": event["type"],
                "time": event["time"],
                "updated_at": event["data"]["order"].get("updated_at"),
            }
            for event in sorted(events + used, key=place)
        ],
    }


def replaces(pointer: Pointer, value: Any, event: Event, known: Any, known_by: Event) -> bool:
    """Whether a fact of a later event replaces the known one."""
    if pointer == "/order/number" and value == event["data"]["order"]["id"]:
        # The provider did not state the number that people see, so the event has the id in its place.
        return known == value
    # An address, another object or a list is one fact. A partial event may state less of it than a complete one.
    is_compound = isinstance(value, dict | list)
    return not (is_compound and event["data"]["partial"] and not known_by["data"]["partial"])


def unique_ids(lines: list[dict]) -> set[str]:
    """Returns the ids that exactly one of the lines has."""
    ids = [line["id"] for line in lines if line.get("id") is not None]
    return {line_id for line_id in ids if ids.count(line_id) == 1}


class Lines:
    """The items of an order: the list of the latest complete event, with what other events state about its lines."""

    def __init__(self):
        self.lines: list[tuple[dict, Event]] = []
        self.stated: Event | None = None
        self.facts: dict[tuple[str, str], tuple[Any, Event]] = {}

    def apply(self, event: Event, lines: list[dict], names_order: bool):
        ids = unique_ids(lines)
        for line in lines:
            for fact in LINE_FACTS:
                if line.get("id") in ids and line.get(fact) is not None:
                    self.facts[line["id"], fact] = (line[fact], event)
        if not lines or not names_order:
            return
        if not event["data"]["partial"]:
            self.lines, self.stated = [(line, event) for line in lines], event
            return
        has_complete = self.stated is not None and not self.stated["data"]["partial"]
        if not has_complete:
            # Lines without an id cannot be matched, so only those of the latest event are kept.
            known = unique_ids([line for line, _ in self.lines])
            self.lines = [(line, by) for line, by in self.lines if line.get("id") in known]
            self.stated = event
        places = {line.get("id"): index for index, (line, _) in enumerate(self.lines)}
        for line in lines:
            if line.get("id") not in ids:
                if not has_complete:
                    self.lines.append((line, event))
            elif line["id"] not in places:
                self.lines.append((line, event))
            elif self.lines[places[line["id"]]][1]["data"]["partial"]:
                known, _ = self.lines[places[line["id"]]]
                stated = {name: value for name, value in line.items() if value is not None or name not in known}
                self.lines[places[line["id"]]] = (known | stated, event)

    def have_one_of(self, event: Event) -> bool:
        """Whether an event without an order names a line of the list."""
        named = unique_ids(stated_facts(event).get("/order/items", []))
        return not named.isdisjoint(unique_ids([line for line, _ in self.lines]))

    def write(self, order: dict[str, Any], stated_by: dict[Pointer, str]):
        if self.stated is None:
            return
        order["items"] = []
        stated_by["/order/items"] = self.stated["id"]
        ids = unique_ids([line for line, _ in self.lines])
        for index, (line, by) in enumerate(self.lines):
            pointer = f"/order/items/{index}"
            if by["id"] != self.stated["id"]:
                stated_by[pointer] = by["id"]
            merged = dict(line)
            for fact in LINE_FACTS:
                if line.get("id") in ids and (line["id"], fact) in self.facts:
                    merged[fact], event = self.facts[line["id"], fact]
                    if event["id"] != by["id"]:
                        stated_by[f"{pointer}/{fact}"] = event["id"]
            order["items"].append(merged)


class Adjustments:
    """The refunds and withdrawals of an order, as a set by their ids."""

    def __init__(self):
        self.stated: Event | None = None
        self.by_id: dict[str, tuple[dict, Event]] = {}
        self.without_id: list[tuple[dict, Event]] = []

    def apply(self, event: Event, adjustments: list[dict] | None):
        if adjustments is None:
            return
        self.stated = event
        if not event["data"]["partial"]:
            self.without_id = []
        for adjustment in adjustments:
            if adjustment.get("id") is None:
                self.without_id.append((adjustment, event))
                continue
            known, _ = self.by_id.get(adjustment["id"], ({}, event))
            stated = {name: value for name, value in adjustment.items() if value is not None or name not in known}
            self.by_id[adjustment["id"]] = (known | stated, event)

    def write(self, order: dict[str, Any], stated_by: dict[Pointer, str]):
        if self.stated is None:
            return
        order["adjustments"] = []
        stated_by["/order/adjustments"] = self.stated["id"]
        for index, (adjustment, event) in enumerate([*self.by_id.values(), *self.without_id]):
            order["adjustments"].append(adjustment)
            stated_by[f"/order/adjustments/{index}"] = event["id"]


if __name__ == "__main__":
    json.dump(History(json.load(sys.stdin)).states(), sys.stdout, ensure_ascii=False)
