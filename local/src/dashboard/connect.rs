//! The page with the URLs for providers, through a tunnel.

use std::sync::Arc;

use axum::extract::State;
use maud::html;

use super::page::Page;
use super::signer::first_shop;
use super::state::{Secrets, State as View};

/// `GET /connect`.
pub(super) async fn page(State(view): State<Arc<View>>) -> Page {
    let port = view.tunnel.unwrap_or(view.gateway).port();
    let content = html! {
        div.connect {
            section {
                h2 { "Connect a provider's webhook" }
                p { "Use any tunnel to port " b { (port) } ", for example:" }
                pre.text { "cloudflared tunnel --url http://127.0.0.1:" (port) "\nngrok http " (port) }
                label { "The tunnel's address "
                    input #tunnel type="url" placeholder="https://something.example" autocomplete="off" spellcheck="false";
                }
                p.hint {
                    @if view.tunnel.is_some() {
                        "On port " (port) " nothing is served but the routes below: not this page."
                    } @else {
                        "The dashboard is not served through a tunnel: it accepts only loopback Host headers, and rejects requests that came "
                        "through a proxy. A tunnel of bare TCP (ssh -R, ngrok tcp) looks like your own browser. For one, start "
                        code { "cargo local --tunnel-port 9002" } " and forward it to that port."
                    }
                }
                table.urls {
                    thead { tr { th { "provider" } th { "shop" } th { "URL" } } }
                    tbody {
                        @for provider in view.signer.providers() {
                            @let shops = view.signer.shops(provider);
                            @for shop in &shops {
                                @let token = view.signer.token(provider, shop);
                                tr {
                                    td { (provider) }
                                    td { (shop) @if *shop == first_shop(&shops) {} }
                                    td {
                                        code data-path={
                                            "/webhooks/" (provider) "/" (shop)
                                            @if let Some(token) = token {
                                                "?token=" @if view.secrets == Secrets::Given { "TOKEN" } @else { (token) }
                                            }
                                        } {}
                                    }
                                }
                            }
                            @if shops.is_empty() { tr { td { (provider) } td.hint colspan="2" { "missing from the file: its deliveries are refused" } } }
                        }
                    }
                }
                @if view.secrets == Secrets::Given {
                    p.hint { "TOKEN is the shop's token in the file of " code { "--secrets" } "; it is not shown here." }
                } @else {
                    p.hint {
                        "These are publicly known development secrets. To use real ones: "
                        code { "cargo local --secrets FILE" } ", a JSON object of each provider's secret, as in Secrets Manager."
                    }
                    pre.text { "{\"selldone\": {\"shops\": {\"main\": {\"tokens\": [\"A_LONG_RANDOM_TOKEN\"]}}},\n \"deeple\": {\"shops\": {\"main\": {\"pid\": \"...\", \"secrets\": [\"...\"]}}}}" }
                }
            }
        }
    };
    Page {
        title: "Connect".to_owned(),
        at: "connect",
        scripts: &["connect.js"],
        content,
    }
}
