//! `{"state":{...}}`: shows the state of an order, folded from its stored events.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::time_left::TimeLeft;
use crate::{Outbox, TaskError};

/// Bytes of JSON that a state may take. Lambda returns 6 MB at most.
const ANSWER: usize = 5_000_000;

/// An order.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShowState {
    provider: String,
    shop: String,
    order: String,
}

impl Outbox {
    /// Answers with the state of the order: null if no event of it is stored, or if the state is larger than any answer.
    pub(crate) async fn state(&self, task: &ShowState, time: TimeLeft) -> Result<Value, TaskError> {
        let folded = async {
            let ShowState { provider, shop, order } = task;
            let ids = self.store.of_order(provider, shop, order).await?;
            // One history is in memory at a time: its events may be very large.
            let _reading = self.reading.lock().await;
            let read = self.store.history(&ids, usize::MAX).await?;
            // The index may also have events of another order under this key, whose id is the hash of this one.
            let state = read.history.states().remove(&format!("/{provider}/{shop}/{order}"));
            Ok((state, read.unreadable))
        };
        let (state, unreadable, outage) = match time.attempt(folded).await? {
            Ok((state, unreadable)) => (state, unreadable, None),
            Err(cause) => (None, Vec::new(), Some(cause)),
        };
        let state = json!(state);
        let bytes = state.to_string().len();
        let state = Some(state).filter(|_| bytes <= ANSWER);
        Ok(json!({
            "state": state,
            "bytes": bytes,
            "unreadable": unreadable,
            "done": outage.is_none(),
            "outage": outage,
        }))
    }
}
