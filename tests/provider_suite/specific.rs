//! Behaviour that only one provider has.

use lambda_http::http::Method;
use serde_json::{Value, json};
use shared::Provider as _;
use shared::classify::{Classification, Classified, classify};
use shared::drift::Known;
use shared::provider::EndedSubscription;
use tests::authentic;
use tests::payloads::accepted;
use tests::providers::Tested;
use tests::reader::Reader;

#[test]
fn all_invoices_of_one_paid_renewal_are_one_event() {
    let reader = Reader::<snipcart::Snipcart>::new();
    let classified = |name: &str, created_on: &str, status: &str, token: &str| -> Classified {
        let order = json!({"token": token, "paymentStatus": status});
        let body = json!({"eventName": name, "createdOn": created_on, "content": {"order": order}});
        reader.classify(&[], body.to_string().as_bytes(), None)
    };
    let paid = |name, created_on| classified(name, created_on, "Paid", "t-1");
    let succeeded = paid("v3/subscription.invoice.payment.succeeded", "2026-01-01T00:00:01Z");
    for other in [
        paid("v3/subscription.invoice.created", "2026-01-01T00:00:00Z"),
        paid("subscription.invoice.payment.succeeded", "2026-01-01T00:00:02Z"),
    ] {
        assert!(matches!(other.classification, Classification::Order(_)));
        assert_eq!(other.id, succeeded.id);
    }
    let failed = |created_on| classified("v3/subscription.invoice.payment.failed", created_on, "Failed", "t-1");
    let first_failure = failed("2026-01-01T00:00:00Z");
    for other in [
        &failed("2026-01-02T00:00:00Z"),
        &succeeded,
        &classified("v3/subscription.invoice.created", "2026-01-01T00:00:00Z", "Paid", "t-2"),
    ] {
        assert!(matches!(other.classification, Classification::Order(_)));
        assert_ne!(other.id, first_failure.id);
    }
}

#[test]
fn only_a_delete_ends_a_subscription_of_cartum() {
    let cartum = Reader::<cartum::Cartum>::new().provider;
    let ended = |method: Method, query: &[(&str, &str)]| {
        let delivery = authentic::delivery_with(method, query, cartum::Cartum::event_parameters, Vec::new());
        cartum.ends_subscription(&delivery)
    };
    let subscription = |event, word: Option<&str>| {
        let word = word.map(str::to_owned);
        Some(EndedSubscription { event, word })
    };
    assert_eq!(ended(Method::DELETE, &[]), subscription(Some("order_created"), None));
    let second = [("event", "order_paid"), ("subscription", "0a1b")];
    assert_eq!(
        ended(Method::DELETE, &second),
        subscription(Some("order_paid"), Some("0a1b"))
    );
    // An alert reports these too, but no subscription is marked.
    for (query, event, word) in [
        (
            &[("event", "order_deleted"), ("subscription", "0a1b")][..],
            None,
            Some("0a1b"),
        ),
        (
            &[("event", "order_paid"), ("subscription", "")],
            Some("order_paid"),
            None,
        ),
    ] {
        assert_eq!(ended(Method::DELETE, query), subscription(event, word), "{query:?}");
    }
    for method in [Method::PUT, Method::POST] {
        assert_eq!(ended(method.clone(), &second), None, "{method}");
    }
    let snipcart = Reader::<snipcart::Snipcart>::new().provider;
    let delivery = authentic::delivery_with(Method::DELETE, &[], snipcart::Snipcart::event_parameters, Vec::new());
    assert_eq!(snipcart.ends_subscription(&delivery), None);
}

#[test]
fn the_word_of_a_subscription_identifies_only_its_end() {
    let reader = Reader::<cartum::Cartum>::new();
    let id = |method: Method, query: &[(&str, &str)]| {
        let delivery = authentic::delivery_with(method, query, cartum::Cartum::event_parameters, Vec::new());
        classify(&reader.provider, &delivery, None).id
    };
    let (first, second) = (
        [("event", "order_paid")],
        [("event", "order_paid"), ("subscription", "0a1b")],
    );
    assert_ne!(id(Method::DELETE, &first), id(Method::DELETE, &second));
    assert_eq!(id(Method::POST, &first), id(Method::POST, &second));
    assert_eq!(
        id(Method::DELETE, &first),
        id(Method::POST, &first),
        "as in the version before"
    );
}

#[test]
fn each_word_without_a_translation_is_drift() {
    let cartum =
        |event: &str, pointer: &str, word: Value| words::<cartum::Cartum>("order-created-gift", event, pointer, word);
    let selldone = |word: &str| words::<selldone::Selldone>("checkout-order-service", "", "/basket/type", json!(word));
    let deeple = |word: &str| words::<deeple::Deeple>("order-changed", "", "/vatOptions", json!(word));
    let none: [&str; 0] = [];
    assert_eq!(cartum("order_created", "/products/1/type", json!("product")), none);
    assert_eq!(
        cartum("order_created", "/products/1/type", json!("bonus")),
        ["/data/order/items/*/kind"]
    );
    for event in ["order_created", "order_paid"] {
        assert_eq!(cartum(event, "/payed", json!(0)), none);
        assert_eq!(cartum(event, "/payed", json!(2)), ["/data/order/payment_status"]);
    }
    assert_eq!(selldone("SERVICE"), none);
    assert_eq!(selldone("RENTAL"), ["/data/order/items/*/requires_shipping"]);
    assert_eq!(deeple("INCLUDE"), none);
    assert_eq!(deeple("SOMETIMES"), ["/data/order/tax_lines/*/included"]);
}

/// The places of the words without a translation in an event of the provider that has `word` at the pointer.
fn words<P: Tested>(name: &str, event: &str, pointer: &str, word: Value) -> Vec<String> {
    let payloads = accepted(P::NAME);
    let (_, mut body) = payloads
        .into_iter()
        .find(|(other, _)| other == name)
        .expect("the event");
    *body.pointer_mut(pointer).expect("the field") = word;
    let query = [("event", event)];
    let query = if event.is_empty() { &[][..] } else { &query };
    let known = Known::new(P::UNMAPPED);
    let drift = Reader::<P>::new()
        .classify(query, body.to_string().as_bytes(), Some(&known))
        .drift;
    let words = drift.into_iter().filter(|drift| drift.r#type == "word");
    words.map(|drift| drift.pointer).collect()
}
