//! From a verified delivery to what it means: identify, then normalize.

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

/// What a verified delivery means.
pub struct Classified {
    /// The event's id.
    pub id: EventId,
    /// What the id is made of.
    pub key: IdempotencyKey,
    /// What is to be done with it.
    pub classification: Classification,
    /// Where an order's payload is not as the mapping knows it. Empty unless [`classify`] was given what is known.
    pub drift: Vec<Drift>,
    /// The order that a quarantined delivery names, where its body is clearly an order.
    pub order: Option<String>,
}

/// What is to be done with an authentic delivery.
pub enum Classification {
    /// Publish this event.
    Order(Box<OrderEvent>),
    /// Keep it; it is no order event.
    Unsupported,
    /// Keep it for a person to look at.
    Quarantined(Reason),
}

/// Identifies and normalizes a delivery. Whatever is in it, there is an answer: an authentic delivery is always kept, even one
/// that our code panics over: it is read anew when the code is mended. Until then it is known by its body, whatever its id would
/// have been: another body of the same event is then not taken for a repeat of this one.
///
/// With `known`, the provider's fields that are known to stay in `unmapped`, it reports drift too.
pub fn classify<P: Provider>(provider: &P, delivery: &Verified<Delivery>, known: Option<&Known>) -> Classified {
    let understood = catch_unwind(AssertUnwindSafe(|| read(provider, delivery, known)));
    understood.unwrap_or_else(|_| {
        Classified::without_event::<P>(delivery, Classification::Quarantined(Reason::MappingFailed))
    })
}

impl Classified {
    /// Of a delivery that is not understood as an order event.
    fn without_event<P: Provider>(delivery: &Verified<Delivery>, classification: Classification) -> Self {
        let key = key_of_unknown(delivery);
        let order = match classification {
            Classification::Quarantined(_) => order_of_unknown::<P>(delivery),
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
    let id = EventId::new(P::NAME, delivery.shop(), &identified.key, delivery.body());
    let normalized = provider.normalize(identified.event, &payload);
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
        key: identified.key,
        classification: Classification::Order(Box::new(event)),
        drift: found.into_drifts(),
        order: None,
    }
}

/// The order that a delivery names which is not understood: whoever asks for the order, or erases it, must find the delivery.
///
/// A panic finds none: it may be the one that has kept the delivery from being understood.
fn order_of_unknown<P: Provider>(delivery: &Verified<Delivery>) -> Option<String> {
    let find = || P::ORDER.order_id(&delivery.payload().ok()?);
    catch_unwind(AssertUnwindSafe(find)).ok().flatten()
}

/// The body, and where the provider's query names the event, its parameters that do.
fn key_of_unknown(delivery: &Verified<Delivery>) -> IdempotencyKey {
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
            // A ping, or the farewell of a subscription.
            NotJson::Empty => return NoOrderEvent::Unsupported,
            NotJson::TooLarge { .. } => Reason::TooLarge,
            _ => Reason::NotJson,
        };
        tracing::warn!(%error, "the body cannot be read");
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

/// The clock's finer digits mean nothing, and the store's sort keys hold milliseconds.
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

    /// A provider whose code is at fault.
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
        Verified::kept(Delivery::kept(
            Method::POST,
            shop,
            query.into(),
            body.into(),
            Timestamp::UNIX_EPOCH,
        ))
    }

    #[test]
    fn an_order_that_our_code_panics_over_is_kept_and_known_again() {
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
    fn the_order_is_found_where_the_body_is_clearly_one() {
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
