//! Selldone's API for the orders of a shop, as the public wiki of its ERP sample shows it. It was not tried on a live
//! account.

use serde::Deserialize;
use serde_json::value::RawValue;
use shared::order_api::{
    Api, ApiError, BaseUrl, Call, Credentials, Host, Listing, OrderApi, OrderPage, Period, next_position,
};

use crate::Selldone;

/// The number of orders on a page, of at most 250.
const PAGE: u64 = 100;
const DOMAIN: &str = "selldone.com";

/// The credentials of a shop for the API.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiCredentials {
    /// The number of the shop.
    shop_id: String,
    /// An access token.
    token: Credentials,
    /// The host of the API, in `selldone.com`.
    #[serde(default = "default_host")]
    host: String,
}

fn default_host() -> String {
    format!("api.{DOMAIN}")
}

#[derive(Deserialize)]
struct Page {
    baskets: Vec<Box<RawValue>>,
    #[serde(default)]
    total: Option<u64>,
}

/// The people of a basket. In a webhook they are beside it.
#[derive(Default, Deserialize)]
struct People<'b> {
    #[serde(borrow, default)]
    user: Option<&'b RawValue>,
    #[serde(borrow, default)]
    customer: Option<&'b RawValue>,
}

impl OrderApi for Selldone {
    type Credentials = ApiCredentials;
    type Session = ();

    const API_URL: &'static str = "SELLDONE_API_URL";
    const LISTING: Listing = Listing::LastChangedFirst;

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
        let shop = &credentials.shop_id;
        // The number is a part of the path, in which `..` would lead to another endpoint.
        if shop.is_empty() || !shop.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ApiError::misconfigured("shop_id in the secret is not a number"));
        }
        let path = format!(
            "/shops/{shop}/process-center/baskets-PHYSICAL?offset={position}&limit={PAGE}&sort=updated_at&order=desc"
        );
        let (page, answer) = api.json::<Page>(&Call::get(path).bearer(&credentials.token)?).await?;
        let next = next_position(position, page.baskets.len(), page.total)?;
        Ok(OrderPage::of(&answer, page.baskets, next))
    }

    fn envelope(_: &ApiCredentials, order: &RawValue) -> String {
        // An order that is not an object is quarantined as it is.
        let People { user, customer } = serde_json::from_str(order.get()).unwrap_or_default();
        let member = |name: &str, person: Option<&RawValue>| {
            person.map_or_else(String::new, |person| format!(r#","{name}":{}"#, person.get()))
        };
        format!(
            r#"{{"event":"OnlineOrder","action":"CheckoutOrder","basket":{}{}{}}}"#,
            order.get(),
            member("user", user),
            member("customer", customer),
        )
    }
}
