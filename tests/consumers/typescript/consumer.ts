/**
 * Reads order events from a queue, and prints a line for each order that changes.
 *
 *     QUEUE_URL=... npm start
 *
 * The AWS SDK finds region, credentials and endpoint as usual.
 */
import { renameSync, writeFileSync } from "node:fs";
import { DeleteMessageCommand, ReceiveMessageCommand, SQSClient } from "@aws-sdk/client-sqs";
// Generated from the event's JSON Schema by `npm run types`.
import type { OrderEvent } from "./build/order-event.js";
import { type Event, History, type Json, type State } from "./order-state.js";

const SCHEMA = "urn:order-webhooks:order-event:v1";

// This state is lost at a restart. In production, keep both in one database: `handled` as a table with the event's id
// as its primary key, and the events of each order. Insert the id in the transaction that adds the event, so that
// neither is stored without the other. An id may be deleted when its message cannot arrive any more: after the
// longest time that you may replay.
const handled = new Set<string>();
const orders = new Map<string, History>();
const states: Record<string, State> = {};

/** Returns the most important facts of an order. */
function line({ order, events }: State): string {
  const { total } = (order["totals"] ?? {}) as { total?: string }; // an exact decimal: never a number
  const fact = (name: string): Json => order[name] ?? "-";
  return `status=${fact("status")} payment=${fact("payment_status")} total=${total ?? "-"} ${fact("currency")} events=${events.length}`;
}

/** Handles one message. An error leaves it in the queue. */
function handle(body: string | undefined): void {
  const envelope = JSON.parse(body ?? "") as { Message: string };
  const event = JSON.parse(envelope.Message) as OrderEvent;
  if (event.dataschema !== SCHEMA) throw new RangeError("another version of the event");
  // A replay needs no special case, because it has the same id. Its attribute is envelope.MessageAttributes.replay.
  if (handled.has(event.id)) return;
  const order = event.data.order.id;
  // Test orders are not real orders, and some events only name items.
  if (!event.data.test && order != null) {
    const key = `${event.source}/${order}`;
    const history = orders.get(key) ?? new History();
    history.add(event);
    orders.set(key, history);
    const state = history.states()[key];
    if (state !== undefined) {
      states[key] = state;
      console.log(`${key} ${line(state)}`);
    }
  }
  handled.add(event.id);
  const file = process.env["STATES_FILE"];
  if (file !== undefined) saveStates(file);
}

/** Writes all states to a file, in which the state command of `cargo local consumer-check` looks them up. */
function saveStates(file: string): void {
  writeFileSync(`${file}.new`, JSON.stringify(states));
  renameSync(`${file}.new`, file);
}

const QueueUrl = process.env["QUEUE_URL"];
if (QueueUrl === undefined) throw new Error("QUEUE_URL is not set");
const sqs = new SQSClient({});
for (;;) {
  const received = await sqs.send(new ReceiveMessageCommand({ QueueUrl, MaxNumberOfMessages: 10, WaitTimeSeconds: 20 }));
  for (const message of received.Messages ?? []) {
    try {
      handle(message.Body);
    } catch (error) {
      // Not deleted: SQS delivers it again, then dead-letters it. Its content is not logged.
      console.error(`message ${message.MessageId} stays in the queue: ${error instanceof Error ? error.name : "error"}`);
      continue;
    }
    // After a crash before this line, the message arrives again, and its id is already handled.
    await sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle: message.ReceiptHandle }));
  }
}
