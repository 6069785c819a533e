//! The order API of the ABOUT YOU Seller Center, as two public clients of third parties use it. It was not tried on a
//! live account.

use jiff::{SignedDuration, Timestamp};
use lambda_http::http::HeaderName;
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::order_api::{Api, ApiError, BaseUrl, Call, Credentials, Host, Listing, OrderApi, OrderPage, Period};

use crate::AboutYou;

/// The most orders on a page.
const PAGE: u64 = 100;
/// How long before the beginning of a period the orders were placed that are listed. The API selects orders by the time
/// when they were placed, and an older one may have changed since.
const PLACED_BEFORE: SignedDuration = SignedDuration::from_hours(90 * 24);
const DOMAIN: &str = "aboutyou.com";
pub(crate) const KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The credentials of a shop for the API.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiCredentials {
    /// An API key.
    pub(crate) key: Credentials,
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
    #[serde(default)]
    pagination: Pagination,
}

/// The pagination of an answer. The clients do not agree on the name of the number of pages.
#[derive(Default, Deserialize)]
struct Pagination {
    pages: Option<u64>,
    last_page: Option<u64>,
    total_pages: Option<u64>,
    /// The number of orders on a page, which may be less than the number that was asked for.
    per_page: Option<u64>,
}

impl Pagination {
    /// The position after a page with `count` orders at `position`. If the answer does not state the number of pages, the
    /// list ends with an empty page.
    ///
    /// A page before the last one that is empty, or shorter than stated, is an answer that is cut, from which nothing
    /// follows.
    fn next(&self, position: u64, count: usize) -> Result<Option<u64>, ApiError> {
        let page = position + 1;
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let Some(pages) = self.pages.or(self.last_page).or(self.total_pages) else {
            return Ok((count > 0).then_some(page));
        };
        if page >= pages {
            return Ok(None);
        }
        let least = self.per_page.unwrap_or(1).max(1);
        if count < least {
            return Err(ApiError::unavailable(format!(
                "page {page} of {pages} has {count} orders, and not {least}"
            )));
        }
        Ok(Some(page))
    }
}

/// The path of a page of the orders that are listed for a period. The position is the number of the last page that was
/// read.
fn path(period: Period, position: u64) -> String {
    let from = period.from.checked_sub(PLACED_BEFORE).unwrap_or(Timestamp::UNIX_EPOCH);
    let (page, from) = (position + 1, from.strftime("%Y-%m-%dT%H:%M:%SZ"));
    // Without the slash before the query, the API answers with a redirect.
    format!("/api/v1/orders/?page={page}&per_page={PAGE}&orders_from={from}")
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
        period: Period,
        position: u64,
    ) -> Result<OrderPage, ApiError> {
        let call = Call::get(path(period, position)).secret_header(KEY, credentials.key.expose())?;
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
        let page: Page = serde_json::from_str(&format!(r#"{{"items":[]{pagination}}}"#)).expect("a page");
        page.pagination.next(1, count).map_err(|error| error.to_string())
    }

    #[test]
    fn the_number_of_pages_ends_the_list() {
        for name in ["pages", "last_page", "total_pages"] {
            let pagination = |pages: u64| format!(r#","pagination":{{"page":2,"{name}":{pages}}}"#);
            assert_eq!(next(&pagination(3), 7), Ok(Some(2)), "{name}");
            assert_eq!(next(&pagination(2), 7), Ok(None), "{name}");
        }
        assert_eq!(next(r#","pagination":{"pages":2,"last_page":2}"#, 100), Ok(None));
    }

    #[test]
    fn without_a_number_of_pages_an_empty_page_ends_the_list() {
        for pagination in [
            "",
            r#","pagination":{"per_page":100}"#,
            r#","pagination":{"pages":null}"#,
        ] {
            assert_eq!(next(pagination, 7), Ok(Some(2)), "{pagination}");
            assert_eq!(next(pagination, 0), Ok(None), "{pagination}");
        }
    }

    #[test]
    fn a_page_that_is_cut_is_an_error() {
        let cut = |count, expected| Err(format!("page 2 of 3 has {count} orders, and not {expected}"));
        assert_eq!(next(r#","pagination":{"pages":3}"#, 0), cut(0, 1));
        let stated = r#","pagination":{"pages":3,"per_page":50,"total":120}"#;
        assert_eq!(next(stated, 49), cut(49, 50));
        assert_eq!(next(stated, 50), Ok(Some(2)));
        assert_eq!(next(r#","pagination":{"pages":3,"per_page":0}"#, 0), cut(0, 1));
    }

    #[test]
    fn a_period_is_listed_with_the_orders_that_were_placed_90_days_before_it() {
        let time = |text: &str| text.parse().expect("a time");
        let period = Period {
            from: time("2026-04-01T12:30:00.5Z"),
            to: time("2026-04-02T00:00:00Z"),
        };
        assert_eq!(
            path(period, 2),
            "/api/v1/orders/?page=3&per_page=100&orders_from=2026-01-01T12:30:00Z"
        );
        let all = Period {
            from: Timestamp::MIN,
            ..period
        };
        assert!(path(all, 0).ends_with("&orders_from=1970-01-01T00:00:00Z"));
    }
}
