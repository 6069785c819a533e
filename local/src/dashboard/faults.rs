//! Faults that can be turned on from a page. They hit calls to AWS and to the stand-ins for the order APIs; the functions
//! do not know about them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};

use crate::aws::faults::{Fault, FaultInjector, Injection, Rule, Service};
use crate::lock;
use crate::providers::order_apis::{self, OrderApis};

/// A fault as a page offers it.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) name: &'static str,
    pub(super) label: &'static str,
    pub(super) effect: &'static str,
    hits: Hits,
}

/// The calls that a fault hits, and what happens to them.
#[derive(Debug)]
enum Hits {
    Aws {
        service: Service,
        operation: &'static str,
        /// The number of calls that it hits.
        times: usize,
        fault: Fault,
    },
    OrderApis(order_apis::Fault),
}

pub(super) const OFFERS: [Offer; 8] = [
    Offer {
        name: "sns-down",
        label: "SNS down",
        effect: "Events are stored, answered 200, and stay in the outbox.",
        hits: Hits::Aws {
            service: Service::Sns,
            operation: "",
            times: usize::MAX,
            fault: Fault::DOWN,
        },
    },
    Offer {
        name: "dynamodb-throttled",
        label: "DynamoDB throttled",
        effect: "Nothing can be stored. The answer is 503, and the provider retries.",
        hits: Hits::Aws {
            service: Service::DynamoDb,
            operation: "",
            times: usize::MAX,
            fault: Fault::THROTTLED,
        },
    },
    Offer {
        name: "kill-before-store",
        label: "Kill before it stores",
        effect: "Once: the function is killed before the delivery is stored. The answer is 500, and the provider retries.",
        hits: Hits::Aws {
            service: Service::DynamoDb,
            operation: "PutItem",
            times: 1,
            fault: Fault::KillBefore,
        },
    },
    Offer {
        name: "kill-before-publish",
        label: "Kill before it publishes",
        effect: "Once: the event is stored, and the function is killed. The provider's retry or redrive publishes it.",
        hits: Hits::Aws {
            service: Service::Sns,
            operation: "Publish",
            times: 1,
            fault: Fault::KillBefore,
        },
    },
    Offer {
        name: "order-apis-500",
        label: "Order APIs answer 500",
        effect: "Reconcile concludes nothing, and the next run begins where it stopped.",
        hits: Hits::OrderApis(order_apis::Fault::Status(500)),
    },
    Offer {
        name: "order-apis-429",
        label: "Order APIs answer 429",
        effect: "With Retry-After: 5. Reconcile waits, and gives up after some attempts.",
        hits: Hits::OrderApis(order_apis::Fault::TooMany(5)),
    },
    Offer {
        name: "order-apis-cut",
        label: "Order APIs cut their answers",
        effect: "Reconcile concludes nothing from a part of a page.",
        hits: Hits::OrderApis(order_apis::Fault::Cut),
    },
    Offer {
        name: "order-apis-slow",
        label: "Order APIs are slow",
        effect: "Each answer takes 5 s. Reconcile waits for it.",
        hits: Hits::OrderApis(order_apis::Fault::Slow(Duration::from_secs(5))),
    },
];

/// The faults that are on.
#[derive(Debug)]
pub(super) struct Faults {
    tap: FaultInjector,
    orders: OrderApis,
    /// The faults of calls to AWS.
    on: Mutex<BTreeMap<&'static str, Injection>>,
}

impl Faults {
    pub(super) fn new(tap: FaultInjector, orders: OrderApis) -> Self {
        Self {
            tap,
            orders,
            on: Mutex::default(),
        }
    }

    /// Turns a fault on; `None` if there is no such fault.
    pub(super) fn turn_on(&self, name: &str) -> Option<()> {
        let offer = OFFERS.iter().find(|offer| offer.name == name)?;
        match offer.hits {
            Hits::Aws {
                service,
                operation,
                times,
                fault,
            } => {
                let mut on = lock(&self.on);
                on.entry(offer.name)
                    .or_insert_with(|| self.tap.inject(Rule::new(service, operation).times(times), fault));
            }
            Hits::OrderApis(fault) => self.orders.turn_on(offer.name, fault),
        }
        Some(())
    }

    /// Turns a fault off.
    pub(super) fn turn_off(&self, name: &str) {
        lock(&self.on).remove(name);
        self.orders.turn_off(name);
    }

    /// The names and labels of the faults that are on. A fault for one call ends with the call.
    pub(super) fn on(&self) -> Vec<Value> {
        let mut on = lock(&self.on);
        let offers = OFFERS.iter().filter(|offer| match offer.hits {
            Hits::Aws { times, .. } => {
                let is_over = on.get(offer.name).is_some_and(|injection| injection.hits() >= times);
                if is_over {
                    on.remove(offer.name);
                }
                on.contains_key(offer.name)
            }
            Hits::OrderApis(_) => self.orders.is_on(offer.name),
        });
        offers
            .map(|offer| json!({"name": offer.name, "label": offer.label}))
            .collect()
    }
}
