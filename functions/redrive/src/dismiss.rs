//! `{"dismiss":{"event_id":"..."}}`: closes a quarantined delivery that no mapping will ever understand. The delivery
//! stays in the table with its reason. `{"undismiss":{"event_id":"..."}}` takes the dismissal back.

use serde::Deserialize;
use serde_json::{Value, json};
use shared::store::{Projection, State};

use crate::{Outbox, TaskError, event_id};

/// One delivery. A person has to look at each before it is dismissed, so the task does not take many.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dismiss {
    event_id: String,
    /// Only count the delivery.
    #[serde(default)]
    dry_run: bool,
}

impl Outbox {
    pub(crate) async fn dismiss(&self, dismiss: &Dismiss) -> Result<Value, TaskError> {
        let id = event_id(&dismiss.event_id)?;
        let dismissed = if dismiss.dry_run {
            let heads = self.store.heads(std::slice::from_ref(&id), Projection::Nothing).await?;
            heads.iter().any(|(_, head)| head.state == State::Quarantined)
        } else {
            self.store.dismiss(&id).await?
        };
        tracing::info!(event_id = %id, dismissed, dry_run = dismiss.dry_run, "dismiss");
        Ok(json!({"dismissed": u64::from(dismissed), "dry_run": dismiss.dry_run}))
    }

    pub(crate) async fn undismiss(&self, undismiss: &Dismiss) -> Result<Value, TaskError> {
        let id = event_id(&undismiss.event_id)?;
        let heads = self.store.heads(std::slice::from_ref(&id), Projection::Nothing).await?;
        let dismissed = heads
            .first()
            .filter(|(_, head)| head.state == State::Unsupported && head.is_dismissed());
        let undismissed = match dismissed {
            Some((_, head)) => undismiss.dry_run || self.store.undismiss(&id, head).await?,
            None => false,
        };
        tracing::info!(event_id = %id, undismissed, dry_run = undismiss.dry_run, "undismiss");
        Ok(json!({"undismissed": u64::from(undismissed), "dry_run": undismiss.dry_run}))
    }
}
