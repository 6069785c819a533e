//! Faults that can be turned on from a page. They hit calls to AWS; the functions do not know about them.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::aws::faults::{Fault, FaultInjector, Injection, Rule, Service};
use crate::lock;

/// A fault as a page offers it.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) name: &'static str,
    pub(super) label: &'static str,
    pub(super) effect: &'static str,
    service: Service,
    operation: &'static str,
    /// The number of calls that it hits.
    times: usize,
    fault: Fault,
}

pub(super) const OFFERS: [Offer; 4] = [
    Offer {
        name: "sns-down",
        label: "SNS down",
        effect: "Events are stored, answered 200, and stay in the outbox.",
        service: Service::Sns,
        operation: "",
        times: usize::MAX,
        fault: Fault::DOWN,
    },
    Offer {
        name: "dynamodb-throttled",
        label: "DynamoDB throttled",
        effect: "Nothing can be stored. The answer is 503, and the provider retries.",
        service: Service::DynamoDb,
        operation: "",
        times: usize::MAX,
        fault: Fault::THROTTLED,
    },
    Offer {
        name: "kill-before-store",
        label: "Kill before it stores",
        effect: "Once: the function is killed before the delivery is stored. The answer is 500, and the provider retries.",
        service: Service::DynamoDb,
        operation: "PutItem",
        times: 1,
        fault: Fault::KillBefore,
    },
    Offer {
        name: "kill-before-publish",
        label: "Kill before it publishes",
        effect: "Once: the event is stored, and the function is killed. The provider's retry or redrive publishes it.",
        service: Service::Sns,
        operation: "Publish",
        times: 1,
        fault: Fault::KillBefore,
    },
];

/// The faults that are on.
#[derive(Debug)]
pub(super) struct Faults {
    tap: FaultInjector,
    on: Mutex<BTreeMap<&'static str, Injection>>,
}

impl Faults {
    pub(super) fn new(tap: FaultInjector) -> Self {
        Self {
            tap,
            on: Mutex::default(),
        }
    }

    /// Turns a fault on; `None` if there is no such fault.
    pub(super) fn turn_on(&self, name: &str) -> Option<()> {
        let offer = OFFERS.iter().find(|offer| offer.name == name)?;
        let mut on = lock(&self.on);
        on.entry(offer.name).or_insert_with(|| {
            let rule = Rule::new(offer.service, offer.operation).times(offer.times);
            self.tap.inject(rule, offer.fault)
        });
        Some(())
    }

    /// Turns a fault off.
    pub(super) fn turn_off(&self, name: &str) {
        lock(&self.on).remove(name);
    }

    /// The names and labels of the faults that are on. A fault for one call ends with the call.
    pub(super) fn on(&self) -> Vec<Value> {
        let mut on = lock(&self.on);
        let offers = OFFERS.iter().filter(|offer| {
            let is_over = on
                .get(offer.name)
                .is_some_and(|injection| injection.hits() >= offer.times);
            if is_over {
                on.remove(offer.name);
            }
            on.contains_key(offer.name)
        });
        offers
            .map(|offer| json!({"name": offer.name, "label": offer.label}))
            .collect()
    }
}
