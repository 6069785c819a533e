//! What a run of redrive leaves behind in case it does not survive: a mark that it has begun, and leases on single events.
//!
//! A run that reaches its end removes its mark. A run that finds the mark of another knows that one of the events that are due may
//! kill the process, and leases each before it tries it: the next run skips what is leased.

use std::ops::Range;

use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};
use jiff::Timestamp;

use super::event_items::sortable;
use super::{AttemptId, Head, State, Store, StoreError, describe, item_key};
use crate::identity::EventId;

/// The partition of the marks. No event has this key: an event id is 64 hex digits.
const RUNS: &str = "redrive";

/// What `last_error` says of an event that is leased.
const LEASED: &str = "a run of redrive did not survive an attempt";

/// A run that has begun.
pub struct StartedRun {
    id: AttemptId,
    shards: Range<u8>,
    /// How many runs in a row before it have begun and not ended. One that is still running counts.
    pub unended: u32,
}

impl Store {
    /// Leaves the mark of a run that begins to publish what is due in `shards`.
    pub async fn start_run(&self, shards: Range<u8>) -> Result<StartedRun, StoreError> {
        let id = AttemptId::random();
        let update = self
            .run_item(&shards)
            .update_expression("SET run_id = :mine, begun_at = :now ADD unended :one")
            .expression_attribute_values(":mine", AttributeValue::S(id.0.clone()))
            .expression_attribute_values(":now", AttributeValue::S(sortable(Timestamp::now())))
            .expression_attribute_values(":one", AttributeValue::N("1".to_owned()))
            .return_values(ReturnValue::UpdatedNew);
        let begun = update.send().await;
        let begun = begun.map_err(|error| StoreError::DynamoDb(describe(&error)))?;
        let count = begun.attributes().and_then(|item| item.get("unended")?.as_n().ok());
        let count: u32 = count.and_then(|count| count.parse().ok()).unwrap_or(1);
        Ok(StartedRun {
            id,
            shards,
            unended: count.saturating_sub(1),
        })
    }

    /// Removes the mark of a run, unless it is already that of another.
    pub async fn end_run(&self, run: &StartedRun) -> Result<(), StoreError> {
        let end = self
            .run_item(&run.shards)
            .update_expression("SET unended = :none, ended_at = :now REMOVE run_id")
            .condition_expression("run_id = :mine")
            .expression_attribute_values(":mine", AttributeValue::S(run.id.0.clone()))
            .expression_attribute_values(":now", AttributeValue::S(sortable(Timestamp::now())))
            .expression_attribute_values(":none", AttributeValue::N("0".to_owned()));
        match end.send().await {
            Ok(_) => Ok(()),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(UpdateItemError::is_conditional_check_failed_exception) =>
            {
                Ok(())
            }
            Err(error) => Err(StoreError::DynamoDb(describe(&error))),
        }
    }

    /// The update of a mark. Runs that drain other shards side by side have marks of their own.
    fn run_item(&self, shards: &Range<u8>) -> UpdateItemFluentBuilder {
        let update = self.client.update_item().table_name(&self.table);
        update.set_key(Some(item_key(RUNS, &format!("run#{}#{}", shards.start, shards.end))))
    }

    /// Puts a pending event off until `next` before it is tried. False where somebody else changed it.
    pub async fn lease(&self, id: &EventId, head: &Head, next: Timestamp) -> Result<bool, StoreError> {
        self.update(
            id,
            "SET next_attempt_at = :next, last_error = :cause, leases = :leases",
            "#state = :pending AND next_attempt_at = :seen",
            [
                (":next", AttributeValue::S(sortable(next))),
                (":cause", AttributeValue::S(LEASED.to_owned())),
                (":leases", AttributeValue::N((head.leases + 1).to_string())),
                (":pending", AttributeValue::S(State::Pending.as_str().to_owned())),
                (
                    ":seen",
                    head.item
                        .get("next_attempt_at")
                        .cloned()
                        .unwrap_or(AttributeValue::Null(true)),
                ),
            ],
        )
        .await
    }

    /// Takes back the lease of an event that did no harm and is not published yet: it is due again.
    pub async fn take_back_lease(&self, id: &EventId) -> Result<bool, StoreError> {
        self.update(
            id,
            "SET next_attempt_at = :now REMOVE leases, last_error",
            "#state = :pending AND attribute_exists(leases)",
            [
                (":now", AttributeValue::S(sortable(Timestamp::now()))),
                (":pending", AttributeValue::S(State::Pending.as_str().to_owned())),
            ],
        )
        .await
    }

    /// Takes back the lease of an event that was not tried: it is due again, and its earlier leases, which `head` shows, still count.
    pub async fn take_back_untried_lease(&self, id: &EventId, head: &Head) -> Result<bool, StoreError> {
        if head.leases == 0 {
            return self.take_back_lease(id).await;
        }
        self.update(
            id,
            "SET next_attempt_at = :now, leases = :before",
            "#state = :pending AND attribute_exists(leases)",
            [
                (":now", AttributeValue::S(sortable(Timestamp::now()))),
                (":before", AttributeValue::N(head.leases.to_string())),
                (":pending", AttributeValue::S(State::Pending.as_str().to_owned())),
            ],
        )
        .await
    }
}
