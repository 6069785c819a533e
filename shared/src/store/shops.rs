//! The known shops: an item for each shop that has sent an authentic delivery, all in one partition.

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;

use super::event_items::sortable;
use super::{Item, Store, StoreError, item_key, text};
use crate::identity::Shop;

/// The partition of the shops. No event has this key, because an event id is 64 hex digits.
const SHOPS: &str = "shops";

/// A shop that has sent an authentic delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownShop {
    /// The provider's slug.
    pub provider: String,
    /// The operator's name of the shop.
    pub shop: String,
    /// The time of the last authentic delivery that was noted. A busy shop is noted once in a few minutes.
    pub last_seen: Timestamp,
    /// The `silence_hours` of the shop's secret.
    pub silence_hours: Option<u16>,
}

impl Store {
    /// Notes that a shop has sent an authentic delivery at `now`.
    pub(crate) async fn note_shop(
        &self,
        provider: &str,
        shop: &Shop,
        now: Timestamp,
        silence_hours: Option<u16>,
    ) -> Result<(), StoreError> {
        let update = self.client.update_item().table_name(&self.table);
        let update = update
            .set_key(Some(item_key(SHOPS, &format!("{provider}#{shop}"))))
            .expression_attribute_values(":now", AttributeValue::S(sortable(now)));
        let seen = "SET first_seen = if_not_exists(first_seen, :now), last_seen = :now";
        let update = match silence_hours {
            Some(hours) => update
                .update_expression(format!("{seen}, silence_hours = :hours"))
                .expression_attribute_values(":hours", AttributeValue::N(hours.to_string())),
            None => update.update_expression(format!("{seen} REMOVE silence_hours")),
        };
        update.send().await?;
        Ok(())
    }

    /// Reads all known shops.
    pub async fn shops(&self) -> Result<Vec<KnownShop>, StoreError> {
        let items = self.partition(SHOPS, false).await?;
        Ok(items.iter().filter_map(known_shop).collect())
    }
}

fn known_shop(item: &Item) -> Option<KnownShop> {
    let text = |name| text(item, name);
    let (provider, shop) = text("sk")?.split_once('#')?;
    Some(KnownShop {
        provider: provider.to_owned(),
        shop: shop.to_owned(),
        last_seen: text("last_seen")?.parse().ok()?,
        silence_hours: item
            .get("silence_hours")
            .and_then(|hours| hours.as_n().ok()?.parse().ok()),
    })
}
