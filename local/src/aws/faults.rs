//! Injects faults into calls to AWS: every call passes the injector, which counts it and lets it pass or fail.
//!
//! It is the only switch for faults. The functions do not know about it: they are made to fail from outside, as on AWS.
//!
//! A general fault proxy works on connections. These faults are chosen by operation, item and caller, and kill the
//! process that made the call, which a proxy cannot do.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Response, StatusCode};
use tokio::sync::watch;

use crate::aws::capacity::{Capacity, write_units};
pub use crate::aws::protocol::Service;
use crate::aws::protocol::{error, refuse};
use crate::lambda::environment::Environments;
use crate::lock;
use crate::net::server::Answer;

/// A call to an AWS service.
#[derive(Debug, Clone)]
pub struct Call {
    /// The service that is called.
    pub service: Service,
    /// The name of the operation, such as `PutItem`.
    pub operation: String,
    /// The id of the execution environment that makes the call, if a function makes it.
    pub caller: Option<String>,
    /// Whether the SDK repeats the call because an earlier attempt failed or was not answered.
    pub is_retry: bool,
    /// The body of the request.
    pub body: Bytes,
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call is not carried out, and is answered with this error.
    Answer {
        /// The HTTP status.
        status: u16,
        /// The AWS code of the error.
        code: &'static str,
    },
    /// SNS rejects each published message that holds the text of the rule with this error, and accepts the others.
    Refuse {
        /// The AWS code of the error.
        code: &'static str,
    },
    /// The call is not carried out, and is never answered.
    Hang,
    /// The call is carried out after this time.
    Slow(Duration),
    /// The call is not carried out, and the connection is closed.
    Reset,
    /// The call is carried out once the [`Injection`] is dropped.
    Hold,
    /// The call is carried out, and the connection is closed before the answer.
    LoseAnswer,
    /// The call is not carried out, and the process that made it is killed.
    KillBefore,
    /// The call is carried out, and the process that made it is killed before it sees the answer.
    KillAfter,
}

impl Fault {
    /// The service is down for everyone.
    pub const DOWN: Self = Self::Answer {
        status: 503,
        code: "ServiceUnavailable",
    };
    /// The service throttles the call.
    pub const THROTTLED: Self = Self::Answer {
        status: 400,
        code: "ThrottlingException",
    };
}

/// The calls that a fault applies to.
#[derive(Debug)]
pub struct Rule {
    service: Service,
    operation: &'static str,
    times: usize,
    holding: String,
}

impl Rule {
    /// Matches every call of one operation.
    pub fn new(service: Service, operation: &'static str) -> Self {
        Self {
            service,
            operation,
            times: usize::MAX,
            holding: String::new(),
        }
    }

    /// Matches every call to a service.
    pub fn all(service: Service) -> Self {
        Self::new(service, "")
    }

    /// Matches only the first `times` of the calls.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// Matches only calls whose body holds `text`.
    #[must_use]
    pub fn holding(mut self, text: impl Into<String>) -> Self {
        self.holding = text.into();
        self
    }

    fn matches(&self, call: &Call) -> bool {
        self.times > 0
            && self.service == call.service
            && (self.operation.is_empty() || self.operation == call.operation)
            && (self.holding.is_empty() || String::from_utf8_lossy(&call.body).contains(&self.holding))
    }
}

/// A fault in force. Dropping this ends the fault.
#[derive(Debug)]
#[must_use = "the fault ends when this is dropped"]
pub struct Injection {
    id: u64,
    tap: FaultInjector,
    hits: watch::Receiver<usize>,
}

impl Injection {
    /// The number of calls that the fault has hit.
    pub fn hits(&self) -> usize {
        *self.hits.borrow()
    }

    /// Waits until the fault has hit `count` calls. A kill counts once the process is gone.
    pub async fn hit(&self, count: usize) {
        let mut hits = self.hits.clone();
        // The sender lives as long as the fault.
        let _ = hits.wait_for(|hits| *hits >= count).await;
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        lock(&self.tap.faults).retain(|fault| fault.id != self.id);
    }
}

#[derive(Debug)]
struct InForce {
    id: u64,
    rule: Rule,
    fault: Fault,
    hits: Arc<watch::Sender<usize>>,
    /// Dropped with the fault, which lets held calls continue.
    released: watch::Sender<()>,
}

/// A limit on write capacity in force. Dropping this ends the limit.
#[derive(Debug)]
#[must_use = "the limit ends when this is dropped"]
pub struct WriteLimit {
    tap: FaultInjector,
    throttled: Arc<AtomicUsize>,
}

impl WriteLimit {
    /// The number of calls that the limit has throttled.
    pub fn throttled(&self) -> usize {
        self.throttled.load(Ordering::Relaxed)
    }
}

impl Drop for WriteLimit {
    fn drop(&mut self) {
        *lock(&self.tap.write_limit) = None;
    }
}

/// Decides about every call that no rule matches.
type Plan = Arc<dyn Fn(&Call) -> Option<Fault> + Send + Sync>;

#[derive(Debug)]
struct LimitInForce {
    capacity: Capacity,
    throttled: Arc<AtomicUsize>,
}

/// The fault injector. Clones share its rules and counts.
#[derive(Clone)]
pub struct FaultInjector {
    environments: Environments,
    plan: Arc<Mutex<Option<Plan>>>,
    faults: Arc<Mutex<Vec<InForce>>>,
    counts: Arc<Mutex<HashMap<(Service, String), usize>>>,
    write_limit: Arc<Mutex<Option<LimitInForce>>>,
}

impl FaultInjector {
    /// Creates an injector that lets every call pass.
    pub fn new(environments: Environments) -> Self {
        Self {
            environments,
            plan: Arc::default(),
            faults: Arc::default(),
            counts: Arc::default(),
            write_limit: Arc::default(),
        }
    }

    /// Applies `fault` to the calls that match `rule`. If several rules match, the oldest one applies.
    pub fn inject(&self, rule: Rule, fault: Fault) -> Injection {
        let (hits, receiver) = watch::channel(0);
        let mut faults = lock(&self.faults);
        let id = faults.last().map_or(0, |last| last.id + 1);
        faults.push(InForce {
            id,
            rule,
            fault,
            hits: Arc::new(hits),
            released: watch::channel(()).0,
        });
        drop(faults);
        Injection {
            id,
            tap: self.clone(),
            hits: receiver,
        }
    }

    /// Lets each partition key of the table accept `units` write units a second from the functions, and throttles more.
    /// DynamoDB accepts 1,000. There is one such limit at a time.
    pub fn limit_writes(&self, units: u32) -> WriteLimit {
        let throttled = Arc::new(AtomicUsize::new(0));
        *lock(&self.write_limit) = Some(LimitInForce {
            capacity: Capacity::new(units),
            throttled: Arc::clone(&throttled),
        });
        WriteLimit {
            tap: self.clone(),
            throttled,
        }
    }

    /// Whether a call exceeds the limit on writes.
    fn is_over_limit(&self, call: &Call) -> bool {
        let mut limit = lock(&self.write_limit);
        let Some(limit) = limit.as_mut() else {
            return false;
        };
        if call.service != Service::DynamoDb || call.caller.is_none() {
            return false;
        }
        let is_over = !limit
            .capacity
            .take(&write_units(&call.operation, &call.body), Instant::now());
        limit.throttled.fetch_add(is_over.into(), Ordering::Relaxed);
        is_over
    }

    /// Lets `plan` decide about every call that no rule matches, until there is another plan.
    pub fn follow(&self, plan: impl Fn(&Call) -> Option<Fault> + Send + Sync + 'static) {
        *lock(&self.plan) = Some(Arc::new(plan));
    }

    /// Ends the plan.
    pub fn follow_nothing(&self) {
        *lock(&self.plan) = None;
    }

    /// The number of calls of an operation so far. Repeats by the SDK do not count.
    pub fn count(&self, service: Service, operation: &str) -> usize {
        let counts = lock(&self.counts);
        counts.get(&(service, operation.to_owned())).copied().unwrap_or(0)
    }

    /// Lets one call pass or fail. `carry_out` receives the body to carry out.
    pub(crate) async fn pass<F>(&self, call: Call, carry_out: impl FnOnce(Bytes) -> F) -> Answer
    where
        F: Future<Output = Response<Bytes>> + Send + 'static,
    {
        let body = call.body.clone();
        if !call.is_retry {
            *lock(&self.counts)
                .entry((call.service, call.operation.clone()))
                .or_default() += 1;
        }
        if self.is_over_limit(&call) {
            return Some(error(call.service, 400, "ProvisionedThroughputExceededException"));
        }
        let Some(found) = self.fault(&call) else {
            return Some(carried_out(carry_out(body)).await);
        };
        let Found {
            fault,
            holding,
            hits,
            mut released,
        } = found;
        let hit = || hits.send_modify(|hits| *hits += 1);
        match fault {
            Fault::Answer { status, code } => {
                hit();
                Some(error(call.service, status, code))
            }
            Fault::Refuse { code } => {
                hit();
                let refused = refuse(&body, &holding, code);
                Some(match refused.rest {
                    Some(ref rest) => carried_out(carry_out(rest.clone()))
                        .await
                        .map(|answer| refused.add_to(&answer)),
                    None => refused.into_answer(),
                })
            }
            Fault::Slow(time) => {
                hit();
                tokio::time::sleep(time).await;
                Some(carried_out(carry_out(body)).await)
            }
            Fault::Reset => {
                hit();
                None
            }
            Fault::Hang => {
                hit();
                std::future::pending().await
            }
            Fault::Hold => {
                hit();
                // An error means that the fault has ended.
                let _ = released.changed().await;
                Some(carried_out(carry_out(body)).await)
            }
            Fault::LoseAnswer => {
                carried_out(carry_out(body)).await;
                hit();
                None
            }
            Fault::KillBefore => {
                self.kill(call.caller, hits).await;
                None
            }
            Fault::KillAfter => {
                carried_out(carry_out(body)).await;
                self.kill(call.caller, hits).await;
                None
            }
        }
    }

    fn fault(&self, call: &Call) -> Option<Found> {
        let mut faults = lock(&self.faults);
        if let Some(fault) = faults.iter_mut().find(|fault| fault.rule.matches(call)) {
            fault.rule.times -= 1;
            return Some(Found {
                fault: fault.fault,
                holding: fault.rule.holding.clone(),
                hits: Arc::clone(&fault.hits),
                released: fault.released.subscribe(),
            });
        }
        drop(faults);
        let plan = lock(&self.plan).clone()?;
        Some(Found {
            fault: plan(call)?,
            holding: String::new(),
            hits: Arc::default(),
            released: watch::channel(()).1,
        })
    }

    /// Runs on a task of its own, because the connection and its task end with the process.
    async fn kill(&self, caller: Option<String>, hits: Arc<watch::Sender<usize>>) {
        let environments = self.environments.clone();
        let killed = tokio::spawn(async move {
            if let Some(caller) = caller {
                environments.kill(&caller).await;
            }
            hits.send_modify(|hits| *hits += 1);
        });
        let _ = killed.await;
    }
}

impl fmt::Debug for FaultInjector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FaultInjector").finish_non_exhaustive()
    }
}

/// The fault that hits a call, and the counter of its hits.
struct Found {
    fault: Fault,
    holding: String,
    hits: Arc<watch::Sender<usize>>,
    released: watch::Receiver<()>,
}

/// Runs on a task of its own: a call that has begun is carried out even if its caller goes away.
async fn carried_out<F>(carry_out: F) -> Response<Bytes>
where
    F: Future<Output = Response<Bytes>> + Send + 'static,
{
    tokio::spawn(carry_out)
        .await
        .unwrap_or_else(|_| crate::net::server::message(StatusCode::INTERNAL_SERVER_ERROR, "the endpoint panicked"))
}
