//! Requests without valid credentials are refused with the same answer, and nothing is stored or published.

use http::Request;
use jiff::Timestamp;
use local::project::settings::SHOP;
use local::providers::samples::Fixture;
use local::providers::signing::{Credentials, sign};
use serde_json::{Value, json};
use tests::Stack;
use tests::providers::Tested;
use tests::telemetry::{NAMESPACE, lines};

/// A credential that the shop's secret has in addition to the development credential.
const NEXT: &str = "the-next-credential-of-the-shop";

async fn stack<P: Tested>() -> Stack {
    Stack::with(|config| {
        config.secrets.insert(P::NAME.to_owned(), (P::FACTS.secret)());
        let namespace = ("METRICS_NAMESPACE".to_owned(), NAMESPACE.to_owned());
        config.variables.extend([namespace]);
    })
    .await
}

pub(crate) async fn every_attack_is_refused_and_writes_nothing<P: Tested>() {
    let stack = stack::<P>().await;
    let mut bodies: Vec<Value> = Vec::new();
    for (prepare, (attack, change)) in P::FACTS.all_attacks() {
        let mut fixture = stack.signed(P::NAME, P::FACTS.order);
        prepare(&mut fixture);
        change(&mut fixture);
        let answer = stack.send(&fixture).await;
        assert_eq!(answer.status, 401, "{attack}: {answer:?}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json"),
            "{attack}"
        );
        let mut problem = answer.json();
        problem["request_id"].take();
        bodies.push(problem);
    }
    assert!(!bodies.is_empty(), "there is no attack on {}", P::NAME);
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "the answers distinguish the attacks: {bodies:?}");
    stack.assert_untouched(P::NAME).await;
    // Without the attack, each delivery is valid.
    for attacks in P::FACTS.attacks {
        let mut fixture = stack.renewed(P::NAME, P::FACTS.order);
        (attacks.prepare)(&mut fixture);
        stack.send(&fixture).await.event_id("accepted");
    }
}

pub(crate) async fn a_repeated_credential_header_is_refused<P: Tested>() {
    let stack = stack::<P>().await;
    for header in P::FACTS.credential_headers {
        let fixture = stack.signed(P::NAME, P::FACTS.order);
        let value = fixture.header(header).expect("the header").to_owned();
        let mut request: Request<_> = fixture.to_request(&stack.url()).expect("a request");
        request.headers_mut().append(*header, value.parse().expect("a value"));
        assert_eq!(stack.send_request(request).await.status, 401, "{header}");
    }
    stack.assert_untouched("repeated headers").await;
}

pub(crate) async fn a_rotated_credential_is_valid_until_it_is_removed<P: Tested>() {
    let with = |credentials: &[&str]| {
        let secret = json!({"shops": {SHOP: (P::FACTS.shop)(credentials)}});
        Stack::with(|config| {
            config.secrets.insert(P::NAME.to_owned(), secret);
        })
    };
    let during = with(&[NEXT, P::FACTS.credential]).await;
    let captured = during.signed(P::NAME, P::FACTS.order);
    during.send(&captured).await.event_id("accepted");
    let mut next = captured.clone();
    sign_with(&mut next, NEXT);
    during.send(&next).await.event_id("duplicate");
    drop(during);

    let after = with(&[NEXT]).await;
    let answer = after.send(&captured).await;
    assert_eq!(answer.status, P::FACTS.status_when_revoked, "{answer:?}");
    after.assert_untouched("a replay with a removed credential").await;
}

fn sign_with(fixture: &mut Fixture, credential: &str) {
    let credentials = Credentials {
        token: credential.to_owned(),
        secret: credential.to_owned(),
        ..Credentials::default()
    };
    sign(fixture, &credentials, Timestamp::now()).expect("the event can be signed");
}

pub(crate) async fn wrong_credentials_are_counted_apart_from_noise<P: Tested>() {
    let stack = stack::<P>().await;
    let refusals: Vec<_> = P::FACTS.refusals.iter().copied().flatten().collect();
    for ((what, change), _) in &refusals {
        let mut fixture = stack.signed(P::NAME, P::FACTS.order);
        change(&mut fixture);
        let answer = stack.send(&fixture).await;
        assert_eq!(answer.status, 401, "{what}: {answer:?}");
    }
    let lines = lines(&stack).await;
    let deliveries: Vec<_> = lines.iter().filter(|line| line.is_delivery()).collect();
    assert_eq!(deliveries.len(), refusals.len());
    for (line, ((what, _), is_wrong)) in deliveries.into_iter().zip(refusals) {
        assert_eq!(line.metric("Refused"), Some(1.0), "{what}: {line:?}");
        assert_eq!(
            line.metric("WrongCredentials"),
            is_wrong.then_some(1.0),
            "{what}: {line:?}"
        );
        line.assert_dimensions(&P::FACTS.shops());
    }
}
