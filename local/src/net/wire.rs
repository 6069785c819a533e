//! A TCP proxy that damages connections, as a load balancer, a NAT gateway or a frozen process does. The fault injector
//! of the AWS endpoints sees calls; this proxy sees the connections that they use.
//!
//! It can reset a connection at the first byte of a request on a reused connection, which needs the decision within the
//! proxy.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::{Error, lock};

/// What happens to a connection. The server behind the proxy sees it closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// The connection is closed at once.
    Close,
    /// The connection is reset at once.
    Reset,
    /// The connection is reset when the client sends something, which is not forwarded.
    ResetOnWrite,
    /// The connection is closed when the client has sent something, which is not forwarded.
    CloseOnWrite,
    /// The connection stays open, but nothing is forwarded or answered.
    Swallow,
    /// The next request is forwarded, and the connection is closed when its answer comes.
    LoseAnswer,
}

impl Damage {
    /// All kinds of damage.
    pub const ALL: [Self; 6] = [
        Self::Close,
        Self::Reset,
        Self::ResetOnWrite,
        Self::CloseOnWrite,
        Self::Swallow,
        Self::LoseAnswer,
    ];
}

/// Decides by the first bytes of a request what happens to its connection.
type Plan = Box<dyn Fn(&[u8]) -> Option<Damage> + Send + Sync>;

/// A proxy on 127.0.0.1. Dropping it closes its port and its connections.
#[derive(Debug)]
pub struct Wire {
    url: String,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    damage: watch::Sender<Option<Damage>>,
    plan: Mutex<Option<Plan>>,
    accepted: AtomicUsize,
    open: AtomicUsize,
}

impl Wire {
    /// Starts a proxy before the server at `url`, which is `http://` and an address.
    pub async fn to(url: &str) -> Result<Self, Error> {
        let upstream = url.trim_start_matches("http://").to_owned();
        let in_use = Error::io("a port for a proxy");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(in_use)?;
        let address = listener.local_addr().map_err(Error::io("a port for a proxy"))?;
        let state = Arc::new(State {
            damage: watch::Sender::new(None),
            plan: Mutex::default(),
            accepted: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
        });
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((client, _)) = accepted else { continue };
                        shared.accepted.fetch_add(1, Ordering::SeqCst);
                        let (state, upstream) = (Arc::clone(&shared), upstream.clone());
                        // Only later damage counts for this connection.
                        let damage = shared.damage.subscribe();
                        connections.spawn(async move {
                            state.open.fetch_add(1, Ordering::SeqCst);
                            // An error is a connection that has ended.
                            if let Ok(upstream) = TcpStream::connect(&upstream).await {
                                let _ = carry(client, upstream, &state, damage).await;
                            }
                            state.open.fetch_sub(1, Ordering::SeqCst);
                        });
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(Self {
            url: format!("http://{address}"),
            state,
            task,
        })
    }

    /// The URL of the proxy.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Damages the open connections, and returns how many there are. Connections that are opened later are not damaged.
    pub fn damage(&self, damage: Damage) -> usize {
        let open = self.open();
        self.state.damage.send_replace(Some(damage));
        open
    }

    /// Lets `plan` decide about each request on a connection that has been used before.
    pub fn follow(&self, plan: impl Fn(&[u8]) -> Option<Damage> + Send + Sync + 'static) {
        *lock(&self.state.plan) = Some(Box::new(plan));
    }

    /// Ends the plan.
    pub fn follow_nothing(&self) {
        *lock(&self.state.plan) = None;
    }

    /// The number of open connections.
    pub fn open(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }

    /// The number of connections that have been opened so far.
    pub fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("State").finish_non_exhaustive()
    }
}

/// Forwards bytes both ways until one side ends or the connection is damaged.
async fn carry(
    mut client: TcpStream,
    mut upstream: TcpStream,
    state: &State,
    mut damages: watch::Receiver<Option<Damage>>,
) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let (mut sent, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut damage = None;
    // Bytes after an answer begin another request.
    let mut is_between = false;
    loop {
        tokio::select! {
            // In this order, so that a damaged connection carries nothing more.
            biased;
            changed = damages.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                damage = *damages.borrow_and_update();
                match damage {
                    Some(Damage::Close) => return Ok(()),
                    Some(Damage::Reset) => return client.set_zero_linger(),
                    _ => {}
                }
            }
            length = client.read(&mut sent) => {
                let sent = &sent[..length?];
                if sent.is_empty() {
                    return Ok(());
                }
                if std::mem::take(&mut is_between) && damage.is_none() {
                    damage = lock(&state.plan).as_ref().and_then(|plan| plan(sent));
                }
                match damage {
                    None | Some(Damage::LoseAnswer) => upstream.write_all(sent).await?,
                    Some(Damage::Swallow) => {}
                    Some(Damage::Reset | Damage::ResetOnWrite) => return client.set_zero_linger(),
                    Some(Damage::Close | Damage::CloseOnWrite) => return Ok(()),
                }
            }
            length = upstream.read(&mut answered) => {
                let answered = &answered[..length?];
                if answered.is_empty() || damage == Some(Damage::LoseAnswer) {
                    return Ok(());
                }
                is_between = true;
                client.write_all(answered).await?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use http::StatusCode;

    use super::*;
    use crate::net::server::{Port, json};

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: wire\r\n\r\n";

    /// The answer to a request: bytes, an orderly end, or a reset; `None` after a time that is enough for each of
    /// those.
    async fn ask(stream: &mut TcpStream) -> Option<Result<usize, ErrorKind>> {
        if let Err(error) = stream.write_all(REQUEST).await {
            return Some(Err(error.kind()));
        }
        let mut answer = [0; 1024];
        let read = stream.read(&mut answer);
        let read = tokio::time::timeout(std::time::Duration::from_millis(300), read).await;
        read.ok().map(|read| read.map_err(|error| error.kind()))
    }

    #[tokio::test]
    async fn damage_hits_only_open_connections() {
        let passed = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&passed);
        let port = Port::take(0, "").await.unwrap();
        let server = port.serve(1024, move |_, _| {
            count.fetch_add(1, Ordering::SeqCst);
            async { Some(json(StatusCode::OK, &serde_json::json!({}))) }
        });
        let wire = Wire::to(&server.url()).await.unwrap();
        let connect = || TcpStream::connect(wire.url().trim_start_matches("http://"));
        for damage in Damage::ALL {
            let mut damaged = connect().await.unwrap();
            assert!(matches!(ask(&mut damaged).await, Some(Ok(1..))), "it is sound at first");
            let before = passed.load(Ordering::SeqCst);
            assert_eq!(wire.damage(damage), 1);
            let answer = ask(&mut damaged).await;
            let passed_on = passed.load(Ordering::SeqCst) - before;
            match damage {
                Damage::Swallow => assert_eq!(answer, None),
                Damage::LoseAnswer | Damage::CloseOnWrite => assert_eq!(answer, Some(Ok(0)), "{damage:?}"),
                // A write to a connection that is closed already is answered with a reset.
                _ => assert!(matches!(answer, Some(Ok(0) | Err(_))), "{damage:?}: {answer:?}"),
            }
            assert_eq!(passed_on, usize::from(damage == Damage::LoseAnswer), "{damage:?}");
            let mut sound = connect().await.unwrap();
            assert!(matches!(ask(&mut sound).await, Some(Ok(1..))), "a new one is sound");
            drop((damaged, sound));
            while wire.open() > 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn a_plan_decides_about_reused_connections() {
        let port = Port::take(0, "").await.unwrap();
        let server = port.serve(1024, |_, _| async {
            Some(json(StatusCode::OK, &serde_json::json!({})))
        });
        let wire = Wire::to(&server.url()).await.unwrap();
        wire.follow(|request| (request == REQUEST).then_some(Damage::ResetOnWrite));
        let mut stream = TcpStream::connect(wire.url().trim_start_matches("http://"))
            .await
            .unwrap();
        assert!(
            matches!(ask(&mut stream).await, Some(Ok(1..))),
            "it was not used before"
        );
        assert_eq!(ask(&mut stream).await, Some(Err(ErrorKind::ConnectionReset)));
    }
}
