//! The stable codes of refusals and log lines. `shared/CODES.md` says for each code what it means, what causes it and
//! what cures it.
//!
//! The other codes on that page are the [reasons](crate::answer::Reason) of quarantined deliveries, and the names of
//! alarms and alerts.

use strum::{IntoStaticStr, VariantArray};

/// The code of a refusal or of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Code {
    /// 405: the route accepts other methods.
    MethodNotAllowed,
    /// 413: the body is over the limit.
    BodyTooLarge,
    /// 400: the request cannot be read.
    MalformedRequest,
    /// 401: the delivery could not be verified. The answer has this code whatever the cause is; the log line has one of
    /// the next two.
    VerificationFailed,
    /// The request carries nothing that looks like the provider's credentials, or the shop is not configured.
    NoCredentials,
    /// The request carries what looks like the provider's credentials, but they do not pass.
    WrongCredentials,
    /// 500: the configuration or the secret is wrong.
    Misconfigured,
    /// 503: a service that is needed cannot be used.
    Unavailable,
    /// The function was invoked with something else than an event of an HTTP API.
    NotAnHttpEvent,
    /// The code panicked.
    Panicked,
    /// The secret, or one shop's part of it, was read and cannot be used.
    SecretUnusable,
    /// The secret could not be read while the function started.
    SecretNotRead,
    /// The cached secret could not be read again.
    SecretNotRefreshed,
    /// A service did not answer while the function started.
    ServiceNotReached,
    /// There are no root certificates, so TLS fails.
    NoRootCertificates,
    /// A delivery stored its event and could not publish it.
    EventNotPublished,
    /// A delivery published its event and could not mark it as published.
    EventNotMarked,
    /// The state of an order could not be published after an event of it.
    StateNotPublished,
    /// An item of the table cannot be read.
    CorruptItem,
    /// A run of redrive could not publish because SNS or the table cannot be used.
    RedriveOutage,
    /// The beginning or the end of a run of redrive could not be recorded.
    RunNotRecorded,
    /// An earlier run of redrive did not end.
    UnendedRun,
    /// The lease of an event could not be taken back.
    LeaseNotReleased,
    /// An event is not tried any more.
    Failed,
    /// SNS refused the message of an event, which is put off.
    MessageRefused,
    /// An event could not be published while others could, and is put off.
    EventDeferred,
    /// A replayed event could not be published.
    EventNotReplayed,
    /// Abandoned parts could not be deleted.
    PartsNotSwept,
    /// Expired events could not be removed.
    ExpiredNotRemoved,
    /// The outbox could not be measured.
    OutboxNotMeasured,
    /// A delivery could not write a note for alerts.
    NoteNotWritten,
    /// SNS did not accept the message of an alert.
    AlertNotSent,
    /// A run of the task `alert` could not do all that is due, because SNS or the table cannot be used.
    AlertOutage,
    /// Reconciliation could not use the order API of a provider, or the table.
    ReconcileUnavailable,
    /// The credentials for an order API are malformed or refused.
    ReconcileMisconfigured,
    /// The end of a run of reconciliation could not be recorded.
    ReconcileNotRecorded,
    /// The subscriptions of a shop could not be checked.
    SubscriptionsNotWatched,
    /// A subscription that has ended could not be made again.
    SubscriptionNotRenewed,
}

impl Code {
    /// All codes.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The code as a word.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::alert::Kind;
    use crate::answer::Reason;

    const PAGE: &str = include_str!("../CODES.md");
    const TEMPLATE: &str = include_str!("../../template.yaml");

    /// The sections of the page by their codes.
    fn sections() -> BTreeMap<&'static str, &'static str> {
        let sections = PAGE.split("\n### ").skip(1);
        let sections = sections.map(|section| section.split_once('\n').expect("a section has a text"));
        let text = |text: &'static str| text.split("\n## ").next().unwrap_or(text);
        let sections: Vec<_> = sections.map(|(code, section)| (code, text(section))).collect();
        let by_code: BTreeMap<_, _> = sections.iter().copied().collect();
        assert_eq!(by_code.len(), sections.len(), "each code has one section");
        by_code
    }

    /// The code of each alarm: its name in snake case, without the stack's and the provider's.
    fn alarms() -> BTreeSet<String> {
        let providers: Vec<String> = crate_folder("functions")
            .map(|folder| folder.file_name().expect("a name").to_string_lossy().into_owned() + "-")
            .filter(|function| !["redrive-", "reconcile-"].contains(&function.as_str()))
            .collect();
        let code = |name: &str| {
            let name = name.trim_matches(['\'', '"']).strip_prefix("${AWS::StackName}-")?;
            // A name in a loop holds the loop's variable in the provider's place.
            let variable = name.strip_prefix("${").and_then(|rest| rest.split_once("}-"));
            let of_provider = providers
                .iter()
                .find_map(|provider| name.strip_prefix(provider.as_str()));
            Some(
                variable
                    .map(|(_, rest)| rest)
                    .or(of_provider)
                    .unwrap_or(name)
                    .replace('-', "_"),
            )
        };
        let names = TEMPLATE
            .lines()
            .filter_map(|line| line.trim().strip_prefix("AlarmName: !Sub "));
        names
            .map(|name| code(name.trim()).expect("an alarm is named after its stack"))
            .collect()
    }

    fn crate_folder(name: &str) -> impl Iterator<Item = PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        entries.map(|entry| entry.expect("an entry").path())
    }

    fn sources(folder: &Path, into: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                sources(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source");
                into.push((path, text));
            }
        }
    }

    /// The code of the functions, without this file.
    fn functions() -> Vec<(PathBuf, String)> {
        let mut found = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        for function in crate_folder("functions") {
            sources(&function.join("src"), &mut found);
        }
        found.retain(|(path, _)| !path.ends_with("shared/src/codes.rs"));
        assert!(found.len() > 50, "{} files", found.len());
        found
    }

    #[test]
    fn every_code_has_a_section_and_every_section_a_code() {
        let codes = Code::ALL.iter().map(|code| code.as_str());
        let reasons = Reason::ALL.iter().map(|reason| reason.as_str());
        let alerts = Kind::ALL.iter().map(|kind| kind.as_str());
        let codes = codes.chain(reasons).chain(alerts).map(str::to_owned);
        let codes: BTreeSet<String> = codes.chain(alarms()).collect();
        let sections: BTreeSet<String> = sections().into_keys().map(str::to_owned).collect();
        let missing: Vec<_> = codes.difference(&sections).collect();
        let unknown: Vec<_> = sections.difference(&codes).collect();
        assert!(
            missing.is_empty() && unknown.is_empty(),
            "without a section: {missing:?}; without a code: {unknown:?}"
        );
    }

    #[test]
    fn every_section_has_meaning_causes_cure_and_place() {
        for (code, section) in sections() {
            let parts: Vec<_> = section
                .lines()
                .filter_map(|line| line.strip_prefix("- **")?.split_once(":**"))
                .map(|(part, _)| part)
                .collect();
            assert_eq!(parts, ["Meaning", "Causes", "Cure", "Where"], "{code}");
        }
    }

    #[test]
    fn every_warning_and_error_has_a_code() {
        let mut lines = 0;
        for (path, text) in functions() {
            for call in ["tracing::warn!(", "tracing::error!("] {
                for rest in text.split(call).skip(1) {
                    lines += 1;
                    let line = rest.lines().next().unwrap_or_default();
                    assert!(
                        rest.trim_start().starts_with("code = "),
                        "{}: {call}{line}",
                        path.display()
                    );
                }
            }
        }
        assert!(lines > 20, "{lines} lines");
    }

    #[test]
    fn every_code_is_used() {
        let sources = functions();
        for code in Code::ALL {
            let used = format!("Code::{code:?}");
            assert!(sources.iter().any(|(_, text)| text.contains(&used)), "{used}");
        }
    }
}
