//! Cartum's (Horoshop's) order API.
//!
//! A call carries a token, which a log-in returns. An error has status 200, and the answer says what it is.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use shared::order_api::{
    Answer, Api, ApiError, BaseUrl, Call, Credentials, Host, Listing, OrderApi, OrderPage, Period, next_position,
};

use crate::Cartum;

/// The number of orders on a page.
const PAGE: u64 = 100;

/// The credentials of a shop for the API.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiCredentials {
    /// The domain of the shop.
    domain: String,
    /// The user name of an account with access to the API.
    login: Credentials,
    /// The password of the account.
    password: Credentials,
}

/// An answer. `response` is absent, or something else, if the call failed.
#[derive(Deserialize)]
struct Envelope {
    status: String,
    #[serde(default)]
    response: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Token {
    token: Credentials,
}

#[derive(Deserialize)]
struct Orders {
    orders: Vec<Box<RawValue>>,
}

/// Why a call gave no response.
pub(crate) enum Failed {
    /// The token is missing, or no longer valid.
    Unauthorized,
    Error(ApiError),
}

impl From<ApiError> for Failed {
    fn from(error: ApiError) -> Self {
        Self::Error(error)
    }
}

impl OrderApi for Cartum {
    type Credentials = ApiCredentials;
    /// The token of the last log-in.
    type Session = Option<Credentials>;

    const API_URL: &'static str = "CARTUM_API_URL";
    /// By the day on which the order was placed.
    const LISTING: Listing = Listing::PlacedInPeriod;

    fn base_url(credentials: &ApiCredentials) -> Result<BaseUrl, ApiError> {
        Ok(BaseUrl::of(&Host::public(&credentials.domain)?, ""))
    }

    async fn page(
        &self,
        api: &Api,
        credentials: &ApiCredentials,
        token: &mut Option<Credentials>,
        period: Period,
        position: u64,
    ) -> Result<OrderPage, ApiError> {
        if let Some(token) = token {
            match self.orders(api, token, period, position).await {
                // A token is valid for a time that is not documented.
                Err(Failed::Unauthorized) => {}
                Err(Failed::Error(error)) => return Err(error),
                Ok(page) => return Ok(page),
            }
        }
        let token = token.insert(log_in(api, credentials).await?);
        self.orders(api, token, period, position)
            .await
            .map_err(|failed| match failed {
                Failed::Unauthorized => ApiError::refused("the API refuses a new token"),
                Failed::Error(error) => error,
            })
    }

    fn envelope(_: &ApiCredentials, order: &RawValue) -> String {
        order.get().to_owned()
    }
}

impl Cartum {
    async fn orders(&self, api: &Api, token: &Credentials, period: Period, position: u64) -> Result<OrderPage, Failed> {
        let body = json!({
            "token": token.expose(),
            "from": local_time(period.from, &self.time_zone),
            "to": local_time(period.to, &self.time_zone),
            "limit": PAGE,
            "offset": position,
        });
        let answer = api.call(&Call::post("/api/orders/get/", body.to_string())).await?;
        let orders = response(&answer)?.map_or_else(Vec::new, |Orders { orders }| orders);
        let next = next_position(position, orders.len(), None)?;
        Ok(OrderPage::of(&answer, orders, next))
    }
}

pub(crate) async fn log_in(api: &Api, credentials: &ApiCredentials) -> Result<Credentials, ApiError> {
    let body = json!({"login": credentials.login.expose(), "password": credentials.password.expose()});
    let answer = api.call(&Call::post("/api/auth/", body.to_string())).await?;
    match response(&answer) {
        Ok(Some(Token { token })) => Ok(token),
        Ok(None) => Err(not_documented()),
        Err(Failed::Error(error)) => Err(error),
        Err(Failed::Unauthorized) => Err(ApiError::refused("the API refuses the login")),
    }
}

/// Reads the response of an answer. Returns `None` if the list is empty, which has a status of its own.
pub(crate) fn response<T: for<'a> Deserialize<'a>>(answer: &Answer) -> Result<Option<T>, Failed> {
    let Envelope { status, response } = answer.parse()?;
    match (status.as_str(), response) {
        ("OK", Some(response)) => Ok(Some(
            serde_json::from_str(response.get()).map_err(|_| not_documented())?,
        )),
        ("EMPTY", _) => Ok(None),
        ("AUTHORIZATION_ERROR" | "UNAUTHORIZED", _) => Err(Failed::Unauthorized),
        // Any other text may quote the request, so it is not shown.
        _ => Err(ApiError::unavailable("the API answered with an error").into()),
    }
}

fn not_documented() -> ApiError {
    ApiError::unavailable("the response is not as documented")
}

/// The time on the shop's clock, as the API reads it.
fn local_time(time: Timestamp, zone: &TimeZone) -> String {
    time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_given_on_the_shops_clock() {
        let zone = TimeZone::get("Europe/Kyiv").expect("a time zone");
        let time = "2026-07-01T21:30:00Z".parse().expect("a time");
        assert_eq!(local_time(time, &zone), "2026-07-02 00:30:00");
    }
}
