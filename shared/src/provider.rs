//! The interface of a provider. Everything else is the same for all providers and is in this crate.

use std::future::Future;

use jiff::Timestamp;
use lambda_http::http::Method;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::answer::{Reason, Refusal};
use crate::delivery::Delivery;
use crate::event::{Change, EventType, Notification, Order, Refund};
use crate::identity::IdempotencyKey;
use crate::payload::Payload;
use crate::settings::{SettingError, Settings};
use crate::verification::{Proof, Verified};

/// A source of order webhooks.
pub trait Provider: Sized + Send + Sync + 'static {
    /// The provider's slug, which is used in routes, event sources and event ids.
    const NAME: &'static str;

    /// The HTTP methods that the provider uses.
    const METHODS: &'static [Method] = &[Method::POST];

    /// Whether a delivery that was verified once can be verified again.
    const VERIFIES: Verifies = Verifies::AnyNumberOfTimes;

    /// JSON pointers to the fields of the payload that are known to stay in `unmapped`, as
    /// [`Known`](crate::drift::Known) reads them. Other fields that stay there are reported as drift.
    const UNMAPPED: &'static [&'static str] = &[];

    /// The fields that identify an order in a body. A quarantined delivery is found by its order
    /// through them.
    const ORDER: OrderPlace;

    /// The secrets with which one shop's deliveries are verified.
    type Secrets: DeserializeOwned + Send + Sync;

    /// The provider's order events.
    type Event;

    /// The query parameters that name the event of a delivery with this method. They are a part of the key of a delivery
    /// that is not understood. All other parameters are ignored, because a signature need not cover them.
    fn event_parameters(_: &Method) -> &'static [&'static str] {
        &[]
    }

    /// Reads the provider's own settings.
    fn from_settings(settings: &Settings) -> Result<Self, SettingError>;

    /// Opens the connections that verification needs, if any. An error is ignored, because verification meets it again.
    fn connect(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Decides whether a delivery comes from the provider. Must end by `until`, because the time after it is needed for
    /// storing.
    fn verify(
        &self,
        delivery: &Delivery,
        secrets: &Self::Secrets,
        until: Instant,
    ) -> impl Future<Output = Result<Proof, Refusal>> + Send;

    /// Finds the event that a delivery reports, and the key that identifies it. Fields that are read here still count
    /// as unread.
    fn identify(
        &self,
        delivery: &Verified<Delivery>,
        payload: &Payload,
    ) -> Result<Identified<Self::Event>, NoOrderEvent>;

    /// The subscription whose end a delivery reports; `None` if the delivery reports something else.
    fn ends_subscription(&self, _: &Verified<Delivery>) -> Option<EndedSubscription> {
        None
    }

    /// Maps the payload to the normalized event, field by field.
    fn normalize(&self, event: Self::Event, payload: &Payload) -> Normalized;
}

/// The fields by which a body is recognized as an order, whatever event it reports.
#[derive(Clone, Copy, Debug)]
pub struct OrderPlace {
    /// The field whose object is the order; `None` if the body itself is the order.
    pub object: Option<&'static str>,
    /// The field of the order that holds its id.
    pub id: &'static str,
    /// The field of the order that holds the list of its lines.
    pub items: &'static str,
}

impl OrderPlace {
    /// The order's id, if the body is clearly an order: it has an id and a list of lines.
    pub(crate) fn order_id(&self, payload: &Payload) -> Option<String> {
        let root = payload.root();
        let order = match self.object {
            Some(name) => root.object(name),
            None => root,
        };
        order.has_list(self.items).then(|| order.id(self.id))?
    }
}

/// Whether a delivery can be verified again when the provider repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verifies {
    /// A repeat is verified as the first attempt was.
    AnyNumberOfTimes,
    /// A repeat may fail verification, so a verified delivery must be stored now.
    Once,
}

/// An order event that was identified.
#[derive(Debug, PartialEq, Eq)]
pub struct Identified<Event> {
    /// The event.
    pub event: Event,
    /// The key that identifies the event.
    pub key: IdempotencyKey,
}

/// A subscription that the provider has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedSubscription {
    /// The provider's word for the event; `None` if the delivery does not say which subscription has ended.
    pub event: Option<&'static str>,
    /// The word in the URL of the subscription; `None` if the URL has none, because `connect` has not made it.
    pub word: Option<String>,
}

/// An authentic delivery without an order event that can be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoOrderEvent {
    /// A known event that is not an order event.
    Unsupported,
    /// A delivery that may report an order event, stored for an operator.
    Quarantined(Reason),
}

/// A normalized event, without its id and the unmapped rest of the payload.
#[derive(Clone, Debug)]
pub struct Normalized {
    /// The type of the event.
    pub event_type: EventType,
    /// The provider's word for the event.
    pub provider_event: String,
    /// The time of the event, if the provider states it.
    pub time: Option<Timestamp>,
    /// Whether the event is from the provider's test mode.
    pub test: bool,
    /// Whether only a part of the order was sent.
    pub partial: bool,
    /// The order.
    pub order: Order,
    /// The step of a change event.
    pub change: Option<Change>,
    /// The refund of a refund event.
    pub refund: Option<Refund>,
    /// The notification of a notification event.
    pub notification: Option<Notification>,
    /// JSON pointers to values that the provider did not state explicitly.
    pub assumed: Vec<String>,
    /// JSON pointers to fields of the event whose word could not be mapped, unless the event says `unknown` there. They
    /// are reported as drift.
    pub unknown_words: Vec<&'static str>,
}

impl Normalized {
    /// An event with a complete order, not from the test mode, with nothing assumed.
    pub fn new(event_type: EventType, provider_event: impl Into<String>, order: Order) -> Self {
        Self {
            event_type,
            provider_event: provider_event.into(),
            time: None,
            test: false,
            partial: false,
            order,
            change: None,
            refund: None,
            notification: None,
            assumed: Vec::new(),
            unknown_words: Vec::new(),
        }
    }
}

/// Collects JSON pointers to values that had to be assumed.
#[derive(Debug, Default)]
pub struct Assumed(Vec<String>);

impl Assumed {
    /// Records that `value` at `pointer` is assumed, if there is a value, and returns it.
    pub fn note<T>(&mut self, pointer: impl Into<String>, value: Option<T>) -> Option<T> {
        if value.is_some() {
            self.0.push(pointer.into());
        }
        value
    }

    /// Whether the value at `pointer` is recorded as assumed.
    pub fn names(&self, pointer: &str) -> bool {
        self.0.iter().any(|named| named == pointer)
    }

    /// The pointers to all assumed values.
    pub fn into_pointers(self) -> Vec<String> {
        self.0
    }
}
