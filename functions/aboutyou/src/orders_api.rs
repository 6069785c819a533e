//! The order API of the ABOUT YOU Seller Center, as a client of a third party uses it. It was not tried on a live
//! account.

use lambda_http::http::HeaderName;
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::order_api::{Api, ApiError, BaseUrl, Call, Credentials, Host, Listing, OrderApi, OrderPage, Period};

use crate::AboutYou;

/// The number of orders on a page.
const PAGE: u64 = 100;
const DOMAIN: &str = "aboutyou.com";
const KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The credentials of a shop for the API.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiCredentials {
    /// An API key.
    key: Credentials,
    /// The host of the API, in `aboutyou.com`.
    #[serde(default = "default_host")]
    host: String,
}

fn default_host() -> String {
    format!("partner.{DOMAIN}")
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Box<RawValue>>,
    pagination: Pagination,
}

#[derive(Deserialize)]
struct Pagination {
    current_page: u64,
    last_page: u64,
    /// The number of orders on a page, which may be less than the number that was asked for.
    #[serde(rename = "per_page")]
    limit: Option<u64>,
}

impl Pagination {
    /// The position after a page with `count` orders at `position`.
    ///
    /// A page before the last one that is not full is an answer that is cut, from which nothing follows.
    fn next(&self, position: u64, count: usize) -> Result<Option<u64>, ApiError> {
        let &Self {
            current_page,
            last_page,
            ..
        } = self;
        if current_page >= last_page {
            return Ok(None);
        }
        let expected = self.limit.unwrap_or(PAGE).max(1);
        if u64::try_from(count).unwrap_or(u64::MAX) < expected {
            return Err(ApiError::unavailable(format!(
                "page {current_page} of {last_page} has {count} orders, and not {expected}"
            )));
        }
        Ok(Some(position + 1))
    }
}

impl OrderApi for AboutYou {
    type Credentials = ApiCredentials;
    type Session = ();

    const API_URL: &'static str = "ABOUTYOU_API_URL";
    const LISTING: Listing = Listing::Unordered;

    fn base_url(credentials: &ApiCredentials) -> Result<BaseUrl, ApiError> {
        Ok(BaseUrl::of(&Host::in_domain(&credentials.host, DOMAIN)?, ""))
    }

    async fn page(
        &self,
        api: &Api,
        credentials: &ApiCredentials,
        (): &mut (),
        _: Period,
        position: u64,
    ) -> Result<OrderPage, ApiError> {
        // The position is the number of the last page that was read.
        let path = format!("/api/v1/orders?page={}&per_page={PAGE}", position + 1);
        let call = Call::get(path).secret_header(KEY, credentials.key.expose())?;
        let (page, answer) = api.json::<Page>(&call).await?;
        let next = page.pagination.next(position, page.items.len())?;
        Ok(OrderPage::of(&answer, page.items, next))
    }

    fn envelope(_: &ApiCredentials, order: &RawValue) -> String {
        format!(r#"{{"event":"order.updated","message":{}}}"#, order.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(pagination: &str, count: usize) -> Result<Option<u64>, String> {
        let pagination: Pagination = serde_json::from_str(pagination).expect("a pagination");
        pagination.next(1, count).map_err(|error| error.to_string())
    }

    #[test]
    fn every_page_but_the_last_is_full() {
        let middle = r#"{"current_page":2,"last_page":3}"#;
        assert_eq!(next(middle, 100), Ok(Some(2)));
        let cut = |count, expected| Err(format!("page 2 of 3 has {count} orders, and not {expected}"));
        assert_eq!(next(middle, 99), cut(99, 100));
        assert_eq!(next(r#"{"current_page":3,"last_page":3}"#, 7), Ok(None));
        // A server may have a smaller limit.
        let smaller = r#"{"current_page":2,"last_page":3,"per_page":50,"total":120}"#;
        assert_eq!(next(smaller, 50), Ok(Some(2)));
        assert_eq!(next(smaller, 49), cut(49, 50));
        assert_eq!(next(r#"{"current_page":2,"last_page":3,"per_page":0}"#, 0), cut(0, 1));
    }
}
