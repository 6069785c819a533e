//! Publishes a stored event: reads only the parts of its text that are needed.
//!
//! A newer version of this code may have written the event. So nothing here is a closed list: unknown types,
//! currencies, words and fields are published as they are stored.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::omission::{Omission, Reducible};
use crate::event::{Origin, Payment, Shipping};

/// The attributes by which subscribers can filter, as far as the event has them; `None` if the text is not a JSON
/// object.
pub(super) fn attributes(json: &str) -> Option<Vec<(&'static str, String)>> {
    let event = Object::parse(json)?;
    let data = event.get("data").and_then(Object::parse).unwrap_or_default();
    let order = data.get("order").and_then(Object::parse).unwrap_or_default();
    let text = |value: Option<&str>| serde_json::from_str::<String>(value?).ok();
    let is_test = data.get("test").filter(|word| ["true", "false"].contains(word));
    let currency = text(order.get("currency"));
    let origin = match data.get("origin") {
        // Events that were stored before there was another origin do not state theirs.
        None => Some(Origin::default().as_str().to_owned()),
        stated => text(stated),
    };
    let is_code = |currency: &String| currency.len() == 3 && currency.bytes().all(|byte| byte.is_ascii_uppercase());
    let attributes = [
        ("type", text(event.get("type"))),
        ("provider", text(data.get("provider"))),
        ("shop", text(data.get("shop"))),
        ("test", is_test.map(str::to_owned)),
        ("origin", origin),
        ("currency", currency.filter(is_code)),
    ];
    let known = attributes.into_iter().filter_map(|(name, value)| Some((name, value?)));
    // SNS rejects empty attributes.
    Some(known.filter(|(_, value)| !value.is_empty()).collect())
}

/// A JSON object, parsed by one level. The values of its members stay text.
#[derive(Default)]
struct Object<'j>(Vec<(String, Member<'j>)>);

/// The value of a member.
enum Member<'j> {
    /// The stored text.
    Stored(&'j str),
    /// A text that replaces the stored one.
    Changed(String),
    /// An object that is parsed by one level.
    Object(Object<'j>),
}

impl<'j> Object<'j> {
    fn parse(json: &'j str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// The stored text of a member.
    fn get(&self, name: &str) -> Option<&'j str> {
        self.0.iter().find_map(|(known, member)| match member {
            Member::Stored(text) if known == name => Some(*text),
            _ => None,
        })
    }

    /// Replaces an existing member.
    fn set(&mut self, name: &str, value: Member<'j>) {
        if let Some((_, member)) = self.0.iter_mut().find(|(known, _)| known == name) {
            *member = value;
        }
    }

    fn object(&mut self, name: &str) -> Option<&mut Self> {
        self.0.iter_mut().find_map(|(known, member)| match member {
            Member::Object(object) if known == name => Some(object),
            _ => None,
        })
    }

    /// Parses a member that is an object.
    fn open(&mut self, name: &str) -> Option<&mut Self> {
        if let Some(object) = self.get(name).and_then(Self::parse) {
            self.set(name, Member::Object(object));
        }
        self.object(name)
    }

    fn write(&self, into: &mut String) {
        into.push('{');
        for (index, (name, member)) in self.0.iter().enumerate() {
            if index > 0 {
                into.push(',');
            }
            into.push_str(&quoted(name));
            into.push(':');
            match member {
                Member::Stored(text) => into.push_str(text),
                Member::Changed(text) => into.push_str(text),
                Member::Object(object) => object.write(into),
            }
        }
        into.push('}');
    }

    /// The size of the object's text, in bytes.
    fn size(&self) -> usize {
        let sizes = self.0.iter().map(|(name, member)| {
            let value = match member {
                Member::Stored(text) => text.len(),
                Member::Changed(text) => text.len(),
                Member::Object(object) => object.size(),
            };
            quoted(name).len() + ":".len() + value
        });
        let commas = self.0.len().saturating_sub(1);
        "{}".len() + commas + sizes.sum::<usize>()
    }
}

fn quoted(name: &str) -> String {
    serde_json::to_string(name).expect("a text is JSON")
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    members.push((name, Member::Stored(value.get())));
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// A stored event from which parts can be left out: an object with `data`, which holds an `order`.
pub(super) struct StoredEvent<'j>(Object<'j>);

impl<'j> StoredEvent<'j> {
    /// Reads an event; `None` if the text is not one.
    pub(super) fn read(json: &'j str) -> Option<Self> {
        let mut event = Object::parse(json)?;
        let mut data = Object::parse(event.get("data")?)?;
        let order = Object::parse(data.get("order")?)?;
        for name in ["assumed", "omitted"] {
            let list = data.get(name).unwrap_or("[]").to_owned();
            data.set(name, Member::Changed(list));
        }
        data.set("order", Member::Object(order));
        event.set("data", Member::Object(data));
        Some(Self(event))
    }
}

impl Reducible for StoredEvent<'_> {
    fn leave_out(&mut self, omission: &Omission) {
        let Some(data) = self.0.object("data") else { return };
        for pointer in omission.pointers {
            let (name, object) = match pointer.strip_prefix("/data/order/") {
                Some(name) => (name, data.object("order")),
                None => (pointer.trim_start_matches("/data/"), Some(&mut *data)),
            };
            let (name, object) = match name.split_once('/') {
                Some((outer, name)) => (name, object.and_then(|object| object.open(outer))),
                None => (name, object),
            };
            if let Some(object) = object {
                object.set(name, Member::Changed(nothing_for(name)));
            }
        }
        data.change_list("assumed", |pointers| {
            pointers.retain(|pointer| !omission.holds(pointer));
        });
        data.change_list("omitted", |pointers| {
            pointers.extend(omission.pointers.iter().map(|&pointer| pointer.to_owned()));
        });
    }

    fn json_within(&self, room: usize) -> Option<String> {
        let size = self.0.size();
        (size <= room).then(|| {
            let mut json = String::with_capacity(size);
            self.0.write(&mut json);
            json
        })
    }
}

impl Object<'_> {
    /// Changes a list of JSON pointers.
    fn change_list(&mut self, name: &str, change: impl FnOnce(&mut Vec<String>)) {
        let Some((_, Member::Changed(text))) = self.0.iter_mut().find(|(known, _)| known == name) else {
            return;
        };
        let mut pointers = serde_json::from_str(text).unwrap_or_default();
        change(&mut pointers);
        *text = serde_json::to_string(&pointers).expect("texts are JSON");
    }
}

/// The value that replaces a member that is left out, as the schema allows it.
fn nothing_for(name: &str) -> String {
    let empty = match name {
        "warnings" => Ok("[]".to_owned()),
        "shipping" => serde_json::to_string(&Shipping::default()),
        "payment" => serde_json::to_string(&Payment::default()),
        _ => Ok("null".to_owned()),
    };
    empty.expect("an empty part of an event is JSON")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::super::MESSAGE_LIMIT;
    use super::super::omission::{OMISSIONS, reduced};
    use super::*;
    use crate::event::tests::sample;
    use crate::event::{Fulfillment, Item, Order};

    /// An event as a newer version may write it.
    fn newer(unmapped: usize) -> Value {
        let mut event: Value = serde_json::from_str(&sample(Order::default()).to_json()).expect("JSON");
        event["type"] = "order.something_new".into();
        event["something"] = serde_json::from_str(r#"{"new": 1.50}"#).expect("JSON");
        event["data"]["order"]["status"] = "brand_new".into();
        event["data"]["order"]["currency"] = "XQZ".into();
        event["data"]["order"]["added"] = json!([{"a field": null}]);
        event["data"]["assumed"] = json!(["/data/order/items/0/quantity", "/time"]);
        event["data"]["unmapped"]["more"] = "x".repeat(unmapped).into();
        event
    }

    #[test]
    fn attributes_of_a_newer_version_are_read() {
        let attributes = attributes(&newer(1).to_string()).expect("an event");
        let expected = [
            ("type", "order.something_new"),
            ("provider", "selldone"),
            ("shop", "main"),
            ("test", "false"),
            ("origin", "webhook"),
            ("currency", "XQZ"),
        ];
        assert_eq!(attributes, expected.map(|(name, value)| (name, value.to_owned())));
    }

    #[test]
    fn an_event_that_states_no_origin_is_from_a_delivery() {
        let origin = |event: &Value| {
            let attributes = attributes(&event.to_string()).expect("an event");
            attributes.into_iter().find(|(name, _)| *name == "origin")
        };
        let mut event = newer(1);
        event["data"]["origin"] = "reconciliation".into();
        assert_eq!(origin(&event), Some(("origin", "reconciliation".to_owned())));
        event["data"].as_object_mut().expect("an object").remove("origin");
        assert_eq!(origin(&event), Some(("origin", "webhook".to_owned())));
    }

    #[test]
    fn an_attribute_of_another_kind_is_left_out() {
        let odd =
            json!({"type": "", "data": {"provider": 7, "test": "yes", "origin": 1, "order": {"currency": "euro"}}});
        assert_eq!(attributes(&odd.to_string()), Some(vec![]));
        let origin = vec![("origin", "webhook".to_owned())];
        assert_eq!(attributes(r#"{"data":[]}"#), Some(origin));
        for no_object in ["", "[]", "{", "null"] {
            assert_eq!(attributes(no_object), None, "{no_object}");
        }
    }

    #[test]
    fn fields_of_a_newer_version_survive_an_omission() {
        let complete = newer(MESSAGE_LIMIT);
        let text = complete.to_string();
        let event = StoredEvent::read(&text).expect("an event");
        let message = reduced(event, MESSAGE_LIMIT).expect("a message");
        let mut expected = complete;
        expected["data"]["unmapped"] = Value::Null;
        expected["data"]["omitted"] = json!(["/data/unmapped"]);
        assert_eq!(serde_json::from_str::<Value>(&message).expect("JSON"), expected);
        assert!(message.contains("1.50"), "numbers stay as they are");
    }

    #[test]
    fn a_stored_event_is_reduced_as_a_new_one_is() {
        let order = Order {
            id: Some("7".to_owned()),
            items: Some(vec![Item {
                name: Some("x".repeat(500)),
                ..Item::default()
            }]),
            shipping: Shipping {
                fulfillments: Some(vec![Fulfillment {
                    carrier: Some("x".repeat(500)),
                    ..Fulfillment::default()
                }]),
                ..Shipping::default()
            },
            note: Some("x".repeat(500)),
            ..Order::default()
        };
        let mut event = sample(order);
        event.data.warnings = vec!["/x".repeat(200)];
        event.data.assumed = vec!["/data/order/items/0/quantity".to_owned(), "/time".to_owned()];
        let text = event.to_json();
        let mut steps = BTreeSet::new();
        for room in 600..text.len() + 100 {
            let stored = reduced(StoredEvent::read(&text).expect("an event"), room);
            assert_eq!(stored, reduced(event.clone(), room), "in {room} bytes");
            steps.insert(stored.map_or(0, |json| json.len()));
        }
        assert!(steps.len() > OMISSIONS.len(), "each omission was made: {steps:?}");
    }
}
