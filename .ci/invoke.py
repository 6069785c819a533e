#!/usr/bin/env python3
"""Invokes the built functions in Docker with the events of events/.

`.ci/invoke.py one` sends one event of each provider by `sam local invoke`, as the README shows it. `.ci/invoke.py all`
also sends every other event, through `sam local start-lambda`, which does not start a container for each. The local
stack must be running and empty, and containers must reach it as host.docker.internal. QUEUE_URL is the URL of its queue.
"""

import functools
import json
import os
import pathlib
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable

from sam_local import BUILT, Failed, serving

EVENTS = pathlib.Path("events")
QUEUE_URL = os.environ.get("QUEUE_URL", "http://127.0.0.1:4566/000000000000/order-events")


def expected(event: pathlib.Path) -> set[str]:
    """Returns the allowed statuses: an event that has a golden event must be accepted, any other one is only stored."""
    if event.with_suffix(".normalized.json").exists():
        return {"accepted"}
    return {"unsupported", "quarantined"}


def invoke(function: str, source: str, text: str = "") -> str:
    """Invokes a function with the event in the file `source`, or with `text` if `source` is `-`, and returns its
    answer. Raises ValueError with the log if the function returns no answer."""
    command = ["sam", "local", "invoke", function, "--event", source, *BUILT]
    try:
        done = subprocess.run(command, capture_output=True, text=True, input=text, timeout=120)
    except subprocess.TimeoutExpired:
        raise ValueError("no answer in 120 s") from None
    if not done.stdout.strip():
        raise ValueError(done.stderr.strip())
    return done.stdout


def invoke_at(port: int, function: str, event: pathlib.Path) -> str:
    """Invokes a function of `sam local start-lambda` with the event in a file, and returns its answer."""
    url = f"http://127.0.0.1:{port}/2015-03-31/functions/{function}/invocations"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, event.read_bytes()), timeout=120) as response:
            return response.read().decode()
    except urllib.error.HTTPError as error:
        raise ValueError(f"{error}: {error.read().decode()}") from None


def fault(answered: Callable[[], str], statuses: set[str]) -> str | None:
    """Returns what is wrong with the answer of a function."""
    text = ""
    try:
        text = answered()
        answer = json.loads(text)
        if answer["statusCode"] == 200 and json.loads(answer["body"])["status"] in statuses:
            return None
    except (ValueError, KeyError, TypeError, OSError) as error:
        return f"{type(error).__name__}: {error}; got: {text.strip()}"
    return f"expected 200 and {' or '.join(sorted(statuses))}, got: {text.strip()}"


def odd_host_fault() -> str | None:
    """Sends an event again with a malformed host name, and returns what is wrong if it is not a duplicate."""
    event = json.loads((EVENTS / "selldone/checkout-order.json").read_text())
    event["headers"]["host"] = "no host"
    return fault(lambda: invoke("SelldoneFunction", "-", json.dumps(event)), {"duplicate"})


def task_fault(function: str, task: str, is_expected: Callable[[dict], bool]) -> str | None:
    """Runs a task as its schedule does, and returns what is wrong with the answer."""
    text = ""
    try:
        text = invoke(function, "-", task)
        return None if is_expected(json.loads(text)) else f"got: {text.strip()}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}; got: {text.strip()}"


def published_nothing(answer: dict) -> bool:
    """Whether redrive has found an empty outbox."""
    return answer.items() >= {"done": True, "failed": 0, "outage": None, "published": 0}.items()


def is_complete(answer: dict) -> bool:
    """Whether reconcile has compared all orders of its one shop."""
    return answer["done"] and [shop["status"] for shop in answer["shops"]] == ["complete"]


def messages() -> int:
    """Returns the number of messages in the queue. An event may be accepted although it is not published yet."""
    asked = {"QueueUrl": QUEUE_URL, "AttributeNames": ["ApproximateNumberOfMessages"]}
    request = urllib.request.Request(
        urllib.parse.urljoin(QUEUE_URL, "/"),
        json.dumps(asked).encode(),
        {"content-type": "application/x-amz-json-1.0", "x-amz-target": "AmazonSQS.GetQueueAttributes"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return int(json.load(response)["Attributes"]["ApproximateNumberOfMessages"])


class Tally:
    """Counts what passes and what fails, and prints each."""

    def __init__(self) -> None:
        self.passed = self.failed = self.published = 0

    def add(self, name: object, wrong: str | None) -> None:
        print(f"failed {name}: {wrong}" if wrong else f"ok     {name}", flush=True)
        if wrong:
            self.failed += 1
        else:
            self.passed += 1

    def add_event(self, event: pathlib.Path, answered: Callable[[], str]) -> None:
        statuses = expected(event)
        wrong = fault(answered, statuses)
        self.add(event, wrong)
        if not wrong and statuses == {"accepted"}:
            self.published += 1


def main() -> int:
    which = sys.argv[1] if len(sys.argv) == 2 else ""
    if which not in ("one", "all"):
        print("usage: .ci/invoke.py one|all", file=sys.stderr)
        return 2
    tally = Tally()
    others = []
    # The histories are not sent: they hold published events, with the state that follows from them.
    for provider in sorted(path for path in EVENTS.iterdir() if path.is_dir() and path.name != "histories"):
        function = f"{provider.name.capitalize()}Function"
        events = sorted(path for path in provider.glob("*.json") if not path.name.endswith(".normalized.json"))
        first = next((event for event in events if expected(event) == {"accepted"}), None)
        if not first:
            tally.add(provider, "there is no event to send")
            continue
        tally.add_event(first, functools.partial(invoke, function, str(first)))
        others += [(function, event) for event in events if event != first]
    if which == "all":
        before = tally.failed
        try:
            with serving("start-lambda") as port:
                for function, event in others:
                    tally.add_event(event, functools.partial(invoke_at, port, function, event))
                if tally.failed > before:
                    raise Failed
        except Failed:
            pass
        tally.add("a malformed host", odd_host_fault())
    tally.add("redrive", task_fault("RedriveFunction", '{"redrive":{}}', published_nothing))
    tally.add("reconcile", task_fault("ReconcileFunction", '{"reconcile":{"provider":"cartum"}}', is_complete))
    arrived = messages()
    wrong = None if arrived == tally.published else f"{arrived} messages are in the queue"
    tally.add(f"{tally.published} events were accepted", wrong)
    print(f"{tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed else 0


sys.exit(main())
