"""Reads order events from a queue, and prints a line for each order that changes.

    QUEUE_URL=... python consumer.py

The AWS SDK finds region, credentials and endpoint as usual.
"""

import json
import os
import sys

import boto3

SCHEMA = "urn:order-webhooks:order-event:v1"

# This state is lost at a restart. In production, keep both in one database: `handled` as a table with the event's id
# as its primary key, and one row for each order. Insert the id in the transaction that changes the order, so that
# neither is stored without the other. An id may be deleted when its message cannot arrive any more: after the longest
# time that you may replay.
handled: set[str] = set()
orders: dict[str, "Order"] = {}


class Order:
    """The known facts of an order, each with the position of the event that stated it."""

    def __init__(self):
        self.events = 0
        self.facts: dict[str, tuple[tuple[str, str, str], str]] = {}

    def apply(self, event: dict):
        """Applies an event. The latest event that states a fact wins, in whatever order events arrive."""
        order = event["data"]["order"]
        stated = {
            "status": order["status"],
            "payment": order["payment_status"],
            "total": order["totals"]["total"],  # an exact decimal: never a float
            "currency": order["currency"],
        }
        place = place_in_time(event)
        for fact, value in stated.items():
            if value is not None and (fact not in self.facts or place > self.facts[fact][0]):
                self.facts[fact] = (place, value)
        self.events += 1

    def __str__(self) -> str:
        status, payment, total, currency = (
            self.facts.get(fact, (None, "-"))[1] for fact in ("status", "payment", "total", "currency")
        )
        return f"status={status} payment={payment} total={total} {currency} events={self.events}"


def place_in_time(event: dict) -> tuple[str, str, str]:
    """Returns the sort key of an event: `order.updated_at` (or `time` if it is absent), then `time`, then the id.

    Times are compared as text, because a datetime has only microseconds. Without the Z, "52" sorts before "52.5".
    """
    time = event["time"].rstrip("Z")
    updated_at = event["data"]["order"]["updated_at"]
    return (updated_at.rstrip("Z") if updated_at else time, time, event["id"])


def handle(body: str):
    """Handles one message. An error leaves it in the queue."""
    envelope = json.loads(body)
    event = json.loads(envelope["Message"])
    if event["dataschema"] != SCHEMA:
        raise ValueError("another version of the event")
    # A replay needs no special case: it has its original id, and the attribute envelope["MessageAttributes"]["replay"].
    if event["id"] in handled:
        return
    order = event["data"]["order"]["id"]
    # Test orders are not real orders, and some events only name items.
    if not event["data"]["test"] and order is not None:
        key = f"{event['source']}/{order}"
        view = orders.setdefault(key, Order())
        view.apply(event)
        print(key, view, flush=True)
    handled.add(event["id"])


def main():
    queue_url = os.environ["QUEUE_URL"]
    sqs = boto3.client("sqs")
    while True:
        received = sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=20)
        for message in received.get("Messages", []):
            try:
                handle(message["Body"])
            except Exception as error:
                # Not deleted: SQS delivers it again, then dead-letters it. Its content is not logged.
                print(f"message {message['MessageId']} stays in the queue: {type(error).__name__}", file=sys.stderr)
                continue
            # After a crash before this line, the message arrives again, and its id is already handled.
            sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])


if __name__ == "__main__":
    main()
