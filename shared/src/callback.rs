//! Asking the provider whether a delivery is its own: a call back over HTTPS.

use aws_smithy_types::body::SdkBody;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt as _, Limited};
use lambda_http::http::{Request, StatusCode, header};
use tokio::time::{Instant, timeout_at};

use crate::secrets::SigningKey;
use crate::verification::Proof;
use crate::{aws, http};

/// How much of an answer is read, in bytes, for its connection to be used again.
const MOST_OF_AN_ANSWER: usize = 64 * 1024;

/// What the provider says of a delivery.
#[derive(Debug)]
pub enum Confirmation {
    /// 200: it is genuine.
    Confirmed(Proof),
    /// Any other answer, redirects included: none is followed.
    Refused(StatusCode),
    /// No answer in time.
    Unreachable(String),
}

/// Opens a connection to the host of `url` by asking it, as nobody; whatever it answers will do.
pub async fn connect(url: &str) {
    let Ok(request) = Request::get(url).body(SdkBody::empty()) else {
        return;
    };
    // Whether it answers is found out when it matters. Read to its end, so that the connection can be used again.
    if let Ok(response) = http::client().request(request).await {
        let _ = response.collect().await;
    }
}

/// Asks `url`, as the user `key` with an empty password, and waits for the answer until `until` at most.
pub async fn ask(url: &str, key: &SigningKey, until: Instant) -> Confirmation {
    let credentials = STANDARD.encode([key.expose(), b":"].concat());
    let request = Request::get(url)
        .header(header::ACCEPT, "application/json")
        .header(header::AUTHORIZATION, format!("Basic {credentials}"))
        .body(SdkBody::empty());
    let Ok(request) = request else {
        return Confirmation::Unreachable("the address of the validation call is no URL".to_owned());
    };
    match timeout_at(until, http::client().request(request)).await {
        Err(_) => Confirmation::Unreachable("no answer in time".to_owned()),
        Ok(Err(error)) => Confirmation::Unreachable(aws::cause(&error)),
        Ok(Ok(response)) => {
            let (head, body) = response.into_parts();
            // Read to its end too. What it says does not matter, nor whether all of it comes.
            let _ = timeout_at(until, Limited::new(body, MOST_OF_AN_ANSWER).collect()).await;
            match head.status {
                StatusCode::OK => Confirmation::Confirmed(Proof::of_a_passed_check()),
                status => Confirmation::Refused(status),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn an_answer_in_parts_leaves_its_connection_to_the_next_call() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            for status in ["200", "401"] {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    request.extend(byte);
                }
                let start = format!("HTTP/1.1 {status} -\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n");
                stream.write_all(start.as_bytes()).unwrap();
                // The caller waits for the rest. One that does not care for it hangs up: a read ends, of nothing.
                stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
                assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
                stream.set_read_timeout(None).unwrap();
                stream.write_all(b"0\r\n\r\n").unwrap();
            }
        });
        let key = serde_json::from_str::<SigningKey>("\"key\"").unwrap();
        let until = Instant::now() + Duration::from_secs(5);
        assert!(matches!(ask(&url, &key, until).await, Confirmation::Confirmed(_)));
        let refused = ask(&url, &key, until).await;
        assert!(
            matches!(refused, Confirmation::Refused(StatusCode::UNAUTHORIZED)),
            "{refused:?}"
        );
        server.join().unwrap();
    }
}
