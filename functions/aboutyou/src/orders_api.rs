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
        let Pagination {
            current_page,
            last_page,
        } = page.pagination;
        if page.items.is_empty() && current_page < last_page {
            return Err(ApiError::unavailable(format!(
                "page {current_page} of {last_page} is empty"
            )));
        }
        let next = (current_page < last_page).then_some(position + 1);
        Ok(OrderPage::of(&answer, page.items, next))
    }

    fn envelope(_: &ApiCredentials, order: &RawValue) -> String {
        format!(r#"{{"event":"order.updated","message":{}}}"#, order.get())
    }
}
