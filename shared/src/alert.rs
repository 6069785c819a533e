//! The kinds and the subjects of alerts.

use std::fmt;

use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

use crate::identity::Shop;

/// A kind of finding. Its word is a code of `shared/CODES.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, IntoStaticStr, VariantArray)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Kind {
    /// A delivery was not understood.
    Quarantined,
    /// A known event was sent again with another body.
    Conflict,
    /// An event is not tried any more.
    Failed,
    /// A payload holds a field or a word that the mapping does not know.
    Drift,
    /// The secret is wrong, or the provider refuses a key in it.
    Misconfigured,
    /// A request for a configured shop carried credentials that do not pass.
    WrongCredentials,
    /// A shop has sent no authentic delivery for longer than the configured time.
    Silence,
    /// A subscription to the provider's events has ended, or something is wrong with it.
    Unsubscribed,
}

impl Kind {
    /// All kinds.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The kind as a word.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What the details of [`Kind::Unsubscribed`] say of a subscription that `connect` has not made.
pub const NOT_NOTED: &str = "a subscription that is not noted was ended";

/// The subject of an alert: one kind of finding at one shop of a provider.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// The kind.
    pub kind: Kind,
    /// The provider's slug.
    pub provider: String,
    /// The shop; `None` if the finding concerns all shops of the provider.
    pub shop: Option<String>,
}

impl Subject {
    /// The findings of one kind at a shop of a provider, or at the provider.
    pub fn new(kind: Kind, provider: &str, shop: Option<&Shop>) -> Self {
        Self {
            kind,
            provider: provider.to_owned(),
            shop: shop.map(ToString::to_string),
        }
    }

    /// Reads `{kind}#{provider}#{shop}`, which is also the sort key of an item.
    pub(crate) fn parse(key: &str) -> Option<Self> {
        let (kind, rest) = key.split_once('#')?;
        let (provider, shop) = rest.split_once('#')?;
        Some(Self {
            kind: *Kind::ALL.iter().find(|known| known.as_str() == kind)?,
            provider: provider.to_owned(),
            shop: Some(shop.to_owned()).filter(|shop| !shop.is_empty()),
        })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shop = self.shop.as_deref().unwrap_or_default();
        write!(formatter, "{}#{}#{shop}", self.kind.as_str(), self.provider)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_read_from_its_own_key() {
        let shop = Shop::parse("main").expect("a shop");
        for &kind in Kind::ALL {
            for shop in [Some(&shop), None] {
                let subject = Subject::new(kind, "selldone", shop);
                assert_eq!(Subject::parse(&subject.to_string()), Some(subject));
            }
            assert_eq!(serde_json::to_value(kind).expect("JSON"), kind.as_str());
        }
        assert_eq!(Subject::parse("cursor#quarantined"), None);
        assert_eq!(Subject::parse("nothing#selldone#main"), None);
    }
}
