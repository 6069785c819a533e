//! The state that all pages share.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::faults::Faults;
use super::signer::Signer;
use crate::aws::clients::Clients;
use crate::aws::stored_events::{self, WORK};
use crate::lambda::invoke_api::Functions;
use crate::net::client::Client;
use crate::recorder::log::Log;
use crate::recorder::{Open, Recorder, Unsettled};

/// Changes within this time are shown together.
pub(super) const TOGETHER: Duration = Duration::from_millis(40);

/// Whose secrets the stack has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// The publicly known development secrets.
    Development,
    /// The secrets of a file.
    Given,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) recorder: Recorder,
    pub(super) signer: Signer,
    pub(super) secrets: Secrets,
    pub(super) client: Client,
    pub(super) functions: Functions,
    pub(super) clients: Clients,
    pub(super) faults: Faults,
    pub(super) gateway: SocketAddr,
    pub(super) tunnel: Option<SocketAddr>,
    /// The number of events that need attention and of alerts, and the faults that are on.
    pub(super) status: watch::Sender<Value>,
}

impl State {
    pub(super) async fn look(&self, log: &Log, open: Open) {
        let open = self.recorder.open(open);
        let mut event_ids: Vec<String> = open.iter().filter_map(|delivery| delivery.event_id.clone()).collect();
        event_ids.sort_unstable();
        event_ids.dedup();
        // If the table cannot be read, the next tick tries again.
        let Ok(stored) = stored_events::summaries(&self.clients.dynamodb, &event_ids).await else {
            return;
        };
        for Unsettled { id, event_id } in open {
            let stored = event_id.and_then(|event_id| stored.get(&event_id).cloned());
            if let Some(delivery) = self.recorder.settle(id, stored) {
                log.delivery(&delivery);
            }
        }
    }

    /// Counts the events that need attention, as long as a page is open.
    pub(super) async fn refresh_status(&self) {
        if self.status.receiver_count() == 0 {
            return;
        }
        let Ok(counts) = stored_events::work(&self.clients.dynamodb).await else {
            return;
        };
        let mut status = json!({"faults": self.faults.on(), "alerts": self.recorder.alerts().count()});
        for (state, count) in WORK.iter().zip(counts) {
            status[*state] = count.into();
        }
        self.status.send_if_modified(|known| {
            let is_new = *known != status;
            *known = status;
            is_new
        });
    }
}
