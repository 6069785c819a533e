//! Snipcart's order API: <https://docs.snipcart.com/v3/api-reference/orders>.

use serde::Deserialize;
use serde_json::value::RawValue;
use shared::order_api::{
    Api, ApiError, BaseUrl, Call, Credentials, Host, Listing, OrderApi, OrderPage, Period, next_position,
};

use crate::Snipcart;

/// The number of orders on a page.
const PAGE: u64 = 50;

/// The credentials of a shop for the API.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiCredentials {
    /// A secret API key.
    key: Credentials,
    /// Whether the key is one of the test mode. An order of the API does not state its mode.
    #[serde(default)]
    test: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    total_items: u64,
    items: Vec<Box<RawValue>>,
}

impl OrderApi for Snipcart {
    type Credentials = ApiCredentials;
    type Session = ();

    const API_URL: &'static str = "SNIPCART_API_URL";
    /// By the day of creation, as far as the documentation says.
    const LISTING: Listing = Listing::PlacedInPeriod;

    fn base_url(_: &ApiCredentials) -> Result<BaseUrl, ApiError> {
        Ok(BaseUrl::of(&Host::public("app.snipcart.com")?, "/api"))
    }

    async fn page(
        &self,
        api: &Api,
        credentials: &ApiCredentials,
        (): &mut (),
        period: Period,
        position: u64,
    ) -> Result<OrderPage, ApiError> {
        let Period { from, to } = period;
        let path = format!("/orders?offset={position}&limit={PAGE}&from={from:.0}&to={to:.0}");
        let (page, answer) = api.json::<Page>(&Call::get(path).basic(&credentials.key)?).await?;
        let next = next_position(position, page.items.len(), Some(page.total_items))?;
        Ok(OrderPage::of(&answer, page.items, next))
    }

    fn envelope(credentials: &ApiCredentials, order: &RawValue) -> String {
        let mode = if credentials.test { "Test" } else { "Live" };
        format!(
            r#"{{"eventName":"order.completed","mode":"{mode}","content":{}}}"#,
            order.get()
        )
    }
}
