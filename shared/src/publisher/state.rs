//! The message that holds the state of an order.

use jiff::Timestamp;
use serde::Serialize;

use super::{Message, Occasion, PublishError, Publisher};
use crate::event::json::message_json;
use crate::order_state::{OrderState, SCHEMA};

/// The type of the message.
const TYPE: &str = "order.state";

/// The parts that are left out of a state that is too large, the largest first.
const OMISSIONS: [&[&str]; 3] = [
    &["/order/items"],
    &[
        "/order/adjustments",
        "/order/custom_fields",
        "/order/shipping/fulfillments",
    ],
    &[
        "/events",
        "/stated_by",
        "/refunds",
        "/order/discounts",
        "/order/tax_lines",
        "/order/customer",
        "/order/billing_address",
        "/order/shipping_address",
        "/order/note",
    ],
];

/// A state as a CloudEvents 1.0 JSON object.
#[derive(Serialize)]
struct StateMessage<'s> {
    specversion: &'static str,
    id: &'s str,
    source: String,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'s str>,
    time: Timestamp,
    datacontenttype: &'static str,
    dataschema: &'static str,
    data: &'s OrderState,
}

impl Publisher {
    /// Creates the message of a state, without the parts that do not fit.
    ///
    /// # Errors
    /// If the state is too large even without them.
    pub fn state_message(&self, id: &str, mut state: OrderState, occasion: Occasion) -> Result<Message, PublishError> {
        let attributes = attributes(&state, occasion);
        let time = Timestamp::now();
        self.message(attributes, None, |room| {
            let mut omissions = OMISSIONS.iter();
            loop {
                let json = json(id, &state, time);
                if json.len() <= room {
                    return Some(json);
                }
                leave_out(&mut state, omissions.next()?);
            }
        })
    }
}

fn json(id: &str, state: &OrderState, time: Timestamp) -> String {
    message_json(&StateMessage {
        specversion: "1.0",
        id,
        source: format!("/{}/{}", state.provider, state.shop),
        r#type: TYPE,
        subject: state.order.get("id").and_then(|id| id.as_str()),
        time,
        datacontenttype: "application/json",
        dataschema: SCHEMA,
        data: state,
    })
}

/// The attributes by which subscribers can filter, as those of an event.
fn attributes(state: &OrderState, occasion: Occasion) -> Vec<(&'static str, String)> {
    let mut attributes = vec![
        ("type", TYPE.to_owned()),
        ("provider", state.provider.clone()),
        ("shop", state.shop.clone()),
        ("test", state.test.to_string()),
    ];
    let currency = state.order.get("currency").and_then(|currency| currency.as_str());
    let is_code = |code: &&str| code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_uppercase());
    attributes.extend(currency.filter(is_code).map(|code| ("currency", code.to_owned())));
    if occasion == Occasion::Replay {
        attributes.push(("replay", "true".to_owned()));
    }
    attributes
}

fn leave_out(state: &mut OrderState, pointers: &[&str]) {
    for pointer in pointers {
        let is_removed = match *pointer {
            "/events" => !std::mem::take(&mut state.events).is_empty(),
            "/stated_by" => !std::mem::take(&mut state.stated_by).is_empty(),
            "/refunds" => !std::mem::take(&mut state.refunds).is_empty(),
            of_order => {
                let name = of_order.trim_start_matches("/order/");
                state.stated_by.retain(|known, _| !known.starts_with(of_order));
                let removed = match name.split_once('/') {
                    Some((group, member)) => {
                        let group = state.order.get_mut(group).and_then(|group| group.as_object_mut());
                        group.and_then(|group| group.remove(member))
                    }
                    None => state.order.remove(name),
                };
                removed.is_some()
            }
        };
        if is_removed {
            state.omitted.push((*pointer).to_owned());
        }
    }
}
