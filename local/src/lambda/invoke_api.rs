//! Lambda's Invoke API: `POST /2015-03-31/functions/{name}/invocations`, as the AWS CLI and every SDK call it.
//!
//! It is served with SNS and SQS and not by the gateway, so that a gateway that is reachable for a provider's webhooks
//! does not expose an operator's tasks.
//!
//! Emulators such as that of SAM run functions in Docker; this one runs the built binaries.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Error;
use crate::lambda::environment::{Function, Invoked};
use crate::net::client::Client;
use crate::net::server::json;

/// Longer than any function of the template runs.
const PATIENCE: Duration = Duration::from_mins(15);

/// The functions by their name. Empty until the stack has started.
#[derive(Debug, Clone, Default)]
pub struct Functions(Arc<OnceLock<Vec<Arc<Function>>>>);

/// The name of the function that a request invokes, by its name or ARN; `None` for any other request.
pub fn function_of(request: &Request<Bytes>) -> Option<String> {
    let name = request.uri().path().strip_prefix("/2015-03-31/functions/")?;
    let name = name.strip_suffix("/invocations")?;
    let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
    (request.method() == Method::POST).then(|| name.rsplit(':').next().unwrap_or_default().to_owned())
}

impl Functions {
    pub(crate) fn set(&self, functions: Vec<Arc<Function>>) {
        // The functions are set once, when the stack starts.
        let _ = self.0.set(functions);
    }

    pub(crate) fn all(&self) -> &[Arc<Function>] {
        self.0.get().map(Vec::as_slice).unwrap_or_default()
    }

    /// Invokes a function and returns its result. An error that the function reports is returned as an error.
    pub async fn invoke(&self, name: &str, payload: Bytes) -> Result<Value, Error> {
        let failed = |what: String| Error::Invoke {
            function: name.to_owned(),
            what,
        };
        match self.run(name, payload).await {
            None => Err(failed("there is no such function".to_owned())),
            Some(Invoked::Returned(answer)) => {
                serde_json::from_slice(&answer).map_err(|error| failed(format!("the result is not JSON: {error}")))
            }
            Some(invoked) => Err(failed(fault(&invoked))),
        }
    }

    /// Answers like Lambda: an error that the function reports is an answer 200 with a header.
    pub(crate) async fn answer(&self, name: &str, request: Request<Bytes>) -> Response<Bytes> {
        let invocation_type = request.headers().get("x-amz-invocation-type");
        if invocation_type.is_some_and(|kind| kind != "RequestResponse") {
            return refused(
                StatusCode::BAD_REQUEST,
                "InvalidParameterValueException",
                "the local stack supports only the invocation type RequestResponse",
            );
        }
        let body = match request.into_body() {
            empty if empty.is_empty() => Bytes::from_static(b"{}"),
            body => body,
        };
        let (answer, has_failed) = match self.run(name, body).await {
            None => {
                let message = format!("Function not found: {name}");
                return refused(StatusCode::NOT_FOUND, "ResourceNotFoundException", &message);
            }
            Some(Invoked::Returned(answer)) => (answer, false),
            Some(Invoked::Reported(error)) => (error, true),
            Some(invoked) => {
                let error = json!({"errorType": "Runtime.ExitError", "errorMessage": fault(&invoked)});
                (error.to_string().into(), true)
            }
        };
        let mut response = Response::new(answer);
        let headers = response.headers_mut();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        headers.insert("x-amz-executed-version", HeaderValue::from_static("$LATEST"));
        if has_failed {
            headers.insert("x-amz-function-error", HeaderValue::from_static("Unhandled"));
        }
        response
    }

    /// Runs on a task of its own: a function continues if its caller goes away.
    async fn run(&self, name: &str, payload: Bytes) -> Option<Invoked> {
        let function = Arc::clone(self.all().iter().find(|function| function.name() == name)?);
        let invoked = tokio::spawn(async move {
            let request_id = Uuid::new_v4().to_string();
            function.invoke(&request_id, "", payload).await
        });
        Some(invoked.await.unwrap_or(Invoked::Failed))
    }
}

/// Describes an invocation that did not return a result.
fn fault(invoked: &Invoked) -> String {
    match invoked {
        Invoked::Reported(error) => {
            let said: Value = serde_json::from_slice(error).unwrap_or_default();
            let message = said["errorMessage"].as_str().map(str::to_owned);
            message.unwrap_or_else(|| String::from_utf8_lossy(error).into_owned())
        }
        Invoked::TimedOut => "killed at its timeout".to_owned(),
        Invoked::Failed | Invoked::Returned(_) => {
            "exited or could not be started; the log of the stack says why".to_owned()
        }
    }
}

fn refused(status: StatusCode, error_type: &'static str, message: &str) -> Response<Bytes> {
    let mut response = json(status, &json!({"Type": "User", "Message": message}));
    let headers = response.headers_mut();
    headers.insert("x-amzn-errortype", HeaderValue::from_static(error_type));
    response
}

/// Invokes a function of the stack whose SNS and SQS endpoint is `url`.
pub async fn invoke<T: DeserializeOwned>(url: &str, function: &str, payload: &Value) -> Result<T, Error> {
    let failed = |what: String| Error::Invoke {
        function: function.to_owned(),
        what,
    };
    let request = Request::post(format!("{url}/2015-03-31/functions/{function}/invocations"))
        .body(payload.to_string().into())
        .map_err(|error| failed(error.to_string()))?;
    let answer = Client::new(url)?.send_within(PATIENCE, request).await?;
    let no_answer = |error| failed(format!("the answer is not readable: {error}"));
    if answer.status() == StatusCode::OK && !answer.headers().contains_key("x-amz-function-error") {
        return serde_json::from_slice(answer.body()).map_err(no_answer);
    }
    let said: Value = serde_json::from_slice(answer.body()).map_err(no_answer)?;
    let message = [&said["errorMessage"], &said["Message"], &said["message"]];
    let message = message.into_iter().find_map(Value::as_str);
    Err(failed(message.map_or_else(|| said.to_string(), str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_named_by_its_name_or_arn() {
        let arn = "arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Aredrive";
        for (method, path, expected) in [
            (
                "POST",
                "/2015-03-31/functions/redrive/invocations".to_owned(),
                Some("redrive"),
            ),
            (
                "POST",
                format!("/2015-03-31/functions/{arn}/invocations"),
                Some("redrive"),
            ),
            ("GET", "/2015-03-31/functions/redrive/invocations".to_owned(), None),
            ("POST", "/2015-03-31/functions/redrive".to_owned(), None),
            ("POST", "/".to_owned(), None),
        ] {
            let request = Request::builder().method(method).uri(&path).body(Bytes::new()).unwrap();
            assert_eq!(function_of(&request).as_deref(), expected, "{method} {path}");
        }
    }
}
