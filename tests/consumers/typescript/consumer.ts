/**
 * Reads order events from a queue, and prints a line for each order that changes.
 *
 *     QUEUE_URL=... npm start
 *
 * The AWS SDK finds region, credentials and endpoint as usual.
 */
import { DeleteMessageCommand, ReceiveMessageCommand, SQSClient } from "@aws-sdk/client-sqs";
// Generated from the event's JSON Schema by `npm run types`.
import type { OrderEvent } from "./build/order-event.js";

const SCHEMA = "urn:order-webhooks:order-event:v1";

type Place = readonly [updatedAt: string, time: string, id: string];
type Fact = "status" | "payment" | "total" | "currency";

// This state is lost at a restart. In production, keep both in one database: `handled` as a table with the event's id
// as its primary key, and one row for each order. Insert the id in the transaction that changes the order, so that
// neither is stored without the other. An id may be deleted when its message cannot arrive any more: after the
// longest time that you may replay.
const handled = new Set<string>();
const orders = new Map<string, Order>();

/** The known facts of an order, each with the position of the event that stated it. */
class Order {
  #events = 0;
  readonly #facts = new Map<Fact, { place: Place; value: string }>();

  /** Applies an event. The latest event that states a fact wins, in whatever order events arrive. */
  apply(event: OrderEvent): void {
    const { order } = event.data;
    const stated: Record<Fact, string | null | undefined> = {
      status: order.status,
      payment: order.payment_status,
      total: order.totals.total, // an exact decimal: never a number
      currency: order.currency,
    };
    const place = placeInTime(event);
    for (const [fact, value] of Object.entries(stated) as [Fact, string | null | undefined][]) {
      const known = this.#facts.get(fact);
      if (value != null && (known === undefined || isLater(place, known.place))) {
        this.#facts.set(fact, { place, value });
      }
    }
    this.#events += 1;
  }

  toString(): string {
    const fact = (name: Fact): string => this.#facts.get(name)?.value ?? "-";
    return `status=${fact("status")} payment=${fact("payment")} total=${fact("total")} ${fact("currency")} events=${this.#events}`;
  }
}

/**
 * Returns the sort key of an event: `order.updated_at` (or `time` if it is absent), then `time`, then the id.
 *
 * Times are compared as text, because a Date has only milliseconds. Without the Z, "52" sorts before "52.5".
 */
function placeInTime(event: OrderEvent): Place {
  const time = event.time.replace(/Z$/, "");
  return [event.data.order.updated_at?.replace(/Z$/, "") ?? time, time, event.id];
}

function isLater(one: Place, other: Place): boolean {
  if (one[0] !== other[0]) return one[0] > other[0];
  if (one[1] !== other[1]) return one[1] > other[1];
  return one[2] > other[2];
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
    const view = orders.get(key) ?? new Order();
    view.apply(event);
    orders.set(key, view);
    console.log(`${key} ${view}`);
  }
  handled.add(event.id);
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
