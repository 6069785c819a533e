//! Parses the JSON of a secret.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_path_to_error::{Path, Segment};

use super::options::{Options, take_options};
use super::values::{NO_HEADER_NAME, NO_KEY, NO_TOKEN, NO_VALUES};
use crate::answer::Refusal;
use crate::identity::Shop;

/// The secret of one provider, with the secrets of each shop not parsed yet.
#[derive(Deserialize)]
struct Document {
    shops: BTreeMap<String, Box<RawValue>>,
}

/// The secrets of each shop, or the fault in them.
pub(super) type Parsed<S> = BTreeMap<String, Result<ParsedShop<S>, String>>;

/// The secrets of a shop, and its options.
pub(super) type ParsedShop<S> = (S, Options);

/// Parses a secret, shop by shop. A byte order mark, which some editors write, is skipped.
pub(super) fn parse<S: DeserializeOwned>(json: &str) -> Result<Parsed<S>, Refusal> {
    let json = json.strip_prefix('\u{feff}').unwrap_or(json);
    // serde's message may quote a value, so only the position is reported.
    let document: Document = serde_json::from_str(json).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Refusal::Misconfigured(format!(
            "the secret is not as documented (line {line}, column {column})"
        ))
    })?;
    let shops = document.shops.into_iter().map(|(shop, json)| {
        let parsed = parse_shop(json.get()).map_err(|cause| {
            // A text that is not a valid shop name may be a value in the wrong place.
            let name = Shop::parse(&shop);
            let name = name.as_ref().map_or("with an invalid name", Shop::as_str);
            format!("the secret is not as documented: shop {name}: {cause}")
        });
        (shop, parsed)
    });
    Ok(shops.collect())
}

/// Parses the secrets of one shop. The error names the field and never contains a value.
fn parse_shop<S: DeserializeOwned>(json: &str) -> Result<ParsedShop<S>, String> {
    let (options, json) = take_options(json)?;
    Ok((parse_values(&json)?, options))
}

/// Parses the credentials of a shop for the provider's order API. The error names the field and never contains a value.
pub(super) fn parse_api<C: DeserializeOwned>(json: &str) -> Result<C, String> {
    parse_values(json).map_err(|cause| format!("api: {cause}"))
}

fn parse_values<T: DeserializeOwned>(json: &str) -> Result<T, String> {
    let mut json = serde_json::Deserializer::from_str(json);
    serde_path_to_error::deserialize(&mut json).map_err(|error: serde_path_to_error::Error<serde_json::Error>| {
        let place = place(error.path());
        // serde's messages may quote a value. Only the name of a missing field is used, which comes from the code.
        let message = error.inner().to_string();
        let ours = [NO_TOKEN, NO_KEY, NO_VALUES, NO_HEADER_NAME];
        if let Some(ours) = ours.into_iter().find(|ours| message.starts_with(ours)) {
            return format!("{place}: {ours}");
        }
        let missing = message
            .strip_prefix("missing field `")
            .and_then(|rest| rest.split_once('`'));
        if let Some((field, _)) = missing {
            return format!("{field} is missing");
        }
        if message.starts_with("unknown field") {
            return format!("{place} is an unknown field");
        }
        format!("{place} is not as documented")
    })
}

/// A position in a shop's secrets, such as `tokens[1]`. A name that is not a field's name is replaced, because it may
/// be a value.
fn place(path: &Path) -> String {
    let mut place = String::new();
    for segment in path {
        // Writing to a text does not fail.
        let _ = match segment {
            Segment::Seq { index } => write!(place, "[{index}]"),
            Segment::Map { key } if is_name_of_a_field(key) => {
                let dot = if place.is_empty() { "" } else { "." };
                write!(place, "{dot}{key}")
            }
            _ => place.write_char('?'),
        };
    }
    if place.is_empty() {
        "its value".to_owned()
    } else {
        place
    }
}

fn is_name_of_a_field(key: &str) -> bool {
    (1..=32).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}
