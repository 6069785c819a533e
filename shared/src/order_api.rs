//! The order API of a provider, through which reconciliation finds orders that no delivery has reported.
//!
//! Only reconciliation uses this module; the functions that receive deliveries do not contain it.

mod address;
mod client;
mod subscribing;

use std::future::Future;

use jiff::Timestamp;
use lambda_http::http::Method;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

pub use self::address::Host;
pub use self::client::{ATTEMPT, Answer, Api, ApiError, BaseUrl, Call, Credentials, Failure};
pub use self::subscribing::{ListedSubscription, NewSubscription, Subscribes, subscription_id};
use crate::delivery::Delivery;
use crate::identity::Shop;
use crate::provider::Provider;
use crate::reconciliation::Reconciled;
use crate::verification::Verified;

/// A provider whose orders can be listed.
pub trait OrderApi: Provider {
    /// The credentials of a shop for the API: `api` in the shop's secret.
    type Credentials: DeserializeOwned + Send + Sync;

    /// What a run has learnt while it lists the orders of a shop, such as a token.
    type Session: Default + Send;

    /// The setting that replaces the base URL of the API, for the local stack.
    const API_URL: &'static str;

    /// How the API lists orders.
    const LISTING: Listing;

    /// The base URL of the API of the shop with these credentials.
    ///
    /// # Errors
    /// If the credentials name a host that is not the provider's.
    fn base_url(credentials: &Self::Credentials) -> Result<BaseUrl, ApiError>;

    /// Lists a page of orders. `position` is 0 for the first page, and `next` of the page before for every other.
    fn page(
        &self,
        api: &Api,
        credentials: &Self::Credentials,
        session: &mut Self::Session,
        period: Period,
        position: u64,
    ) -> impl Future<Output = Result<OrderPage, ApiError>> + Send;

    /// The body of the delivery that would report `order`.
    fn envelope(credentials: &Self::Credentials, order: &RawValue) -> String;
}

/// How an API lists orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// The orders that were placed in a period. A change of an earlier order is found only if the period reaches back to
    /// the day when it was placed.
    PlacedInPeriod,
    /// All orders, the one that changed last first.
    LastChangedFirst,
    /// All orders, in no documented order.
    Unordered,
}

/// The period whose orders are listed, from `from` on and before `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// The beginning.
    pub from: Timestamp,
    /// The end.
    pub to: Timestamp,
}

impl Period {
    /// Whether `time` is in the period.
    pub fn contains(self, time: Timestamp) -> bool {
        (self.from..self.to).contains(&time)
    }
}

/// A page of orders. It can only be made of an answer of the API.
pub struct OrderPage {
    orders: Vec<ListedOrder>,
    /// The position of the next page; `None` if this is the last one.
    pub next: Option<u64>,
}

/// An order as the API has listed it.
pub struct ListedOrder(Box<RawValue>);

impl OrderPage {
    /// A page of the orders in `answer`.
    pub fn of(_: &Answer, orders: Vec<Box<RawValue>>, next: Option<u64>) -> Self {
        Self {
            orders: orders.into_iter().map(ListedOrder).collect(),
            next,
        }
    }

    /// The orders.
    pub fn into_orders(self) -> Vec<ListedOrder> {
        self.orders
    }
}

impl ListedOrder {
    /// The delivery that would report the order, as it is compared with what is stored.
    pub fn into_delivery<P: OrderApi>(
        self,
        credentials: &P::Credentials,
        shop: &Shop,
        now: Timestamp,
    ) -> Verified<Delivery> {
        delivery(P::envelope(credentials, &self.0).into_bytes(), shop, now)
    }
}

fn delivery(body: Vec<u8>, shop: &Shop, now: Timestamp) -> Verified<Delivery> {
    let query = std::collections::HashMap::<String, Vec<String>>::new();
    let delivery = Delivery::stored(Method::POST, shop.clone(), query.into(), body, now);
    Verified::of_api(delivery.into_reconciled(Reconciled::default()))
}

/// The position of the page after one with `count` orders at `position`, if the API counts orders.
///
/// An empty page before the last order is an answer that is cut, from which nothing follows.
///
/// # Errors
/// If the page is empty, although `total` says that there are more orders.
pub fn next_position(position: u64, count: usize, total: Option<u64>) -> Result<Option<u64>, ApiError> {
    let next = position + u64::try_from(count).unwrap_or(u64::MAX);
    match (count, total) {
        (0, Some(total)) if total > position => Err(ApiError::unavailable(format!(
            "the list ends after {position} of {total} orders"
        ))),
        (0, _) => Ok(None),
        (_, Some(total)) => Ok((next < total).then_some(next)),
        (_, None) => Ok(Some(next)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_begins_after_the_last_order() {
        let next = |position, count, total| next_position(position, count, total).expect("a list");
        assert_eq!(next(0, 50, Some(120)), Some(50));
        // A server may return fewer orders than it was asked for.
        assert_eq!(next(100, 10, Some(120)), Some(110));
        assert_eq!(next(100, 20, Some(120)), None);
        assert_eq!(next(0, 0, Some(0)), None);
        assert_eq!((next(0, 7, None), next(7, 0, None)), (Some(7), None));
    }

    #[test]
    fn a_list_that_ends_early_is_no_list() {
        let error = next_position(50, 0, Some(120)).expect_err("it is cut");
        assert_eq!(error.to_string(), "the list ends after 50 of 120 orders");
    }
}
