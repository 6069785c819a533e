//! Deliveries over real HTTP: what is answered, stored and published.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};
use tests::providers::Tested;
use tests::{Answer, Stack, gzip, state};

/// Each event is answered, stored and published as its golden event says.
pub(crate) async fn every_event_is_published_as_its_golden_event<P: Tested>() {
    let stack = Stack::start().await;
    let mut wrong = String::new();
    for name in stack.events(P::NAME) {
        let answer = stack.deliver(P::NAME, &name).await;
        let outcome = match stack.golden(P::NAME, &name) {
            Some(golden) => check_published(&stack, &answer, &golden).await,
            None => check_not_published::<P>(&stack, &name, &answer).await,
        };
        if let Err(difference) = outcome {
            let _ = writeln!(wrong, "{name}: {difference}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

async fn check_published(stack: &Stack, answer: &Answer, golden: &Value) -> Result<(), String> {
    let event_id = answer.event_id("accepted");
    assert_eq!(state(&stack.head(&event_id).await), "published");
    let stored = without_the_clock(stack.stored_event(&event_id).await);
    match stack.messages().await.as_slice() {
        [message] if stored == *golden => compare(&without_the_clock(message.event.clone()), golden),
        [_] => Err("the stored event is not the golden event".to_owned()),
        messages => Err(format!("{} messages instead of one", messages.len())),
    }
}

async fn check_not_published<P: Tested>(stack: &Stack, name: &str, answer: &Answer) -> Result<(), String> {
    let messages = stack.messages().await;
    if answer.status != 200 || !messages.is_empty() {
        return Err(format!("{answer:?}, {} messages", messages.len()));
    }
    match answer.said("status").as_str() {
        status @ ("unsupported" | "quarantined") => {
            let head = stack.head(&answer.said("event_id")).await;
            let repeat = stack.deliver(P::NAME, name).await;
            if state(&head) == status && repeat.text == answer.text {
                Ok(())
            } else {
                Err(format!("{answer:?}, {repeat:?}, {head:?}"))
            }
        }
        status => Err(format!("the event is {status} and has no golden event")),
    }
}

/// Whether the message is the golden event without what it names as omitted.
fn compare(event: &Value, golden: &Value) -> Result<(), String> {
    let mut golden = golden.clone();
    for pointer in event["data"]["omitted"].as_array().into_iter().flatten() {
        let pointer = pointer.as_str().unwrap_or_default();
        if let Some(value) = golden.pointer_mut(pointer) {
            *value = Value::Null;
        }
        if let Some(assumed) = golden["data"]["assumed"].as_array_mut() {
            assumed.retain(|assumed| !assumed.as_str().is_some_and(|assumed| assumed.starts_with(pointer)));
        }
    }
    golden["data"]["omitted"] = event["data"]["omitted"].clone();
    if *event == golden {
        Ok(())
    } else {
        Err(format!("published\n{event:#}\ninstead of\n{golden:#}"))
    }
}

/// Replaces the time of receipt, and the time of the event if that was assumed.
fn without_the_clock(mut event: Value) -> Value {
    let fixed = json!("2026-01-01T00:00:00Z");
    if event["time"] == event["data"]["received_at"] {
        event["time"] = fixed.clone();
    }
    event["data"]["received_at"] = fixed;
    event
}

pub(crate) async fn a_repeat_is_a_duplicate<P: Tested>() {
    let stack = Stack::start().await;
    let event_id = stack.deliver(P::NAME, P::FACTS.order).await.event_id("accepted");
    let repeat = stack.deliver(P::NAME, P::FACTS.order).await;
    assert_eq!(repeat.event_id("duplicate"), event_id);
    assert_eq!(stack.items().await.len(), 1);
    assert_eq!(stack.messages().await.len(), 1);
}

pub(crate) async fn another_body_is_a_conflict_or_another_event<P: Tested>() {
    let stack = Stack::start().await;
    let fixture = stack.signed(P::NAME, P::FACTS.order);
    let event_id = stack.send(&fixture).await.event_id("accepted");
    let other = stack.with_another_body(&fixture, "something_new", "another".into());
    let first = stack.send(&other).await;
    let mut repeat = other;
    stack.sign(&mut repeat);
    let repeat = stack.send(&repeat).await;
    assert_eq!(state(&stack.head(&event_id).await), "published");
    assert_eq!(stack.items().await.len(), 2, "the event, and the other body once");
    let messages = stack.messages().await.len();
    if P::FACTS.has_event_key {
        for answer in [first, repeat] {
            assert_eq!(answer.event_id("quarantined"), event_id);
            assert_eq!(answer.said("reason"), "conflict");
        }
        assert_eq!(messages, 1);
    } else {
        let other_id = first.event_id("accepted");
        assert_ne!(other_id, event_id);
        assert_eq!(repeat.event_id("duplicate"), other_id);
        assert_eq!(messages, 2);
    }
}

pub(crate) async fn another_method_is_answered_405_with_allow<P: Tested>() {
    let stack = Stack::start().await;
    let expected: BTreeSet<&str> = P::METHODS.iter().map(http::Method::as_str).collect();
    for method in ["GET", "HEAD", "PATCH", "OPTIONS", "PUT", "POST", "DELETE"] {
        if expected.contains(method) {
            continue;
        }
        let mut fixture = stack.signed(P::NAME, P::FACTS.order);
        fixture.event["requestContext"]["http"]["method"] = method.into();
        let answer = stack.send(&fixture).await;
        assert_eq!(answer.status, 405, "{method}: {answer:?}");
        let allowed = answer.header("allow").expect("Allow").split(',').map(str::trim);
        assert_eq!(allowed.collect::<BTreeSet<_>>(), expected, "{method}");
    }
    stack.assert_untouched("other methods").await;
}

pub(crate) async fn a_body_in_base64_is_the_same_event<P: Tested>() {
    let stack = Stack::start().await;
    let event_id = stack.deliver(P::NAME, P::FACTS.order).await.event_id("accepted");
    // API Gateway encodes a body unless its content type is a text type.
    for content_type in [
        Some("application/octet-stream"),
        Some("application/x-www-form-urlencoded"),
        None,
    ] {
        let mut fixture = stack.unsigned(P::NAME, P::FACTS.order);
        fixture.remove_header("content-type");
        if let Some(content_type) = content_type {
            fixture.set_header("content-type", content_type);
        }
        stack.sign(&mut fixture);
        let answer = stack.send(&fixture).await;
        assert_eq!(answer.event_id("duplicate"), event_id, "{content_type:?}");
    }
}

type Wrapping = (&'static str, fn(&[u8]) -> Vec<u8>);

/// The encodings in which a sender may wrap JSON.
const WRAPPINGS: [Wrapping; 5] = [
    ("plain", <[u8]>::to_vec),
    ("a byte order mark", |body| [b"\xef\xbb\xbf", body].concat()),
    ("gzip", gzip),
    ("gzip of a byte order mark", |body| {
        gzip(&[b"\xef\xbb\xbf", body].concat())
    }),
    ("UTF-16", |body| {
        let text = format!("\u{feff}{}", std::str::from_utf8(body).expect("text"));
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }),
];

pub(crate) async fn a_wrapped_order_is_published_and_stored_as_sent<P: Tested>() {
    let stack = Stack::start().await;
    let golden = stack.golden(P::NAME, P::FACTS.order).expect("an order");
    for (how, wrap) in WRAPPINGS {
        let mut fixture = stack.unsigned(P::NAME, P::FACTS.order);
        fixture.renew().expect("an order");
        let wrapped = wrap(&fixture.body().expect("a body"));
        fixture.set_body(wrapped.clone());
        // The headers of a sender may be wrong.
        fixture.set_header("content-type", "application/json; charset=windows-1251");
        fixture.set_header("content-encoding", "br");
        stack.sign(&mut fixture);
        let event_id = stack.send(&fixture).await.event_id("accepted");
        assert_eq!(stack.value(&event_id, "payload").await, wrapped, "{how}");
        assert_eq!(stack.stored_event(&event_id).await["type"], golden["type"], "{how}");
        assert_eq!(stack.send(&fixture).await.event_id("duplicate"), event_id, "{how}");
        assert_eq!(stack.messages().await.len(), 1, "{how}");
    }
}

pub(crate) async fn a_body_without_an_order_is_stored<P: Tested>() {
    let stack = Stack::start().await;
    for (body, status, reason) in [
        ("", "unsupported", None),
        ("not JSON", "quarantined", Some("not_json")),
        ("[]", "quarantined", None),
    ] {
        let mut fixture = stack.unsigned(P::NAME, P::FACTS.order);
        fixture.set_body(body);
        stack.sign(&mut fixture);
        let answer = stack.send(&fixture).await;
        let event_id = answer.event_id(status);
        if let Some(reason) = reason {
            assert_eq!(answer.said("reason"), reason, "{body:?}");
        }
        assert_eq!(state(&stack.head(&event_id).await), status, "{body:?}");
    }
    assert!(stack.messages().await.is_empty());
}

pub(crate) async fn a_body_over_the_limit_is_answered_413<P: Tested>() {
    let stack = Stack::start().await;
    let mut fixture = stack.unsigned(P::NAME, P::FACTS.order);
    fixture.set_body("x".repeat(5_000_001));
    stack.sign(&mut fixture);
    assert_eq!(stack.send(&fixture).await.status, 413);
    stack.assert_untouched("a body over the limit").await;
}

pub(crate) async fn unsigned_query_parameters_create_no_second_item<P: Tested>() {
    let stack = Stack::start().await;
    let mut fixture = stack.unsigned(P::NAME, P::FACTS.order);
    fixture.set_body("not JSON");
    let mut ids = BTreeSet::new();
    for number in 0..20 {
        stack.sign(&mut fixture);
        let mut query = fixture.query();
        query.retain(|(name, _)| name == "token");
        query.push(("utm".to_owned(), number.to_string()));
        fixture.set_query(&query);
        ids.insert(stack.send(&fixture).await.event_id("quarantined"));
    }
    assert_eq!(ids.len(), 1);
    assert_eq!(stack.items().await.len(), 1);
}

pub(crate) async fn a_slash_after_the_shop_is_accepted<P: Tested>() {
    let stack = Stack::start().await;
    let mut fixture = stack.signed(P::NAME, P::FACTS.order);
    let path = fixture.event["rawPath"].as_str().expect("a path").to_owned();
    fixture.event["rawPath"] = format!("{path}/").into();
    let event_id = stack.send(&fixture).await.event_id("accepted");
    fixture.event["rawPath"] = path.into();
    assert_eq!(stack.send(&fixture).await.event_id("duplicate"), event_id);
    let without_shop = format!("{}/webhooks/{}/", stack.url(), P::NAME);
    let request = http::Request::post(without_shop)
        .body(bytes::Bytes::new())
        .expect("a request");
    assert_eq!(stack.send_request(request).await.status, 404);
}
