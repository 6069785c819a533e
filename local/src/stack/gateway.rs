//! The gateway: an HTTP API with the routes of `template.yaml` that calls the functions like API Gateway does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::gateway_event::{self, Context};
use crate::dashboard::Dashboard;
use crate::lambda::PAYLOAD_LIMIT;
use crate::lambda::environment::{Function, Invoked};
use crate::net::server::{Port, Server, message};
use crate::project::template;
use crate::providers::order_book::OrderBook;
use crate::recorder::log::Log;
use crate::recorder::{Received, Recorder};

/// API Gateway's limit for a body.
const BODY_LIMIT: usize = 10 * 1024 * 1024;

/// The header that tells `cargo local send` the number of its delivery, on the port that serves the dashboard too.
pub const DELIVERY: &str = "x-local-delivery";

/// What the gateway serves.
#[derive(Debug)]
pub(super) struct Gateway {
    /// The routes.
    pub routes: Vec<template::Function>,
    /// The functions that the routes lead to.
    pub functions: Vec<Arc<Function>>,
    /// Logs each delivery.
    pub log: Log,
    /// Learns the order of each delivery, so that the order APIs list it.
    pub book: Option<OrderBook>,
    /// Records each delivery.
    pub recorder: Option<Recorder>,
    /// How far API Gateway's clock is ahead of this machine's clock.
    pub clock_ahead: SignedDuration,
}

impl Gateway {
    /// Serves the routes, and the dashboard if there is one.
    pub(super) fn serve(self: &Arc<Self>, port: Port, dashboard: Option<Dashboard>) -> Server {
        let gateway = Arc::clone(self);
        port.serve(BODY_LIMIT, move |request, peer| {
            let (gateway, dashboard) = (Arc::clone(&gateway), dashboard.clone());
            let names_delivery = dashboard.is_some();
            async move {
                if let Some(dashboard) = dashboard
                    && Dashboard::is_for(&request)
                    && gateway.route(&request).is_none()
                {
                    return Some(dashboard.answer(request).await);
                }
                // Runs on a task of its own: on AWS a function continues if its client goes away.
                let delivered = tokio::spawn(async move { gateway.deliver(request, peer, names_delivery).await });
                Some(delivered.await.ok()?.map(Body::from))
            }
        })
    }

    fn route(&self, request: &Request<Bytes>) -> Option<template::Match<'_>> {
        template::route(&self.routes, request.method().as_str(), request.uri().path())
    }

    /// Answers, logs and records a delivery.
    async fn deliver(&self, request: Request<Bytes>, peer: SocketAddr, names_delivery: bool) -> Response<Bytes> {
        let (begun, at) = (Instant::now(), Timestamp::now());
        let invocation = Uuid::new_v4().to_string();
        if let Some(recorder) = &self.recorder {
            recorder.expect(&invocation);
        }
        let found = self.route(&request);
        let mut response = self.answer(&invocation, &request, found.as_ref(), peer).await;
        let took = begun.elapsed();
        let status = response.status().as_u16();
        self.log
            .answered(request.method().as_str(), request.uri().path(), status, took);
        let shop = found.as_ref().and_then(|found| {
            let shop = found.parameters.iter().find(|(name, _)| name == "shop");
            shop.map(|(_, shop)| shop.clone())
        });
        // A refused request says nothing about the orders of the provider.
        if let (Some(book), Some(found), Some(shop)) = (&self.book, &found, &shop)
            && !response.status().is_client_error()
        {
            book.delivered(found.function, shop, request.body());
        }
        if let Some(recorder) = &self.recorder {
            let received = Received {
                at,
                invocation,
                provider: found.map(|found| found.function.to_owned()),
                shop,
                request,
            };
            let id = recorder.delivered(received, &response, took);
            if names_delivery {
                response.headers_mut().insert(DELIVERY, id.into());
            }
        }
        response
    }

    async fn answer(
        &self,
        invocation: &str,
        request: &Request<Bytes>,
        found: Option<&template::Match<'_>>,
        peer: SocketAddr,
    ) -> Response<Bytes> {
        let function = found.and_then(|found| self.functions.iter().find(|function| function.name() == found.function));
        let (Some(found), Some(function)) = (found, function) else {
            return message(StatusCode::NOT_FOUND, "Not Found");
        };
        let context = context(peer, Timestamp::now() + self.clock_ahead);
        let event = gateway_event::from_request(request, found, &context).to_string();
        if event.len() > PAYLOAD_LIMIT {
            return message(StatusCode::PAYLOAD_TOO_LARGE, "Request Too Long");
        }
        let request_id = context.request_id.clone();
        let mut response = match function.invoke(invocation, &context.trace_id, event.into()).await {
            Invoked::Returned(returned) => gateway_event::to_response(&returned)
                .unwrap_or_else(|| message(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")),
            Invoked::TimedOut => message(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable"),
            Invoked::Reported(_) | Invoked::Failed => {
                message(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
            }
        };
        if let Ok(request_id) = HeaderValue::try_from(request_id) {
            response.headers_mut().insert("apigw-requestid", request_id);
        }
        response
    }
}

fn context(peer: SocketAddr, time: Timestamp) -> Context {
    let random = Uuid::new_v4().simple().to_string();
    Context {
        // The form of API Gateway's own ids: 16 characters that end with "=".
        request_id: format!("{}=", &random[..15]),
        source_ip: peer.ip(),
        time,
        trace_id: format!("Root=1-{:08x}-{};Sampled=0", time.as_second(), &random[..24]),
    }
}
