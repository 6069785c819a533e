//! The actions of the pages: send, send again, run redrive, and faults. Each is a POST that [`super::guard`] has
//! admitted.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Form, State};
use axum::response::Response;
use http::StatusCode;
use jiff::Timestamp;
use maud::html;
use serde::Deserialize;
use serde_json::{Value, json};

use super::faults::OFFERS;
use super::page::Page;
use super::signer::{Identity, first_shop};
use super::state::{Secrets, State as View};
use crate::Error;
use crate::net::server;
use crate::project::settings::REDRIVE;
use crate::providers::samples::Fixture;

/// The limit for runs of redrive; no local outbox needs more.
const RUNS: usize = 100;

/// `GET /try`.
pub(super) async fn page(State(view): State<Arc<View>>) -> Page {
    let signer = &view.signer;
    let content = html! {
        div.try {
            section {
                h2 { "Send a sample" }
                p.hint { "Samples are signed now, with the secrets of this stack, and sent through the gateway like their provider would." }
                @if view.secrets == Secrets::Given {
                    p.hint { "Only Snipcart can create its request tokens: with a real key, its samples are refused." }
                }
                label.check { input #fresh type="checkbox" checked; " a new order each time (otherwise the second is a duplicate)" }
                @for provider in signer.providers() {
                    @let shops = signer.shops(provider);
                    @let (plain, awkward) = signer.events(provider);
                    fieldset.samples data-provider=(provider) {
                        legend { (provider) }
                        select name="shop" aria-label={ "Shop of " (provider) } hidden[shops.len() < 2] {
                            @for shop in &shops { option selected[*shop == first_shop(&shops)] { (shop) } }
                            @if shops.is_empty() { option { (first_shop(&shops)) } }
                        }
                        @for event in &plain { button type="button" data-event=(event) { (event) } }
                        details {
                            summary { "not published (" (awkward.len()) ")" }
                            @for event in &awkward { button type="button" data-event=(event) { (event) } }
                        }
                    }
                }
            }
            section.side {
                h2 { "Sent" }
                ol #sent.sent { li.hint { "What you send is listed here." } }
                h2 { "Outbox" }
                p.outbox { b #waiting { "–" } " events in the outbox" }
                canvas #outbox width="300" height="48" role="img" aria-label="Events in the outbox over the last two minutes" {}
                p.do {
                    button type="button" data-do="/do/redrive" data-due="now" { "Publish all now" }
                    button type="button" data-do="/do/redrive" data-due="later" title="Publishes only events that are due; an event is due after 30 s" { "Run redrive" }
                    output {}
                }
                h2 { "Faults" }
                p.hint { "Faults hit the functions' calls to AWS and to the order APIs. This page bypasses them." }
                ul.offers {
                    @for offer in &OFFERS {
                        li {
                            label { input type="checkbox" data-fault=(offer.name); " " b { (offer.label) } }
                            p.hint { (offer.effect) }
                        }
                    }
                }
            }
        }
    };
    Page {
        title: "Try".to_owned(),
        at: "try",
        scripts: &["try.js"],
        content,
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Sample {
    provider: String,
    event: String,
    shop: String,
    fresh: bool,
}

/// `POST /do/send`.
pub(super) async fn send(State(view): State<Arc<View>>, Form(sample): Form<Sample>) -> Response {
    let identity = if sample.fresh { Identity::New } else { Identity::Same };
    match view
        .signer
        .sample(&sample.provider, &sample.event, &sample.shop, identity)
    {
        Ok(fixture) => deliver(&view, &fixture).await,
        Err(error) => wrong(&error),
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Again {
    id: u64,
}

/// `POST /do/again`.
pub(super) async fn again(State(view): State<Arc<View>>, Form(again): Form<Again>) -> Response {
    let fixture = view
        .recorder
        .delivery(again.id)
        .and_then(|delivery| view.signer.again(&delivery));
    match fixture {
        Some(Ok(fixture)) => deliver(&view, &fixture).await,
        Some(Err(error)) => wrong(&error),
        None => said(
            StatusCode::NOT_FOUND,
            &json!({"error": "the delivery is not recorded completely"}),
        ),
    }
}

/// Sends a sample over HTTP, like any delivery.
async fn deliver(view: &View, fixture: &Fixture) -> Response {
    let request = match fixture.to_request(&format!("http://{}", view.gateway)) {
        Ok(request) => request,
        Err(error) => return wrong(&error),
    };
    match view.client.send(request).await {
        Ok(answer) => {
            let answered: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
            let status = answer.status().as_u16();
            said(
                StatusCode::OK,
                &json!({"status": status, "answer": answered, "sent": fixture.name}),
            )
        }
        Err(error) => wrong(&error),
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Redrive {
    due: String,
}

/// `POST /do/redrive`: runs redrive until there is nothing left to do.
pub(super) async fn redrive(State(view): State<Arc<View>>, Form(redrive): Form<Redrive>) -> Response {
    if redrive.due == "now"
        && let Err(error) = view.clients.make_due(Timestamp::MAX).await
    {
        return wrong(&error);
    }
    let mut published = 0;
    for _ in 0..RUNS {
        let answer = match view
            .functions
            .invoke(REDRIVE, json!({"redrive": {}}).to_string().into())
            .await
        {
            Ok(answer) => answer,
            Err(error) => return wrong(&error),
        };
        let now = answer["published"].as_u64().unwrap_or_default();
        published += now;
        if answer["done"] == true || answer["outage"].is_string() || now == 0 {
            let mut total = answer;
            total["published"] = published.into();
            return said(StatusCode::OK, &total);
        }
    }
    said(StatusCode::OK, &json!({"published": published, "done": false}))
}

#[derive(Debug, Deserialize)]
pub(super) struct Fault {
    name: String,
    on: bool,
}

/// `POST /do/fault`.
pub(super) async fn fault(State(view): State<Arc<View>>, Form(fault): Form<Fault>) -> Response {
    if !fault.on {
        view.faults.turn_off(&fault.name);
    } else if view.faults.turn_on(&fault.name).is_none() {
        return said(StatusCode::NOT_FOUND, &json!({"error": "there is no such fault"}));
    }
    view.refresh_status().await;
    said(StatusCode::OK, &json!({"faults": view.faults.on()}))
}

fn wrong(error: &Error) -> Response {
    said(StatusCode::BAD_GATEWAY, &json!({"error": error.to_string()}))
}

fn said(status: StatusCode, body: &Value) -> Response {
    server::json(status, body).map(Body::from)
}
