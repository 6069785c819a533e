//! What is known of a subscription that is noted.

use jiff::{SignedDuration, Timestamp};
use shared::order_api::ListedSubscription;
use shared::store::NotedSubscription;

/// The time after which an attempt that has not noted its result is over: the longest timeout of a Lambda function.
const LONGEST_ATTEMPT: SignedDuration = SignedDuration::from_mins(15);

/// What is known of a subscription that is noted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Examined<'l> {
    /// It is in order.
    Known,
    /// It is in order, and the note does not say so yet.
    Listed(&'l ListedSubscription),
    /// It has this defect.
    Incomplete(String),
    /// The provider calls another URL for it.
    OtherUrl,
    /// An attempt to make it may still be at work.
    AtWork,
    /// The provider may have it.
    Unclear,
    /// The provider has reported its end.
    Ended,
    /// The provider does not list it.
    Missing,
}

/// Examines a subscription, given what the provider lists, if it lists its subscriptions.
pub(crate) fn examine<'l>(
    noted: &NotedSubscription,
    listed: Option<&'l [ListedSubscription]>,
    now: Timestamp,
) -> Examined<'l> {
    if is_at_work(noted, now) {
        return Examined::AtWork;
    }
    let Some(listed) = listed else {
        return match (&noted.ended_at, &noted.id) {
            (Some(_), _) => Examined::Ended,
            (None, Some(_)) => Examined::Known,
            (None, None) => Examined::Unclear,
        };
    };
    if let Some(own) = with_url(listed, |url| noted.is_of(url)) {
        return match &own.defect {
            Some(defect) => Examined::Incomplete(defect.clone()),
            None if noted.is_made() => Examined::Known,
            None => Examined::Listed(own),
        };
    }
    let id = noted.id.as_deref().filter(|id| !id.is_empty());
    match id.and_then(|id| listed.iter().find(|listed| listed.id == id)) {
        Some(ListedSubscription { url: Some(_), .. }) => Examined::OtherUrl,
        Some(own) => own
            .defect
            .as_ref()
            .map_or(Examined::Known, |defect| Examined::Incomplete(defect.clone())),
        None if noted.ended_at.is_none() && listed.iter().any(|listed| may_be(listed, id)) => Examined::Unclear,
        None => Examined::Missing,
    }
}

/// Whether a listed subscription may be the one with this id, because the list does not say enough of it.
fn may_be(listed: &ListedSubscription, id: Option<&str>) -> bool {
    listed.url.is_none() && (id.is_none() || listed.id.is_empty())
}

/// The listed subscription whose URL is wanted: one without a defect, if there are several.
pub(crate) fn with_url(listed: &[ListedSubscription], is_wanted: impl Fn(&str) -> bool) -> Option<&ListedSubscription> {
    let found = listed
        .iter()
        .filter(|listed| listed.url.as_deref().is_some_and(&is_wanted));
    found.min_by_key(|listed| listed.defect.is_some())
}

/// Whether an attempt without a result may still be at work.
pub(crate) fn is_at_work(noted: &NotedSubscription, now: Timestamp) -> bool {
    noted.is_unclear()
        && noted
            .noted_at
            .is_some_and(|noted_at| now.duration_since(noted_at) < LONGEST_ATTEMPT)
}

#[cfg(test)]
mod tests {
    use shared::identity::sha256_hex;

    use super::*;

    const URL: &str = "https://api.example.com/webhooks/aboutyou/main?token=a-token-of-the-shop";
    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn noted(id: Option<&str>) -> NotedSubscription {
        let mut noted = NotedSubscription::default();
        noted.id = id.map(str::to_owned);
        noted.url_sha256 = Some(sha256_hex(URL.as_bytes()));
        noted.noted_at = Some(NOW);
        noted
    }

    fn listed(id: &str, url: Option<&str>, defect: Option<&str>) -> ListedSubscription {
        ListedSubscription {
            id: id.to_owned(),
            url: url.map(str::to_owned),
            defect: defect.map(str::to_owned),
        }
    }

    #[test]
    fn without_a_list_a_subscription_ends_by_its_mark() {
        let mut made = noted(Some("7"));
        assert_eq!(examine(&made, None, NOW), Examined::Known);
        made.ended_at = Some(NOW);
        assert_eq!(examine(&made, None, NOW), Examined::Ended);
        let unclear = noted(None);
        assert_eq!(examine(&unclear, None, NOW), Examined::AtWork);
        let later = NOW + SignedDuration::from_mins(15);
        assert_eq!(examine(&unclear, None, later), Examined::Unclear);
    }

    #[test]
    fn with_a_list_a_subscription_is_found_by_its_url_or_its_id() {
        let disabled = "the subscription is disabled";
        let examine = |noted: &NotedSubscription, listed: ListedSubscription| match examine(noted, Some(&[listed]), NOW)
        {
            Examined::Incomplete(defect) => Err(defect),
            other => Ok(format!("{other:?}")),
        };
        let made = noted(Some("7"));
        let known = Ok("Known".to_owned());
        assert_eq!(examine(&made, listed("7", Some(URL), None)), known);
        assert_eq!(examine(&made, listed("", Some(URL), None)), known);
        assert_eq!(examine(&made, listed("7", None, None)), known);
        for url in [Some(URL), None] {
            assert_eq!(
                examine(&made, listed("7", url, Some(disabled))),
                Err(disabled.to_owned())
            );
        }
        let elsewhere = examine(&made, listed("7", Some("https://api.example.com/"), None));
        assert_eq!(elsewhere, Ok("OtherUrl".to_owned()));
        let other = || listed("8", Some("https://api.example.com/"), None);
        assert_eq!(examine(&made, other()), Ok("Missing".to_owned()));
        assert_eq!(examine(&noted(Some("")), other()), Ok("Missing".to_owned()));
        // The list does not say whether this is the one.
        let unclear = Ok("Unclear".to_owned());
        assert_eq!(examine(&made, listed("", None, None)), unclear);
        assert_eq!(examine(&noted(Some("")), listed("8", None, None)), unclear);
        assert_eq!(examine(&made, listed("8", None, None)), Ok("Missing".to_owned()));
    }

    #[test]
    fn an_attempt_whose_answer_was_lost_is_looked_up_in_the_list() {
        let unclear = noted(None);
        let own = listed("7", Some(URL), None);
        let list = [own.clone()];
        for list in [&list[..], &[]] {
            assert_eq!(examine(&unclear, Some(list), NOW), Examined::AtWork);
        }
        let later = NOW + SignedDuration::from_mins(15);
        assert_eq!(examine(&unclear, Some(&list), later), Examined::Listed(&own));
        assert_eq!(examine(&unclear, Some(&[]), later), Examined::Missing);
        let without_url = [listed("7", None, None)];
        assert_eq!(examine(&unclear, Some(&without_url), later), Examined::Unclear);
    }
}
