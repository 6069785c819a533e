//! Comparing an order of the provider's API with what is stored of it, and the event that reports the difference.
//!
//! The version of an order is its time of change and its two words of status. An order that is missing, or whose version is
//! newer than the latest stored one, becomes a delivery: the order in the envelope of the provider's webhook. It is
//! processed like a webhook, except for its identity, its type and its time.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::event::{EventType, Order, PaymentStatus, Status};
use crate::identity::{EventId, IdempotencyKey};
use crate::provider::Normalized;

/// The first value of the idempotency key of every reconciled event, and its `provider_event`. If it changes, an order
/// that is already reconciled is reconciled again.
const RECONCILIATION: &str = "reconciliation";

/// The part of an order by which two descriptions of it are compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Triple", into = "Triple")]
pub struct OrderVersion {
    /// The time of the order's last change, if the provider states it.
    pub updated_at: Option<Timestamp>,
    /// The provider's word for the status.
    pub status: Option<String>,
    /// The provider's word for the status of the payment.
    pub payment_status: Option<String>,
}

/// A version as the table holds it: `[updated_at, provider_status, provider_payment_status]`.
type Triple = (Option<Timestamp>, Option<String>, Option<String>);

impl From<Triple> for OrderVersion {
    fn from((updated_at, status, payment_status): Triple) -> Self {
        Self {
            updated_at,
            status,
            payment_status,
        }
    }
}

impl From<OrderVersion> for Triple {
    fn from(version: OrderVersion) -> Self {
        (version.updated_at, version.status, version.payment_status)
    }
}

impl OrderVersion {
    /// The version of an order.
    pub fn of(order: &Order) -> Self {
        Self {
            updated_at: order.updated_at,
            status: order.provider_status.clone(),
            payment_status: order.provider_payment_status.clone(),
        }
    }

    /// The version as JSON text.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("times and texts are JSON")
    }

    /// Reads a version from JSON text.
    pub fn parse(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }
}

/// A stored event with the version of its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredVersion {
    /// The id of the event.
    pub id: EventId,
    /// The version of the order in the event.
    pub version: OrderVersion,
    /// The time of the event.
    pub time: Timestamp,
    /// The time at which the event was received.
    pub received_at: Timestamp,
}

impl StoredVersion {
    /// The event as the base of a reconciled one.
    fn base(&self) -> Base {
        Base {
            id: self.id.clone(),
            version: self.version.clone(),
        }
    }
}

/// What the table knows of an order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownOrder {
    /// The newest stored events that describe the order.
    pub versions: Vec<StoredVersion>,
    /// Whether the order, or an event of it, was erased on request.
    pub is_erased: bool,
}

/// The result of comparing an order with what is stored of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// No stored event describes the order.
    Missing,
    /// The order has changed since the latest stored event.
    Newer(Base),
    /// The version is stored.
    Known,
    /// A later version is stored, or one that may be later.
    Older,
    /// The order was erased, and must not come back.
    Erased,
}

/// The latest stored event of an order at the time when a newer version was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// The id of the event.
    pub id: EventId,
    /// The version of the order in that event.
    pub version: OrderVersion,
}

impl KnownOrder {
    /// The latest event by the rule that consumers follow: by the order's time of change, then by the event's time.
    fn latest(&self) -> Option<&StoredVersion> {
        let changed_at = |known: &StoredVersion| known.version.updated_at.unwrap_or(known.time);
        self.versions
            .iter()
            .max_by_key(|known| (changed_at(known), known.time, known.received_at, known.id.clone()))
    }

    /// The latest stored event, after which an order that cannot be read is kept.
    pub fn base(&self) -> Option<Base> {
        self.latest().map(StoredVersion::base)
    }

    /// Compares `version`, which the provider's API has shown after `asked_at`.
    pub fn compare(&self, version: &OrderVersion, asked_at: Timestamp) -> Comparison {
        if self.is_erased {
            return Comparison::Erased;
        }
        let Some(latest) = self.latest() else {
            return Comparison::Missing;
        };
        // Without a time of change, an order may have returned to an earlier version.
        let is_stored = || version.updated_at.is_some() && self.versions.iter().any(|known| known.version == *version);
        if latest.version == *version || is_stored() {
            return Comparison::Known;
        }
        let is_older = |latest: Timestamp| version.updated_at.is_some_and(|updated_at| updated_at < latest);
        if latest.version.updated_at.is_some_and(is_older) {
            return Comparison::Older;
        }
        // Without a time of change, the answer may be older than an event that has arrived since.
        let has_arrived_since = || self.versions.iter().any(|known| known.received_at > asked_at);
        if version.updated_at.is_none() && has_arrived_since() {
            return Comparison::Older;
        }
        Comparison::Newer(latest.base())
    }
}

/// Marks a delivery that reconciliation has made of a listed order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// The latest stored event of the order; `None` if none describes it.
    pub base: Option<Base>,
}

impl Reconciled {
    /// Makes `normalized` the event of a reconciled order, and returns the key that identifies it: the order, the version
    /// that was seen, and the event after which it was seen. So two runs that see the same have the same event, and a
    /// version to which an order returns later is another one.
    ///
    /// The time of the event is the one at which the order changed, or else the time just before its page was requested,
    /// because the version is at least as new as every one stored by then.
    pub(crate) fn apply(&self, normalized: &mut Normalized) -> IdempotencyKey {
        let order = &normalized.order;
        let version = OrderVersion::of(order);
        let base = self.base.as_ref();
        normalized.event_type = event_type(base, &version, order);
        RECONCILIATION.clone_into(&mut normalized.provider_event);
        normalized.time = order.updated_at;
        normalized.assumed.retain(|pointer| pointer != "/time");
        if normalized
            .assumed
            .iter()
            .any(|pointer| pointer == "/data/order/updated_at")
        {
            normalized.assumed.push("/time".to_owned());
        }
        IdempotencyKey::of([
            RECONCILIATION.to_owned(),
            normalized.order.id.clone().unwrap_or_default(),
            version.to_json(),
            base.map(|base| base.id.to_string()).unwrap_or_default(),
        ])
    }
}

/// The type of an event by what differs from the latest stored version.
fn event_type(base: Option<&Base>, version: &OrderVersion, order: &Order) -> EventType {
    let Some(Base { version: before, .. }) = base else {
        return EventType::Created;
    };
    if version.payment_status.is_some() && version.payment_status != before.payment_status {
        return match order.payment_status {
            Some(PaymentStatus::Paid) => EventType::Paid,
            Some(PaymentStatus::Refunded) => EventType::Refunded,
            _ => EventType::PaymentUpdated,
        };
    }
    if version.status.is_none() || version.status == before.status {
        return EventType::Updated;
    }
    match order.status {
        Some(Status::Confirmed) => EventType::Confirmed,
        Some(Status::Processing) => EventType::Processing,
        Some(Status::Shipped) => EventType::Shipped,
        Some(Status::Delivered) => EventType::Delivered,
        Some(Status::Cancelled) => EventType::Cancelled,
        Some(Status::Returned) => EventType::Returned,
        _ => EventType::Updated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Shop;

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn version(updated_at: Option<i64>, status: &str, payment: &str) -> OrderVersion {
        OrderVersion {
            updated_at: updated_at.map(time),
            status: Some(status.to_owned()),
            payment_status: Some(payment.to_owned()),
        }
    }

    fn id(name: &str) -> EventId {
        let shop = Shop::parse("main").expect("a shop");
        EventId::new("snipcart", &shop, &IdempotencyKey::of([name.to_owned()]), b"")
    }

    fn stored(name: &str, version: OrderVersion, at: i64) -> StoredVersion {
        StoredVersion {
            id: id(name),
            time: version.updated_at.unwrap_or(time(at)),
            version,
            received_at: time(at),
        }
    }

    fn known(versions: Vec<StoredVersion>) -> KnownOrder {
        KnownOrder {
            versions,
            is_erased: false,
        }
    }

    fn order(version: &OrderVersion, status: Status, payment: PaymentStatus) -> Order {
        Order {
            id: Some("7".to_owned()),
            status: Some(status),
            provider_status: version.status.clone(),
            payment_status: Some(payment),
            provider_payment_status: version.payment_status.clone(),
            updated_at: version.updated_at,
            ..Order::default()
        }
    }

    #[test]
    fn a_version_is_written_as_a_list_of_three() {
        let version = OrderVersion {
            payment_status: None,
            ..version(Some(0), "Shipped", "")
        };
        let json = r#"["1970-01-01T00:00:00Z","Shipped",null]"#;
        assert_eq!(version.to_json(), json);
        assert_eq!(OrderVersion::parse(json), Some(version));
        assert_eq!(OrderVersion::parse("partial"), None);
    }

    #[test]
    fn an_order_without_a_stored_version_is_missing() {
        assert_eq!(
            known(vec![]).compare(&version(Some(1), "New", "Open"), time(10)),
            Comparison::Missing
        );
    }

    #[test]
    fn an_erased_order_is_left_alone() {
        let erased = KnownOrder {
            is_erased: true,
            ..known(vec![stored("a", version(Some(1), "New", "Open"), 1)])
        };
        assert_eq!(
            erased.compare(&version(Some(9), "Sent", "Paid"), time(10)),
            Comparison::Erased
        );
    }

    #[test]
    fn the_latest_change_counts_and_not_the_latest_arrival() {
        let (new, sent) = (version(Some(1), "New", "Paid"), version(Some(5), "Sent", "Paid"));
        // The webhook of the earlier version arrives last.
        let known = known(vec![stored("b", sent.clone(), 6), stored("a", new.clone(), 9)]);
        assert_eq!(known.compare(&sent, time(10)), Comparison::Known);
        assert_eq!(known.compare(&new, time(10)), Comparison::Known);
        assert_eq!(
            known.compare(&version(Some(4), "Packed", "Paid"), time(10)),
            Comparison::Older
        );
        let base = Base {
            id: id("b"),
            version: sent,
        };
        assert_eq!(
            known.compare(&version(Some(7), "Done", "Paid"), time(10)),
            Comparison::Newer(base.clone())
        );
        // Another word at the same time is not older.
        assert_eq!(
            known.compare(&version(Some(5), "Done", "Paid"), time(10)),
            Comparison::Newer(base)
        );
    }

    #[test]
    fn without_a_time_of_change_a_version_may_return() {
        let (open, sent) = (version(None, "1", "0"), version(None, "2", "0"));
        let known = known(vec![stored("a", open.clone(), 1), stored("b", sent.clone(), 2)]);
        assert_eq!(known.compare(&sent, time(10)), Comparison::Known);
        let base = Base {
            id: id("b"),
            version: sent,
        };
        assert_eq!(known.compare(&open, time(10)), Comparison::Newer(base));
    }

    #[test]
    fn without_a_time_of_change_an_event_that_arrives_after_the_question_is_not_overridden() {
        let (open, sent) = (version(None, "1", "0"), version(None, "2", "0"));
        let known = known(vec![stored("a", open.clone(), 1), stored("b", sent.clone(), 5)]);
        assert_eq!(known.compare(&open, time(4)), Comparison::Older);
        assert!(matches!(known.compare(&open, time(5)), Comparison::Newer(_)));
        // A time of change decides without the time of the question.
        let changed = version(Some(9), "3", "0");
        assert!(matches!(known.compare(&changed, time(4)), Comparison::Newer(_)));
    }

    #[test]
    fn the_type_says_what_differs() {
        let before = version(Some(1), "New", "Open");
        for (after, status, payment, expected) in [
            (("Sent", "Paid"), Status::Shipped, PaymentStatus::Paid, EventType::Paid),
            (
                ("New", "Back"),
                Status::Pending,
                PaymentStatus::Refunded,
                EventType::Refunded,
            ),
            (
                ("New", "?"),
                Status::Pending,
                PaymentStatus::Unknown,
                EventType::PaymentUpdated,
            ),
            (
                ("Sent", "Open"),
                Status::Shipped,
                PaymentStatus::Unpaid,
                EventType::Shipped,
            ),
            (
                ("?", "Open"),
                Status::Unknown,
                PaymentStatus::Unpaid,
                EventType::Updated,
            ),
            (
                ("New", "Open"),
                Status::Pending,
                PaymentStatus::Unpaid,
                EventType::Updated,
            ),
        ] {
            let after = version(Some(2), after.0, after.1);
            let base = Base {
                id: id("a"),
                version: before.clone(),
            };
            let order = order(&after, status, payment);
            assert_eq!(event_type(Some(&base), &after, &order), expected, "{after:?}");
            assert_eq!(event_type(None, &after, &order), EventType::Created);
        }
    }

    #[test]
    fn the_key_names_the_order_its_version_and_the_event_before() {
        let version = version(Some(0), "Sent", "Paid");
        let order = order(&version, Status::Shipped, PaymentStatus::Paid);
        let mut normalized = Normalized::new(EventType::Created, "order.completed", order);
        normalized.assumed = vec!["/time".to_owned()];
        let key = Reconciled::default().apply(&mut normalized);
        let expected = ["reconciliation", "7", r#"["1970-01-01T00:00:00Z","Sent","Paid"]"#, ""];
        assert_eq!(key, IdempotencyKey::of(expected.map(str::to_owned)));
        assert_eq!(
            (normalized.time, normalized.provider_event.as_str()),
            (Some(time(0)), "reconciliation")
        );
        assert!(normalized.assumed.is_empty(), "the provider states the time");
        let base = Some(Base { id: id("a"), version });
        assert_ne!(Reconciled { base }.apply(&mut normalized), key);
    }
}
