//! The subscriptions to a provider's events that `reconcile` has made: one item for each subscription of a shop.
//!
//! A subscription is noted before it is made, because a provider may not list its subscriptions and limits their number:
//! if the answer is lost, nothing takes a second place until it is known whether the first one is taken. Every note is
//! conditional on the one that was read, so of two attempts at once only one makes a call.
//!
//! Every attempt has a word of its own, which is in the URL of the subscription if the provider reports the end of one.
//! So a report of the end of another subscription, whoever made it, does not end the one that is noted.

use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};
use jiff::Timestamp;
use tokio::time::Instant;

use super::commit::Commit;
use super::expression::{Expression, ToAttribute as _};
use super::{AttemptId, Change, Condition, Item, Store, StoreError, is_condition_failed, item_key, retry_until};
use crate::identity::{Shop, sha256_hex};

/// The partition of the items. No event has this key, because an event id is 64 hex digits.
const SUBSCRIPTIONS: &str = "subscriptions";

/// How long the note may take.
pub const NOTE_BUDGET: Duration = Duration::from_secs(4);

/// A subscription of a shop.
#[derive(Clone, Copy, Debug)]
pub struct SubscriptionKey<'a> {
    /// The provider's slug.
    pub provider: &'a str,
    /// The shop.
    pub shop: &'a Shop,
    /// The provider's word for the event, or a word for all events.
    pub event: &'a str,
}

/// The URL that a provider is to call for a subscription.
#[derive(Clone, Copy, Debug)]
pub struct WebhookUrl<'a> {
    /// The URL without its query.
    pub route: &'a str,
    /// The complete URL. Only its hash is stored, because it holds a token.
    pub url: &'a str,
}

/// A subscription as it is noted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NotedSubscription {
    /// The word of the attempt that has made the subscription; `None` if an earlier version of the function has made it.
    pub word: Option<String>,
    /// The SHA-256 of the complete URL in lower-case hex.
    pub url_sha256: Option<String>,
    /// The URL without its query; `None` if an earlier version of the function has made the subscription.
    pub route: Option<String>,
    /// The provider's id of the subscription; `None` if an attempt has not noted its result, so that the provider may
    /// have the subscription. The text is empty if the provider gives it no id.
    pub id: Option<String>,
    /// The time at which the subscription was about to be made.
    pub noted_at: Option<Timestamp>,
    /// The time at which the provider has reported that the subscription has ended, or has refused it in place of an
    /// earlier one.
    pub ended_at: Option<Timestamp>,
    /// The time at which the subscription was made again by a run, as long as the provider has not listed it since.
    pub unseen_since: Option<Timestamp>,
    /// What was found to be wrong with the subscription, and is reported.
    pub finding: Option<String>,
    item: Item,
}

/// An attempt to make a subscription.
pub struct SubscriptionAttempt {
    key: Item,
    id: AttemptId,
    before: Option<NotedSubscription>,
}

impl SubscriptionKey<'_> {
    fn item_key(&self) -> Item {
        let Self { provider, shop, event } = self;
        item_key(SUBSCRIPTIONS, &format!("{provider}#{shop}#{event}"))
    }

    /// An attempt to make the subscription in place of the one that is noted as `before`. Nothing is noted yet.
    pub fn attempt(&self, before: Option<&NotedSubscription>) -> SubscriptionAttempt {
        SubscriptionAttempt {
            key: self.item_key(),
            id: AttemptId::random(),
            before: before.cloned(),
        }
    }
}

impl SubscriptionAttempt {
    /// The word that no other attempt has.
    pub fn word(&self) -> &str {
        &self.id.0
    }

    fn is_current(&self) -> Condition {
        Condition::equals("attempt_id", self.word())
    }

    /// The note of a subscription to `url`.
    fn note(&self, url: WebhookUrl<'_>) -> Item {
        let mut item = self.key.clone();
        let mut insert = |name: &str, value: AttributeValue| item.insert(name.to_owned(), value);
        insert("url_sha256", sha256_hex(url.url.as_bytes()).to_attribute());
        insert("route", url.route.to_attribute());
        insert("noted_at", Timestamp::now().to_attribute());
        insert("attempt_id", self.word().to_attribute());
        if let Some(finding) = self.before.as_ref().and_then(|before| before.finding.as_ref()) {
            insert("finding", finding.to_attribute());
        }
        item
    }
}

impl NotedSubscription {
    fn read(item: Item) -> Self {
        let text = |name: &str| item.get(name)?.as_s().ok();
        let time = |name: &str| text(name)?.parse().ok();
        Self {
            word: text("attempt_id").cloned(),
            url_sha256: text("url_sha256").cloned(),
            route: text("route").cloned(),
            id: text("subscription_id").cloned(),
            noted_at: time("noted_at"),
            ended_at: time("ended_at"),
            unseen_since: time("unseen_since"),
            finding: text("finding").cloned(),
            item,
        }
    }

    /// Whether the provider calls `url` for the subscription.
    pub fn is_of(&self, url: &str) -> bool {
        self.url_sha256.as_deref() == Some(&sha256_hex(url.as_bytes()))
    }

    /// Whether the provider has, or may have, the subscription under an id.
    pub fn is_made(&self) -> bool {
        self.id.is_some() && self.ended_at.is_none()
    }

    /// Whether it is not known if the provider has the subscription.
    pub fn is_unclear(&self) -> bool {
        self.id.is_none() && self.ended_at.is_none()
    }

    /// Holds as long as nobody changes the subscription.
    fn is_unchanged(&self) -> Condition {
        let same = |name: &'static str| match self.item.get(name) {
            Some(value) => Condition::equals(name, value),
            None => Condition::Absent(name),
        };
        same("noted_at").and(same("subscription_id")).and(same("ended_at"))
    }
}

impl Store {
    /// Reads what is noted of a subscription.
    pub async fn subscription(&self, key: SubscriptionKey<'_>) -> Result<Option<NotedSubscription>, StoreError> {
        let item = self.get_by_key(key.item_key()).await?;
        Ok(item.map(NotedSubscription::read))
    }

    /// Notes that the subscription of an attempt is about to be made. `is_unseen` means that it is not made once more by a
    /// run until the provider has listed it. Returns false if somebody has changed the note before.
    pub async fn note_subscription(
        &self,
        attempt: &SubscriptionAttempt,
        url: WebhookUrl<'_>,
        is_unseen: bool,
    ) -> Result<bool, StoreError> {
        let mut note = attempt.note(url);
        if is_unseen {
            note.insert("unseen_since".to_owned(), Timestamp::now().to_attribute());
        }
        self.replace_subscription(attempt, &note).await
    }

    /// Notes a subscription that the provider lists. Returns false if somebody has changed the note before.
    pub async fn note_listed_subscription(
        &self,
        attempt: &SubscriptionAttempt,
        url: WebhookUrl<'_>,
        id: &str,
    ) -> Result<bool, StoreError> {
        let mut note = attempt.note(url);
        note.insert("subscription_id".to_owned(), id.to_attribute());
        note.insert("subscribed_at".to_owned(), Timestamp::now().to_attribute());
        self.replace_subscription(attempt, &note).await
    }

    async fn replace_subscription(&self, attempt: &SubscriptionAttempt, note: &Item) -> Result<bool, StoreError> {
        let before = attempt.before.as_ref();
        let is_unchanged = before.map_or_else(Condition::no_item, NotedSubscription::is_unchanged);
        // The SDK may repeat a write whose answer was lost.
        let condition = is_unchanged.or(attempt.is_current());
        let until = Instant::now() + NOTE_BUDGET;
        let committed = self.commit(note, &condition, None, until.into()).await?;
        Ok(matches!(committed, Commit::Done))
    }

    /// Notes the id that the provider has given to the subscription of an attempt, until `until` at most. A report of its
    /// end that has arrived in the meantime stays noted. Returns false if another attempt has replaced the note.
    pub async fn keep_subscription(
        &self,
        attempt: &SubscriptionAttempt,
        id: &str,
        until: Instant,
    ) -> Result<bool, StoreError> {
        let change = Change::default()
            .set("subscription_id", id)
            .set("subscribed_at", &Timestamp::now())
            .remove(&["finding"])
            .only_if(attempt.is_current());
        let keep = || self.update_item(attempt.key.clone(), &change, ReturnValue::None);
        Ok(retry_until(until.into(), keep).await?.is_some())
    }

    /// Notes that the provider has refused the subscription of an attempt. One that it was to replace has ended, and
    /// otherwise the note is deleted.
    pub async fn withdraw_subscription(&self, attempt: &SubscriptionAttempt) -> Result<(), StoreError> {
        let is_current = attempt.is_current();
        if attempt.before.is_some() {
            let change = Change::default().set_if_absent("ended_at", &Timestamp::now());
            let change = change.remove(&["unseen_since"]).only_if(is_current);
            self.update_item(attempt.key.clone(), &change, ReturnValue::None)
                .await?;
            return Ok(());
        }
        let Expression {
            condition,
            names,
            values,
            ..
        } = is_current.to_expression();
        let delete = self.client.delete_item().table_name(&self.table);
        let delete = delete
            .set_key(Some(attempt.key.clone()))
            .set_condition_expression(condition)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values);
        match delete.send().await {
            Err(error) if !is_condition_failed(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Notes that the provider lists a subscription that a run has made again.
    pub async fn note_seen_subscription(
        &self,
        key: SubscriptionKey<'_>,
        noted: &NotedSubscription,
    ) -> Result<(), StoreError> {
        let change = Change::default()
            .remove(&["unseen_since"])
            .only_if(noted.is_unchanged());
        self.update_item(key.item_key(), &change, ReturnValue::None).await?;
        Ok(())
    }

    /// Notes what is found to be wrong with a subscription, or that nothing is any more.
    pub async fn note_finding(&self, key: SubscriptionKey<'_>, finding: Option<&str>) -> Result<(), StoreError> {
        let change = match finding {
            Some(finding) => Change::default().set("finding", finding),
            None => Change::default().remove(&["finding"]),
        };
        let change = change.only_if(Condition::item_exists());
        self.update_item(key.item_key(), &change, ReturnValue::None).await?;
        Ok(())
    }

    /// Marks the subscription with this word as ended, unless it is marked. Returns false if another one is noted, or none.
    pub(crate) async fn end_subscription(
        &self,
        key: SubscriptionKey<'_>,
        word: &str,
        until: Instant,
    ) -> Result<bool, StoreError> {
        let change = Change::default()
            .set_if_absent("ended_at", &Timestamp::now())
            .only_if(Condition::equals("attempt_id", word));
        let end = || self.update_item(key.item_key(), &change, ReturnValue::None);
        Ok(retry_until(until.into(), end).await?.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: WebhookUrl<'static> = WebhookUrl {
        route: "https://api.example.com/webhooks/cartum/main",
        url: "https://api.example.com/webhooks/cartum/main?token=a-token-of-the-shop",
    };

    fn note(before: Option<&NotedSubscription>) -> NotedSubscription {
        let shop = Shop::parse("main").expect("a shop");
        let key = SubscriptionKey {
            provider: "cartum",
            shop: &shop,
            event: "order_paid",
        };
        NotedSubscription::read(key.attempt(before).note(URL))
    }

    #[test]
    fn a_note_has_the_route_and_only_the_hash_of_the_url() {
        let mut first = note(None);
        assert_eq!(first.route.as_deref(), Some(URL.route));
        assert!(first.is_of(URL.url) && !first.is_of(URL.route) && first.is_unclear());
        assert!(!format!("{first:?}").contains("a-token-of-the-shop"));
        first.finding = Some("a finding".to_owned());
        let second = note(Some(&first));
        assert_eq!(second.finding, first.finding);
    }

    #[test]
    fn each_attempt_has_a_word_of_its_own() {
        let (first, second) = (note(None), note(None));
        assert!(first.word.is_some() && first.word != second.word);
    }

    #[test]
    fn a_note_is_unchanged_as_long_as_nobody_makes_or_ends_the_subscription() {
        let mut noted = note(None);
        let condition = |noted: &NotedSubscription| noted.is_unchanged().to_expression().condition;
        assert_eq!(
            condition(&noted).as_deref(),
            Some("(#noted_at = :0 AND attribute_not_exists(#subscription_id)) AND attribute_not_exists(#ended_at)")
        );
        noted.item.insert("subscription_id".to_owned(), "7".to_attribute());
        assert!(condition(&noted).is_some_and(|condition| condition.contains("#subscription_id = :1")));
    }
}
