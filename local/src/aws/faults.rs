//! A tap on the AWS endpoints: every call passes it, and a test can count calls, and make some of them go wrong.
//!
//! It is the only switch for faults. The functions know nothing of it: they are made to fail from outside, as on AWS.

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

/// A call that passes the tap.
#[derive(Debug, Clone)]
pub struct Call {
    /// To which service.
    pub service: Service,
    /// The operation's name, such as `PutItem`.
    pub operation: String,
    /// The execution environment that makes it, if a function does.
    pub caller: Option<String>,
    /// Whether the SDK tries it again by itself, because an earlier attempt was not answered, or with a fault.
    pub is_retry: bool,
    /// The request's body.
    pub body: Bytes,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is not carried out and answered with this error.
    Answer {
        /// The HTTP status.
        status: u16,
        /// AWS's name for the error.
        code: &'static str,
    },
    /// Of the messages that it publishes, those that hold the rule's text are refused with this error, each by itself.
    Refuse {
        /// AWS's name for the error.
        code: &'static str,
    },
    /// It is not carried out and never answered.
    Hang,
    /// It is carried out after this time.
    Slow(Duration),
    /// It is not carried out, and the connection closes.
    Reset,
    /// It waits until the [`Injection`] is dropped, and is then carried out.
    Hold,
    /// It is carried out, but the answer is lost: the connection closes.
    LoseAnswer,
    /// It is not carried out, and the process that made it is killed.
    KillBefore,
    /// It is carried out, and the process that made it is killed before it sees the answer.
    KillAfter,
}

impl Fault {
    /// The service is not there for anyone.
    pub const DOWN: Self = Self::Answer {
        status: 503,
        code: "ServiceUnavailable",
    };
    /// The service refuses for now.
    pub const THROTTLED: Self = Self::Answer {
        status: 400,
        code: "ThrottlingException",
    };
}

/// Which calls a fault is for.
#[derive(Debug)]
pub struct Rule {
    service: Service,
    operation: &'static str,
    times: usize,
    holding: String,
}

impl Rule {
    /// Every call of one operation.
    pub fn new(service: Service, operation: &'static str) -> Self {
        Self {
            service,
            operation,
            times: usize::MAX,
            holding: String::new(),
        }
    }

    /// Every call to a service.
    pub fn all(service: Service) -> Self {
        Self::new(service, "")
    }

    /// The first `times` of them only.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// Those only whose body holds `text`.
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

/// A fault in force; dropping it ends it.
#[derive(Debug)]
#[must_use = "the fault ends when this is dropped"]
pub struct Injection {
    id: u64,
    tap: FaultInjector,
    hits: watch::Receiver<usize>,
}

impl Injection {
    /// How many calls it has come over.
    pub fn hits(&self) -> usize {
        *self.hits.borrow()
    }

    /// Waits until the fault has come over `count` calls. A kill counts when the process is gone.
    pub async fn hit(&self, count: usize) {
        let mut hits = self.hits.clone();
        // The sender lives as long as this does.
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
    /// Dropped with the fault, which lets held calls go on.
    released: watch::Sender<()>,
}

/// A limit on write capacity in force; dropping it ends it.
#[derive(Debug)]
#[must_use = "the limit ends when this is dropped"]
pub struct WriteLimit {
    tap: FaultInjector,
    throttled: Arc<AtomicUsize>,
}

impl WriteLimit {
    /// How many calls it has throttled.
    pub fn throttled(&self) -> usize {
        self.throttled.load(Ordering::Relaxed)
    }
}

impl Drop for WriteLimit {
    fn drop(&mut self) {
        *lock(&self.tap.write_limit) = None;
    }
}

/// Decides over every call that no rule is for.
type Plan = Arc<dyn Fn(&Call) -> Option<Fault> + Send + Sync>;

#[derive(Debug)]
struct LimitInForce {
    capacity: Capacity,
    throttled: Arc<AtomicUsize>,
}

/// The tap.
#[derive(Clone)]
pub struct FaultInjector {
    environments: Environments,
    plan: Arc<Mutex<Option<Plan>>>,
    faults: Arc<Mutex<Vec<InForce>>>,
    counts: Arc<Mutex<HashMap<(Service, String), usize>>>,
    write_limit: Arc<Mutex<Option<LimitInForce>>>,
}

impl FaultInjector {
    /// A tap that lets everything pass.
    pub fn new(environments: Environments) -> Self {
        Self {
            environments,
            plan: Arc::default(),
            faults: Arc::default(),
            counts: Arc::default(),
            write_limit: Arc::default(),
        }
    }

    /// Puts a fault in force for the calls of `rule`. Of several that match, the oldest counts.
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

    /// Lets each partition key of the table take `units` write units of the functions' calls a second, and throttles what goes
    /// beyond. DynamoDB lets it take 1,000. There is one such limit at a time.
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

    /// Whether a call goes beyond the limit on writes.
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

    /// Lets `plan` decide over every call that no rule is for, until there is another plan.
    pub fn follow(&self, plan: impl Fn(&Call) -> Option<Fault> + Send + Sync + 'static) {
        *lock(&self.plan) = Some(Arc::new(plan));
    }

    /// Ends the plan.
    pub fn follow_nothing(&self) {
        *lock(&self.plan) = None;
    }

    /// How many calls of an operation have come so far. What an SDK tries again by itself is one.
    pub fn count(&self, service: Service, operation: &str) -> usize {
        let counts = lock(&self.counts);
        counts.get(&(service, operation.to_owned())).copied().unwrap_or(0)
    }

    /// Lets one call pass, or not. `carry_out` is given the body to carry out.
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
                // An error: the fault has ended.
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

    /// On a task of its own: the connection ends with the process, and with it whatever was being done for it.
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

/// The fault for a call, and who is told of it.
struct Found {
    fault: Fault,
    holding: String,
    hits: Arc<watch::Sender<usize>>,
    released: watch::Receiver<()>,
}

/// On a task of its own: a call that has begun is carried out even if its caller goes away.
async fn carried_out<F>(carry_out: F) -> Response<Bytes>
where
    F: Future<Output = Response<Bytes>> + Send + 'static,
{
    tokio::spawn(carry_out)
        .await
        .unwrap_or_else(|_| crate::net::server::message(StatusCode::INTERNAL_SERVER_ERROR, "the endpoint panicked"))
}
