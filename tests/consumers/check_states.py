"""Checks that the folds in Python, TypeScript and Rust give the states of events/histories, and the same states as each
other for random histories.

    python check_states.py FOLDER_OF_THE_BINARIES      (tests/consumers/run prepares everything and runs it)
"""

import json
import pathlib
import random
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
HISTORIES = HERE.parent.parent / "events/histories"
FOLDS = {
    "python": [sys.executable, str(HERE / "python/order_state.py")],
    "typescript": ["node", str(HERE / "typescript/build/order-state.js")],
    "rust": [str(pathlib.Path(sys.argv[1]) / "order-state")],
}
RANDOM_HISTORIES = 400


def fold(command: list[str], events: list[dict]) -> dict:
    result = subprocess.run(command, input=json.dumps(events), check=True, text=True, stdout=subprocess.PIPE, timeout=60)
    return json.loads(result.stdout)


def random_events(shop: str, choose: random.Random) -> list[dict]:
    """Returns events of two orders of a shop, with few values, so that ties, repeats and conflicts are common."""

    def one_of(*values):
        return choose.choice([None, *values])

    def items():
        if choose.random() < 0.3:
            return choose.choice([None, []])
        return [
            {"id": one_of("1", "2", "3"), "name": one_of("Mug"), "quantity": choose.randint(1, 2), "status": one_of("pending", "shipped"), "tracking_number": one_of("T1", "T2")}
            for _ in range(choose.randint(1, 3))
        ]

    def adjustments():
        if choose.random() < 0.5:
            return None
        return [
            {"id": one_of("r1", "r2"), "amount": one_of("5", "7"), "reason": one_of("Broken", "ausverkauft – ß𝄞")}
            for _ in range(choose.randint(0, 2))
        ]

    def event() -> dict:
        event_id = f"{shop}-{choose.randint(1, 8)}".encode().hex().zfill(64)
        if choose.random() < 0.05:
            return {"id": event_id, "erased": True}
        order_id = choose.choice(["o1", "o1", "o2", None])
        omitted = choose.choice([[], [], ["/data/unmapped"], ["/data/unmapped", "/data/order/items"]])
        return {
            "id": event_id,
            "source": f"/selldone/{shop}",
            "type": choose.choice(["order.paid", "order.something_new"]),
            "time": choose.choice(["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.0000001Z", "2026-01-01T00:00:01Z"]),
            "data": {
                "provider": "selldone",
                "shop": shop,
                "test": choose.random() < 0.1,
                "received_at": f"2026-01-01T00:00:0{choose.randint(0, 2)}Z",
                "origin": choose.choice(["webhook", "reconciliation"]),
                "partial": choose.random() < 0.4,
                "omitted": omitted,
                "unmapped": {"any": choose.random()},
                "refund": choose.choice([None, {"amount": "5"}]),
                "order": {
                    "id": order_id,
                    "number": choose.choice([order_id, "N-1", "N-2"]),
                    "updated_at": one_of("2026-01-01T00:00:00.5Z", "2026-01-01T00:00:01Z"),
                    "status": one_of("pending", "shipped"),
                    "provider_status": one_of("Neu", "Versandt"),
                    "added": one_of({"b": 1, "a": 2}, "text"),
                    "shipping_address": one_of({"line1": "A", "line2": None}, {"line1": "B", "line2": "C"}),
                    "discounts": one_of([], [{"amount": "1"}]),
                    "totals": {"total": one_of("1", "2.5")},
                    "shipping": {"tracking_number": one_of("T1", "T2"), "tracking_url": one_of("U1", "U2")},
                    "payment": {},
                    "items": None if "/data/order/items" in omitted else items(),
                    "adjustments": adjustments(),
                },
            },
        }

    return [event() for _ in range(choose.randint(1, 12))]


def check():
    histories = sorted(HISTORIES.glob("*.json"))
    assert len(histories) > 30, f"only {len(histories)} histories"
    for name, command in FOLDS.items():
        for path in histories:
            history = json.loads(path.read_text())
            again = history["events"] * 2
            random.Random(1).shuffle(again)
            for events in (history["events"], again):
                state = fold(command, events)
                assert state == history["state"], f"{name}, {path.name}: {json.dumps(state, indent=2)}"
        print(f"ok     {name}: the states of {len(histories)} histories")

    events = []
    for seed in range(RANDOM_HISTORIES):
        events += random_events(f"shop-{seed}", random.Random(seed))
    states = {name: fold(command, events) for name, command in FOLDS.items()}
    expected = states["rust"]
    assert len(expected) > RANDOM_HISTORIES, f"only {len(expected)} orders"
    for name, found in states.items():
        different = [key for key in expected.keys() | found.keys() if found.get(key) != expected.get(key)]
        if different:
            key = min(different)
            sys.exit(f"{name} and rust differ in {len(different)} orders:\n{json.dumps([found.get(key), expected.get(key)], indent=2)}")
    print(f"ok     all: the same states of {len(expected)} random orders")


check()
