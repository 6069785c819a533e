//! `cargo local send`.

use serde_json::Value;

use crate::up::Up;

#[tokio::test]
async fn send_sums_up_an_event() {
    let up = Up::start().await;
    for (arguments, expected) in [
        (
            &["snipcart", "order-completed"][..],
            &[
                "POST http://127.0.0.1:",
                "200 accepted in ",
                "The event is new.",
                "  type       order.created\n",
                "  state      published\n",
                " bytes, taken from the queue\n",
                "/deliveries/1\n",
            ][..],
        ),
        (
            &["snipcart", "order-completed"],
            &[
                "200 duplicate in ",
                "published; the message is no longer in the queue",
                "/deliveries/2\n",
            ],
        ),
        (
            &["snipcart", "unknown-event"],
            &[
                "200 quarantined (unknown_event) in ",
                "not published",
                "state      quarantined",
            ],
        ),
        (
            &["snipcart", "taxes-calculate"],
            &["200 unsupported in ", "not an order event", "state      unsupported"],
        ),
        (
            &["selldone", "checkout-order", "--token", "wrong"],
            &["401 refused in ", "Nothing was stored", "/deliveries/5\n"],
        ),
    ] {
        let sent = up.send(arguments).await;
        for part in expected {
            assert!(sent.contains(part), "{part} is not in:\n{sent}");
        }
        assert!(!sent.contains('\u{1b}'), "colours without a terminal: {sent:?}");
        assert!(!sent.contains("Stored item") && !sent.contains("token="), "{sent}");
    }
}

#[tokio::test]
async fn send_shows_the_items_in_full_if_asked() {
    let up = Up::start().await;
    let sent = up.send(&["selldone", "checkout-order", "--verbose"]).await;
    for part in [
        "200 accepted in ",
        "\nAnswer\n{\n  \"event_id\": ",
        "\nStored item\n",
        "  state            published\n",
        "\nPublished event (taken from the queue)\n{\n",
        "\n  \"type\": \"order.created\",\n",
    ] {
        assert!(sent.contains(part), "{part} is not in:\n{sent}");
    }
}

#[tokio::test]
async fn send_prints_one_json_document_for_programs() {
    let up = Up::start().await;
    let sent = up.send(&["selldone", "checkout-order", "--json"]).await;
    let sent: Value = serde_json::from_str(&sent).expect("JSON");
    assert_eq!((&sent["status"], &sent["outcome"]), (&200.into(), &"accepted".into()));
    assert_eq!(sent["answer"]["event_id"], sent["event"]["id"]);
    assert_eq!(sent["message"]["event"]["id"], sent["event"]["id"]);
    assert_eq!(sent["item"]["state"], "published");
    assert!(sent["item"]["payload"].as_str().expect("text").starts_with('{'));
    assert!(sent["page"].as_str().expect("a link").ends_with("/deliveries/1"));

    let refused = up
        .send(&["selldone", "checkout-order", "--token=wrong", "--json"])
        .await;
    let refused: Value = serde_json::from_str(&refused).expect("JSON");
    assert_eq!(
        (
            &refused["status"],
            &refused["outcome"],
            &refused["item"],
            &refused["message"]
        ),
        (&401.into(), &"refused".into(), &Value::Null, &Value::Null)
    );
}
