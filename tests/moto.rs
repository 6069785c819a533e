//! What only another emulator can show: secrets in Secrets Manager. Beside this, `MOTO_SERVER` runs the other end-to-end tests
//! against moto; see tests/moto.
//!
//! Known gaps of moto 5.2, where its word does not count:
//! - `ClientRequestToken` is ignored: a repeated transaction is carried out again, and not recognized.
//! - SNS counts no attributes towards 256 KiB, and takes a batch that is larger as a whole.
//! - SQS takes the characters that AWS' refuses.
//! - An index never lags behind its table, and no read is stale.
//! - Nothing is ever throttled, no permission is checked, nothing is encrypted.
//! - TTL never removes anything.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use local::client::Client;
use local::{NAME, settings};
use serde_json::{Value, json};
use tests::Stack;
use tests::moto::Moto;
use tokio::time::{Instant, sleep};

/// Secrets Manager as the operator uses it.
struct SecretsManager {
    client: Client,
    url: String,
}

impl SecretsManager {
    fn at(moto: &Moto) -> Self {
        let url = format!("http://{}", moto.address());
        let client = Client::new(&url).expect("a client");
        Self { client, url }
    }

    async fn ask(&self, operation: &str, of: Value) -> Value {
        // moto finds the service by what a signature would name.
        let scope = format!(
            "Credential=local/20260101/{}/secretsmanager/aws4_request",
            local::REGION
        );
        let request = Request::post(format!("{}/", self.url))
            .header("x-amz-target", format!("secretsmanager.{operation}"))
            .header("content-type", "application/x-amz-json-1.1")
            .header(
                "authorization",
                format!("AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0"),
            )
            .body(Bytes::from(of.to_string()))
            .expect("a request");
        let answer = self.client.send(request).await.expect("an answer");
        assert!(answer.status().is_success(), "{operation}: {answer:?}");
        serde_json::from_slice(answer.body()).expect("JSON")
    }

    /// Creates a secret, and returns its ARN.
    async fn create(&self, document: &Value) -> String {
        let created = self
            .ask(
                "CreateSecret",
                json!({"Name": NAME, "SecretString": document.to_string()}),
            )
            .await;
        created["ARN"].as_str().expect("an ARN").to_owned()
    }

    async fn put(&self, document: &Value) {
        self.ask(
            "PutSecretValue",
            json!({"SecretId": NAME, "SecretString": document.to_string()}),
        )
        .await;
    }
}

fn tokens(tokens: &[&str]) -> Value {
    json!({"shops": {settings::SHOP: {"tokens": tokens}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_secret_is_read_again_without_a_deployment() {
    let Some(moto) = Moto::start().await else {
        eprintln!("skipped: MOTO_SERVER is not set");
        return;
    };
    let secrets = SecretsManager::at(&moto);
    let arn = secrets.create(&tokens(&[settings::TOKEN])).await;
    let stack = Stack::with(|config| {
        let url = format!("http://{}", moto.address());
        config.variables.insert("SECRETS".to_owned(), arn);
        config
            .variables
            .insert("AWS_ENDPOINT_URL_SECRETS_MANAGER".to_owned(), url);
    })
    .await;
    stack.deliver("selldone", "checkout-order").await.event_id("accepted");

    let new = "another-development-token";
    secrets.put(&tokens(&[settings::TOKEN, new])).await;
    let mut rotated = stack.unsigned("selldone", "checkout-order");
    rotated.set_query(&[("token".to_owned(), new.to_owned())]);
    // A wrong token makes the function ask again, at most once in 30 seconds.
    let end = Instant::now() + Duration::from_secs(40);
    let mut answer = stack.send(&rotated).await;
    while answer.status == 401 && Instant::now() < end {
        sleep(Duration::from_secs(1)).await;
        answer = stack.send(&rotated).await;
    }
    answer.event_id("duplicate");
    // Both are live now; what is in neither place is not.
    stack.deliver("selldone", "checkout-order").await.event_id("duplicate");
    rotated.set_query(&[("token".to_owned(), "no-token-that-was-ever-live".to_owned())]);
    assert_eq!(stack.send(&rotated).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_not_there_is_our_fault_and_says_nothing() {
    let Some(moto) = Moto::start().await else {
        eprintln!("skipped: MOTO_SERVER is not set");
        return;
    };
    let stack = Stack::with(|config| {
        let arn = format!(
            "arn:aws:secretsmanager:{}:{}:secret:none-AbCdEf",
            local::REGION,
            local::ACCOUNT
        );
        let url = format!("http://{}", moto.address());
        config.variables.insert("SECRETS".to_owned(), arn);
        config
            .variables
            .insert("AWS_ENDPOINT_URL_SECRETS_MANAGER".to_owned(), url);
    })
    .await;
    let answer = stack.deliver("cartum", "order-created").await;
    assert!((500..=503).contains(&answer.status), "{answer:?}");
    assert!(
        !answer.text.contains("arn:") && !answer.text.to_lowercase().contains("secret"),
        "{answer:?}"
    );
    stack.assert_untouched("the secret is missing").await;
}
