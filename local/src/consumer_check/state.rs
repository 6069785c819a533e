//! The facts of an order that are compared: those that every consumer must have.
//!
//! A consumer shows them in the shape of the order's state (shared/schema/order-state.v1.schema.json). It may show more
//! facts, which are not compared; an absent fact is the same as null.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};
use shared::order_state::{History, OrderState};

use super::histories::Message;
use super::shown;
use crate::Error;

/// The facts that have one value, by their pointers in the state.
const FACTS: [&str; 3] = [
    "/order/status",
    "/order/payment_status",
    "/order/shipping/tracking_number",
];
/// The facts of an item that are compared.
const OF_ITEM: [&str; 3] = ["quantity", "status", "tracking_number"];

/// An order of a history.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Order {
    pub(super) provider: String,
    pub(super) shop: String,
    pub(super) id: String,
}

/// A fact that is not as expected.
#[derive(Debug, Clone)]
pub(super) struct Difference {
    pub(super) order: String,
    fact: String,
    expected: String,
    found: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            order,
            fact,
            expected,
            found,
        } = self;
        write!(formatter, "{order}: {fact} is {found} and must be {expected}")
    }
}

/// The states of the orders of a history.
pub(super) fn expected(messages: &[Message]) -> Result<Vec<(Order, OrderState)>, Error> {
    let mut history = History::default();
    for message in messages {
        let event = message.event.clone();
        history
            .add_value(event)
            .map_err(|error| Error::Fixture(format!("a history has an invalid event: {error}")))?;
    }
    let states = history.states().into_iter().filter_map(|(key, state)| {
        let id = key
            .strip_prefix(&format!("/{}/{}/", state.provider, state.shop))?
            .to_owned();
        let order = Order {
            provider: state.provider.clone(),
            shop: state.shop.clone(),
            id,
        };
        Some((order, state))
    });
    Ok(states.collect())
}

/// Compares the state that a consumer shows with the expected one.
pub(super) fn differences(order: &Order, expected: &OrderState, found: &Value) -> Vec<Difference> {
    let of_order = format!("/{}/{}/{}", order.provider, order.shop, order.id);
    let difference = |fact: &str, expected: String, found: String| Difference {
        order: of_order.clone(),
        fact: fact.to_owned(),
        expected,
        found,
    };
    if expected.test {
        let is_apart = found.is_null() || found["test"] == true;
        return (!is_apart)
            .then(|| {
                difference(
                    "/test",
                    "true, or the order unknown".to_owned(),
                    shown(found.get("test")),
                )
            })
            .into_iter()
            .collect();
    }
    let expected = json!({"test": false, "order": expected.order, "refunds": expected.refunds});
    let mut all = Vec::new();
    if found["test"] == true {
        all.push(difference("/test", "false".to_owned(), "true".to_owned()));
    }
    for fact in FACTS {
        let value = |state: &Value| state.pointer(fact).filter(|value| !value.is_null()).cloned();
        let (expected, found) = (value(&expected), value(found));
        if expected != found {
            all.push(difference(fact, shown(expected.as_ref()), shown(found.as_ref())));
        }
    }
    let (expected_items, found_items) = (items(&expected), items(found));
    if expected_items != found_items {
        all.push(difference(
            "/order/items",
            json!(expected_items).to_string(),
            json!(found_items).to_string(),
        ));
    }
    let (expected_refunds, found_refunds) = (refunds(&expected), refunds(found));
    if expected_refunds != found_refunds {
        all.push(difference(
            "/refunds",
            json!(expected_refunds).to_string(),
            json!(found_refunds).to_string(),
        ));
    }
    all
}

/// The compared facts of the items, by their ids. Numbers are compared as text, since some languages read them as text.
fn items(state: &Value) -> BTreeMap<String, BTreeMap<&'static str, String>> {
    let items = state.pointer("/order/items").and_then(Value::as_array);
    let items = items.into_iter().flatten().map(|item| {
        let facts = OF_ITEM.into_iter().filter_map(|name| Some((name, text(&item[name])?)));
        (text(&item["id"]).unwrap_or_default(), facts.collect())
    });
    items.collect()
}

/// The refunds, in no order.
fn refunds(state: &Value) -> Vec<String> {
    let refunds = state["refunds"].as_array().into_iter().flatten().map(|stated| {
        let refund = &stated["refund"];
        let fact = |name| text(&refund[name]).unwrap_or_else(|| "-".to_owned());
        format!("{} {}", fact("amount"), fact("currency"))
    });
    let mut refunds: Vec<String> = refunds.collect();
    refunds.sort_unstable();
    refunds
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer_check::histories;

    fn expected_of_first() -> (Order, OrderState) {
        let (_, histories) = histories::all(1).expect("histories").swap_remove(0);
        let states = expected(&histories[0].messages).expect("states");
        states.into_iter().next().expect("an order")
    }

    #[test]
    fn the_state_of_the_fold_has_no_difference() {
        let (order, state) = expected_of_first();
        let shown = serde_json::to_value(&state).expect("JSON");
        assert!(differences(&order, &state, &shown).is_empty());
        let facts = FACTS.map(|fact| shown.pointer(fact));
        assert!(facts.iter().all(Option::is_some), "every fact is compared: {shown}");
        assert!(!items(&shown).is_empty() && !refunds(&shown).is_empty(), "{shown}");
    }

    #[test]
    fn each_fact_that_differs_is_named() {
        let (order, state) = expected_of_first();
        let right = serde_json::to_value(&state).expect("JSON");
        let wrong: [(&str, Value); 6] = [
            ("/order/status", Value::Null),
            ("/order/payment_status", json!("refunded")),
            ("/order/shipping/tracking_number", json!("another")),
            ("/order/items", json!([])),
            ("/order/items/0/quantity", json!(7)),
            ("/refunds", json!([])),
        ];
        for (pointer, value) in wrong {
            let mut shown = right.clone();
            *shown.pointer_mut(pointer).expect("a fact") = value;
            let found = differences(&order, &state, &shown);
            assert_eq!(found.len(), 1, "{pointer}");
            assert!(pointer.starts_with(&found[0].fact), "{pointer}: {}", found[0]);
        }
        let mut twice = right.clone();
        let refund = right["refunds"][0].clone();
        twice["refunds"].as_array_mut().expect("refunds").push(refund);
        assert_eq!(differences(&order, &state, &twice).len(), 1);
        assert_eq!(
            differences(&order, &state, &Value::Null).len(),
            5,
            "the order is unknown"
        );
    }
}
