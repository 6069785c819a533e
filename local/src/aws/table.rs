//! The table, as `template.yaml` has it.

use std::fmt::Debug;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection, ProjectionType,
    ScalarAttributeType,
};

use crate::{Error, NAME};

/// Shards of the outbox. A test compares them with the functions' own.
pub const SHARDS: u8 = 16;

/// Creates the table with its indexes.
pub(super) async fn create(dynamodb: &Client) -> Result<(), Error> {
    let keys_only = Projection::builder().projection_type(ProjectionType::KeysOnly).build();
    let indexes = [
        ("by_order", "order_key", "order_sort"),
        ("work", "work", "next_attempt_at"),
        ("by_hour", "hour", "received_at"),
    ];
    let mut table = dynamodb
        .create_table()
        .table_name(NAME)
        .billing_mode(BillingMode::PayPerRequest)
        .set_key_schema(Some(keys("pk", "sk")?));
    for name in ["pk", "sk"]
        .into_iter()
        .chain(indexes.iter().flat_map(|(_, hash, range)| [*hash, *range]))
    {
        let attribute = AttributeDefinition::builder()
            .attribute_name(name)
            .attribute_type(ScalarAttributeType::S)
            .build()
            .map_err(refused)?;
        table = table.attribute_definitions(attribute);
    }
    for (name, hash, range) in indexes {
        let index = GlobalSecondaryIndex::builder()
            .index_name(name)
            .set_key_schema(Some(keys(hash, range)?))
            .projection(keys_only.clone())
            .build()
            .map_err(refused)?;
        table = table.global_secondary_indexes(index);
    }
    match table.send().await {
        // A table that was kept in a file is there already.
        Err(error)
            if error
                .as_service_error()
                .is_some_and(CreateTableError::is_resource_in_use_exception) =>
        {
            Ok(())
        }
        created => created.map(|_| ()).map_err(refused),
    }
}

fn keys(hash: &str, range: &str) -> Result<Vec<KeySchemaElement>, Error> {
    [(hash, KeyType::Hash), (range, KeyType::Range)]
        .into_iter()
        .map(|(name, kind)| {
            KeySchemaElement::builder()
                .attribute_name(name)
                .key_type(kind)
                .build()
                .map_err(refused)
        })
        .collect()
}

/// Debug, since that alone shows what the service said.
pub(super) fn refused(error: impl Debug) -> Error {
    Error::Start(format!("{error:?}"))
}
