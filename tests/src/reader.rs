//! What a provider's function makes of an authentic body, without the function around it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use jiff::Timestamp;
use lambda_http::http::Method;
use serde_json::Value;
use shared::Provider;
use shared::classify::{Classification, Classified, classify};
use shared::drift::{Drift, Known};
use shared::event::OrderEvent;
use shared::settings::Settings;

use crate::authentic;

/// A provider with the default settings.
pub struct Reader<P: Provider> {
    /// The provider.
    pub provider: P,
}

impl<P: Provider> Reader<P> {
    /// Sets the provider up.
    ///
    /// # Panics
    /// If the provider has a setting without a default.
    #[expect(
        clippy::new_without_default,
        reason = "a default of a test helper would be used by nobody"
    )]
    pub fn new() -> Self {
        let settings = Settings::from_table::<&str, &str>([]);
        Self {
            provider: P::from_settings(&settings).expect("the defaults"),
        }
    }

    /// Classifies an authentic delivery with this body and this query.
    pub fn classify(&self, query: &[(&str, &str)], body: &[u8], known: Option<&Known>) -> Classified {
        let delivery = authentic::delivery_with(Method::POST, query, P::event_parameters, body.to_vec());
        classify(&self.provider, &delivery, known)
    }

    /// Classifies an authentic delivery and checks the invariants of the result.
    ///
    /// # Errors
    /// Describes the invariant that does not hold. A panic is an error, too.
    pub fn read(&self, body: &[u8]) -> Result<Classification, String> {
        let classified = catch_unwind(AssertUnwindSafe(|| self.classify(&[], body, None)));
        let classified = classified.map_err(|_| "the code panicked".to_owned())?;
        authentic::check(body, &classified)?;
        Ok(classified.classification)
    }

    /// The order event of a body, if the body reports one. The time of receipt is [`Timestamp::UNIX_EPOCH`].
    pub fn event(&self, body: &Value) -> Option<OrderEvent> {
        match self.classify(&[], body.to_string().as_bytes(), None).classification {
            Classification::Order(event) => Some(without_receipt(*event)),
            _ => None,
        }
    }

    /// The JSON of [`event`](Self::event).
    ///
    /// # Panics
    /// If the event cannot be serialized.
    pub fn event_json(&self, body: &Value) -> Option<Value> {
        Some(serde_json::to_value(self.event(body)?).expect("JSON"))
    }

    /// The drift of a body, in an execution environment that has reported none yet.
    pub fn drift(&self, body: &Value) -> Vec<Drift> {
        let known = Known::new(P::UNMAPPED);
        self.classify(&[], body.to_string().as_bytes(), Some(&known)).drift
    }
}

/// The event with a fixed time of receipt, and with the same time of its own if that was assumed.
pub fn without_receipt(mut event: OrderEvent) -> OrderEvent {
    if event.time == event.data.received_at {
        event.time = Timestamp::UNIX_EPOCH;
    }
    event.data.received_at = Timestamp::UNIX_EPOCH;
    event
}
