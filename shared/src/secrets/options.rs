//! The options of a shop that a secret of any provider may have.

use std::borrow::Cow;
use std::fmt;

use secrecy::SecretString;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

const SILENCE_HOURS: &str = "silence_hours";
/// The largest value: a year.
const MOST_HOURS: u16 = 8_760;
const NO_HOURS: &str = "silence_hours: not a whole number of hours from 0 to 8760";
const API: &str = "api";
const TWO_APIS: &str = "api: given more than once";

/// The options of a shop.
#[derive(Debug, Default)]
pub(super) struct Options {
    /// The hours without a delivery after which the shop counts as silent.
    pub(super) silence_hours: Option<u16>,
    /// The JSON of the credentials for the provider's order API. Only reconciliation parses it.
    pub(super) api: Option<SecretString>,
}

/// Splits a shop's part of a secret into its options and the JSON for the provider's own type, which refuses unknown
/// fields.
///
/// # Errors
/// If an option occurs twice, or `silence_hours` is not a number of hours. The error does not quote a value.
pub(super) fn take_options(json: &str) -> Result<(Options, Cow<'_, str>), String> {
    let mut options = Options::default();
    // Most secrets have no such option. The provider's type refuses everything but an object.
    if !json.contains(SILENCE_HOURS) && !json.contains("\"api\"") {
        return Ok((options, json.into()));
    }
    let Ok(Members(members)) = serde_json::from_str(json) else {
        return Ok((options, json.into()));
    };
    let mut rest = String::with_capacity(json.len());
    for (name, value) in members {
        if name == SILENCE_HOURS {
            let number = serde_json::from_str(value.get()).ok();
            let number = number.filter(|number| *number <= MOST_HOURS && options.silence_hours.is_none());
            options.silence_hours = Some(number.ok_or(NO_HOURS)?);
            continue;
        }
        if name == API {
            if options.api.replace(value.get().into()).is_some() {
                return Err(TWO_APIS.to_owned());
            }
            continue;
        }
        rest.push(if rest.is_empty() { '{' } else { ',' });
        rest += &serde_json::Value::from(name).to_string();
        rest.push(':');
        rest += value.get();
    }
    if rest.is_empty() {
        rest.push('{');
    }
    rest.push('}');
    Ok((options, rest.into()))
}

/// The members of an object as they are written. A repeated name is kept, so that the provider's type refuses it.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn the_api_is_taken_out_as_it_is_written() {
        for (json, api, rest) in [
            (r#"{"api_keys":["a"]}"#, None, r#"{"api_keys":["a"]}"#),
            (
                r#"{"api_keys": ["a"], "api": {"key": "b"}}"#,
                Some(r#"{"key": "b"}"#),
                r#"{"api_keys":["a"]}"#,
            ),
            (r#"{"api":7,"silence_hours":1}"#, Some("7"), "{}"),
        ] {
            let (options, taken) = take_options(json).expect(json);
            assert_eq!(options.api.as_ref().map(ExposeSecret::expose_secret), api, "{json}");
            assert_eq!(taken, rest, "{json}");
        }
        let twice = take_options(r#"{"api":{},"api":{}}"#).expect_err("it is given twice");
        assert_eq!(twice, TWO_APIS);
    }

    #[test]
    fn silence_hours_are_taken_out_and_the_rest_is_unchanged() {
        for (json, hours, rest) in [
            (r#"{"tokens":["a"]}"#, None, r#"{"tokens":["a"]}"#),
            (
                r#"{"tokens": ["a"], "silence_hours": 72}"#,
                Some(72),
                r#"{"tokens":["a"]}"#,
            ),
            (
                r#"{"silence_hours":0,"a\"b":{"silence_hours":1},"c":1,"c":2}"#,
                Some(0),
                r#"{"a\"b":{"silence_hours":1},"c":1,"c":2}"#,
            ),
            (r#"{"silence_hours":8760}"#, Some(8_760), "{}"),
            (r#""silence_hours""#, None, r#""silence_hours""#),
            (r#"["silence_hours"]"#, None, r#"["silence_hours"]"#),
        ] {
            let (options, taken) = take_options(json).expect(json);
            assert_eq!((options.silence_hours, taken), (hours, rest.into()), "{json}");
        }
    }

    #[test]
    fn other_values_than_hours_are_refused() {
        for hours in ["null", "-1", "1.5", "8761", r#""72""#, "[]", r#"1,"silence_hours":1"#] {
            let json = format!(r#"{{"silence_hours":{hours}}}"#);
            assert_eq!(take_options(&json).expect_err(&json), NO_HOURS, "{json}");
        }
    }
}
