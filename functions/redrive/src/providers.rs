//! All providers by their names, so that stored deliveries can be classified again.

use aboutyou::AboutYou;
use cartum::Cartum;
use deeple::Deeple;
use selldone::Selldone;
use shared::Provider;
use shared::classify::{Classified, classify};
use shared::delivery::Delivery;
use shared::settings::{SettingError, Settings};
use shared::verification::Verified;
use snipcart::Snipcart;

/// The providers, each with its settings.
pub(crate) struct Providers {
    selldone: Selldone,
    cartum: Cartum,
    deeple: Deeple,
    aboutyou: AboutYou,
    snipcart: Snipcart,
}

impl Providers {
    /// The slugs of all providers.
    pub(crate) const NAMES: [&'static str; 5] = [
        Selldone::NAME,
        Cartum::NAME,
        Deeple::NAME,
        AboutYou::NAME,
        Snipcart::NAME,
    ];

    pub(crate) fn from_settings(settings: &Settings) -> Result<Self, SettingError> {
        Ok(Self {
            selldone: Selldone::from_settings(settings)?,
            cartum: Cartum::from_settings(settings)?,
            deeple: Deeple::from_settings(settings)?,
            aboutyou: AboutYou::from_settings(settings)?,
            snipcart: Snipcart::from_settings(settings)?,
        })
    }

    /// Classifies a stored delivery with today's code. Returns `None` if the provider is no longer known.
    pub(crate) fn classify(&self, provider: &str, delivery: &Verified<Delivery>) -> Option<(&'static str, Classified)> {
        match provider {
            Selldone::NAME => Some((Selldone::NAME, classify(&self.selldone, delivery, None))),
            Cartum::NAME => Some((Cartum::NAME, classify(&self.cartum, delivery, None))),
            Deeple::NAME => Some((Deeple::NAME, classify(&self.deeple, delivery, None))),
            AboutYou::NAME => Some((AboutYou::NAME, classify(&self.aboutyou, delivery, None))),
            Snipcart::NAME => Some((Snipcart::NAME, classify(&self.snipcart, delivery, None))),
            _ => None,
        }
    }
}
