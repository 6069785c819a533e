//! The subscriptions to a provider's events that `reconcile` has made: one item for each event of a shop.
//!
//! A subscription is noted before it is made, because a provider may not list its subscriptions and limits their number:
//! if the answer is lost, nothing subscribes again until an operator has looked.

use std::time::Duration;

use aws_sdk_dynamodb::types::ReturnValue;
use jiff::Timestamp;
use tokio::time::Instant;

use super::commit::Commit;
use super::expression::ToAttribute as _;
use super::{Change, Condition, Item, Store, StoreError, item_key};
use crate::identity::{Shop, sha256_hex};

/// The partition of the items. No event has this key, because an event id is 64 hex digits.
const SUBSCRIPTIONS: &str = "subscriptions";

/// How long the note may take.
const BUDGET: Duration = Duration::from_secs(4);

/// The event of a shop to which `reconcile` subscribes, and the URL that is called.
#[derive(Clone, Copy, Debug)]
pub struct Subscription<'a> {
    /// The provider's slug.
    pub provider: &'a str,
    /// The shop.
    pub shop: &'a Shop,
    /// The provider's word for the event.
    pub event: &'a str,
    /// The URL. Only its hash is stored, because it holds a token.
    pub url: &'a str,
}

/// What is known of a subscription before it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Noted {
    /// Nothing was known. It is noted now, and can be made.
    New,
    /// It was made before, under this id of the provider.
    Made(String),
    /// The event is subscribed to another URL, under this id of the provider.
    Elsewhere(String),
    /// An earlier attempt has not noted its result, so the provider may have the subscription.
    Unclear,
}

impl Subscription<'_> {
    fn key(&self) -> Item {
        let Self {
            provider, shop, event, ..
        } = self;
        item_key(SUBSCRIPTIONS, &format!("{provider}#{shop}#{event}"))
    }

    fn url_sha256(&self) -> String {
        sha256_hex(self.url.as_bytes())
    }

    /// The note that the subscription is about to be made.
    fn note(&self) -> Item {
        let mut item = self.key();
        item.insert("url_sha256".to_owned(), self.url_sha256().to_attribute());
        item.insert("noted_at".to_owned(), Timestamp::now().to_attribute());
        item
    }
}

impl Store {
    /// Notes that a subscription is about to be made, and forgets what is known of an earlier one.
    pub async fn note_new_subscription(&self, subscription: &Subscription<'_>) -> Result<(), StoreError> {
        let put = self.client.put_item().table_name(&self.table);
        put.set_item(Some(subscription.note())).send().await?;
        Ok(())
    }

    /// Notes that a subscription is about to be made, unless there is one.
    pub async fn note_subscription(&self, subscription: &Subscription<'_>) -> Result<Noted, StoreError> {
        let (note, condition) = (subscription.note(), Condition::no_item());
        let until = Instant::now() + BUDGET;
        let before = match self.commit(&note, &condition, None, until.into()).await? {
            Commit::Done => return Ok(Noted::New),
            Commit::Refused(before) => before,
        };
        let text = |name: &str| before.get(name).and_then(|value| value.as_s().ok()).cloned();
        Ok(match text("subscription_id") {
            None => Noted::Unclear,
            Some(id) if text("url_sha256").as_deref() == Some(&subscription.url_sha256()) => Noted::Made(id),
            Some(id) => Noted::Elsewhere(id),
        })
    }

    /// Notes the id that the provider has given to a subscription.
    pub async fn keep_subscription(&self, subscription: &Subscription<'_>, id: &str) -> Result<(), StoreError> {
        let change = Change::default()
            .set("subscription_id", id)
            .set("subscribed_at", &Timestamp::now());
        self.update_item(subscription.key(), &change, ReturnValue::None).await?;
        Ok(())
    }

    /// Forgets a subscription that the provider has refused.
    pub async fn forget_subscription(&self, subscription: &Subscription<'_>) -> Result<(), StoreError> {
        let delete = self.client.delete_item().table_name(&self.table);
        delete.set_key(Some(subscription.key())).send().await?;
        Ok(())
    }
}
