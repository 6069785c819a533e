//! Subscribing to the events of a shop through the API of its provider.

use std::fmt;
use std::future::Future;

use serde_json::Value;

use super::{Api, ApiError, Credentials, OrderApi};

/// A provider at which the events of a shop can be subscribed through the API.
pub trait Subscribes: OrderApi {
    /// The subscriptions of a shop: the provider's word for the event of each, or a word for all order events if one
    /// subscription has them all.
    const SUBSCRIPTIONS: &'static [&'static str];

    /// The URL of the shop's webhook for a subscription. `route` is the URL of the shop's route, and no other subscription
    /// has the same `word`; `None` if an earlier version of the function has made the subscription.
    fn webhook_url(secrets: &Self::Secrets, route: &str, event: &str, word: Option<&str>) -> String;

    /// Why a subscription must not be made again without an operator, if it must not.
    fn needs_operator(_: &Self::Secrets) -> Option<&'static str> {
        None
    }

    /// Begins a session, before anything is subscribed.
    ///
    /// # Errors
    /// If the provider refuses the credentials or cannot be reached.
    fn log_in(
        &self,
        api: &Api,
        credentials: &Self::Credentials,
    ) -> impl Future<Output = Result<Self::Session, ApiError>> + Send;

    /// The subscriptions of the shop; `None` if the API does not list them.
    ///
    /// # Errors
    /// If the API does not answer with a list.
    fn subscriptions(
        &self,
        api: &Api,
        credentials: &Self::Credentials,
    ) -> impl Future<Output = Result<Option<Vec<ListedSubscription>>, ApiError>> + Send;

    /// Makes a subscription. Must not be repeated after an error, because the provider may have made the subscription.
    ///
    /// # Errors
    /// If the provider does not confirm the subscription. Only an error that
    /// [is a refusal](super::ApiError::is_refusal) means that it was not made.
    fn subscribe(
        &self,
        api: &Api,
        credentials: &Self::Credentials,
        session: &Self::Session,
        event: &str,
        url: &str,
    ) -> impl Future<Output = Result<NewSubscription, ApiError>> + Send;
}

/// A subscription that was made just now.
#[derive(Debug)]
pub struct NewSubscription {
    /// The provider's id of the subscription.
    pub id: String,
    /// The secret of the subscription, which the API does not return a second time.
    pub client_secret: Option<Credentials>,
}

/// A subscription as the API lists it.
#[derive(Clone, PartialEq, Eq)]
pub struct ListedSubscription {
    /// The provider's id of the subscription. The text is empty if the provider gives it no id.
    pub id: String,
    /// The URL that is called. It holds a token.
    pub url: Option<String>,
    /// Why not all order events of the shop are delivered; `None` if they are.
    pub defect: Option<String>,
}

/// Without the URL, which holds a token.
impl fmt::Debug for ListedSubscription {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, defect, .. } = self;
        formatter
            .debug_struct("ListedSubscription")
            .field("id", id)
            .field("defect", defect)
            .finish_non_exhaustive()
    }
}

/// Reads an id of the provider, which is a number or a text. Returns `None` if it is absent or empty.
pub fn subscription_id(id: Option<&Value>) -> Option<String> {
    match id? {
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_id_is_a_number_or_a_text() {
        for (id, expected) in [
            (json!(17), Some("17")),
            (json!("17"), Some("17")),
            (json!(""), None),
            (json!(null), None),
            (json!([17]), None),
        ] {
            assert_eq!(subscription_id(Some(&id)).as_deref(), expected, "{id}");
        }
        assert_eq!(subscription_id(None), None);
    }
}
