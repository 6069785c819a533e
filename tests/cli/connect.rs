//! `cargo local connect`, and the subscriptions that it makes.

use serde_json::Value;
use tests::local_command;

use crate::up::{Up, get_text};

#[tokio::test]
async fn connect_subscribes_to_the_events_of_a_shop() {
    let up = Up::start().await;
    let connect = async |arguments: &[&str]| {
        let output = local_command()
            .arg("connect")
            .args(arguments)
            .args(["--sns-port", up.port("sns")])
            .output()
            .await
            .expect("the command runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let gateway = ["--port", up.port("gateway")];
    let cartum = [&["cartum", "main"][..], &gateway].concat();
    let (code, printed, _) = connect(&cartum).await;
    let expected = "order_created  subscribed  id 1\n\
                    order_paid     subscribed  id 2\n\
                    order_update   subscribed  id 3\n";
    assert_eq!((code, printed.as_str()), (Some(0), expected));
    let known = connect(&[&cartum[..], &["--json"]].concat()).await;
    let known: Value = serde_json::from_str(&known.1).expect("JSON");
    assert_eq!(
        (&known["done"], &known["subscriptions"][2]["status"]),
        (&true.into(), &"known".into()),
        "{known}"
    );
    let again = connect(&[&cartum[..], &["--again", "order_paid"]].concat()).await;
    assert_eq!(again.0, Some(0), "{again:?}");
    assert!(
        again.1.contains("order_paid     subscribed  id 4\n") && again.1.contains("order_update   known"),
        "{again:?}"
    );

    let (code, printed, error) = connect(&["cartum", "main", "--url=https://other.example.com"]).await;
    assert_eq!(code, Some(1), "{error}");
    assert!(printed.contains("order_created  elsewhere  id 1; "), "{printed}");
    let expected = "not all order events of the shop main of cartum are subscribed to https://other.example.com";
    assert!(error.contains(expected), "{error}");
    for (arguments, expected) in [
        (&["selldone", "main"][..], "functions/selldone/README.md"),
        (&["cartum", "second"], "has no `api`"),
        (
            &["cartum", "main", "--again=order_lost"],
            "order_created, order_paid, order_update",
        ),
        (&["cartum", "main", "--url=api.example.com"], "url is not like https://"),
    ] {
        let (code, printed, error) = connect(arguments).await;
        assert_eq!((code, printed.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }

    let url = up.endpoints["gateway"].as_str().expect("an address");
    let (status, page) = get_text(&format!("{url}/reconciliation")).await;
    assert!(
        status == 200 && page.contains("cartum / main") && page.contains("order_paid"),
        "{page}"
    );
    assert!(!page.contains(local::project::settings::TOKEN), "{page}");
    up.end().await;
}

#[tokio::test]
async fn an_ended_subscription_is_renewed_if_that_is_on() {
    let expected = [
        ("renewed", &["--quiet", "--auto-resubscribe"][..]),
        ("ended", &["--quiet"]),
    ];
    for (status, flags) in expected {
        let up = Up::with(flags).await;
        let connected = up
            .ask(&["connect", "cartum", "main", "--json", "--port", up.port("gateway")])
            .await;
        assert_eq!(connected["done"], true, "{connected}");
        let address = |name: &str| up.endpoints[name].as_str().expect("an address");
        let clients = local::aws::clients::Clients::new(address("dynamodb"), address("sqs"));
        let noted = clients.subscriptions().await.expect("the notes of the subscriptions");
        let created = noted
            .iter()
            .find(|item| item["sk"].as_s().is_ok_and(|key| key == "cartum#main#order_created"));
        let word = created.expect("a subscription")["attempt_id"].as_s().expect("a word");
        let token = local::project::settings::TOKEN;
        let url = format!(
            "{}/webhooks/cartum/main?token={token}&event=order_created&subscription={word}",
            address("gateway")
        );
        let request = http::Request::delete(&url)
            .body(bytes::Bytes::new())
            .expect("a request");
        let client = local::net::client::Client::new(&url).expect("a client");
        assert_eq!(client.send(request).await.expect("an answer").status(), 200);
        let url = up.endpoints["lambda"].as_str().expect("an address");
        let task = serde_json::json!({"reconcile": {"provider": "cartum"}});
        let run: Value = local::lambda::invoke_api::invoke(url, "reconcile", &task)
            .await
            .expect("an answer");
        let subscription = &run["shops"][0]["subscriptions"][0];
        assert_eq!(
            (&subscription["event"], &subscription["status"]),
            (&"order_created".into(), &status.into()),
            "{run}"
        );
        up.end().await;
    }
}

#[tokio::test]
async fn connect_shows_the_client_secret_of_aboutyou_once() {
    let up = Up::start().await;
    let connect = async || {
        let output = local_command()
            .args(["connect", "aboutyou", "main", "--port", up.port("gateway")])
            .args(["--sns-port", up.port("sns")])
            .output();
        let output = output.await.expect("the command runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let printed = connect().await;
    assert!(
        printed.starts_with("orders  subscribed  id 1\nclient secret: "),
        "{printed}"
    );
    assert_eq!(connect().await, "orders  known  id 1\n");
    up.end().await;
}
