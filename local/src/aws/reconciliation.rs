//! What the table knows about the runs of the function `reconcile` and the subscriptions that it has made.

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::{SignedDuration, Timestamp};

use crate::aws::clients::Clients;
use crate::aws::stored_events::{Item, text};
use crate::aws::table::refused;
use crate::project::settings::RECONCILE;
use crate::{Error, NAME};

/// The partition of the subscriptions.
const SUBSCRIPTIONS: &str = "subscriptions";

impl Clients {
    /// The items of the runs: one for each provider and shop.
    pub async fn reconciliations(&self) -> Result<Vec<Item>, Error> {
        self.partition(RECONCILE).await
    }

    /// The items of the subscriptions: one for each provider, shop and event.
    pub async fn subscriptions(&self) -> Result<Vec<Item>, Error> {
        self.partition(SUBSCRIPTIONS).await
    }

    async fn partition(&self, name: &str) -> Result<Vec<Item>, Error> {
        let query = self
            .dynamodb
            .query()
            .table_name(NAME)
            .key_condition_expression("pk = :pk")
            .expression_attribute_values(":pk", AttributeValue::S(name.to_owned()))
            .into_paginator()
            .items()
            .send();
        query.collect::<Result<_, _>>().await.map_err(refused)
    }

    /// Lets the leases of runs expire, as if their time had passed.
    pub async fn let_leases_expire(&self) -> Result<(), Error> {
        for item in self.reconciliations().await? {
            if text(&item, "lease_until").is_none() {
                continue;
            }
            let past = Timestamp::now() - SignedDuration::from_secs(1);
            let update = self.dynamodb.update_item().table_name(NAME);
            let update = update
                .set_key(Some(key(&item)))
                .update_expression("SET lease_until = :past");
            let update = update.expression_attribute_values(":past", AttributeValue::S(format!("{past:.3}")));
            update.send().await.map_err(refused)?;
        }
        Ok(())
    }
}

fn key(item: &Item) -> Item {
    let key = item.iter().filter(|(name, _)| ["pk", "sk"].contains(&name.as_str()));
    key.map(|(name, value)| (name.clone(), value.clone())).collect()
}
