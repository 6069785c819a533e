//! Decides what to do with a verified delivery: identifies its event, then normalizes it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use jiff::Timestamp;

use crate::answer::Reason;
use crate::delivery::Delivery;
use crate::drift::{Drift, Drifts, Known};
use crate::event::{Data, OrderEvent};
use crate::identity::{EventId, IdempotencyKey, sha256_hex};
use crate::payload::{NotJson, Payload};
use crate::provider::{Identified, NoOrderEvent, Normalized, Provider};
use crate::verification::Verified;

/// A verified delivery, classified.
pub struct Classified {
    /// The id of the event.
    pub id: EventId,
    /// The key from which the id is made.
    pub key: IdempotencyKey,
    /// What to do with the delivery.
    pub classification: Classification,
    /// The differences between an order's payload and the mapping. Empty unless [`classify`] was given the known
    /// fields.
    pub drift: Vec<Drift>,
    /// The id of the order that a quarantined delivery names, if its body is clearly an order.
    pub order: Option<String>,
}

/// What to do with an authentic delivery.
pub enum Classification {
    /// Store and publish this event.
    Order(Box<OrderEvent>),
    /// Store the delivery. Its event is known and is not an order event.
    Unsupported,
    /// Store the delivery for an operator.
    Quarantined(Reason),
}

/// Identifies and normalizes a delivery. Always returns a result, because every authentic delivery must be stored.
///
/// If the mapping panics, the delivery is quarantined, and can be reprocessed once the code is corrected. Until then it is
/// identified by its body, so that another body of the same event is not taken for a repeat.
///
/// `known` are the provider's fields that are known to stay in `unmapped`. With them, drift is reported too.
pub fn classify<P: Provider>(provider: &P, delivery: &Verified<Delivery>, known: Option<&Known>) -> Classified {
    let classified = catch_unwind(AssertUnwindSafe(|| read(provider, delivery, known)));
    classified.unwrap_or_else(|_| {
        Classified::without_event::<P>(delivery, Classification::Quarantined(Reason::MappingFailed))
    })
}

impl Classified {
    /// Classifies a delivery that is not an order event or is not understood.
    fn without_event<P: Provider>(delivery: &Verified<Delivery>, classification: Classification) -> Self {
        let key = key_without_event(delivery);
        let order = match classification {
            Classification::Quarantined(_) => order_without_event::<P>(delivery),
            _ => None,
        };
        Self {
            id: EventId::new(P::NAME, delivery.shop(), &key, delivery.body()),
            key,
            classification,
            drift: Vec::new(),
            order,
        }
    }
}

fn read<P: Provider>(provider: &P, delivery: &Verified<Delivery>, known: Option<&Known>) -> Classified {
    let (payload, identified) = match identify(provider, delivery) {
        Ok(identified) => identified,
        Err(no_order_event) => {
            let classification = match no_order_event {
                NoOrderEvent::Unsupported => Classification::Unsupported,
                NoOrderEvent::Quarantined(reason) => Classification::Quarantined(reason),
            };
            return Classified::without_event::<P>(delivery, classification);
        }
    };
    let mut normalized = provider.normalize(identified.event, &payload);
    let key = match delivery.reconciled() {
        Some(reconciled) => reconciled.apply(&mut normalized),
        None => identified.key,
    };
    let id = EventId::new(P::NAME, delivery.shop(), &key, delivery.body());
    let mut found = Drifts::default();
    if let Some(known) = known {
        payload.drift(known, &mut found);
    }
    let unknown_words = normalized.unknown_words.clone();
    let event = complete::<P>(id.clone(), delivery, normalized, payload);
    if known.is_some() {
        found.add_words(&event, &unknown_words);
    }
    Classified {
        id,
        key,
        classification: Classification::Order(Box::new(event)),
        drift: found.into_drifts(),
        order: None,
    }
}

/// The order that a quarantined delivery names, so that the delivery is found when the order is shown or erased.
///
/// A panic here counts as no order: it may be the panic for which the delivery is quarantined.
fn order_without_event<P: Provider>(delivery: &Verified<Delivery>) -> Option<String> {
    let find = || P::ORDER.order_id(&delivery.payload().ok()?);
    catch_unwind(AssertUnwindSafe(find)).ok().flatten()
}

/// The key of a delivery without an event: its body, and the query parameters that name the event if the provider has
/// any.
fn key_without_event(delivery: &Verified<Delivery>) -> IdempotencyKey {
    let query = delivery.parameters_without_credentials();
    if query.is_empty() {
        return IdempotencyKey::Body;
    }
    let parameters = query
        .into_iter()
        .flat_map(|(name, values)| values.into_iter().map(move |value| format!("{name}={value}")));
    IdempotencyKey::Parts([sha256_hex(delivery.body())].into_iter().chain(parameters).collect())
}

fn identify<'d, P: Provider>(
    provider: &P,
    delivery: &'d Verified<Delivery>,
) -> Result<(Payload<'d>, Identified<P::Event>), NoOrderEvent> {
    let payload = delivery.payload().map_err(|error| {
        let reason = match error {
            // A ping, or the notice that a subscription has ended.
            NotJson::Empty => return NoOrderEvent::Unsupported,
            NotJson::TooLarge { .. } => Reason::TooLarge,
            _ => Reason::NotJson,
        };
        tracing::warn!(code = reason.as_str(), cause = %error, "the body cannot be read");
        NoOrderEvent::Quarantined(reason)
    })?;
    let identified = provider.identify(delivery, &payload)?;
    payload.forget_reads();
    Ok((payload, identified))
}

fn complete<P: Provider>(id: EventId, delivery: &Delivery, normalized: Normalized, payload: Payload<'_>) -> OrderEvent {
    let (unmapped, warnings) = payload.into_rest();
    let mut assumed = normalized.assumed;
    let received_at = whole_milliseconds(delivery.received_at());
    let time = normalized.time.unwrap_or_else(|| {
        assumed.push("/time".to_owned());
        received_at
    });
    OrderEvent {
        specversion: "1.0".to_owned(),
        id,
        source: format!("/{}/{}", P::NAME, delivery.shop()),
        r#type: normalized.event_type,
        subject: normalized.order.id.clone(),
        time,
        datacontenttype: "application/json".to_owned(),
        dataschema: "urn:order-webhooks:order-event:v1".to_owned(),
        data: Data {
            provider: P::NAME.to_owned(),
            shop: delivery.shop().to_string(),
            provider_event: normalized.provider_event,
            origin: delivery.origin(),
            test: normalized.test,
            received_at,
            order: normalized.order,
            change: normalized.change,
            refund: normalized.refund,
            notification: normalized.notification,
            partial: normalized.partial,
            assumed,
            warnings,
            omitted: Vec::new(),
            unmapped: Some(unmapped),
        },
    }
}

/// Drops digits that are finer than the clock, and than the store's sort keys.
fn whole_milliseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use lambda_http::http::Method;
    use tokio::time::Instant;

    use super::*;
    use crate::answer::Refusal;
    use crate::identity::Shop;
    use crate::provider::OrderPlace;
    use crate::settings::{SettingError, Settings};
    use crate::verification::Proof;

    /// A provider whose code panics.
    struct Faulty;

    impl Provider for Faulty {
        const NAME: &'static str = "faulty";
        const ORDER: OrderPlace = OrderPlace {
            object: Some("order"),
            id: "id",
            items: "lines",
        };
        type Secrets = ();
        type Event = ();

        fn from_settings(_: &Settings) -> Result<Self, SettingError> {
            Ok(Self)
        }

        async fn verify(&self, _: &Delivery, (): &(), _: Instant) -> Result<Proof, Refusal> {
            Err(Refusal::no_credentials("nothing is verified here"))
        }

        fn identify(&self, _: &Verified<Delivery>, _: &Payload) -> Result<Identified<()>, NoOrderEvent> {
            let key = IdempotencyKey::Parts(vec!["1".to_owned()]);
            Ok(Identified { event: (), key })
        }

        fn normalize(&self, (): (), _: &Payload) -> Normalized {
            let none: [&str; 0] = [];
            panic!("{}", none[none.len()])
        }
    }

    fn delivery(body: &str) -> Verified<Delivery> {
        let shop = Shop::parse("main").expect("a shop");
        let query = HashMap::<String, Vec<String>>::new();
        Verified::stored(Delivery::stored(
            Method::POST,
            shop,
            query.into(),
            body.into(),
            Timestamp::UNIX_EPOCH,
        ))
    }

    #[test]
    fn a_repeat_of_a_panicking_delivery_has_the_same_id() {
        let [first, repeat, another] = ["{}", "{}", "[]"].map(|body| classify(&Faulty, &delivery(body), None));
        for classified in [&first, &repeat, &another] {
            assert!(matches!(
                classified.classification,
                Classification::Quarantined(Reason::MappingFailed)
            ));
        }
        assert_eq!(first.id, repeat.id);
        assert_ne!(first.id, another.id);
    }

    #[test]
    fn the_order_is_found_if_the_body_is_clearly_an_order() {
        for (body, order) in [
            (r#"{"order":{"id":7,"lines":[]}}"#, Some("7")),
            (r#"{"order":{"id":"7","lines":[{"sku":"A"}]}}"#, Some("7")),
            (r#"{"order":{"id":7}}"#, None),
            (r#"{"order":{"id":7,"lines":{}}}"#, None),
            (r#"{"order":{"id":null,"lines":[]}}"#, None),
            (r#"{"id":7,"lines":[]}"#, None),
            (r#"[{"order":{"id":7,"lines":[]}}]"#, None),
        ] {
            assert_eq!(
                classify(&Faulty, &delivery(body), None).order.as_deref(),
                order,
                "{body}"
            );
        }
    }
}
