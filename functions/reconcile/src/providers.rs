//! The providers with an order API, and a task over the shops of one of them.

use std::time::Duration;

use aboutyou::AboutYou;
use cartum::Cartum;
use jiff::Timestamp;
use selldone::Selldone;
use shared::Provider as _;
use shared::answer::Refusal;
use shared::codes::Code;
use shared::identity::Shop;
use shared::order_api::{ApiError, BaseUrl, OrderApi};
use shared::secrets::{Secrets, ShopSecrets};
use shared::settings::{SettingError, Settings};
use shared::store::ReconcileProgress;
use snipcart::Snipcart;
use tokio::time::Instant;

use crate::connect::{Connect, Connected};
use crate::report::{self, Circumstances, RunAnswer, ShopReport, Status};
use crate::shop::{OfShop, ShopRun};
use crate::task::{Cursor, Reconcile};
use crate::time_left::TimeLeft;
use crate::watch::Watched;
use crate::{Reconciler, TaskError};

/// How long reading a secret may take.
const SECRET_BUDGET: Duration = Duration::from_secs(5);

/// The providers whose webhooks are set up by hand.
const BY_HAND: [&str; 3] = [Selldone::NAME, "deeple", Snipcart::NAME];

/// The providers, each with its settings.
pub(crate) struct Providers {
    snipcart: Configured<Snipcart>,
    cartum: Configured<Cartum>,
    selldone: Configured<Selldone>,
    aboutyou: Configured<AboutYou>,
}

/// A provider with its settings.
pub(crate) struct Configured<P: OrderApi> {
    pub(crate) provider: P,
    /// The secret of the provider; an error if reconciliation of the provider is off.
    secrets: Result<Secrets<P::Secrets>, SettingError>,
    /// The base URL that an operator has set.
    pub(crate) base_url: Option<BaseUrl>,
}

impl<P: OrderApi> Configured<P> {
    fn from_settings(settings: &Settings, secrets: &'static str) -> Result<Self, SettingError> {
        Ok(Self {
            provider: P::from_settings(settings)?,
            secrets: Secrets::from_setting(settings, secrets),
            base_url: settings.optional(P::API_URL).map(|url| BaseUrl::set_by_operator(&url)),
        })
    }

    /// The secrets of a shop.
    pub(crate) async fn secrets_of(&self, shop: &Shop, time: TimeLeft) -> Result<ShopSecrets<P::Secrets>, Refusal> {
        match &self.secrets {
            Ok(secrets) => secrets.of(shop, time.give_up_at).await,
            Err(error) => Err(Refusal::Misconfigured(error.to_string())),
        }
    }

    /// The base URL of the API of the shop with these credentials.
    pub(crate) fn base_url(&self, credentials: &P::Credentials) -> Result<BaseUrl, ApiError> {
        self.base_url
            .as_ref()
            .map_or_else(|| P::base_url(credentials), |url| Ok(url.clone()))
    }
}

impl Providers {
    pub(crate) fn from_settings(settings: &Settings) -> Result<Self, SettingError> {
        Ok(Self {
            snipcart: Configured::from_settings(settings, "SECRETS_SNIPCART")?,
            cartum: Configured::from_settings(settings, "SECRETS_CARTUM")?,
            selldone: Configured::from_settings(settings, "SECRETS_SELLDONE")?,
            aboutyou: Configured::from_settings(settings, "SECRETS_ABOUTYOU")?,
        })
    }
}

impl Reconciler {
    pub(crate) async fn reconcile(&self, task: &Reconcile, time: TimeLeft) -> Result<RunAnswer, TaskError> {
        let Providers {
            snipcart,
            cartum,
            selldone,
            aboutyou,
        } = &self.providers;
        // Boxed, because these futures are large.
        match task.provider.as_str() {
            Snipcart::NAME => Box::pin(self.shops_of(snipcart, task, time)).await,
            Cartum::NAME => Box::pin(self.shops_of(cartum, task, time)).await,
            Selldone::NAME => Box::pin(self.shops_of(selldone, task, time)).await,
            AboutYou::NAME => Box::pin(self.shops_of(aboutyou, task, time)).await,
            _ => {
                let known = [Snipcart::NAME, Cartum::NAME, Selldone::NAME, AboutYou::NAME].join(", ");
                Err(TaskError::NoTask(format!(
                    "the provider has no order API; the providers with one are {known}"
                )))
            }
        }
    }

    /// Works at the shops of a provider, one after the other.
    async fn shops_of<P: Watched>(
        &self,
        configured: &Configured<P>,
        task: &Reconcile,
        time: TimeLeft,
    ) -> Result<RunAnswer, TaskError> {
        let secrets = self.read_secrets(configured, time).await?;
        let mut answer = RunAnswer {
            provider: P::NAME,
            shops: Vec::new(),
            done: true,
            cursor: None,
        };
        for (shop, progress) in self.in_order(secrets.shops(), task, P::NAME).await? {
            let (report, cursor) = match secrets.api::<P::Credentials>(&shop) {
                None => (not_configured(&shop), None),
                Some(Err(cause)) => {
                    let report = ShopReport::new(shop.as_str());
                    let code = Some(Code::ReconcileMisconfigured);
                    (report.ended(Status::Unavailable, code, cause), None)
                }
                Some(Ok(credentials)) => {
                    let of = OfShop {
                        reconciler: self,
                        configured,
                        credentials: &credentials,
                        shop: &shop,
                        time,
                    };
                    Box::pin(ShopRun::new(of, task).run()).await
                }
            };
            let circumstances = Circumstances {
                provider: P::NAME,
                dry_run: task.dry_run,
                is_regular: !task.is_of_period(),
                age_minutes: age_minutes(&report, &progress, Timestamp::now()),
            };
            report::write(&self.telemetry, &report, &circumstances);
            answer.done &= matches!(report.status, Status::Complete | Status::NotConfigured);
            let is_partial = report.status == Status::Partial;
            answer.shops.push(report);
            // A cursor at a shop that fails would repeat the shops after it.
            if is_partial || task.shop.is_some() {
                answer.cursor = cursor;
            }
            if is_partial && task.is_of_period() {
                break;
            }
        }
        if answer.shops.is_empty()
            && let Some(shop) = &task.shop
        {
            let report = ShopReport::new(shop);
            let cause = "the secret does not name the shop";
            answer.shops.push(report.ended(Status::NotConfigured, None, cause));
        }
        Ok(answer)
    }

    /// Reads the secret of a provider.
    pub(crate) async fn read_secrets<'c, P: OrderApi>(
        &self,
        configured: &'c Configured<P>,
        time: TimeLeft,
    ) -> Result<&'c Secrets<P::Secrets>, TaskError> {
        let secrets = configured.secrets.as_ref().map_err(Clone::clone)?;
        let until = time.give_up_at.min(Instant::now() + SECRET_BUDGET);
        let read = secrets.prepare(until).await;
        for cause in secrets.reports() {
            tracing::error!(
                code = Code::SecretUnusable.as_str(),
                provider = P::NAME,
                secret = secrets.name(),
                cause,
                "the secret is malformed or refused"
            );
        }
        read.map_err(|refusal| TaskError::Secret(refusal.to_string()))?;
        Ok(secrets)
    }

    /// Subscribes to the events of a shop.
    pub(crate) async fn connect(&self, task: &Connect, time: TimeLeft) -> Result<Connected, TaskError> {
        match task.provider.as_str() {
            Cartum::NAME => Box::pin(self.subscribe(&self.providers.cartum, task, time)).await,
            AboutYou::NAME => Box::pin(self.subscribe(&self.providers.aboutyou, task, time)).await,
            other if BY_HAND.contains(&other) => Err(TaskError::NoTask(format!(
                "{other} has no API for subscriptions; functions/{other}/README.md says where to click"
            ))),
            _ => Err(TaskError::NoTask("provider is not a provider's name".to_owned())),
        }
    }

    /// The shops of a task with their progress. A regular run begins with the shop whose last complete run is the longest
    /// ago, so that a large shop does not hold up the others for ever. The shops whose last run failed come last, so that
    /// an API that does not answer takes no time from the others.
    async fn in_order(
        &self,
        mut shops: Vec<Shop>,
        task: &Reconcile,
        provider: &str,
    ) -> Result<Vec<(Shop, ReconcileProgress)>, TaskError> {
        shops.retain(|shop| task.shop.as_deref().is_none_or(|wanted| wanted == shop.as_str()));
        if let Some(Cursor { shop: here, .. }) = &task.cursor {
            shops.retain(|shop| shop.as_str() >= here.as_str());
        }
        let mut in_order = Vec::with_capacity(shops.len());
        for shop in shops {
            let progress = self.intake.store().reconciliation(provider, &shop).await?;
            in_order.push((shop, progress));
        }
        if !task.is_of_period() {
            in_order.sort_by_key(|(_, progress)| (progress.failing_since.is_some(), progress.last_complete_at));
        }
        Ok(in_order)
    }
}

fn not_configured(shop: &Shop) -> ShopReport {
    let report = ShopReport::new(shop.as_str());
    report.ended(Status::NotConfigured, None, "the shop's secret has no `api`")
}

/// The minutes since the last complete run of a shop, or since its first run if none was complete.
fn age_minutes(report: &ShopReport, progress: &ReconcileProgress, now: Timestamp) -> Option<i64> {
    if report.status == Status::Complete {
        return Some(0);
    }
    let since = progress.last_complete_at.or(progress.first_run_at)?;
    Some(now.duration_since(since).as_mins())
}
