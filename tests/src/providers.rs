//! The providers, each with the facts that the tests need beyond its [`Provider`] implementation.
//!
//! A new provider gets a line in [`for_each_provider`](crate::for_each_provider) and its facts here; every test that
//! runs for each provider then runs for it too.

use local::project::settings::{DEEPLE_PID, DEEPLE_SECRET, SHOP, SNIPCART_KEY, TOKEN};
use serde_json::{Value, json};
use shared::Provider;
use shared::answer::Reason;

use crate::authentication::{
    ABOUT_YOU_SIGNATURES, Attack, Attacks, CLIENT_SECRET, DEEPLE, DEEPLE_REFUSALS, MALFORMED_REQUEST_TOKENS, OTHER_PID,
    OTHER_SECRET, OTHER_TOKEN, Refusals, SIGNATURE_HEADER, SIGNATURE_REFUSALS, SIGNED_SHOP, SNIPCART_REFUSALS,
    TOKEN_REFUSALS, TOKENS, UNKNOWN_REQUEST_TOKENS,
};

/// Calls a macro with every provider: `module: Type,` for each.
#[macro_export]
macro_rules! for_each_provider {
    ($callback:ident) => {
        $callback! {
            selldone: ::selldone::Selldone,
            cartum: ::cartum::Cartum,
            deeple: ::deeple::Deeple,
            aboutyou: ::aboutyou::AboutYou,
            snipcart: ::snipcart::Snipcart,
        }
    };
}

/// Calls a macro with every provider that has an order API.
#[macro_export]
macro_rules! for_each_provider_with_order_api {
    ($callback:ident) => {
        $callback! {
            selldone: ::selldone::Selldone,
            cartum: ::cartum::Cartum,
            aboutyou: ::aboutyou::AboutYou,
            snipcart: ::snipcart::Snipcart,
        }
    };
}

macro_rules! table {
    ($($name:ident: $provider:ty,)+) => {
        /// The facts of every provider.
        pub const PROVIDERS: &[Facts] = &[$(<$provider as Tested>::FACTS,)+];
    };
}

for_each_provider!(table);

/// A provider that the tests know.
pub trait Tested: Provider {
    /// The facts of the provider.
    const FACTS: Facts;
}

/// What the tests have to know about a provider.
pub struct Facts {
    /// The slug: the name of the binary, and of the folders in `functions/` and `events/`.
    pub name: &'static str,
    /// An event of `events/` that reports a plain, new order.
    pub order: &'static str,
    /// The fields that stay in `unmapped`, each with the reason.
    pub unmapped: &'static [(&'static str, &'static str)],
    /// JSON pointers to the fields without which there is no event, and the reasons of the quarantine then. A fault in
    /// any other field costs that field only.
    pub required: &'static [(&'static str, &'static [Reason])],
    /// JSON pointers to the fields that name the event.
    pub event_name: &'static [&'static str],
    /// The events of `events/` that are not published, by outcome.
    pub not_published: &'static [(&'static str, &'static [&'static str])],
    /// The unpublished events without content: they all have the same event id.
    pub pings: &'static [&'static str],
    /// An event of `events/` with an unknown name, and a JSON pointer to its order's id, if the events have names.
    pub unknown_event: Option<(&'static str, &'static str)>,
    /// Whether a delivery identifies its event apart from its content: then another body of the same event is a conflict.
    /// Otherwise the body is the identity, and another body is another event.
    pub has_event_key: bool,
    /// Whether a token in the URL is what authenticates a delivery.
    pub has_url_token: bool,
    /// The headers with credentials, each of which may occur once only.
    pub credential_headers: &'static [&'static str],
    /// The secret in the tests of authentication: the shop `main` with the development credential, and other shops.
    pub secret: fn() -> Value,
    /// A shop with these credentials, of which any is valid.
    pub shop: fn(&[&str]) -> Value,
    /// The development credential in the shop's secret.
    pub credential: &'static str,
    /// The status of a delivery when the credential that it was sent with is no longer valid.
    pub status_when_revoked: u16,
    /// Deliveries that must be refused with [`secret`](Self::secret).
    pub attacks: &'static [Attacks],
    /// Refused deliveries, and whether each counts as `WrongCredentials`.
    pub refusals: &'static [Refusals],
}

impl Facts {
    /// The facts of the provider with this slug.
    ///
    /// # Panics
    /// If there is no such provider.
    pub fn of(name: &str) -> &'static Self {
        let known = PROVIDERS.iter().find(|facts| facts.name == name);
        known.unwrap_or_else(|| panic!("{name} is not a provider"))
    }

    /// The providers that are authenticated by a token in the URL.
    pub fn with_url_token() -> impl Iterator<Item = &'static Self> {
        PROVIDERS.iter().filter(|facts| facts.has_url_token)
    }

    /// The names of the shops that [`secret`](Self::secret) configures.
    ///
    /// # Panics
    /// If the secret is malformed.
    pub fn shops(&self) -> Vec<String> {
        let secret = (self.secret)();
        let shops = secret["shops"].as_object().expect("an object of shops");
        shops.keys().cloned().collect()
    }

    /// Every attack, with the preparation of its delivery.
    pub fn all_attacks(&self) -> impl Iterator<Item = (fn(&mut local::providers::samples::Fixture), &'static Attack)> {
        let attacks = self.attacks.iter();
        attacks.flat_map(|attacks| attacks.attacks.iter().map(|attack| (attacks.prepare, attack)))
    }
}

const NUMBER_OF_PROVIDERS: usize = PROVIDERS.len();

/// Every provider's slug with its plain order.
pub const ORDERS: [(&str, &str); NUMBER_OF_PROVIDERS] = {
    let mut orders = [("", ""); NUMBER_OF_PROVIDERS];
    let mut index = 0;
    while index < orders.len() {
        orders[index] = (PROVIDERS[index].name, PROVIDERS[index].order);
        index += 1;
    }
    orders
};

/// The plain order of a provider.
pub fn order_of(provider: &str) -> &'static str {
    Facts::of(provider).order
}

const EVENT_NAME: &[Reason] = &[Reason::NoDiscriminator, Reason::UnknownEvent];
const ORDER_ID: &[Reason] = &[Reason::NoOrderId];

fn shop_with_tokens(tokens: &[&str]) -> Value {
    json!({ "tokens": tokens })
}

fn two_shops_with_tokens() -> Value {
    json!({"shops": {SHOP: {"tokens": [TOKEN]}, "other": {"tokens": [OTHER_TOKEN]}}})
}

impl Tested for selldone::Selldone {
    const FACTS: Facts = Facts {
        name: Self::NAME,
        order: "checkout-order",
        unmapped: selldone::UNMAPPED,
        required: &[
            ("/event", EVENT_NAME),
            ("/action", EVENT_NAME),
            ("/basket", ORDER_ID),
            ("/basket/id", ORDER_ID),
        ],
        event_name: &["/event", "/action"],
        not_published: &[
            ("unsupported", &["pos-order", "inventory", "ping"]),
            ("unknown_event", &["unknown-action", "unknown-event"]),
            ("no_discriminator", &["event-missing", "action-missing"]),
            (
                "no_order_id",
                &[
                    "order-id-missing",
                    "basket-not-an-object",
                    // What "Send test data" on the dashboard sends has no order.
                    "dashboard-test",
                ],
            ),
            ("not_json", &["not-json"]),
        ],
        pings: &["ping"],
        unknown_event: Some(("unknown-action", "/basket/id")),
        has_event_key: false,
        has_url_token: true,
        credential_headers: &[],
        secret: two_shops_with_tokens,
        shop: shop_with_tokens,
        credential: TOKEN,
        status_when_revoked: 401,
        attacks: &[TOKENS],
        refusals: &[TOKEN_REFUSALS],
    };
}

impl Tested for cartum::Cartum {
    const FACTS: Facts = Facts {
        name: Self::NAME,
        order: "order-created",
        unmapped: cartum::UNMAPPED,
        required: &[("/order_id", ORDER_ID)],
        event_name: &[],
        not_published: &[
            (
                "unsupported",
                &[
                    "user-signup",
                    "user-update",
                    "comments-created",
                    "request-call-me",
                    "delete-unsubscribed",
                    "ping",
                ],
            ),
            ("unknown_event", &["unknown-event"]),
            (
                "no_order_id",
                &[
                    "order-id-missing",
                    "order-id-null",
                    "not-an-object",
                    // Cartum is not known to send an order in a list.
                    "array-of-one-order",
                ],
            ),
            ("not_json", &["not-json", "form-encoded"]),
        ],
        pings: &["ping", "delete-unsubscribed"],
        unknown_event: Some(("unknown-event", "/order_id")),
        has_event_key: true,
        has_url_token: true,
        credential_headers: &[],
        secret: two_shops_with_tokens,
        shop: shop_with_tokens,
        credential: TOKEN,
        status_when_revoked: 401,
        attacks: &[TOKENS],
        refusals: &[TOKEN_REFUSALS],
    };
}

impl Tested for deeple::Deeple {
    const FACTS: Facts = Facts {
        name: Self::NAME,
        order: "order-changed",
        unmapped: deeple::UNMAPPED,
        required: &[("/orderNumber", ORDER_ID)],
        event_name: &[],
        not_published: &[
            ("unsupported", &["ping"]),
            ("no_order_id", &["order-number-missing", "empty-object"]),
            ("not_json", &["not-json"]),
        ],
        pings: &["ping"],
        unknown_event: None,
        has_event_key: false,
        has_url_token: false,
        credential_headers: &["pid", "timestamp", "signature"],
        secret: || {
            json!({"shops": {
                SHOP: {"pid": DEEPLE_PID, "secrets": [DEEPLE_SECRET]},
                "other": {"pid": OTHER_PID, "secrets": [OTHER_SECRET]},
            }})
        },
        shop: |secrets| json!({"pid": DEEPLE_PID, "secrets": secrets}),
        credential: DEEPLE_SECRET,
        status_when_revoked: 401,
        attacks: &[DEEPLE],
        refusals: &[DEEPLE_REFUSALS],
    };
}

impl Tested for aboutyou::AboutYou {
    const FACTS: Facts = Facts {
        name: Self::NAME,
        order: "order-created",
        unmapped: aboutyou::UNMAPPED,
        required: &[
            ("/event", EVENT_NAME),
            ("/message", ORDER_ID),
            ("/message/order_number", ORDER_ID),
        ],
        event_name: &["/event"],
        not_published: &[
            ("unsupported", &["stock-updated", "product-master", "ping"]),
            ("unknown_event", &["unknown-event"]),
            ("no_discriminator", &["event-missing"]),
            ("no_order_id", &["order-number-missing", "message-not-an-object"]),
            ("not_json", &["not-json"]),
        ],
        pings: &["ping"],
        unknown_event: Some(("unknown-event", "/message/order_number")),
        has_event_key: true,
        has_url_token: true,
        credential_headers: &[],
        secret: || {
            let mut secret = two_shops_with_tokens();
            secret["shops"][SIGNED_SHOP] =
                json!({"tokens": [TOKEN], "client_secrets": [CLIENT_SECRET], "signature_header": SIGNATURE_HEADER});
            secret
        },
        shop: shop_with_tokens,
        credential: TOKEN,
        status_when_revoked: 401,
        attacks: &[TOKENS, ABOUT_YOU_SIGNATURES],
        refusals: &[TOKEN_REFUSALS, SIGNATURE_REFUSALS],
    };
}

impl Tested for snipcart::Snipcart {
    const FACTS: Facts = Facts {
        name: Self::NAME,
        order: "order-completed",
        unmapped: snipcart::UNMAPPED,
        required: &[
            ("/eventName", EVENT_NAME),
            ("/content", ORDER_ID),
            ("/content/token", ORDER_ID),
            ("/content/orderToken", ORDER_ID),
            ("/content/order", ORDER_ID),
            ("/content/order/token", ORDER_ID),
        ],
        event_name: &["/eventName"],
        not_published: &[
            (
                "unsupported",
                &[
                    "subscription-created",
                    "subscription-state-cancelled",
                    "subscription-invoice-payment-failed-without-order",
                    "shippingrates-fetch",
                    "taxes-calculate",
                    "ping",
                ],
            ),
            ("unknown_event", &["unknown-event"]),
            ("no_discriminator", &["event-name-missing"]),
            (
                "no_order_id",
                &[
                    "order-token-missing",
                    "refund-order-token-missing",
                    "content-null",
                    "subscription-invoice-without-order",
                ],
            ),
            ("not_json", &["not-json"]),
        ],
        pings: &["ping"],
        unknown_event: Some(("unknown-event", "/content/token")),
        has_event_key: true,
        has_url_token: false,
        credential_headers: &["x-snipcart-requesttoken"],
        secret: || json!({"shops": {SHOP: {"api_keys": [SNIPCART_KEY]}}}),
        shop: |keys| json!({"api_keys": keys}),
        credential: SNIPCART_KEY,
        // The key is ours: if Snipcart does not accept it, the operator has to correct it.
        status_when_revoked: 500,
        attacks: &[MALFORMED_REQUEST_TOKENS, UNKNOWN_REQUEST_TOKENS],
        refusals: &[SNIPCART_REFUSALS],
    };
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use local::project::build::workspace;

    use super::*;

    #[test]
    fn every_function_that_implements_provider_is_in_the_table() {
        let folders = fs::read_dir(workspace().join("functions")).expect("functions/");
        let sources = folders.map(|folder| folder.expect("a folder").path().join("src"));
        let implements = |source: &std::path::PathBuf| {
            let files = fs::read_dir(source).expect("a source folder");
            let mut files = files.map(|file| file.expect("a file").path());
            files.any(|file| fs::read_to_string(file).is_ok_and(|text| text.contains("\nimpl Provider for ")))
        };
        let providers: BTreeSet<String> = sources
            .filter(implements)
            .map(|source| {
                source
                    .parent()
                    .and_then(|folder| folder.file_name())
                    .expect("a name")
                    .display()
                    .to_string()
            })
            .collect();
        let table: BTreeSet<String> = PROVIDERS.iter().map(|facts| facts.name.to_owned()).collect();
        assert_eq!(table, providers);
    }
}
