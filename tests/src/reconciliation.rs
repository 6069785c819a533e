//! Reconciliation in a stack: orders that a provider knows, webhooks that announce them, and runs.

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::{SignedDuration, Timestamp};
use local::project::settings::{RECONCILE, SHOP};
use local::providers::lifecycle::{Life, State};
use local::providers::samples::Fixture;
use serde_json::{Value, json};

use crate::stack::{Answer, Stack};

impl Stack {
    /// The time some minutes before the stack has started, in whole seconds, because Cartum states no fractions. The
    /// same minutes are always the same time.
    ///
    /// # Panics
    /// If the time is out of range.
    pub fn minutes_ago(&self, minutes: i64) -> Timestamp {
        let start = Timestamp::from_second(self.started_at().as_second()).expect("a time");
        start - SignedDuration::from_mins(minutes)
    }

    /// The order number `index` of a provider, placed some minutes ago.
    pub fn life(&self, provider: &str, index: usize, placed: i64) -> Life {
        Life::new(self.catalogue(), provider, index, 1, self.minutes_ago(placed)).expect("an order")
    }

    /// Signs a webhook and sends it.
    pub async fn announce(&self, life: &Life, state: State, minutes: i64) -> Answer {
        let mut webhook = life.webhook(state, self.minutes_ago(minutes)).expect("a webhook");
        self.sign(&mut webhook);
        self.send(&webhook).await
    }

    /// Lets the provider know the state of an order.
    pub fn knows(&self, life: &Life, state: State, minutes: i64) {
        self.knows_order_of(&life.webhook(state, self.minutes_ago(minutes)).expect("a webhook"));
    }

    /// Lets the provider know the order of a webhook.
    pub fn knows_order_of(&self, webhook: &Fixture) {
        let body = webhook.body().expect("a body");
        let is_known = self.order_apis().book().delivered(&webhook.provider, SHOP, &body);
        assert!(is_known, "{} holds no complete order", webhook.name);
    }

    /// Runs reconcile for a provider, and returns what it says about the shop `main`.
    pub async fn reconcile(&self, provider: &str) -> Value {
        self.reconcile_with(provider, json!({})).await["shops"][0].clone()
    }

    /// Runs reconcile for a provider with more parameters, and returns its answer.
    pub async fn reconcile_with(&self, provider: &str, parameters: Value) -> Value {
        let mut task = json!({ "provider": provider });
        for (name, value) in parameters.as_object().into_iter().flatten() {
            task[name] = value.clone();
        }
        let answer = self.invoke(RECONCILE, &json!({ "reconcile": task })).await;
        answer.expect("an answer of reconcile")
    }

    /// Lets the leases of runs that were killed expire.
    pub async fn let_leases_expire(&self) {
        self.clients().let_leases_expire().await.expect("the items are written");
    }

    /// Lets the period of the first run for the shop `main` begin some minutes ago, and a daily run be due.
    ///
    /// # Panics
    /// If no run was complete.
    pub async fn daily_run_is_due(&self, provider: &str, first: i64) {
        let mut item = self.runs_of(provider).await.expect("a run");
        let from = AttributeValue::S(self.minutes_ago(first).to_string());
        assert!(item.insert("first_from".to_owned(), from).is_some());
        item.remove("last_daily_at");
        self.put(item).await;
    }

    /// What the table knows about the runs for a shop.
    pub async fn runs_of(&self, provider: &str) -> Option<crate::Item> {
        let key = AttributeValue::S(format!("{provider}#{SHOP}"));
        let mut items = self.partition(RECONCILE).await.into_iter();
        items.find(|item| item["sk"] == key)
    }
}
