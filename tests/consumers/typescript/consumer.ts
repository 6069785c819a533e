/**
 * Reads order events from a queue and prints a line for each order that changes.
 *
 *     QUEUE_URL=... npm start
 *
 * Region, credentials and endpoint are taken where the AWS SDK takes them.
 */
import { DeleteMessageCommand, ReceiveMessageCommand, SQSClient } from "@aws-sdk/client-sqs";
// Generated from the event's JSON Schema by `npm run types`.
import type { OrderEvent } from "./build/order-event.js";

const SCHEMA = "urn:order-webhooks:order-event:v1";

type Place = readonly [updatedAt: string, time: string, id: string];
type Fact = "status" | "payment" | "total" | "currency";

// Here a restart begins anew. In production both are tables of one database: `handled` with the event's id as its primary key, and
// one row for each order. The id is inserted in the transaction that changes the order, so that neither is there without the other;
// an id can go once its message can come no more: after the longest replay that is asked for.
const handled = new Set<string>();
const orders = new Map<string, Order>();

/** What is known of an order: each fact, and the place in time of the event that said it. */
class Order {
  #events = 0;
  readonly #facts = new Map<Fact, { place: Place; value: string }>();

  /** A later event wins, whenever it arrives. What it does not say stands as an earlier one said it. */
  apply(event: OrderEvent): void {
    const { order } = event.data;
    const said: Record<Fact, string | null | undefined> = {
      status: order.status,
      payment: order.payment_status,
      total: order.totals.total, // an exact decimal: never a number
      currency: order.currency,
    };
    const place = placeInTime(event);
    for (const [fact, value] of Object.entries(said) as [Fact, string | null | undefined][]) {
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
 * By `order.updated_at`, then `time`; an event that has no `updated_at` stands at its `time`. The id settles a tie.
 *
 * Compared as text, which is exact: a Date ends at milliseconds. Without the Z, "52" comes before "52.5".
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

/** Takes one message. An error leaves it in the queue. */
function handle(body: string | undefined): void {
  const envelope = JSON.parse(body ?? "") as { Message: string };
  const event = JSON.parse(envelope.Message) as OrderEvent;
  if (event.dataschema !== SCHEMA) throw new RangeError("another version of the event");
  // A replay is no other case: the attribute `replay` in envelope.MessageAttributes tells, but the id is the same.
  if (handled.has(event.id)) return;
  const order = event.data.order.id;
  // A test order is nobody's order; and some events name items only, and no order.
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
      // Not deleted: it comes again, and then goes to the queue's dead-letter queue. What is in it is not logged.
      console.error(`message ${message.MessageId} stays in the queue: ${error instanceof Error ? error.name : "error"}`);
      continue;
    }
    // Only now: a crash before this line means the message comes again, and its id is known.
    await sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle: message.ReceiptHandle }));
  }
}
