//! Conditional writes, and the end of a manifest in the same transaction.

use std::collections::HashMap;

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{AttributeValue, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem};
use jiff::Timestamp;

use super::parts::text;
use super::{Item, RetryPolicy, State, Store, StoreError, retry_until};

/// The condition of a write.
#[derive(Clone, Default)]
pub(super) struct Condition {
    expression: &'static str,
    names: HashMap<String, String>,
    values: Item,
}

impl Condition {
    /// The condition `expression`; its placeholder for `state` is `#state`.
    pub(super) fn new<const N: usize>(expression: &'static str, values: [(&str, &str); N]) -> Self {
        let names = expression
            .contains("#state")
            .then(|| ("#state".to_owned(), "state".to_owned()));
        Self {
            expression,
            names: names.into_iter().collect(),
            values: values
                .into_iter()
                .map(|(name, value)| (name.to_owned(), text(value)))
                .collect(),
        }
    }

    /// The condition that there is no event: no item, or a tombstone that is over at `now` and that DynamoDB has not deleted yet.
    pub(super) fn absent(now: Timestamp) -> Self {
        let mut condition = Self::new(
            "attribute_not_exists(pk) OR (#state = :erased AND expires_at <= :now)",
            [(":erased", State::Erased.as_str())],
        );
        let now = AttributeValue::N(now.as_second().to_string());
        condition.values.insert(":now".to_owned(), now);
        condition
    }

    /// The condition itself.
    pub(super) fn expression(&self) -> &'static str {
        self.expression
    }

    /// The names of its placeholders.
    pub(super) fn names(&self) -> Option<HashMap<String, String>> {
        (!self.names.is_empty()).then(|| self.names.clone())
    }

    /// Its values.
    pub(super) fn values(&self) -> Option<Item> {
        (!self.values.is_empty()).then(|| self.values.clone())
    }
}

/// How a conditional write ended.
pub(super) enum Commit {
    Done,
    /// This item does not meet the condition.
    Refused(Item),
}

/// How a transaction ended.
enum Transacted {
    Commit(Commit),
    /// The manifest was ended by somebody else.
    ManifestGone,
}

impl Store {
    /// Writes an item if `condition` holds, and in the same transaction ends the manifest of its parts. Without parts it is a single
    /// conditional put.
    pub(super) async fn commit(
        &self,
        item: &Item,
        condition: &Condition,
        end_of_manifest: Option<TransactWriteItem>,
        policy: RetryPolicy,
    ) -> Result<Commit, StoreError> {
        let Some(end) = end_of_manifest else {
            return retry_until(policy, || self.put_if(item, condition)).await;
        };
        match retry_until(policy, || self.put_and_end(item, condition, &end)).await? {
            Transacted::Commit(Commit::Done) => Ok(Commit::Done),
            Transacted::Commit(Commit::Refused(old)) if !old.is_empty() => Ok(Commit::Refused(old)),
            ended => {
                let key = ["pk", "sk"].map(|name| (name.to_owned(), item[name].clone()));
                let stored = retry_until(policy, || self.get_by_key(HashMap::from(key.clone()))).await?;
                match (ended, stored) {
                    (Transacted::Commit(_), Some(stored)) => Ok(Commit::Refused(stored)),
                    // A write whose answer was lost has ended the manifest itself.
                    (_, Some(stored)) if stored.get("attempt_id") == item.get("attempt_id") => Ok(Commit::Done),
                    _ => Err(StoreError::Swept),
                }
            }
        }
    }

    async fn put_if(&self, item: &Item, condition: &Condition) -> Result<Commit, SdkError<PutItemError>> {
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item.clone()))
            .condition_expression(condition.expression)
            .set_expression_attribute_names(condition.names())
            .set_expression_attribute_values(condition.values())
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match put.send().await {
            Ok(_) => Ok(Commit::Done),
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(failed)) => {
                    Ok(Commit::Refused(failed.item.clone().unwrap_or_default()))
                }
                _ => Err(error),
            },
        }
    }

    async fn put_and_end(
        &self,
        item: &Item,
        condition: &Condition,
        end: &TransactWriteItem,
    ) -> Result<Transacted, SdkError<TransactWriteItemsError>> {
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(item.clone()))
            .condition_expression(condition.expression)
            .set_expression_attribute_names(condition.names())
            .set_expression_attribute_values(condition.values())
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .expect("table and item are set");
        let items = vec![TransactWriteItem::builder().put(put).build(), end.clone()];
        let transaction = self.client.transact_write_items().set_transact_items(Some(items));
        let Err(error) = transaction.send().await else {
            return Ok(Transacted::Commit(Commit::Done));
        };
        let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.as_service_error() else {
            return Err(error);
        };
        let refused: Vec<_> = cancelled
            .cancellation_reasons()
            .iter()
            .map(|reason| (reason.code() == Some("ConditionalCheckFailed")).then(|| reason.item.clone()))
            .collect();
        match refused.as_slice() {
            [Some(old), ..] => Ok(Transacted::Commit(Commit::Refused(old.clone().unwrap_or_default()))),
            [None, Some(_)] => Ok(Transacted::ManifestGone),
            _ => Err(error),
        }
    }
}
