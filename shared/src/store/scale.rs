//! The load on the keys of the table and its indexes at the rate that a stack is designed for.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use lambda_http::http::Method;

use super::event_items::EventItems;
use super::{AttemptId, Content, EventJson, Item, NewEvent};
use crate::delivery::Delivery;
use crate::event::Order;
use crate::event::tests::sample;
use crate::identity::{EventId, IdempotencyKey, Shop};
use crate::publisher::MessageLimit;
use crate::verification::Verified;

/// Events per second: the API's default limit.
const RATE: usize = 2_000;
const EVENTS: usize = 100_000;
/// The most write units per second for one partition key. DynamoDB allows 1,000.
const UNITS: usize = 700;
/// Events per second that four concurrent runs of redrive publish. Each run works for 45 seconds of a minute; DynamoDB
/// keeps the capacity that a partition does not use in the rest of the minute for bursts.
const DRAINED: usize = 4 * 1_729 * 45 / 60;

const INDEXES: [(&str, &str); 3] = [("by_order", "order_key"), ("work", "work"), ("by_hour", "hour")];

/// Write units by index (or table) and partition key.
#[derive(Default)]
struct Units(HashMap<(&'static str, String), usize>);

impl Units {
    fn add(&mut self, index: &'static str, key: &str, units: usize) {
        *self.0.entry((index, key.to_owned())).or_default() += units;
    }

    /// Counts a put of an item: into the table, and one unit for each index whose key it has, because keys are small.
    fn put(&mut self, item: &Item) {
        self.add("table", text(item, "pk"), item_units(item));
        for (index, key) in INDEXES {
            if item.contains_key(key) {
                self.add(index, text(item, key), 1);
            }
        }
    }

    /// Counts the mark of a published event: its item is written again, and leaves the index `work`.
    fn mark_published(&mut self, item: &Item) {
        self.add("table", text(item, "pk"), item_units(item));
        self.add("work", text(item, "work"), 1);
    }

    /// The busiest key, and its units in each of `seconds`.
    fn busiest(&self, seconds: usize) -> (String, usize) {
        let ((index, key), units) = self.0.iter().max_by_key(|(_, units)| **units).expect("there are keys");
        (format!("{index} {key}"), units.div_ceil(seconds))
    }
}

fn text<'a>(item: &'a Item, name: &str) -> &'a str {
    item[name].as_s().expect("a text")
}

/// The write units of an item. Its attributes other than the two values take well below one KiB.
fn item_units(item: &Item) -> usize {
    let values = ["payload", "event"].map(|name| item[name].as_b().expect("bytes").as_ref().len());
    (values.iter().sum::<usize>() + 1_024).div_ceil(1_024)
}

/// The heads of events as they are written, each of its own order, all of one provider and shop: only their ids spread
/// them.
fn heads() -> impl Iterator<Item = Item> {
    let shop = Shop::parse("main").expect("a shop");
    let begun: Timestamp = "2026-11-28T10:00:00Z".parse().expect("a time");
    let event = sample(Order::default());
    let json = EventJson::of(&event, MessageLimit::default());
    (0..EVENTS).map(move |number| {
        let order = format!("{}", 1_000_000 + number);
        let id = EventId::new(
            "selldone",
            &shop,
            &IdempotencyKey::of([order.clone(), "paid".to_owned()]),
            b"",
        );
        let received_at = begun + SignedDuration::from_micros(i64::try_from(number * 1_000_000 / RATE).expect("small"));
        let query = HashMap::<String, Vec<String>>::new();
        let body = br#"{"action":"PaymentOrder"}"#.to_vec();
        let delivery = Delivery::stored(Method::POST, shop.clone(), query.into(), body, received_at);
        let mut event = event.clone();
        event.data.order.id = Some(order);
        let new_event = NewEvent {
            id: &id,
            provider: "selldone",
            delivery: &Verified::stored(delivery),
            content: Content::Order(&event, &json),
        };
        EventItems::of(&new_event, &AttemptId::random()).head
    })
}

#[test]
fn no_partition_key_is_hot_at_2000_events_a_second() {
    let seconds = EVENTS / RATE;
    let [mut published, mut outage, mut drain] = [(); 3].map(|()| Units::default());
    for (number, head) in heads().enumerate() {
        published.put(&head);
        published.mark_published(&head);
        outage.put(&head);
        drain.put(&head);
        drain.mark_published(&head);
        // In addition to the arriving events, those of the backlog are published, from the same shards.
        let drained = |arrived: usize| arrived * DRAINED / RATE;
        drain.add("work", text(&head, "work"), drained(number + 1) - drained(number));
    }
    for (case, units) in [("published", published), ("outage", outage), ("drain", drain)] {
        let (key, units) = units.busiest(seconds);
        eprintln!("{case}: {key} takes {units} units a second");
        assert!(units <= UNITS, "{case}: {key} takes {units} units a second");
        assert!(
            units >= RATE / 16,
            "{case}: {key} takes {units} units a second, which is implausibly few"
        );
    }
}
