//! Verifies a delivery by a call back to the provider over HTTPS.

use std::pin::pin;
use std::time::Duration;

use aws_smithy_types::body::SdkBody;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::{Either, select};
use http_body_util::{BodyExt as _, Limited};
use hyper_util::client::legacy::connect::capture_connection;
use lambda_http::http::{Request, StatusCode, header};
use tokio::time::{Instant, timeout, timeout_at};

use crate::aws;
use crate::http::Pool;
use crate::secrets::SigningKey;
use crate::verification::Proof;

/// The time without an answer after which the second attempt begins.
const SECOND_ATTEMPT_AFTER: Duration = Duration::from_millis(1500);
/// The most bytes of an answer's body that are read so that the connection can be reused.
const MOST_OF_AN_ANSWER: usize = 64 * 1024;
/// The time limit for an answer's body after its head.
const REST_OF_AN_ANSWER: Duration = Duration::from_millis(500);

static POOL: Pool = Pool::new();

/// The provider's answer about a delivery.
#[derive(Debug)]
pub enum Confirmation {
    /// 200: the delivery is authentic.
    Confirmed(Proof),
    /// Any other answer, including redirects, which are not followed.
    Refused {
        /// The status of the answer.
        status: StatusCode,
        /// False if another attempt may have reached the provider and was answered with a server error or not at all.
        /// That attempt may have used up a token that can be confirmed only once.
        is_certain: bool,
    },
    /// There was no answer in time, for this cause.
    Unreachable(String),
}

/// Opens a connection to the host of `url` by a request without credentials. Any answer will do.
pub async fn connect(url: &str) {
    let Ok(request) = Request::get(url).body(SdkBody::empty()) else {
        return;
    };
    // An error is ignored, because verification meets it again. The body is read so that the connection can be reused.
    if let Ok(response) = POOL.call().send(request).await {
        let _ = Limited::new(response.into_body(), MOST_OF_AN_ANSWER).collect().await;
    }
}

/// Calls `url` with the user name `key` and an empty password, and waits for the answer until `until` at most.
///
/// If the first attempt fails, is answered with a server error, or is not answered within 1.5 seconds, a second one is
/// made over a new connection, because the first connection may have been lost while the process was frozen. A late
/// answer to the first still counts.
pub async fn ask(url: &str, key: &SigningKey, until: Instant) -> Confirmation {
    ask_over(&POOL, url, key, until).await
}

async fn ask_over(pool: &Pool, url: &str, key: &SigningKey, until: Instant) -> Confirmation {
    let credentials = STANDARD.encode([key.expose(), b":"].concat());
    let request = || {
        Request::get(url)
            .header(header::ACCEPT, "application/json")
            .header(header::AUTHORIZATION, format!("Basic {credentials}"))
            .body(SdkBody::empty())
    };
    let (Ok(first), Ok(second)) = (request(), request()) else {
        return Confirmation::Unreachable("the address of the validation call is not a URL".to_owned());
    };
    let mut first = pin!(attempt(pool, first, until));
    let soon = until.min(Instant::now() + SECOND_ATTEMPT_AFTER);
    let ended = match timeout_at(soon, &mut first).await {
        Ok(Attempt::Answered(status)) => return conclude(&[Attempt::Answered(status)]),
        Ok(failed) => Some(failed),
        Err(_) => None,
    };
    pool.discard_idle();
    let second = pin!(attempt(pool, second, until));
    let (earlier, later) = match ended {
        Some(failed) => (failed, second),
        None => match select(first, second).await {
            Either::Left((ended, second)) => (ended, second),
            Either::Right((ended, first)) => (ended, first),
        },
    };
    match earlier {
        Attempt::Answered(StatusCode::OK) => conclude(&[earlier]),
        _ => conclude(&[earlier, later.await]),
    }
}

/// The result of one attempt.
#[derive(Debug)]
enum Attempt {
    /// An answer with any status except a server error.
    Answered(StatusCode),
    /// A server error. The provider may have processed the request.
    Failed(StatusCode),
    /// No answer, although the provider may have received the request.
    Lost(String),
    /// No connection.
    NotSent(String),
}

async fn attempt(pool: &Pool, mut request: Request<SdkBody>, until: Instant) -> Attempt {
    let connection = capture_connection(&mut request);
    let response = match timeout_at(until, pool.call().send(request)).await {
        Ok(Ok(response)) => response,
        failed => {
            let cause = match failed {
                Ok(Err(error)) => aws::cause(&error),
                _ => "no answer in time".to_owned(),
            };
            return match *connection.connection_metadata() {
                Some(_) => Attempt::Lost(cause),
                None => Attempt::NotSent(cause),
            };
        }
    };
    let (head, body) = response.into_parts();
    // The body is read so that the connection can be reused. Its content does not matter, nor whether it is complete.
    let _ = timeout(REST_OF_AN_ANSWER, Limited::new(body, MOST_OF_AN_ANSWER).collect()).await;
    if head.status.is_server_error() {
        Attempt::Failed(head.status)
    } else {
        Attempt::Answered(head.status)
    }
}

/// Combines the results of all attempts: one confirmation is enough, and an answer counts for more than none.
fn conclude(attempts: &[Attempt]) -> Confirmation {
    let is_certain = !attempts
        .iter()
        .any(|ended| matches!(ended, Attempt::Failed(_) | Attempt::Lost(_)));
    let mut concluded = Confirmation::Unreachable("no answer in time".to_owned());
    for ended in attempts {
        concluded = match (ended, concluded) {
            (Attempt::Answered(StatusCode::OK), _) => return Confirmation::Confirmed(Proof::of_a_passed_check()),
            (Attempt::Answered(status), _) | (Attempt::Failed(status), Confirmation::Unreachable(_)) => {
                Confirmation::Refused {
                    status: *status,
                    is_certain,
                }
            }
            (Attempt::Lost(cause) | Attempt::NotSent(cause), Confirmation::Unreachable(_)) => {
                Confirmation::Unreachable(cause.clone())
            }
            (_, concluded) => concluded,
        };
    }
    concluded
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    fn key() -> SigningKey {
        serde_json::from_str("\"key\"").unwrap()
    }

    fn read_request(stream: &mut TcpStream) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
    }

    fn answer(stream: &mut TcpStream, status: u16) {
        write!(stream, "HTTP/1.1 {status} -\r\ncontent-length: 2\r\n\r\n{{}}").unwrap();
    }

    /// Calls a provider whose connections act as `script` says, in order.
    async fn asked(script: &[fn(&mut TcpStream)]) -> Confirmation {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let script = script.to_vec();
        let server = thread::spawn(move || {
            let connections = script.into_iter().map(|act| {
                let mut stream = listener.accept().unwrap().0;
                thread::spawn(move || {
                    read_request(&mut stream);
                    act(&mut stream);
                })
            });
            // All are accepted before the first has done its part.
            let connections: Vec<_> = connections.collect();
            for connection in connections {
                connection.join().unwrap();
            }
        });
        let confirmation = ask_over(&Pool::new(), &url, &key(), soon()).await;
        // In the meantime the runtime closes abandoned connections.
        tokio::task::spawn_blocking(|| server.join().unwrap()).await.unwrap();
        confirmation
    }

    fn swallow(stream: &mut TcpStream) {
        // Until the caller hangs up.
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    }

    #[tokio::test]
    async fn an_answer_in_parts_leaves_its_connection_to_the_next_call() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            for status in ["200", "401"] {
                read_request(&mut stream);
                let start = format!("HTTP/1.1 {status} -\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n");
                stream.write_all(start.as_bytes()).unwrap();
                // The caller waits for the rest. If it did not, it would close the connection, and this read would end.
                stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
                assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
                stream.set_read_timeout(None).unwrap();
                stream.write_all(b"0\r\n\r\n").unwrap();
            }
        });
        let pool = Pool::new();
        let confirmed = ask_over(&pool, &url, &key(), soon()).await;
        assert!(matches!(confirmed, Confirmation::Confirmed(_)), "{confirmed:?}");
        assert_refused(&ask_over(&pool, &url, &key(), soon()).await, 401, true);
        server.join().unwrap();
    }

    #[track_caller]
    fn assert_refused(confirmation: &Confirmation, with: u16, certain: bool) {
        let Confirmation::Refused { status, is_certain } = confirmation else {
            panic!("{confirmation:?}")
        };
        assert_eq!((status.as_u16(), *is_certain), (with, certain));
    }

    #[tokio::test]
    async fn a_call_without_a_usable_answer_is_repeated_once() {
        let failures: [fn(&mut TcpStream); 3] = [|_| {}, |stream| answer(stream, 503), swallow];
        for failure in failures {
            let confirmed = asked(&[failure, |stream| answer(stream, 200)]).await;
            assert!(matches!(confirmed, Confirmation::Confirmed(_)), "{confirmed:?}");
            // The first attempt may have used up the token.
            assert_refused(&asked(&[failure, |stream| answer(stream, 404)]).await, 404, false);
        }
        assert_refused(&asked(&[|stream| answer(stream, 404)]).await, 404, true);
        assert_refused(
            &asked(&[|stream| answer(stream, 500), |stream| answer(stream, 500)]).await,
            500,
            false,
        );
        let unreachable = asked(&[|_| {}, |_| {}]).await;
        assert!(matches!(unreachable, Confirmation::Unreachable(_)), "{unreachable:?}");
    }

    #[tokio::test]
    async fn a_late_first_answer_counts_after_a_second_call() {
        static SECOND_IS_ASKED: Barrier = Barrier::new(2);
        let late: fn(&mut TcpStream) = |stream| {
            SECOND_IS_ASKED.wait();
            answer(stream, 200);
        };
        let second: fn(&mut TcpStream) = |stream| {
            SECOND_IS_ASKED.wait();
            answer(stream, 404);
        };
        let confirmed = asked(&[late, second]).await;
        assert!(matches!(confirmed, Confirmation::Confirmed(_)), "{confirmed:?}");
    }

    #[tokio::test]
    async fn an_attempt_that_was_not_sent_leaves_certainty() {
        let ended = [
            Attempt::NotSent("refused".to_owned()),
            Attempt::Answered(StatusCode::NOT_FOUND),
        ];
        assert_refused(&conclude(&ended), 404, true);
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let unreachable = ask_over(&Pool::new(), &format!("http://{closed}"), &key(), soon()).await;
        assert!(matches!(unreachable, Confirmation::Unreachable(_)), "{unreachable:?}");
    }
}
