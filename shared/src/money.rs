//! Exact numbers: amounts, rates, quantities, and their currency.
//!
//! A decimal is never converted to a binary float between the provider's text and the event.

use std::fmt;

use iso_currency::Currency as Iso4217;
use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Number;

/// An exact decimal, written as text without exponent or trailing zeros: `451.16`.
///
/// Holds up to 28 significant digits. A number with more is rejected, not rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(Decimal);

impl Amount {
    /// Zero.
    pub const ZERO: Self = Self(Decimal::ZERO);

    /// Reads a decimal as JSON writes it (`-12.50`, `1.5e3`); `None` if the text is not a decimal or does not fit
    /// exactly.
    pub fn parse(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        if !is_plain_decimal(mantissa) {
            return None;
        }
        let value = Decimal::from_str_exact(mantissa).ok()?;
        Some(Self(shift(value, exponent)?.normalize()))
    }

    /// Converts a number of the currency's smallest unit: 1999 in EUR is 19.99, 1999 in JPY is 1999.
    ///
    /// `None` for a fraction, and for a currency whose smallest unit is not known.
    pub fn of_minor_units(Self(minor): Self, currency: Currency) -> Option<Self> {
        if !minor.fract().is_zero() {
            return None;
        }
        let exponent = i32::from(currency.exponent()?);
        Some(Self(shift(minor, -exponent)?.normalize()))
    }

    /// Converts a fraction to a percentage: 0.05 is 5.
    pub fn fraction_as_percent(self) -> Option<Self> {
        Some(Self(shift(self.0, 2)?.normalize()))
    }
}

/// Whether the text is `-?digits[.digits]`: JSON's number grammar without the exponent, but with leading zeros, which
/// strings may have.
fn is_plain_decimal(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    all_digits(whole) && all_digits(fraction)
}

/// Multiplies `value` by ten to the power of `exponent`, exactly.
fn shift(value: Decimal, exponent: i32) -> Option<Decimal> {
    if value.is_zero() {
        return Some(Decimal::ZERO);
    }
    let mut value = value.normalize();
    let scale = i64::from(value.scale()) - i64::from(exponent);
    if scale >= 0 {
        value.set_scale(u32::try_from(scale).ok()?).ok()?;
        return Some(value);
    }
    let zeros = u32::try_from(-scale).ok()?;
    value.set_scale(0).ok()?;
    value.checked_mul(Decimal::from(10_u128.checked_pow(zeros).filter(|_| zeros <= 28)?))
}

impl fmt::Display for Amount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("not an exact decimal"))
    }
}

/// A quantity of pieces, or of a weight or length: an exact JSON number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantity(Decimal);

impl Quantity {
    /// One piece.
    pub const ONE: Self = Self(Decimal::ONE);
}

impl From<Amount> for Quantity {
    fn from(Amount(value): Amount) -> Self {
        Self(value)
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let number: Number = self.0.to_string().parse().map_err(serde::ser::Error::custom)?;
        number.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = Number::deserialize(deserializer)?;
        let amount = Amount::parse(number.as_str()).ok_or_else(|| D::Error::custom("not an exact decimal"))?;
        Ok(amount.into())
    }
}

/// A currency code of ISO 4217, in upper case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Currency([u8; 3]);

impl Currency {
    /// Reads three letters in any case; `None` for anything else.
    ///
    /// The list of ISO 4217 grows, so a code of the right form is accepted even if it is not on the list.
    pub fn parse(text: &str) -> Option<Self> {
        let letters: [u8; 3] = text.as_bytes().try_into().ok()?;
        letters
            .iter()
            .all(u8::is_ascii_alphabetic)
            .then(|| Self(letters.map(|letter| letter.to_ascii_uppercase())))
    }

    /// The code, such as `EUR`.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("ASCII letters are UTF-8")
    }

    /// The number of decimal places between the smallest unit and the main one: 2 for EUR, 0 for JPY.
    fn exponent(self) -> Option<u16> {
        Iso4217::from_code(self.as_str())?.exponent()
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("not a currency code"))
    }
}

#[cfg(feature = "schema")]
mod schema {
    use std::borrow::Cow;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    use super::{Amount, Currency, Quantity};

    impl JsonSchema for Amount {
        fn schema_name() -> Cow<'static, str> {
            "Amount".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({
                "type": "string",
                "pattern": "^-?(0|[1-9][0-9]*)(\\.[0-9]*[1-9])?$",
                "description": "An exact decimal without exponent or trailing zeros; money is in its currency's main unit.",
                "examples": ["451.16", "0", "-10"]
            })
        }
    }

    impl JsonSchema for Quantity {
        fn schema_name() -> Cow<'static, str> {
            "Quantity".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({"type": "number", "description": "An exact number of pieces, or of the unit the shop sells in."})
        }
    }

    impl JsonSchema for Currency {
        fn schema_name() -> Cow<'static, str> {
            "Currency".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({
                "type": "string",
                "pattern": "^[A-Z]{3}$",
                "description": "A currency code of ISO 4217, upper case.",
                "examples": ["USD", "EUR"]
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn amount(text: &str) -> Option<String> {
        Amount::parse(text).map(|amount| amount.to_string())
    }

    #[test]
    fn an_amount_keeps_its_digits_and_loses_only_padding() {
        for (given, expected) in [
            ("451.16", "451.16"),
            ("0.10", "0.1"),
            ("100", "100"),
            ("1e2", "100"),
            ("1.50E1", "15"),
            ("2500e-2", "25"),
            ("-0", "0"),
            ("-0.00", "0"),
            ("-136.480", "-136.48"),
            ("0.30000000000000004", "0.30000000000000004"),
            ("0e999999", "0"),
            ("9999999999999999999999999999", "9999999999999999999999999999"),
        ] {
            assert_eq!(amount(given).as_deref(), Some(expected), "{given}");
        }
    }

    #[test]
    fn a_text_that_is_not_an_exact_decimal_is_rejected() {
        for given in [
            "",
            "-",
            ".",
            "1.",
            ".5",
            "1,5",
            "+1",
            "0x10",
            "NaN",
            "1e",
            "1e400",
            "1_000",
            " 1",
            "12345678901234567890123456789012345",
        ] {
            assert_eq!(amount(given), None, "{given}");
        }
    }

    #[test]
    fn minor_units_follow_the_exponent_of_the_currency() {
        let units = |units: &str, code: &str| {
            let (units, currency) = (Amount::parse(units), Currency::parse(code).expect("a code"));
            Amount::of_minor_units(units.expect("an amount"), currency).map(|amount| amount.to_string())
        };
        assert_eq!(units("1999", "EUR").as_deref(), Some("19.99"));
        assert_eq!(units("1999", "JPY").as_deref(), Some("1999"));
        assert_eq!(units("1999", "KWD").as_deref(), Some("1.999"));
        assert_eq!(units("5", "EUR").as_deref(), Some("0.05"));
        assert_eq!(units("19.5", "EUR"), None, "half a cent is not a price");
        assert_eq!(units("1999", "ZZZ"), None, "the exponent is not known");
    }

    proptest! {
        #[test]
        fn cents_come_back_as_the_same_cents(cents in -10_i64.pow(15)..10_i64.pow(15)) {
            let units = Amount::parse(&cents.to_string()).expect("an amount");
            let amount = Amount::of_minor_units(units, Currency::parse("EUR").expect("a code")).expect("an amount");
            let text = amount.to_string();
            let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
            let back: i64 = format!("{whole}{fraction:0<2}").parse().expect("an integer");
            prop_assert_eq!(back, cents);
        }

        #[test]
        fn an_amount_read_from_its_own_text_is_the_same(text in "-?[0-9]{1,14}(\\.[0-9]{1,12})?") {
            let amount = Amount::parse(&text).expect("an amount");
            prop_assert_eq!(Amount::parse(&amount.to_string()), Some(amount));
            prop_assert!(!amount.to_string().contains('e'));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = Amount::parse(&text);
            let _ = Currency::parse(&text);
        }
    }
}
