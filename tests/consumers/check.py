"""Sends events through a local stack, and checks the results of each consumer and of each filter policy.

    python check.py FOLDER_OF_THE_BINARIES      (tests/consumers/run prepares everything and runs it)
"""

import contextlib
import datetime
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

import boto3
import moto

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BINARIES = pathlib.Path(sys.argv[1])
CONSUMERS = {
    "python": [sys.executable, str(HERE / "python/consumer.py")],
    "typescript": ["node", str(HERE / "typescript/build/consumer.js")],
    "rust": [str(BINARIES / "consumer")],
}

# The events in the order in which they are sent, which differs from the order in which they happened. Some are changed.
SENT = [
    ("selldone", "to-customer", {}),
    ("selldone", "sent-order", {}),
    # Its status is null, which does not replace a known status.
    ("selldone", "payment-order", {}),
    ("selldone", "order-confirm", {}),
    ("selldone", "checkout-order", {}),
    # The same `updated_at` in all three: `time` decides.
    ("snipcart", "order-status-changed-delivered", {}),
    ("snipcart", "order-status-changed-processed", {}),
    ("snipcart", "order-status-changed-dispatched", {}),
    # Less than a microsecond apart, one of them without a fraction; their ids are in another order.
    *(
        ("snipcart", "order-status-changed", {"createdOn": created, "to": status, "content.token": "to-the-tick"})
        for created, status in [
            ("2017-10-05T08:20:00.0000005Z", "Delivered"),
            ("2017-10-05T08:20:00Z", "Processed"),
            ("2017-10-05T08:20:00.0000001Z", "Shipped"),
        ]
    ),
    # A test order.
    ("snipcart", "order-completed", {}),
    ("aboutyou", "order-updated-shipped", {}),
    # Sent by the provider after the one above, but with an older state of the order.
    (
        "aboutyou",
        "order-updated-shipped",
        {
            "id": 184999,
            "timestamp": "2025-08-27T10:00:00.000Z",
            "message.updated_at": "2025-08-27T09:00:00.000Z",
            "message.status": "open",
        },
    ),
    # Items without an order.
    ("aboutyou", "order-items-shipped", {}),
    # The first one has no total and no `updated_at`, the second one no payment status.
    ("cartum", "order-created-in-process-paid", {}),
    ("deeple", "order-changed", {}),
]
# The number of events that are replayed for each provider.
REPLAYED = {"selldone": 5, "snipcart": 7}
EXPECTED = {
    "/selldone/main/1001": "status=delivered payment=paid total=- USD events=5",
    "/snipcart/main/1912e4c1-d008-4c15-ab12-fe21a76d30d4": "status=delivered payment=paid total=330 CAD events=3",
    "/snipcart/main/to-the-tick": "status=delivered payment=paid total=330 CAD events=3",
    "/aboutyou/main/ayou-139-48213": "status=shipped payment=- total=119.8 EUR events=2",
    "/cartum/main/120": "status=processing payment=paid total=- UAH events=1",
    "/deeple/main/DP2405000001": "status=processing payment=- total=1200 THB events=1",
}
# Messages that are not events of this version stay in the queue.
NEXT_VERSION = json.loads((ROOT / "events/deeple/order-changed-decimals.normalized.json").read_text())
NEXT_VERSION["dataschema"] = "urn:order-webhooks:order-event:v2"
UNREADABLE = ["not an event", json.dumps({"Message": json.dumps(NEXT_VERSION), "MessageAttributes": {}})]

# The messages that each filter policy of events/README.md must accept, by the event and whether it is a replay.
POLICIES = {
    "the moment an order is paid": lambda event, replay: event["type"] == "order.paid",
    "one provider": lambda event, replay: event["source"].startswith("/selldone/"),
    "no test orders": lambda event, replay: not event["data"]["test"],
    "no replays": lambda event, replay: not replay,
    "all of these at once": lambda event, replay: event["type"] == "order.paid"
    and event["source"].startswith("/selldone/")
    and not event["data"]["test"]
    and not replay,
    "whatever happens to an order that is paid": lambda event, replay: event["data"]["order"]["payment_status"] == "paid",
}


class Stack:
    """The local stack on free ports. It stops when `running` ends."""

    def __init__(self, folder: pathlib.Path, running: contextlib.ExitStack):
        self.log = folder / "local.log"
        self.endpoints = folder / "endpoints.json"
        ports = [f"--{port}=0" for port in ("port", "dynamodb-port", "sns-port", "snipcart-port")]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [BINARIES / "local", *ports, f"--endpoints-file={self.endpoints}"], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        running.callback(stop, self.process)
        endpoints = wait_for("the local stack", 300, self.started)
        self.url, self.topic = endpoints["gateway"], endpoints["topic_arn"]
        self.env = os.environ | {
            "AWS_ENDPOINT_URL_DYNAMODB": endpoints["dynamodb"],
            "AWS_ENDPOINT_URL_SNS": endpoints["sns"],
            "AWS_ENDPOINT_URL_SQS": endpoints["sqs"],
            "AWS_REGION": endpoints["region"],
            "AWS_DEFAULT_REGION": endpoints["region"],
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
        }
        self.port = {name: self.env[f"AWS_ENDPOINT_URL_{name}"].rpartition(":")[2] for name in ("DYNAMODB", "SNS")}

    def started(self) -> dict | None:
        if self.process.poll() is not None:
            sys.exit(f"the local stack exited:\n{self.log.read_text()}")
        return json.loads(self.endpoints.read_text()) if self.endpoints.exists() else None

    def client(self, service: str):
        return boto3.client(
            service,
            endpoint_url=self.env["AWS_ENDPOINT_URL_SNS"],
            region_name=self.env["AWS_REGION"],
            aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
        )

    def run(self, *arguments: str) -> str:
        """Runs the built `cargo local`."""
        return subprocess.run(
            [BINARIES / "local", *arguments], cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE, timeout=60
        ).stdout

    def send(self, provider: str, name: str, changes: dict):
        if changes:
            output = self.send_changed(provider, name, changes)
        else:
            ports = ["--port", self.url.rpartition(":")[2], "--dynamodb-port", self.port["DYNAMODB"]]
            output = self.run("send", provider, name, *ports, "--sns-port", self.port["SNS"])
        assert "accepted" in output, f"{provider} {name}: {output}"

    def send_changed(self, provider: str, name: str, changes: dict) -> str:
        event = json.loads(self.run("event", provider, name))
        body = json.loads(event["body"])
        for path, value in changes.items():
            *parents, last = path.split(".")
            place = body
            for parent in parents:
                place = place[parent]
            assert last in place, f"{provider} {name} has no {path}"
            place[last] = value
        unsent = ("host", "content-length", "accept-encoding")
        headers = {name: value for name, value in event["headers"].items() if name not in unsent}
        url = f"{self.url}{event['rawPath']}?{event['rawQueryString']}"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.read().decode()

    def replay(self, provider: str):
        ports = ["--sns-port", self.port["SNS"]]
        now, hour = datetime.datetime.now(datetime.UTC), datetime.timedelta(hours=1)
        times = ["--from", (now - hour).isoformat(), "--to", (now + hour).isoformat()]
        output = self.run("replay", provider, *times, *ports)
        assert json.loads(output)["replayed"] == REPLAYED[provider], output


def wait_for(what: str, seconds: float, condition):
    """Waits until a condition is true, and returns its value."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            sys.exit(f"waited {seconds} s for {what}")
        time.sleep(0.1)
    return found


class Queue:
    """An SQS queue."""

    def __init__(self, sqs, name: str):
        self.sqs = sqs
        # Longer than this script runs, so that a message which is not deleted is not received again.
        attributes = {"VisibilityTimeout": "900"}
        self.url = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        self.arn = sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]

    def subscribe(self, sns, topic: str, policy: str | None = None):
        subscription = sns.subscribe(
            TopicArn=topic, Protocol="sqs", Endpoint=self.arn, ReturnSubscriptionArn=True
        )["SubscriptionArn"]
        attributes = {}
        if policy:
            attributes = {"FilterPolicyScope": scope(policy), "FilterPolicy": policy}
        for name, value in attributes.items():
            sns.set_subscription_attributes(SubscriptionArn=subscription, AttributeName=name, AttributeValue=value)

    def counts(self) -> tuple[int, int]:
        """Returns how many messages are visible, and how many were received and not deleted."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        attributes = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return tuple(int(attributes[name]) for name in names)

    def send(self, body: str):
        self.sqs.send_message(QueueUrl=self.url, MessageBody=body)

    def drain(self) -> list[str]:
        bodies = []
        while received := self.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10).get("Messages"):
            for message in received:
                self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
                bodies.append(message["Body"])
        return bodies


def scope(policy: str) -> str:
    return "MessageBody" if "data" in json.loads(policy) else "MessageAttributes"


def read_policies() -> dict[str, str]:
    """Returns the filter policies of events/README.md by their descriptions."""
    rows = re.findall(r"^\| ([^|`]+) \| `(\{.*\})`[^|]*\|$", (ROOT / "events" / "README.md").read_text(), re.MULTILINE)
    return {name: policy for name, policy in rows}


def message_key(body: str) -> tuple[str, bool]:
    """Identifies a message: the id of its event, and whether it is a replay."""
    envelope = json.loads(body)
    return json.loads(envelope["Message"])["id"], "replay" in envelope["MessageAttributes"]


def publish_again(sns, topic: str, body: str):
    """Publishes a message a second time, as redrive does after a function was killed before it marked the event."""
    envelope = json.loads(body)
    attributes = {
        name: {"DataType": attribute["Type"], "StringValue": attribute["Value"]}
        for name, attribute in envelope["MessageAttributes"].items()
    }
    sns.publish(TopicArn=topic, Message=envelope["Message"], MessageAttributes=attributes)


def views(stack: Stack, queues: dict[str, Queue], folder: pathlib.Path, events: int) -> dict[str, dict[str, str]]:
    """Runs each consumer until only unreadable messages are left, and returns its last line for each order."""
    with contextlib.ExitStack() as running:
        processes = {}
        for name, command in CONSUMERS.items():
            files = [running.enter_context((folder / f"{name}.{end}").open("wb")) for end in ("out", "err")]
            env = stack.env | {"QUEUE_URL": queues[name].url}
            processes[name] = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=files[0], stderr=files[1])
            running.callback(stop, processes[name])
        for name, process in processes.items():

            def finished(name=name, process=process):
                errors = (folder / f"{name}.err").read_text()
                if process.poll() is not None:
                    sys.exit(f"{name} exited:\n{errors}")
                left = queues[name].counts()
                return left == (0, len(UNREADABLE)) and errors.count("\n") >= len(UNREADABLE)

            wait_for(f"{name} to read its queue", 60, finished)
    found = {}
    for name in CONSUMERS:
        lines = (folder / f"{name}.out").read_text().splitlines()
        errors = (folder / f"{name}.err").read_text()
        assert errors.count("stays in the queue") == len(UNREADABLE), f"{name}: {errors}"
        assert not any(body in errors for body in UNREADABLE), f"{name} logs the content of a message: {errors}"
        assert len(lines) == events, f"{name}: {len(lines)} lines for {events} events:\n" + "\n".join(lines)
        found[name] = dict(line.split(" ", 1) for line in lines)
    return found


def stop(process: subprocess.Popen):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def check_policies(where: str, policies: dict[str, str], bodies: list[str], arrived: dict[str, list[str]]):
    for name, policy in policies.items():
        expected = sorted(
            message_key(body)
            for body in bodies
            if POLICIES[name](json.loads(json.loads(body)["Message"]), "replay" in json.loads(body)["MessageAttributes"])
        )
        found = sorted(message_key(body) for body in arrived[name])
        assert 0 < len(expected) < len(bodies), f"{name}: {len(expected)} of {len(bodies)} messages prove nothing"
        assert found == expected, f"{where}, {name} ({policy}): {len(found)} messages instead of {len(expected)}"
        print(f"ok     {where}: {name}: {len(found)} of {len(bodies)} messages")


def check_policies_with_moto(policies: dict[str, str], bodies: list[str]):
    """Checks all policies with moto, because rustack filters message bodies only by their first level."""
    with moto.mock_aws():
        keys = {"region_name": "us-east-1", "aws_access_key_id": "moto", "aws_secret_access_key": "moto"}
        sns, sqs = boto3.client("sns", **keys), boto3.client("sqs", **keys)
        topic = sns.create_topic(Name="order-events")["TopicArn"]
        queues = {name: Queue(sqs, f"policy-{index}") for index, name in enumerate(policies)}
        for name, queue in queues.items():
            queue.subscribe(sns, topic, policies[name])
        for body in bodies:
            publish_again(sns, topic, body)
        check_policies("moto", policies, bodies, {name: queue.drain() for name, queue in queues.items()})


def check(folder: pathlib.Path):
    policies = read_policies()
    assert policies.keys() == POLICIES.keys(), f"events/README.md has the policies {list(policies)}, not {list(POLICIES)}"
    by_attributes = {name: policy for name, policy in policies.items() if scope(policy) == "MessageAttributes"}

    with contextlib.ExitStack() as running:
        stack = Stack(folder, running)
        sns, sqs = stack.client("sns"), stack.client("sqs")
        everything = Queue(sqs, "everything")
        everything.subscribe(sns, stack.topic)
        queues = {name: Queue(sqs, name) for name in CONSUMERS}
        for queue in queues.values():
            for body in UNREADABLE:
                queue.send(body)
            queue.subscribe(sns, stack.topic)
        filtered = {name: Queue(sqs, f"policy-{index}") for index, name in enumerate(by_attributes)}
        for name, queue in filtered.items():
            queue.subscribe(sns, stack.topic, policies[name])

        for provider, name, changes in SENT:
            stack.send(provider, name, changes)
        bodies = everything.drain()
        assert len(bodies) == len(SENT), f"{len(bodies)} messages for {len(SENT)} events"
        for body in bodies[::2]:
            publish_again(sns, stack.topic, body)
        for provider in REPLAYED:
            stack.replay(provider)
        bodies += everything.drain()
        assert len(bodies) == len(SENT) + len(SENT[::2]) + sum(REPLAYED.values()), f"{len(bodies)} messages"

        # One line for each event of an order; none for a test order or for items without an order.
        lines = len(SENT) - 2
        for name, view in views(stack, queues, folder, lines).items():
            assert view == EXPECTED, f"{name}: {json.dumps(view, indent=2)}"
            print(f"ok     {name}: {len(view)} orders, {lines} events, {len(bodies)} messages, as they arrived")

        # The result is the same after a restart, with each message twice and in random order.
        queues = {name: Queue(sqs, f"{name}-shuffled") for name in CONSUMERS}
        for seed, queue in enumerate(queues.values()):
            again = bodies * 2
            random.Random(seed).shuffle(again)
            for body in UNREADABLE + again:
                queue.send(body)
        for name, view in views(stack, queues, folder, lines).items():
            assert view == EXPECTED, f"{name}, shuffled: {json.dumps(view, indent=2)}"
            print(f"ok     {name}: the same from {len(bodies) * 2} messages, shuffled")

        arrived = {name: queue.drain() for name, queue in filtered.items()}
        check_policies("local", by_attributes, bodies, arrived)
    check_policies_with_moto(policies, bodies)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        check(pathlib.Path(temporary))
