"""Reads order events from a queue, and prints a line for each order that changes.

    QUEUE_URL=... python consumer.py

The AWS SDK finds region, credentials and endpoint as usual.
"""

import json
import os
import sys

import boto3
from order_state import History, State

SCHEMA = "urn:order-webhooks:order-event:v1"

# This state is lost at a restart. In production, keep both in one database: `handled` as a table with the event's id
# as its primary key, and the events of each order. Insert the id in the transaction that adds the event, so that
# neither is stored without the other. An id may be deleted when its message cannot arrive any more: after the longest
# time that you may replay.
handled: set[str] = set()
orders: dict[str, History] = {}
states: dict[str, State] = {}


def line(state: State) -> str:
    """Returns the most important facts of an order."""
    order = state["order"]
    status, payment = order.get("status", "-"), order.get("payment_status", "-")
    total = order.get("totals", {}).get("total", "-")  # an exact decimal: never a float
    return f"status={status} payment={payment} total={total} {order.get('currency', '-')} events={len(state['events'])}"


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
        history = orders.setdefault(key, History())
        history.add(event)
        states[key] = history.states()[key]
        print(key, line(states[key]), flush=True)
    handled.add(event["id"])
    if file := os.environ.get("STATES_FILE"):
        save_states(file)


def save_states(file: str):
    """Writes all states to a file, in which the state command of `cargo local consumer-check` looks them up."""
    with open(f"{file}.new", "w", encoding="utf-8") as new:
        json.dump(states, new)
    os.replace(f"{file}.new", file)


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
