//! The gateway: an HTTP API with `template.yaml`'s routes that calls the functions, as API Gateway does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use jiff::Timestamp;
use uuid::Uuid;

use crate::environment::{Function, Invoked};
use crate::event::{self, Context};
use crate::log::Log;
use crate::server::{Port, Server, message};
use crate::{LAMBDA_PAYLOAD_LIMIT, template};

/// API Gateway's limit for a body.
const BODY_LIMIT: usize = 10 * 1024 * 1024;

/// What the gateway serves.
#[derive(Debug)]
pub struct Gateway {
    /// The routes.
    pub routes: Vec<template::Function>,
    /// The functions they lead to.
    pub functions: Vec<Arc<Function>>,
    /// Where each delivery is noted.
    pub log: Log,
}

impl Gateway {
    /// Serves it.
    pub fn serve(self, port: Port) -> Server {
        let gateway = Arc::new(self);
        port.serve(BODY_LIMIT, move |request, peer| {
            let gateway = Arc::clone(&gateway);
            async move {
                let begun = Instant::now();
                let (method, path) = (request.method().clone(), request.uri().path().to_owned());
                let response = gateway.answer(request, peer).await;
                gateway
                    .log
                    .delivery(method.as_str(), &path, response.status().as_u16(), begun.elapsed());
                Some(response)
            }
        })
    }

    async fn answer(&self, request: Request<Bytes>, peer: SocketAddr) -> Response<Bytes> {
        let found = template::route(&self.routes, request.method().as_str(), request.uri().path());
        let function = found
            .as_ref()
            .and_then(|found| self.functions.iter().find(|function| function.name() == found.function));
        let (Some(found), Some(function)) = (found, function) else {
            return message(StatusCode::NOT_FOUND, "Not Found");
        };
        let context = context(peer);
        let event = event::from_request(&request, &found, &context).to_string();
        if event.len() > LAMBDA_PAYLOAD_LIMIT {
            return message(StatusCode::PAYLOAD_TOO_LARGE, "Request Too Long");
        }
        let function = Arc::clone(function);
        let request_id = context.request_id.clone();
        // On a task of its own: on AWS a function goes on when its client goes away.
        let invoked = tokio::spawn(async move {
            function
                .invoke(&Uuid::new_v4().to_string(), &context.trace_id, event.into())
                .await
        });
        let mut response = match invoked.await {
            Ok(Invoked::Returned(returned)) => event::to_response(&returned)
                .unwrap_or_else(|| message(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")),
            Ok(Invoked::TimedOut) => message(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable"),
            Ok(Invoked::Reported(_) | Invoked::Failed) | Err(_) => {
                message(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
            }
        };
        if let Ok(request_id) = HeaderValue::try_from(request_id) {
            response.headers_mut().insert("apigw-requestid", request_id);
        }
        response
    }
}

fn context(peer: SocketAddr) -> Context {
    let time = Timestamp::now();
    let random = Uuid::new_v4().simple().to_string();
    Context {
        // The shape of API Gateway's own: 16 characters that end with "=".
        request_id: format!("{}=", &random[..15]),
        source_ip: peer.ip(),
        time,
        trace_id: format!("Root=1-{:08x}-{};Sampled=0", time.as_second(), &random[..24]),
    }
}
