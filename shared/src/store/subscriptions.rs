//! The subscriptions to a provider's events that `reconcile` has made: one item for each subscription of a shop.
//!
//! A subscription is noted before it is made, because a provider may not list its subscriptions and limits their number:
//! if the answer is lost, nothing takes a second place until it is known whether the first one is taken. Every note is
//! conditional on the one that was read, so of two attempts at once only one makes a call.
//!
//! An event that is subscribed again has a higher number than before. The number is in the URL of the subscription, so
//! that a late report of the end of an earlier one does not end the current one.

use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};
use jiff::Timestamp;
use tokio::time::Instant;

use super::commit::Commit;
use super::expression::{Expression, ToAttribute as _};
use super::{
    AttemptId, Change, Condition, Item, RetryPolicy, Store, StoreError, is_condition_failed, item_key, retry_until,
};
use crate::identity::{Shop, sha256_hex};

/// The partition of the items. No event has this key, because an event id is 64 hex digits.
const SUBSCRIPTIONS: &str = "subscriptions";

/// How long the note may take.
const BUDGET: Duration = Duration::from_secs(4);

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
    /// The number of the subscription among those to its event, from 1 on.
    pub number: u32,
    /// The SHA-256 of the complete URL in lower-case hex.
    pub url_sha256: Option<String>,
    /// The URL without its query; `None` if an earlier version of the function has made the subscription.
    pub route: Option<String>,
    /// The provider's id of the subscription; `None` if an attempt has not noted its result, so that the provider may
    /// have the subscription. The text is empty if the provider gives it no id.
    pub id: Option<String>,
    /// The time at which the subscription was about to be made.
    pub noted_at: Option<Timestamp>,
    /// The time at which the provider has reported that the subscription has ended.
    pub ended_at: Option<Timestamp>,
    /// What was found to be wrong with the subscription, and is reported.
    pub finding: Option<String>,
    item: Item,
}

/// An attempt to make a subscription, which is noted.
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

    /// The note of a subscription to `url`.
    fn note(&self, url: WebhookUrl<'_>, number: u32, before: Option<&NotedSubscription>) -> Item {
        let mut item = self.item_key();
        let mut insert = |name: &str, value: AttributeValue| item.insert(name.to_owned(), value);
        insert("url_sha256", sha256_hex(url.url.as_bytes()).to_attribute());
        insert("route", url.route.to_attribute());
        insert("noted_at", Timestamp::now().to_attribute());
        if number > 1 {
            insert("number", number.to_attribute());
        }
        if let Some(finding) = before.and_then(|before| before.finding.as_ref()) {
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
            number: item
                .get("number")
                .and_then(|number| number.as_n().ok()?.parse().ok())
                .unwrap_or(1),
            url_sha256: text("url_sha256").cloned(),
            route: text("route").cloned(),
            id: text("subscription_id").cloned(),
            noted_at: time("noted_at"),
            ended_at: time("ended_at"),
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

impl SubscriptionAttempt {
    fn is_current(&self) -> Condition {
        Condition::equals("attempt_id", self.id.0.as_str())
    }
}

impl Store {
    /// Reads what is noted of a subscription.
    pub async fn subscription(&self, key: SubscriptionKey<'_>) -> Result<Option<NotedSubscription>, StoreError> {
        let item = self.get_by_key(key.item_key()).await?;
        Ok(item.map(NotedSubscription::read))
    }

    /// Notes that a subscription with this number is about to be made. Returns `None` if the note is not the one `before`
    /// any more.
    pub async fn note_subscription(
        &self,
        key: SubscriptionKey<'_>,
        url: WebhookUrl<'_>,
        number: u32,
        before: Option<&NotedSubscription>,
    ) -> Result<Option<SubscriptionAttempt>, StoreError> {
        let note = key.note(url, number, before);
        self.replace_subscription(key, note, before).await
    }

    /// Notes a subscription that the provider lists. Returns false if the note is not the one `before` any more.
    pub async fn note_listed_subscription(
        &self,
        key: SubscriptionKey<'_>,
        url: WebhookUrl<'_>,
        id: &str,
        before: Option<&NotedSubscription>,
    ) -> Result<bool, StoreError> {
        let mut note = key.note(url, before.map_or(1, |before| before.number), before);
        note.insert("subscription_id".to_owned(), id.to_attribute());
        note.insert("subscribed_at".to_owned(), Timestamp::now().to_attribute());
        Ok(self.replace_subscription(key, note, before).await?.is_some())
    }

    async fn replace_subscription(
        &self,
        key: SubscriptionKey<'_>,
        mut note: Item,
        before: Option<&NotedSubscription>,
    ) -> Result<Option<SubscriptionAttempt>, StoreError> {
        let attempt = SubscriptionAttempt {
            key: key.item_key(),
            id: AttemptId::random(),
            before: before.cloned(),
        };
        note.insert("attempt_id".to_owned(), attempt.id.0.to_attribute());
        let is_unchanged = before.map_or_else(Condition::no_item, NotedSubscription::is_unchanged);
        // The SDK may repeat a write whose answer was lost.
        let condition = is_unchanged.or(attempt.is_current());
        let until = Instant::now() + BUDGET;
        Ok(match self.commit(&note, &condition, None, until.into()).await? {
            Commit::Done => Some(attempt),
            Commit::Refused(_) => None,
        })
    }

    /// Notes the id that the provider has given to the subscription of an attempt. Returns false if another attempt has
    /// replaced the note.
    pub async fn keep_subscription(&self, attempt: &SubscriptionAttempt, id: &str) -> Result<bool, StoreError> {
        let change = Change::default()
            .set("subscription_id", id)
            .set("subscribed_at", &Timestamp::now())
            .remove(&["finding"])
            .only_if(attempt.is_current());
        let kept = self
            .update_item(attempt.key.clone(), &change, ReturnValue::None)
            .await?;
        Ok(kept.is_some())
    }

    /// Restores the note before an attempt that the provider has refused.
    pub async fn withdraw_subscription(&self, attempt: &SubscriptionAttempt) -> Result<(), StoreError> {
        let is_current = attempt.is_current();
        if let Some(before) = &attempt.before {
            let until = Instant::now() + BUDGET;
            self.commit(&before.item, &is_current, None, until.into()).await?;
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

    /// Adds the URL without its query to the note of a subscription that an earlier version of the function has made.
    pub async fn note_route(
        &self,
        key: SubscriptionKey<'_>,
        noted: &NotedSubscription,
        route: &str,
    ) -> Result<(), StoreError> {
        let change = Change::default().set("route", route).only_if(noted.is_unchanged());
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

    /// Marks the subscription with this number as ended, if it is the current one and not marked yet.
    pub(crate) async fn end_subscription(
        &self,
        key: SubscriptionKey<'_>,
        number: u32,
        policy: RetryPolicy,
    ) -> Result<(), StoreError> {
        let is_number = Condition::equals("number", &number);
        let is_current = if number == 1 {
            is_number.or(Condition::Absent("number"))
        } else {
            is_number
        };
        let change = Change::default().set("ended_at", &Timestamp::now()).only_if(
            is_current
                .and(Condition::Exists("subscription_id"))
                .and(Condition::Absent("ended_at")),
        );
        let end = || self.update_item(key.item_key(), &change, ReturnValue::None);
        retry_until(policy, end).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: WebhookUrl<'static> = WebhookUrl {
        route: "https://api.example.com/webhooks/cartum/main",
        url: "https://api.example.com/webhooks/cartum/main?token=a-token-of-the-shop",
    };

    fn note(number: u32, before: Option<&NotedSubscription>) -> NotedSubscription {
        let shop = Shop::parse("main").expect("a shop");
        let key = SubscriptionKey {
            provider: "cartum",
            shop: &shop,
            event: "order_paid",
        };
        NotedSubscription::read(key.note(URL, number, before))
    }

    #[test]
    fn a_note_has_the_route_and_only_the_hash_of_the_url() {
        let mut first = note(1, None);
        assert_eq!((first.number, first.route.as_deref()), (1, Some(URL.route)));
        assert!(first.is_of(URL.url) && !first.is_of(URL.route) && first.is_unclear());
        assert!(!format!("{first:?}").contains("a-token-of-the-shop"));
        // An item of the version before has no number either.
        assert!(!first.item.contains_key("number"));
        first.finding = Some("a finding".to_owned());
        let second = note(2, Some(&first));
        assert_eq!((second.number, second.finding), (2, first.finding));
    }

    #[test]
    fn a_note_is_unchanged_as_long_as_nobody_makes_or_ends_the_subscription() {
        let mut noted = note(1, None);
        let condition = |noted: &NotedSubscription| noted.is_unchanged().to_expression().condition;
        assert_eq!(
            condition(&noted).as_deref(),
            Some("(#noted_at = :0 AND attribute_not_exists(#subscription_id)) AND attribute_not_exists(#ended_at)")
        );
        noted.item.insert("subscription_id".to_owned(), "7".to_attribute());
        assert!(condition(&noted).is_some_and(|condition| condition.contains("#subscription_id = :1")));
    }
}
