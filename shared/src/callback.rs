//! Asking the provider whether a delivery is its own: a call back over HTTPS.

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

/// How long the first try may go unanswered before the second begins.
const SECOND_TRY_AFTER: Duration = Duration::from_millis(1500);
/// How much of an answer is read, in bytes, for its connection to be used again.
const MOST_OF_AN_ANSWER: usize = 64 * 1024;
/// How long the rest of an answer may take after its head.
const REST_OF_AN_ANSWER: Duration = Duration::from_millis(500);

static POOL: Pool = Pool::new();

/// What the provider says of a delivery.
#[derive(Debug)]
pub enum Confirmation {
    /// 200: it is genuine.
    Confirmed(Proof),
    /// Any other answer, redirects included: none is followed.
    Refused {
        /// The status.
        status: StatusCode,
        /// False if another try may have reached the provider and was not answered, or with a server error: it may have used up
        /// what can be confirmed only once.
        is_certain: bool,
    },
    /// No answer in time.
    Unreachable(String),
}

/// Opens a connection to the host of `url` by asking it, as nobody; whatever it answers will do.
pub async fn connect(url: &str) {
    let Ok(request) = Request::get(url).body(SdkBody::empty()) else {
        return;
    };
    // Whether it answers is found out when it matters. Read to its end, so that the connection can be used again.
    if let Ok(response) = POOL.call().send(request).await {
        let _ = Limited::new(response.into_body(), MOST_OF_AN_ANSWER).collect().await;
    }
}

/// Asks `url`, as the user `key` with an empty password, and waits for the answer until `until` at most.
///
/// A try that fails, is answered with a server error, or is not answered within 1.5 seconds is followed by a second one over a new
/// connection: the first one's may have died while the process was frozen. A slow first try stays in the race.
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
        return Confirmation::Unreachable("the address of the validation call is no URL".to_owned());
    };
    let mut first = pin!(attempt(pool, first, until));
    let soon = until.min(Instant::now() + SECOND_TRY_AFTER);
    let ended = match timeout_at(soon, &mut first).await {
        Ok(Try::Answered(status)) => return conclude(&[Try::Answered(status)]),
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
        Try::Answered(StatusCode::OK) => conclude(&[earlier]),
        _ => conclude(&[earlier, later.await]),
    }
}

/// How one try ended.
#[derive(Debug)]
enum Try {
    /// With any status but a server error.
    Answered(StatusCode),
    /// With a server error: what has been done with the request is not known.
    Failed(StatusCode),
    /// Without an answer, though the request may have been received.
    Lost(String),
    /// Without a connection.
    NotSent(String),
}

async fn attempt(pool: &Pool, mut request: Request<SdkBody>, until: Instant) -> Try {
    let connection = capture_connection(&mut request);
    let response = match timeout_at(until, pool.call().send(request)).await {
        Ok(Ok(response)) => response,
        failed => {
            let cause = match failed {
                Ok(Err(error)) => aws::cause(&error),
                _ => "no answer in time".to_owned(),
            };
            return match *connection.connection_metadata() {
                Some(_) => Try::Lost(cause),
                None => Try::NotSent(cause),
            };
        }
    };
    let (head, body) = response.into_parts();
    // Read to its end too. What it says does not matter, nor whether all of it comes.
    let _ = timeout(REST_OF_AN_ANSWER, Limited::new(body, MOST_OF_AN_ANSWER).collect()).await;
    if head.status.is_server_error() {
        Try::Failed(head.status)
    } else {
        Try::Answered(head.status)
    }
}

/// What all tries say together: one confirmation is enough, and an answer counts for more than none.
fn conclude(tries: &[Try]) -> Confirmation {
    let is_certain = !tries.iter().any(|ended| matches!(ended, Try::Failed(_) | Try::Lost(_)));
    let mut concluded = Confirmation::Unreachable("no answer in time".to_owned());
    for ended in tries {
        concluded = match (ended, concluded) {
            (Try::Answered(StatusCode::OK), _) => return Confirmation::Confirmed(Proof::of_a_passed_check()),
            (Try::Answered(status), _) | (Try::Failed(status), Confirmation::Unreachable(_)) => Confirmation::Refused {
                status: *status,
                is_certain,
            },
            (Try::Lost(cause) | Try::NotSent(cause), Confirmation::Unreachable(_)) => {
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

    /// Asks a provider of which each connection does what `script` says, in order.
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
        // Meanwhile the runtime closes what has been given up.
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
                // The caller waits for the rest. One that does not care for it hangs up: a read ends, of nothing.
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
    async fn a_call_without_a_usable_answer_is_made_once_more() {
        let failures: [fn(&mut TcpStream); 3] = [|_| {}, |stream| answer(stream, 503), swallow];
        for failure in failures {
            let confirmed = asked(&[failure, |stream| answer(stream, 200)]).await;
            assert!(matches!(confirmed, Confirmation::Confirmed(_)), "{confirmed:?}");
            // It may have been used up by the first.
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
    async fn a_slow_first_answer_counts_though_a_second_was_asked_for() {
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
    async fn where_nothing_could_be_sent_nothing_is_uncertain() {
        let ended = [Try::NotSent("refused".to_owned()), Try::Answered(StatusCode::NOT_FOUND)];
        assert_refused(&conclude(&ended), 404, true);
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let unreachable = ask_over(&Pool::new(), &format!("http://{closed}"), &key(), soon()).await;
        assert!(matches!(unreachable, Confirmation::Unreachable(_)), "{unreachable:?}");
    }
}
