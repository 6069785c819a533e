//! Reads settings from environment variables. An empty variable counts as unset, because `sam local` can only override
//! variables that the template declares.

use std::collections::BTreeMap;
use std::env;
use std::str::FromStr;

type Lookup = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// A source of settings: the environment, or a table in tests.
pub struct Settings {
    lookup: Lookup,
}

/// A setting is missing or malformed. The message names the setting and never contains its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// A setting without a default is missing.
    #[error("the environment variable {0} is not set")]
    Missing(&'static str),
    /// A setting is malformed.
    #[error("the environment variable {name} is not {expected}")]
    Invalid {
        /// The name of the variable.
        name: &'static str,
        /// The expected value, in words.
        expected: &'static str,
    },
}

impl Settings {
    /// The settings in the process's environment.
    pub fn from_environment() -> Self {
        Self {
            lookup: Box::new(|name| env::var(name).ok()),
        }
    }

    /// The settings in a fixed table.
    pub fn from_table<K: Into<String>, V: Into<String>>(table: impl IntoIterator<Item = (K, V)>) -> Self {
        let table: BTreeMap<String, String> = table
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        Self {
            lookup: Box::new(move |name| table.get(name).cloned()),
        }
    }

    /// Reads a setting that may be absent.
    pub fn optional(&self, name: &'static str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    /// Reads a setting that must be present.
    pub fn required(&self, name: &'static str) -> Result<String, SettingError> {
        self.optional(name).ok_or(SettingError::Missing(name))
    }

    /// Reads a setting with a default as `T`. `expected` describes the expected value for the error message.
    pub fn parsed<T: FromStr>(
        &self,
        name: &'static str,
        default: T,
        expected: &'static str,
    ) -> Result<T, SettingError> {
        match self.optional(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| SettingError::Invalid { name, expected }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_setting_is_unset_and_a_wrong_one_is_named() {
        let settings = Settings::from_table([("EMPTY", ""), ("NUMBER", "12x")]);
        assert_eq!(settings.parsed("EMPTY", 5_u32, "a number"), Ok(5));
        assert_eq!(settings.required("EMPTY"), Err(SettingError::Missing("EMPTY")));
        let error = settings
            .parsed("NUMBER", 5_u32, "a number of bytes")
            .expect_err("not a number")
            .to_string();
        assert_eq!(error, "the environment variable NUMBER is not a number of bytes");
    }
}
