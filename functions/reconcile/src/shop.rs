//! A run at one shop: page by page, each order is compared with what is stored of it.
//!
//! A page is in memory at a time. The position of the next page is written after each page, so a run that is killed, or
//! that stops within a page, repeats that page: what it has stored already is known by then.

use jiff::Timestamp;
use shared::answer::Outcome;
use shared::classify::{Classification, classify};
use shared::codes::Code;
use shared::delivery::Delivery;
use shared::identity::Shop;
use shared::intake::NotStored;
use shared::order_api::{Api, ApiError, Failure, ListedOrder, Listing, OrderApi, OrderPage};
use shared::reconciliation::{Base, Comparison, KnownOrder, OrderVersion};
use shared::store::{ReconcileEnd, ReconcileLease, ReconcileProgress, StoreError};
use shared::verification::Verified;

use crate::Reconciler;
use crate::providers::Configured;
use crate::report::{Found, ShopReport, Status};
use crate::task::{Cursor, Place, Reconcile};
use crate::time_left::TimeLeft;
use crate::watch::{Watch, Watched};

const BUSY: &str = "another run works at the shop";

/// A shop that has credentials of its provider's API, and what a run needs to work at it.
pub(crate) struct OfShop<'r, P: OrderApi> {
    pub(crate) reconciler: &'r Reconciler,
    pub(crate) configured: &'r Configured<P>,
    pub(crate) credentials: &'r P::Credentials,
    pub(crate) shop: &'r Shop,
    pub(crate) time: TimeLeft,
}

// Derived, it would demand that the provider can be copied.
impl<P: OrderApi> Clone for OfShop<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: OrderApi> Copy for OfShop<'_, P> {}

/// A run at one shop.
pub(crate) struct ShopRun<'r, P: OrderApi> {
    of: OfShop<'r, P>,
    task: &'r Reconcile,
    report: ShopReport,
    /// Whether every page of the list lists the order that changed last first. Only a run that has read the list from its
    /// first page knows that.
    is_sorted: bool,
    /// The time of change of the last order so far.
    last_change: Option<Timestamp>,
}

/// An order of a page, without its event.
struct Read {
    delivery: Verified<Delivery>,
    /// The order's id; `None` if it cannot be read.
    order: Option<String>,
    /// The version of the order, unless the order cannot be read.
    readable: Option<Readable>,
}

struct Readable {
    version: OrderVersion,
    placed_at: Option<Timestamp>,
}

/// When the event of an order was stored.
enum Stored {
    Now,
    /// Before, although the index did not name it yet, or its item does not say of which version it is.
    Before,
    /// Before, and its item cannot be read.
    Unreadable,
}

/// Why the pages end.
enum Ended {
    AfterLastPage,
    TimeIsUp,
    LeaseLost,
    Unavailable(ApiError),
    NotStored(String),
}

impl<'r, P: Watched> ShopRun<'r, P> {
    pub(crate) fn new(of: OfShop<'r, P>, task: &'r Reconcile) -> Self {
        Self {
            of,
            task,
            report: ShopReport::new(of.shop.as_str()),
            is_sorted: false,
            last_change: None,
        }
    }

    /// Works until the last page or the end of the time. Returns the cursor of a run of a period that is not complete.
    pub(crate) async fn run(mut self) -> (ShopReport, Option<Cursor>) {
        let base_url = match self.of.configured.base_url(self.of.credentials) {
            Ok(base_url) => base_url,
            Err(error) => {
                let code = code_of(&error);
                return (
                    self.report.ended(Status::Unavailable, Some(code), error.to_string()),
                    None,
                );
            }
        };
        let api = Api::new(&base_url, self.of.time.give_up_at);
        let (lease, progress) = match self.begin().await {
            Ok(Begun::Held(lease, progress)) => (Some(lease), progress),
            Ok(Begun::Free(progress)) => (None, progress),
            Ok(Begun::Busy) => return (self.report.ended(Status::Busy, None, BUSY), None),
            Err(error) => {
                let code = Some(Code::ReconcileUnavailable);
                return (self.report.ended(Status::Unavailable, code, error.to_string()), None);
            }
        };
        let (listing, windows) = (P::LISTING, self.of.reconciler.windows);
        let now = Timestamp::now();
        let mut place = self.task.beginning(self.of.shop, listing, windows, &progress, now);
        self.report = self.report.of_period(place.period());
        self.is_sorted = place.position == 0;
        let pages = self.pages(&api, lease.as_ref(), &mut place).await;
        let ended = pages.unwrap_or_else(|error| Ended::NotStored(error.to_string()));
        let is_regular = !self.task.is_of_period();
        let of = self.of;
        let (mut report, cursor) = self.end(ended, lease.as_ref(), place).await;
        // After the end of the run is written, because notes are conditional and need no lease.
        if is_regular && matches!(report.status, Status::Complete | Status::Partial) {
            let watch = Watch::new(of, &api);
            // Boxed, because this future is large.
            report.subscriptions = Box::pin(P::watch(watch)).await;
        }
        (report, cursor)
    }

    /// Takes the lease of the shop. A dry run needs none.
    async fn begin(&self) -> Result<Begun, StoreError> {
        let store = self.of.reconciler.intake.store();
        if self.task.dry_run {
            return Ok(Begun::Free(store.reconciliation(P::NAME, self.of.shop).await?));
        }
        let until = self.of.time.end_of_lease();
        let begun = store.begin_reconciliation(P::NAME, self.of.shop, until).await?;
        Ok(begun.map_or(Begun::Busy, |(lease, progress)| Begun::Held(lease, progress)))
    }

    /// Works through the pages from `place` on, and moves it past each.
    async fn pages(
        &mut self,
        api: &Api,
        lease: Option<&ReconcileLease>,
        place: &mut Place,
    ) -> Result<Ended, StoreError> {
        if place.from >= place.to {
            return Ok(Ended::AfterLastPage);
        }
        let mut session = P::Session::default();
        loop {
            if self.of.time.is_up() {
                return Ok(Ended::TimeIsUp);
            }
            let provider = &self.of.configured.provider;
            // Before the call, because a webhook may be stored while the answer is on its way.
            let asked_at = Timestamp::now();
            let page = provider.page(api, self.of.credentials, &mut session, place.period(), place.position);
            let page = match page.await {
                Ok(page) => page,
                Err(error) => return Ok(Ended::Unavailable(error)),
            };
            let next = page.next;
            if let Some(ended) = self.page(page, *place, asked_at).await? {
                return Ok(ended);
            }
            // The rest has not changed since the beginning of the period.
            let is_past = |change| self.is_sorted && P::LISTING == Listing::LastChangedFirst && change < place.from;
            let Some(next) = next.filter(|_| !self.last_change.is_some_and(is_past)) else {
                return Ok(Ended::AfterLastPage);
            };
            place.position = next;
            if let Some(lease) = lease.filter(|_| !self.task.is_of_period()) {
                let store = self.of.reconciler.intake.store();
                if !store.save_reconciliation(lease, &place.to_json()).await? {
                    return Ok(Ended::LeaseLost);
                }
            }
        }
    }

    /// Compares the orders of a page that was asked for at `asked_at`. Returns why the run ends within the page, if it
    /// does.
    async fn page(&mut self, page: OrderPage, place: Place, asked_at: Timestamp) -> Result<Option<Ended>, StoreError> {
        let orders = page.into_orders().into_iter().map(|order| self.read(order, asked_at));
        let orders: Vec<Read> = orders.collect();
        self.check_order_of(&orders);
        let orders: Vec<Read> = orders
            .into_iter()
            .filter(|order| self.is_wanted(order, place, asked_at))
            .collect();
        let ids: Vec<&str> = orders.iter().filter_map(|order| order.order.as_deref()).collect();
        let store = self.of.reconciler.intake.store();
        let known = store.known_orders(P::NAME, self.of.shop.as_str(), &ids).await?;
        let mut known = known.into_iter();
        let mut compared: Vec<(Read, KnownOrder)> = orders
            .into_iter()
            .map(|order| {
                let known = order.order.as_ref().and_then(|_| known.next());
                (order, known.unwrap_or_default())
            })
            .collect();
        self.mark_erased(&mut compared, asked_at).await?;
        for (order, known) in compared {
            if self.of.time.is_over() {
                return Ok(Some(Ended::TimeIsUp));
            }
            if let Err(cause) = self.compare(order, &known, asked_at).await {
                return Ok(Some(Ended::NotStored(cause)));
            }
        }
        Ok(None)
    }

    /// Marks the erased ones among the orders that would be stored.
    async fn mark_erased(&self, compared: &mut [(Read, KnownOrder)], asked_at: Timestamp) -> Result<(), StoreError> {
        let is_stored = |order: &Read, known: &KnownOrder| {
            let comparison = order
                .readable
                .as_ref()
                .map(|order| known.compare(&order.version, asked_at));
            matches!(
                comparison,
                Some(Comparison::Known | Comparison::Older | Comparison::Erased)
            )
        };
        let differing = compared.iter().filter(|(order, known)| !is_stored(order, known));
        let ids: Vec<&str> = differing.filter_map(|(order, _)| order.order.as_deref()).collect();
        let store = self.of.reconciler.intake.store();
        let erased = store.erased_orders(P::NAME, self.of.shop.as_str(), &ids).await?;
        for (order, known) in compared {
            known.is_erased |= order.order.as_ref().is_some_and(|id| erased.contains(id));
        }
        Ok(())
    }

    /// Reads an order as the delivery that would report it, received when its page was asked for.
    fn read(&self, order: ListedOrder, asked_at: Timestamp) -> Read {
        let delivery = order.into_delivery::<P>(self.of.credentials, self.of.shop, asked_at);
        let classified = classify(&self.of.configured.provider, &delivery, None);
        let (order, readable) = match classified.classification {
            Classification::Order(event) => {
                let order = event.data.order;
                let readable = Readable {
                    version: OrderVersion::of(&order),
                    placed_at: order.placed_at,
                };
                (order.id, Some(readable))
            }
            _ => (classified.order, None),
        };
        Read {
            delivery,
            readable: readable.filter(|_| order.is_some()),
            order,
        }
    }

    /// Notes whether the orders that can be read are sorted by their last change.
    fn check_order_of(&mut self, orders: &[Read]) {
        for order in orders.iter().filter_map(|order| order.readable.as_ref()) {
            let change = order.version.updated_at;
            match (self.last_change, change) {
                (Some(last), Some(change)) if change > last => self.is_sorted = false,
                // An order without a time may be anywhere.
                (_, None) => self.is_sorted = false,
                _ => {}
            }
            self.last_change = change.or(self.last_change);
        }
    }

    /// Whether an order belongs to the period of the run.
    fn is_wanted(&self, order: &Read, place: Place, asked_at: Timestamp) -> bool {
        let Some(Readable { version, placed_at }) = &order.readable else {
            return true;
        };
        // Its events may have expired, and it would count as missing. An API may list the complete first day of a period.
        if P::LISTING == Listing::PlacedInPeriod && self.of.reconciler.windows.has_expired(*placed_at, asked_at) {
            return false;
        }
        let changed_at = version.updated_at.or(*placed_at);
        // The webhook of a change that has happened just now may be on its way.
        if !self.task.is_of_period() && changed_at.is_some_and(|time| time >= place.to) {
            return false;
        }
        let is_inside = |time: &Option<Timestamp>| time.is_some_and(|time| place.period().contains(time));
        P::LISTING == Listing::PlacedInPeriod
            || changed_at.is_none()
            || is_inside(&version.updated_at)
            || is_inside(placed_at)
    }

    /// Compares an order with what is stored of it, and stores the difference.
    async fn compare(&mut self, order: Read, known: &KnownOrder, asked_at: Timestamp) -> Result<(), String> {
        let Some(Readable { version, placed_at }) = order.readable else {
            if known.is_erased {
                return Ok(());
            }
            self.report.counts.unreadable += 1;
            self.store(order.delivery, known.base()).await?;
            return Ok(());
        };
        let (found, base) = match known.compare(&version, asked_at) {
            Comparison::Missing => (Found::Missing, None),
            Comparison::Newer(base) => (Found::Newer, Some(base)),
            Comparison::Known | Comparison::Older | Comparison::Erased => (Found::Known, None),
        };
        let stored = match found {
            Found::Known => Stored::Before,
            Found::Missing | Found::Newer => self.store(order.delivery, base).await?,
        };
        let is_of_period = self.task.is_of_period();
        match stored {
            Stored::Now => self.report.add(found, placed_at, is_of_period),
            Stored::Before => self.report.add(Found::Known, placed_at, is_of_period),
            Stored::Unreadable => self.report.counts.unreadable += 1,
        }
        Ok(())
    }

    /// Stores and publishes an order. The error is the cause for which no order can be stored.
    async fn store(&mut self, mut delivery: Verified<Delivery>, base: Option<Base>) -> Result<Stored, String> {
        if self.task.dry_run {
            return Ok(Stored::Now);
        }
        delivery.reconcile_after(base);
        let (intake, provider) = (&self.of.reconciler.intake, &self.of.configured.provider);
        // Boxed, because this future is large.
        let taken = Box::pin(intake.take(provider, None, &mut delivery, self.of.time.give_up_at)).await;
        let receipt = match taken {
            Ok(receipt) => receipt,
            // A stored event that cannot be read does not hold up the other orders.
            Err(NotStored::Corrupt(event_id, attribute)) => {
                tracing::error!(
                    code = Code::CorruptItem.as_str(),
                    %event_id,
                    cause = %StoreError::Corrupt(attribute),
                    "the stored event of an order cannot be read"
                );
                return Ok(Stored::Unreadable);
            }
            Err(NotStored::Refused(refusal)) => return Err(refusal.to_string()),
        };
        match receipt.outcome {
            Outcome::Accepted => self.report.counts.accepted += 1,
            Outcome::Duplicate => {
                self.report.counts.duplicates += 1;
                return Ok(Stored::Before);
            }
            Outcome::Quarantined(_) | Outcome::Unsupported => {}
        }
        Ok(Stored::Now)
    }

    /// Writes how the run ends, gives the lease back and completes the report.
    async fn end(mut self, ended: Ended, lease: Option<&ReconcileLease>, place: Place) -> (ShopReport, Option<Cursor>) {
        let resume = place.to_json();
        self.report = match ended {
            Ended::AfterLastPage => self.report.with_status(Status::Complete),
            Ended::TimeIsUp => self.report.with_status(Status::Partial),
            Ended::LeaseLost => self.report.ended(Status::Busy, None, BUSY),
            Ended::Unavailable(error) => {
                let code = code_of(&error);
                self.report.ended(Status::Unavailable, Some(code), error.to_string())
            }
            Ended::NotStored(cause) => {
                let code = Some(Code::ReconcileUnavailable);
                self.report.ended(Status::Unavailable, code, cause)
            }
        };
        let end = match self.report.status {
            _ if self.task.is_of_period() => ReconcileEnd::OfPeriod,
            Status::Complete => ReconcileEnd::Complete {
                from: place.from,
                until: place.to,
                is_daily: place.is_daily,
            },
            Status::Unavailable => ReconcileEnd::Unavailable {
                cause: self.report.cause.as_deref().unwrap_or_default(),
                resume: (place.position > 0).then_some(resume.as_str()),
                is_daily: place.is_daily,
            },
            Status::Partial | Status::Busy | Status::NotConfigured => ReconcileEnd::Partial(&resume),
        };
        let has_lost_lease = !self.write_end(lease, end).await;
        if has_lost_lease {
            self.report = self.report.ended(Status::Busy, None, BUSY);
        }
        let cursor = self.cursor(place).filter(|_| self.report.status != Status::Complete);
        (self.report, cursor)
    }

    /// Where the next run of the same period goes on.
    fn cursor(&self, place: Place) -> Option<Cursor> {
        self.task.is_of_period().then(|| Cursor {
            shop: self.of.shop.to_string(),
            place,
        })
    }

    /// Writes the end of the run. If that fails, the lease expires. Returns false if the run has lost its lease.
    async fn write_end(&self, lease: Option<&ReconcileLease>, end: ReconcileEnd<'_>) -> bool {
        let Some(lease) = lease else { return true };
        let counts = serde_json::to_string(&self.report.counts).expect("numbers are JSON");
        let store = self.of.reconciler.intake.store();
        match store.end_reconciliation(lease, end, &counts).await {
            Ok(was_held) => was_held,
            Err(cause) => {
                tracing::warn!(
                    code = Code::ReconcileNotRecorded.as_str(),
                    provider = P::NAME,
                    shop = %self.of.shop,
                    %cause,
                    "the end of the run cannot be recorded; its lease expires"
                );
                true
            }
        }
    }
}

fn code_of(error: &ApiError) -> Code {
    match error.failure {
        Failure::Refused | Failure::Misconfigured => Code::ReconcileMisconfigured,
        Failure::Unavailable | Failure::Throttled | Failure::Unreadable => Code::ReconcileUnavailable,
    }
}

/// Whether a run may begin.
enum Begun {
    Held(ReconcileLease, ReconcileProgress),
    Free(ReconcileProgress),
    Busy,
}
