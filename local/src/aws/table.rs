//! Creates the table as `template.yaml` describes it.

use std::fmt::Debug;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection, ProjectionType,
    ScalarAttributeType,
};

use crate::project::table::{Key, Table};
use crate::{Error, NAME};

/// The number of shards of the outbox. A test compares it with that of the functions.
pub const SHARDS: u8 = 16;

/// Creates `table` with its indexes. A table that was kept in a file exists already.
pub(super) async fn create(dynamodb: &Client, table: &Table) -> Result<(), Error> {
    let attributes = table.attributes.iter().map(|attribute| {
        AttributeDefinition::builder()
            .attribute_name(&attribute.name)
            .attribute_type(ScalarAttributeType::from(attribute.kind.as_str()))
            .build()
            .map_err(refused)
    });
    let indexes = table.indexes.iter().map(|index| {
        let projection = ProjectionType::from(index.projection.as_str());
        GlobalSecondaryIndex::builder()
            .index_name(&index.name)
            .set_key_schema(Some(keys(&index.keys)?))
            .projection(Projection::builder().projection_type(projection).build())
            .build()
            .map_err(refused)
    });
    let created = dynamodb
        .create_table()
        .table_name(NAME)
        .billing_mode(BillingMode::PayPerRequest)
        .set_key_schema(Some(keys(&table.keys)?))
        .set_attribute_definitions(Some(attributes.collect::<Result<_, _>>()?))
        .set_global_secondary_indexes(Some(indexes.collect::<Result<_, _>>()?))
        .send()
        .await;
    match created {
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

fn keys(keys: &[Key]) -> Result<Vec<KeySchemaElement>, Error> {
    let keys = keys.iter().map(|key| {
        KeySchemaElement::builder()
            .attribute_name(&key.attribute)
            .key_type(KeyType::from(key.kind.as_str()))
            .build()
            .map_err(refused)
    });
    keys.collect()
}

/// Debug output, because it alone holds the error of the service.
pub(super) fn refused(error: impl Debug) -> Error {
    Error::Start(format!("{error:?}"))
}
