//! The options of a shop that a secret of any provider may have.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

const SILENCE_HOURS: &str = "silence_hours";
/// The largest value: a year.
const MOST_HOURS: u16 = 8_760;
const NO_HOURS: &str = "silence_hours: not a whole number of hours from 0 to 8760";

/// Splits a shop's part of a secret into its `silence_hours` and the JSON for the provider's own type, which refuses
/// unknown fields.
///
/// # Errors
/// If the option occurs twice or is not a number of hours. The error does not quote a value.
pub(super) fn take_silence_hours(json: &str) -> Result<(Option<u16>, Cow<'_, str>), String> {
    // Most secrets have no such option. The provider's type refuses everything but an object.
    if !json.contains(SILENCE_HOURS) {
        return Ok((None, json.into()));
    }
    let Ok(Members(members)) = serde_json::from_str(json) else {
        return Ok((None, json.into()));
    };
    let mut hours = None;
    let mut rest = String::with_capacity(json.len());
    for (name, value) in members {
        if name == SILENCE_HOURS {
            let number = serde_json::from_str(value.get()).ok();
            let number = number.filter(|number| *number <= MOST_HOURS && hours.is_none());
            hours = Some(number.ok_or(NO_HOURS)?);
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
    Ok((hours, rest.into()))
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
    use super::*;

    #[test]
    fn the_option_is_taken_out_and_the_rest_is_unchanged() {
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
            let taken = take_silence_hours(json).expect(json);
            assert_eq!(taken, (hours, rest.into()), "{json}");
        }
    }

    #[test]
    fn other_values_than_hours_are_refused() {
        for hours in ["null", "-1", "1.5", "8761", r#""72""#, "[]", r#"1,"silence_hours":1"#] {
            let json = format!(r#"{{"silence_hours":{hours}}}"#);
            assert_eq!(take_silence_hours(&json), Err(NO_HOURS.to_owned()), "{json}");
        }
    }
}
