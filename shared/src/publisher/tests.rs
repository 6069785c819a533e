use super::omission::{OMISSIONS, Reducible as _};
use super::*;
use crate::event::tests::sample;
use crate::event::{Item, Order};
use crate::money::Currency;

fn large(bytes: usize) -> String {
    "x".repeat(bytes)
}

fn event(unmapped: usize, items: usize, note: usize) -> OrderEvent {
    let mut event = sample(Order {
        id: Some("7".to_owned()),
        items: Some(vec![Item {
            name: Some(large(items)),
            ..Item::default()
        }]),
        note: Some(large(note)),
        ..Order::default()
    });
    let more = [("more".to_owned(), large(unmapped).into())];
    event.data.unmapped = Some(serde_json::Map::from_iter(more).into());
    event.data.assumed = vec!["/data/order/items/0/quantity".to_owned(), "/time".to_owned()];
    event
}

fn omitted(event: &OrderEvent) -> Option<Vec<String>> {
    let message = reduced(event.clone(), MESSAGE_LIMIT)?;
    assert!(message.len() <= MESSAGE_LIMIT);
    let read: OrderEvent = serde_json::from_str(&message).expect("an event");
    assert_eq!((&read.id, &read.data.order.id), (&event.id, &event.data.order.id));
    Some(read.data.omitted)
}

#[test]
fn as_little_as_possible_is_left_out() {
    let much = MESSAGE_LIMIT;
    let unmapped = Some(vec!["/data/unmapped".to_owned()]);
    assert_eq!(omitted(&event(much, 10, 10)), unmapped);
    let both = Some(vec!["/data/unmapped".to_owned(), "/data/order/items".to_owned()]);
    assert_eq!(omitted(&event(10, much, 10)), both);
    let all = omitted(&event(10, 10, much)).expect("a message");
    assert!(all.contains(&"/data/order/note".to_owned()));
}

#[test]
fn an_omitted_value_is_no_longer_assumed() {
    let message = reduced(event(10, MESSAGE_LIMIT, 10), MESSAGE_LIMIT).expect("a message");
    let read: OrderEvent = serde_json::from_str(&message).expect("an event");
    assert_eq!(read.data.assumed, ["/time"]);
}

#[test]
fn an_order_id_that_fills_a_message_cannot_be_published() {
    let mut event = event(10, 10, 10);
    event.data.order.id = Some(large(MESSAGE_LIMIT));
    assert_eq!(omitted(&event), None);
}

#[test]
fn a_code_of_sns_determines_the_kind_of_error() {
    for (code, fault) in [
        ("InvalidParameter", Fault::Refused),
        ("AuthorizationError", Fault::Unclear),
        ("InternalError", Fault::Unclear),
        ("Throttled", Fault::Throttled),
        ("KMSThrottling", Fault::Throttled),
        ("KMSAccessDenied", Fault::Outage),
        ("NotFound", Fault::Outage),
    ] {
        assert_eq!(fault_of(code, true), fault, "{code}");
    }
    assert_eq!(fault_of("InvalidParameter", false), Fault::Unclear);
}

#[test]
fn a_batch_is_limited_in_number_and_size() {
    let message = |size| Message {
        text: String::new(),
        attributes: HashMap::new(),
        size,
    };
    let default = MessageLimit::default();
    let lengths = |sizes: &[usize], limit| {
        let batches = batches(sizes.iter().map(|size| message(*size)).collect(), limit);
        batches.iter().map(Vec::len).collect::<Vec<_>>()
    };
    assert_eq!(lengths(&[1; 11], default), [10, 1]);
    assert_eq!(lengths(&[MESSAGE_LIMIT - 10, 10, 1], default), [2, 1]);
    assert_eq!(lengths(&[MESSAGE_LIMIT - 10, 11], default), [1, 1]);
    assert_eq!(lengths(&[], default), [0; 0]);
    // The limit of one message is also the limit of a call.
    let large = publisher("1048576").expect("a publisher").limit();
    assert_eq!(lengths(&[MESSAGE_LIMIT; 5], large), [4, 1]);
    assert_eq!(lengths(&[MESSAGE_LIMIT; 2], default), [1, 1]);
}

#[test]
fn another_call_is_worthwhile_while_messages_are_published() {
    let evidence = Evidence::default();
    assert!(!evidence.is_worth_a_call(), "nothing is published yet");
    evidence.note(true);
    for _ in 0..FAILURES_IN_A_ROW {
        assert!(evidence.is_worth_a_call());
        evidence.note(false);
    }
    assert!(!evidence.is_worth_a_call(), "an outage has begun");
    evidence.note(true);
    assert!(evidence.is_worth_a_call());
}

fn publisher(max_message_bytes: &str) -> Result<Publisher, SettingError> {
    Publisher::from_settings(&Settings::from_table([
        ("TOPIC_ARN", "arn:aws:sns:us-east-1:000000000000:order-events"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "none"),
        ("AWS_SECRET_ACCESS_KEY", "none"),
        ("MAX_MESSAGE_BYTES", max_message_bytes),
    ]))
}

#[test]
fn a_topic_with_a_larger_limit_gets_the_complete_event() {
    let event = event(MESSAGE_LIMIT, 10, 10);
    let json = event.to_json_within(usize::MAX).expect("JSON");
    let limits = [("", false), ("262144", false), ("524288", true), ("1048576", true)];
    for (limit, is_complete) in limits {
        let publisher = publisher(limit).expect("a publisher");
        let new = publisher.new_message(event.clone(), Some(json.clone()));
        let stored = publisher.stored_message(Stored { json: json.clone() }, Occasion::First);
        for message in [new, stored] {
            let message = message.expect("a message");
            assert_eq!(message.text == json, is_complete, "{limit}");
            assert!(message.size() <= publisher.limit().bytes());
        }
    }
}

#[test]
fn an_event_over_a_larger_limit_is_reduced_too() {
    let event = event(LARGEST_MESSAGE_LIMIT, 10, 10);
    let publisher = publisher("1048576").expect("a publisher");
    let message = publisher.new_message(event, None).expect("a message");
    let read: OrderEvent = serde_json::from_str(&message.text).expect("an event");
    assert_eq!(read.data.omitted, ["/data/unmapped"]);
}

#[test]
fn a_limit_that_no_topic_can_have_is_a_wrong_setting() {
    for wrong in ["0", "262143", "1048577", "1 MiB", "-1"] {
        let error = publisher(wrong).err().expect("it is wrong").to_string();
        assert!(error.contains("MAX_MESSAGE_BYTES"), "{error}");
    }
}

#[test]
fn every_omitted_value_is_named() {
    fn leaves(at: &str, value: &serde_json::Value, found: &mut Vec<(String, serde_json::Value)>) {
        match value {
            serde_json::Value::Object(fields) if !fields.is_empty() => {
                let mut below = |(name, value)| leaves(&format!("{at}/{name}"), value, found);
                fields.iter().for_each(&mut below);
            }
            serde_json::Value::Null => {}
            leaf => found.push((at.to_owned(), leaf.clone())),
        }
    }
    for golden in [
        include_str!("../../../events/selldone/checkout-order-receiver-info.normalized.json"),
        include_str!("../../../events/selldone/cancel-product-rejected.normalized.json"),
        include_str!("../../../events/cartum/order-update-shipping.normalized.json"),
        include_str!("../../../events/snipcart/order-refund-created.normalized.json"),
    ] {
        let mut event: OrderEvent = serde_json::from_str(golden).expect("an event");
        let mut complete = Vec::new();
        leaves("", &serde_json::to_value(&event).expect("JSON"), &mut complete);
        for omission in &OMISSIONS {
            event.leave_out(omission);
            let reduced = serde_json::to_value(&event).expect("JSON");
            for (pointer, value) in &complete {
                let is_kept = reduced.pointer(pointer) == Some(value);
                let is_named = event.data.omitted.iter().any(|omitted| pointer.starts_with(omitted));
                let names_others = ["/data/assumed", "/data/omitted"].contains(&pointer.as_str());
                assert!(is_kept || is_named || names_others, "{pointer} is gone");
            }
        }
    }
}

#[test]
fn large_lists_are_left_out_before_the_rest_of_the_order() {
    let mut event = event(10, 10, 10);
    event.data.order.custom_fields = Some(vec![crate::event::CustomField {
        name: None,
        value: Some(large(MESSAGE_LIMIT)),
    }]);
    let expected = [
        "/data/unmapped",
        "/data/order/items",
        "/data/order/shipping/fulfillments",
        "/data/order/adjustments",
        "/data/order/custom_fields",
    ];
    assert_eq!(omitted(&event).expect("a message"), expected);
}

#[test]
fn a_known_currency_is_an_attribute() {
    let mut event = event(1, 1, 1);
    let names = |event: &OrderEvent| attributes(event).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(&event), ["type", "provider", "shop", "test", "origin"]);
    event.data.order.currency = Currency::parse("eur");
    assert!(attributes(&event).contains(&("currency", "EUR".to_owned())));
}
