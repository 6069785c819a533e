//! What a provider's folder says of its provider. Everything else is the same for all and lives here.

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
    /// The slug in routes, sources and ids.
    const NAME: &'static str;

    /// The methods that its deliveries come with.
    const METHODS: &'static [Method] = &[Method::POST];

    /// The query parameters that say which event a delivery reports. They count towards the identity of a delivery that is not
    /// understood; all others are ignored, since a signature need not cover them.
    const EVENT_PARAMETERS: &'static [&'static str] = &[];

    /// Whether a delivery that was verified once can be verified again.
    const VERIFIES: Verifies = Verifies::AnyNumberOfTimes;

    /// JSON pointers to the fields of its payloads that are known to stay in `unmapped`, as [`Known`](crate::drift::Known) reads
    /// them. What stays there beside these is reported as drift.
    const UNMAPPED: &'static [&'static str] = &[];

    /// Where a body that is an order has the order's id and its lines. By these, a delivery that is not understood is still
    /// found by its order.
    const ORDER: OrderPlace;

    /// What one shop's deliveries are verified with.
    type Secrets: DeserializeOwned + Send + Sync;

    /// The order events it sends.
    type Event;

    /// Reads the provider's own settings.
    fn from_settings(settings: &Settings) -> Result<Self, SettingError>;

    /// Connects ahead to what verification will ask, if it asks anything. What fails here is found again there.
    fn connect(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Decides whether a delivery comes from the provider, until `until` at most: the time after it is for storing.
    fn verify(
        &self,
        delivery: &Delivery,
        secrets: &Self::Secrets,
        until: Instant,
    ) -> impl Future<Output = Result<Proof, Refusal>> + Send;

    /// Finds which event a delivery reports, and what makes it the same event again. What it reads counts as not read.
    fn identify(
        &self,
        delivery: &Verified<Delivery>,
        payload: &Payload,
    ) -> Result<Identified<Self::Event>, NoOrderEvent>;

    /// Puts the event into our words, field by field.
    fn normalize(&self, event: Self::Event, payload: &Payload) -> Normalized;
}

/// The fields by which a body is recognized as an order, whatever event it reports.
#[derive(Clone, Copy, Debug)]
pub struct OrderPlace {
    /// The field whose object is the order; `None` where the body itself is.
    pub object: Option<&'static str>,
    /// The order's field with its id.
    pub id: &'static str,
    /// The order's field with the list of its lines.
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

/// Whether verification can be repeated when the provider sends again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verifies {
    /// A repeat verifies as the first try did.
    AnyNumberOfTimes,
    /// A repeat may not verify, so what was verified must be stored now.
    Once,
}

/// An order event that was recognized.
#[derive(Debug, PartialEq, Eq)]
pub struct Identified<Event> {
    /// Which event it is.
    pub event: Event,
    /// What makes it the same event again.
    pub key: IdempotencyKey,
}

/// An authentic delivery that reports no order event we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoOrderEvent {
    /// A known event that is no order event.
    Unsupported,
    /// Something that may be one, kept for a person to look at.
    Quarantined(Reason),
}

/// An event in our words, before it is given its id and what was left of the payload.
#[derive(Clone, Debug)]
pub struct Normalized {
    /// What happened.
    pub event_type: EventType,
    /// The provider's word for it.
    pub provider_event: String,
    /// When it happened, if the provider says.
    pub time: Option<Timestamp>,
    /// Whether it is of the provider's test mode.
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
    /// JSON pointers to what the provider did not state in so many words.
    pub assumed: Vec<String>,
    /// JSON pointers to the places for words that have no translation, where the event itself does not say unknown there. They are
    /// reported as drift.
    pub unknown_words: Vec<&'static str>,
}

impl Normalized {
    /// A whole, live order, with nothing assumed.
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
    /// Names `value` at `pointer` as assumed, if there is a value; hands it back.
    pub fn note<T>(&mut self, pointer: impl Into<String>, value: Option<T>) -> Option<T> {
        if value.is_some() {
            self.0.push(pointer.into());
        }
        value
    }

    /// Whether the value at `pointer` is named.
    pub fn names(&self, pointer: &str) -> bool {
        self.0.iter().any(|named| named == pointer)
    }

    /// The pointers.
    pub fn into_pointers(self) -> Vec<String> {
        self.0
    }
}
