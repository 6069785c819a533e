//! Conditional writes of one item, and the end of its manifest in the same transaction.

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update};

use super::{Condition, Expression, Item, RetryPolicy, Store, StoreError, retry_until};

/// The result of a conditional write.
pub(super) enum Commit {
    /// The item is written.
    Done,
    /// The condition does not hold for this item.
    Refused(Item),
}

/// The result of a transaction.
pub(super) enum Transacted {
    /// All of it is written.
    Done,
    /// Nothing is written. For each part in its order: whether its condition does not hold.
    Refused(Vec<bool>),
}

/// The result of a transaction that ends a manifest.
enum CommitWithManifest {
    Commit(Commit),
    /// The manifest was ended by somebody else.
    ManifestGone,
}

impl Store {
    /// Writes an item if `condition` holds and, in the same transaction, ends the manifest of its parts. Without parts
    /// this is a single conditional put.
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
            CommitWithManifest::Commit(Commit::Done) => Ok(Commit::Done),
            CommitWithManifest::Commit(Commit::Refused(old)) if !old.is_empty() => Ok(Commit::Refused(old)),
            ended => {
                let key = ["pk", "sk"].map(|name| (name.to_owned(), item[name].clone()));
                let stored = retry_until(policy, || self.get_by_key(Item::from(key.clone()))).await?;
                match (ended, stored) {
                    (CommitWithManifest::Commit(_), Some(stored)) => Ok(Commit::Refused(stored)),
                    // An earlier try of this write, whose answer was lost, ended the manifest.
                    (_, Some(stored)) if stored.get("attempt_id") == item.get("attempt_id") => Ok(Commit::Done),
                    _ => Err(StoreError::Swept),
                }
            }
        }
    }

    async fn put_if(&self, item: &Item, condition: &Condition) -> Result<Commit, SdkError<PutItemError>> {
        let Expression {
            condition,
            names,
            values,
            ..
        } = condition.to_expression();
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item.clone()))
            .set_condition_expression(condition)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values)
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
    ) -> Result<CommitWithManifest, SdkError<TransactWriteItemsError>> {
        let put = condition
            .transacted_put(&self.table, item.clone())
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .expect("table and item are set");
        let items = vec![TransactWriteItem::builder().put(put).build(), end.clone()];
        let transaction = self.client.transact_write_items().set_transact_items(Some(items));
        let Err(error) = transaction.send().await else {
            return Ok(CommitWithManifest::Commit(Commit::Done));
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
            [Some(old), ..] => Ok(CommitWithManifest::Commit(Commit::Refused(
                old.clone().unwrap_or_default(),
            ))),
            [None, Some(_)] => Ok(CommitWithManifest::ManifestGone),
            _ => Err(error),
        }
    }

    /// Writes an item if `condition` holds and makes an update, both or neither. If the item has parts, the transaction
    /// ends their manifest too.
    pub(super) async fn put_and_update(
        &self,
        item: Item,
        condition: &Condition,
        update: Update,
        end_of_manifest: Option<TransactWriteItem>,
        policy: RetryPolicy,
    ) -> Result<Transacted, StoreError> {
        let put: Put = condition
            .transacted_put(&self.table, item)
            .build()
            .expect("table and item are set");
        let items = [
            TransactWriteItem::builder().put(put).build(),
            TransactWriteItem::builder().update(update).build(),
        ];
        let items: Vec<_> = items.into_iter().chain(end_of_manifest).collect();
        retry_until(policy, || self.transact(&items)).await
    }

    /// Runs a transaction. It is an error if the transaction is cancelled for another reason than a condition that does
    /// not hold.
    pub(super) async fn transact(
        &self,
        items: &[TransactWriteItem],
    ) -> Result<Transacted, SdkError<TransactWriteItemsError>> {
        let transaction = self.client.transact_write_items();
        let Err(error) = transaction.set_transact_items(Some(items.to_vec())).send().await else {
            return Ok(Transacted::Done);
        };
        let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.as_service_error() else {
            return Err(error);
        };
        let reasons = cancelled.cancellation_reasons().iter();
        let refused: Vec<_> = reasons
            .map(|reason| reason.code() == Some("ConditionalCheckFailed"))
            .collect();
        if refused.contains(&true) {
            Ok(Transacted::Refused(refused))
        } else {
            Err(error)
        }
    }
}
