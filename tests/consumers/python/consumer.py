"""Reads order events from a queue and prints a line for each order that changes.

    QUEUE_URL=... python consumer.py

Region, credentials and endpoint are taken where the AWS SDK takes them.
"""

import json
import os
import sys

import boto3

SCHEMA = "urn:order-webhooks:order-event:v1"

# Here a restart begins anew. In production both are tables of one database: `handled` with the event's id as its primary key, and
# one row for each order. The id is inserted in the transaction that changes the order, so that neither is there without the other;
# an id can go once its message can come no more: after the longest replay that is asked for.
handled: set[str] = set()
orders: dict[str, "Order"] = {}


class Order:
    """What is known of an order: each fact, and the place in time of the event that said it."""

    def __init__(self):
        self.events = 0
        self.facts: dict[str, tuple[tuple[str, str, str], str]] = {}

    def apply(self, event: dict):
        """A later event wins, whenever it arrives. What it does not say stands as an earlier one said it."""
        order = event["data"]["order"]
        said = {
            "status": order["status"],
            "payment": order["payment_status"],
            "total": order["totals"]["total"],  # an exact decimal: never a float
            "currency": order["currency"],
        }
        place = place_in_time(event)
        for fact, value in said.items():
            if value is not None and (fact not in self.facts or place > self.facts[fact][0]):
                self.facts[fact] = (place, value)
        self.events += 1

    def __str__(self) -> str:
        status, payment, total, currency = (
            self.facts.get(fact, (None, "-"))[1] for fact in ("status", "payment", "total", "currency")
        )
        return f"status={status} payment={payment} total={total} {currency} events={self.events}"


def place_in_time(event: dict) -> tuple[str, str, str]:
    """By `order.updated_at`, then `time`; an event that has no `updated_at` stands at its `time`. The id settles a tie.

    Compared as text, which is exact: a datetime ends at microseconds. Without the Z, "52" comes before "52.5".
    """
    time = event["time"].rstrip("Z")
    updated_at = event["data"]["order"]["updated_at"]
    return (updated_at.rstrip("Z") if updated_at else time, time, event["id"])


def handle(body: str):
    """Takes one message. An error leaves it in the queue."""
    envelope = json.loads(body)
    event = json.loads(envelope["Message"])
    if event["dataschema"] != SCHEMA:
        raise ValueError("another version of the event")
    # A replay is no other case: the attribute `replay` in envelope["MessageAttributes"] tells, but the id is the same.
    if event["id"] in handled:
        return
    order = event["data"]["order"]["id"]
    # A test order is nobody's order; and some events name items only, and no order.
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
                # Not deleted: it comes again, and then goes to the queue's dead-letter queue. What is in it is not logged.
                print(f"message {message['MessageId']} stays in the queue: {type(error).__name__}", file=sys.stderr)
                continue
            # Only now: a crash before this line means the message comes again, and its id is known.
            sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])


if __name__ == "__main__":
    main()
