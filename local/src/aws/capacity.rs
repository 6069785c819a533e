//! The write capacity of DynamoDB's partitions. A partition key accepts a number of units a second: a write takes one
//! unit for each KiB of the item, and two in a transaction. More is throttled. Only the keys of the table count,
//! because a call does not say what the indexes take.

use std::collections::HashMap;
use std::time::Instant;

use serde_json::Value;

/// Returns the write units that a call takes, by partition key.
///
/// A call that puts an item holds all of it. A call that updates or deletes an item holds less, so it takes the units
/// of what it holds, and at least one.
pub(crate) fn write_units(operation: &str, body: &[u8]) -> Vec<(String, u32)> {
    let Ok(call) = serde_json::from_slice::<Value>(body) else {
        return Vec::new();
    };
    let write = |part: &Value, times: u32| {
        let item = if part["Item"].is_object() {
            &part["Item"]
        } else {
            &part["Key"]
        };
        let values = item_size(&part["ExpressionAttributeValues"]);
        let bytes = u32::try_from(item_size(item) + values).unwrap_or(u32::MAX);
        let key = item["pk"]["S"].as_str()?.to_owned();
        Some((key, bytes.div_ceil(1024).max(1) * times))
    };
    match operation {
        "PutItem" | "UpdateItem" | "DeleteItem" => write(&call, 1).into_iter().collect(),
        "TransactWriteItems" => call["TransactItems"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|item| write(item.as_object()?.values().next()?, 2))
            .collect(),
        _ => Vec::new(),
    }
}

/// The size of an item in bytes: the names and values of its attributes.
fn item_size(item: &Value) -> usize {
    let attributes = item.as_object().into_iter().flatten();
    attributes.map(|(name, value)| name.len() + value_size(value)).sum()
}

fn value_size(value: &Value) -> usize {
    let Some((kind, value)) = value.as_object().and_then(|value| value.iter().next()) else {
        return 0;
    };
    let texts = |of: fn(usize) -> usize| {
        let texts = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        texts.map(|text| of(text.len())).sum()
    };
    match kind.as_str() {
        "S" | "N" => value.as_str().map_or(0, str::len),
        // Base64.
        "B" => value.as_str().map_or(0, |text| text.len() / 4 * 3),
        "SS" | "NS" => texts(|length| length),
        "BS" => texts(|length| length / 4 * 3),
        "M" => 3 + item_size(value),
        "L" => {
            3 + value
                .as_array()
                .into_iter()
                .flatten()
                .map(|value| 1 + value_size(value))
                .sum::<usize>()
        }
        _ => 1,
    }
}

/// The units that each partition key has left, which are never more than those of one second.
#[derive(Debug)]
pub(crate) struct Capacity {
    units: f64,
    left: HashMap<String, (f64, Instant)>,
}

impl Capacity {
    /// Gives each key this many units a second.
    pub(crate) fn new(units: u32) -> Self {
        Self {
            units: units.into(),
            left: HashMap::new(),
        }
    }

    /// Takes the units of a call, all or none. Returns false if a key has too few left. A write of more units than
    /// those of one second waits until the key has all of them.
    pub(crate) fn take(&mut self, writes: &[(String, u32)], now: Instant) -> bool {
        let left = |key: &String| {
            let (left, at) = self.left.get(key).copied().unwrap_or((self.units, now));
            (left + now.duration_since(at).as_secs_f64() * self.units).min(self.units)
        };
        let taken: Vec<_> = writes
            .iter()
            .map(|(key, units)| (key, left(key), f64::from(*units)))
            .collect();
        if taken.iter().any(|(_, left, units)| *left < units.min(self.units)) {
            return false;
        }
        for (key, left, units) in taken {
            self.left.insert(key.clone(), (left - units, now));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn units(operation: &str, call: &Value) -> Vec<(String, u32)> {
        write_units(operation, call.to_string().as_bytes())
    }

    #[test]
    fn a_write_takes_a_unit_for_each_kib_of_its_item() {
        let item = |letters: usize| json!({"Item": {"pk": {"S": "a"}, "data": {"B": "x".repeat(letters)}}});
        assert_eq!(units("PutItem", &item(4)), [("a".to_owned(), 1)]);
        // The names and the key count too: 2 + 1 + 4 bytes.
        assert_eq!(units("PutItem", &item(1_356)), [("a".to_owned(), 1)]);
        assert_eq!(units("PutItem", &item(1_360)), [("a".to_owned(), 2)]);
        assert_eq!(units("PutItem", &item(466_668)), [("a".to_owned(), 342)]);
        assert_eq!(
            units("UpdateItem", &json!({"Key": {"pk": {"S": "a"}, "sk": {"S": "head"}}})),
            [("a".to_owned(), 1)]
        );
        assert_eq!(units("GetItem", &json!({"Key": {"pk": {"S": "a"}}})), []);
    }

    #[test]
    fn a_transaction_takes_twice_as_much() {
        let call = json!({"TransactItems": [
            {"Put": {"Item": {"pk": {"S": "a"}, "text": {"S": "x".repeat(3_000)}}}},
            {"Delete": {"Key": {"pk": {"S": "b"}}}},
        ]});
        assert_eq!(
            units("TransactWriteItems", &call),
            [("a".to_owned(), 6), ("b".to_owned(), 2)]
        );
    }

    #[test]
    fn each_key_regains_the_units_of_a_second() {
        let mut capacity = Capacity::new(1_000);
        let begun = Instant::now();
        let write = |key: &str, units| [(key.to_owned(), units)];
        assert!(capacity.take(&write("a", 700), begun));
        assert!(!capacity.take(&write("a", 400), begun));
        assert!(capacity.take(&write("b", 400), begun), "another key has its own");
        assert!(capacity.take(&write("a", 400), begun + Duration::from_millis(101)));
        // A write of more than a second's units.
        assert!(!capacity.take(&write("b", 1_200), begun + Duration::from_millis(300)));
        assert!(capacity.take(&write("b", 1_200), begun + Duration::from_secs(5)));
        assert!(!capacity.take(&write("b", 1), begun + Duration::from_secs(5)));
    }
}
