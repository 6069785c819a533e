#!/usr/bin/env python3
"""Invokes the built functions in Docker with `sam local invoke` and the events of events/.

`.ci/invoke.py one` sends one event of each provider, `.ci/invoke.py all` sends every event. The local stack must be
running and empty, and containers must reach it as host.docker.internal. QUEUE_URL is the URL of its queue.
"""

import json
import os
import pathlib
import subprocess
import sys
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor

EVENTS = pathlib.Path("events")
QUEUE_URL = os.environ.get("QUEUE_URL", "http://127.0.0.1:4566/000000000000/order-events")


def expected(event: pathlib.Path) -> set[str]:
    """Returns the allowed statuses: an event that has a golden event must be accepted, any other one is only stored."""
    if event.with_suffix(".normalized.json").exists():
        return {"accepted"}
    return {"unsupported", "quarantined"}


def invoke(function: str, source: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Invokes a function with the event in the file `source`, or with `text` if `source` is `-`."""
    command = ["sam", "local", "invoke", function, "--event", source, "--skip-pull-image"]
    command += ["--template", "target/ci/x86_64/template.yaml", "--config-file", os.path.abspath("samconfig.toml")]
    command += ["--parameter-overrides", "Architecture=x86_64"]
    return subprocess.run(command, capture_output=True, text=True, input=text, timeout=120)


def fault(function: str, event: pathlib.Path, statuses: set[str]) -> str | None:
    """Invokes a function, and returns what is wrong with its answer."""
    try:
        done = invoke(function, str(event))
    except subprocess.TimeoutExpired:
        return "no answer in 120 s"
    try:
        answer = json.loads(done.stdout)
        body = json.loads(answer["body"])
        if answer["statusCode"] == 200 and body["status"] in statuses:
            return None
    except (ValueError, KeyError, TypeError):
        pass
    return f"expected 200 and {' or '.join(sorted(statuses))}, got: {done.stdout.strip()}\n{done.stderr.strip()}"


def odd_host_fault() -> str | None:
    """Sends an event again with a malformed host name, and returns what is wrong if it is not a duplicate."""
    event = json.loads((EVENTS / "selldone/checkout-order.json").read_text())
    event["headers"]["host"] = "no host"
    try:
        done = invoke("SelldoneFunction", "-", json.dumps(event))
        answer = json.loads(done.stdout)
        if answer["statusCode"] == 200 and json.loads(answer["body"])["status"] == "duplicate":
            return None
    except subprocess.TimeoutExpired:
        return "no answer in 120 s"
    except (ValueError, KeyError, TypeError):
        pass
    return f"expected 200 and duplicate, got: {done.stdout.strip()}\n{done.stderr.strip()}"


def redrive_fault() -> str | None:
    """Runs redrive as its schedule does, and returns what is wrong if it publishes anything: the outbox is empty."""
    try:
        done = invoke("RedriveFunction", "-", '{"redrive":{}}')
        if json.loads(done.stdout).items() >= {"done": True, "failed": 0, "outage": None, "published": 0}.items():
            return None
    except subprocess.TimeoutExpired:
        return "no answer in 120 s"
    except (ValueError, AttributeError):
        pass
    return f"got: {done.stdout.strip()}\n{done.stderr.strip()}"


def reconcile_fault() -> str | None:
    """Runs reconcile as its schedule does, and returns what is wrong if the run is not complete."""
    try:
        done = invoke("ReconcileFunction", "-", '{"reconcile":{"provider":"cartum"}}')
        answer = json.loads(done.stdout)
        if answer["done"] and [shop["status"] for shop in answer["shops"]] == ["complete"]:
            return None
    except subprocess.TimeoutExpired:
        return "no answer in 120 s"
    except (ValueError, KeyError, TypeError):
        pass
    return f"expected a complete run, got: {done.stdout.strip()}\n{done.stderr.strip()}"


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


def main() -> int:
    which = sys.argv[1] if len(sys.argv) == 2 else ""
    if which not in ("one", "all"):
        print("usage: .ci/invoke.py one|all", file=sys.stderr)
        return 2
    failures = passed = published = 0
    # The histories are not sent: they hold published events, with the state that follows from them.
    for provider in sorted(path for path in EVENTS.iterdir() if path.is_dir() and path.name != "histories"):
        events = sorted(path for path in provider.glob("*.json") if not path.name.endswith(".normalized.json"))
        if which == "one":
            events = [event for event in events if expected(event) == {"accepted"}][:1]
        if not events:
            print(f"failed {provider}: there is no event to send")
            failures += 1
        function = f"{provider.name.capitalize()}Function"
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            faults = pool.map(lambda event: fault(function, event, expected(event)), events)
            for event, wrong in zip(events, faults):
                print(f"failed {event}: {wrong}" if wrong else f"ok     {event}", flush=True)
                failures += bool(wrong)
                passed += not wrong
                published += not wrong and expected(event) == {"accepted"}
    others = (("a malformed host", odd_host_fault()), ("redrive", redrive_fault()), ("reconcile", reconcile_fault()))
    for name, wrong in others:
        print(f"failed {name}: {wrong}" if wrong else f"ok     {name}", flush=True)
        failures += bool(wrong)
        passed += not wrong
    arrived = messages()
    wrong = arrived != published
    print(f"{'failed' if wrong else 'ok    '} {published} events were accepted, {arrived} messages are in the queue")
    print(f"{passed + (not wrong)} passed, {failures + wrong} failed")
    return 1 if failures or wrong else 0


sys.exit(main())
