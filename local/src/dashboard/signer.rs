//! Signs samples and recorded deliveries as their provider would.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::Error;
use crate::project::settings::SHOP;
use crate::providers::samples::{Catalogue, Fixture};
use crate::providers::signing::{Credentials, sign};
use crate::recorder::redaction::MASK;
use crate::recorder::{Body, Delivery};

/// Signs with the secrets of the stack.
#[derive(Debug)]
pub(super) struct Signer {
    catalogue: Catalogue,
    secrets: BTreeMap<String, Value>,
}

impl Signer {
    pub(super) fn new(catalogue: Catalogue, secrets: BTreeMap<String, Value>) -> Self {
        Self { catalogue, secrets }
    }

    /// The providers, in order.
    pub(super) fn providers(&self) -> impl Iterator<Item = &String> {
        self.catalogue.names().keys()
    }

    /// The events of a provider that are published, and those that are not.
    pub(super) fn events(&self, provider: &str) -> (Vec<&String>, Vec<&String>) {
        let events = self.catalogue.names().get(provider).into_iter().flatten();
        events.partition(|name| matches!(self.catalogue.normalized(provider, name), Ok(Some(_))))
    }

    /// The shops of a provider.
    pub(super) fn shops(&self, provider: &str) -> Vec<&String> {
        let shops = self
            .secrets
            .get(provider)
            .and_then(|secret| secret["shops"].as_object());
        shops.into_iter().flat_map(|shops| shops.keys()).collect()
    }

    /// The URL token of a shop, if it has one.
    pub(super) fn token(&self, provider: &str, shop: &str) -> Option<&str> {
        self.secrets.get(provider)?["shops"][shop]["tokens"][0].as_str()
    }

    /// A sample for a shop, signed now.
    pub(super) fn sample(&self, provider: &str, event: &str, shop: &str, identity: Identity) -> Result<Fixture, Error> {
        let mut fixture = self.catalogue.event(provider, event)?;
        if identity == Identity::New {
            fixture.renew()?;
        }
        self.sign(&mut fixture, shop)?;
        Ok(fixture)
    }

    /// A recorded delivery, signed now; `None` if it is not complete, or if its provider is unknown.
    pub(super) fn again(&self, delivery: &Delivery) -> Option<Result<Fixture, Error>> {
        let (Body::Whole { text }, Some(provider), Some(shop)) = (&delivery.body, &delivery.provider, &delivery.shop)
        else {
            return None;
        };
        let mut headers = json!({});
        for (name, value) in &delivery.headers {
            headers[name] = json!(value);
        }
        let mut fixture = Fixture {
            provider: provider.clone(),
            name: format!("delivery {}", delivery.id),
            event: json!({
                "headers": headers,
                "pathParameters": {"shop": shop},
                "requestContext": {"http": {"method": delivery.method}},
                "body": text,
                "isBase64Encoded": false,
            }),
        };
        fixture.set_query(&delivery.query);
        Some(self.sign(&mut fixture, shop).map(|()| fixture))
    }

    fn sign(&self, fixture: &mut Fixture, shop: &str) -> Result<(), Error> {
        let secret = self.secrets.get(&fixture.provider).map(|secret| &secret["shops"][shop]);
        let text = |name: &str| secret.and_then(|secret| secret[name].as_str().map(str::to_owned));
        let first = |name: &str| secret.and_then(|secret| secret[name][0].as_str().map(str::to_owned));
        let known = Credentials::default();
        let credentials = Credentials {
            shop: shop.to_owned(),
            token: first("tokens").unwrap_or(known.token),
            pid: text("pid").unwrap_or(known.pid),
            secret: first("secrets")
                .or_else(|| first("client_secrets"))
                .unwrap_or(known.secret),
            request_token: None,
            signature_header: first("client_secrets")
                .map(|_| text("signature_header").unwrap_or_else(|| "x-signature".to_owned())),
        };
        sign(fixture, &credentials, Timestamp::now())?;
        // Only a shop with a token has one in Snipcart's URL.
        let mut query = fixture.query();
        if fixture.provider == "snipcart" && first("tokens").is_some() {
            query.retain(|(name, _)| name != "token");
            query.push(("token".to_owned(), credentials.token));
        }
        // A masked value that is not replaced by a new signature is lost.
        query.retain(|(_, value)| !value.contains(MASK));
        fixture.set_query(&query);
        if let Some(headers) = fixture.event["headers"].as_object_mut() {
            headers.retain(|_, value| value.as_str().is_some_and(|value| !value.contains(MASK)));
        }
        Ok(())
    }
}

/// The order that a sample is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Identity {
    /// The order of the sample: once it is accepted, it is a duplicate.
    Same,
    /// A new order.
    New,
}

/// The shop that is offered first.
pub(super) fn first_shop<'a>(shops: &[&'a String]) -> &'a str {
    shops.first().map_or(SHOP, |shop| shop.as_str())
}
