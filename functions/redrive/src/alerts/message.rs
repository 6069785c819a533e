//! The message of an alert: a subject and a text for people, and JSON for programs.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use shared::alert::{Kind, NOT_NOTED, Subject};

use super::state::{Example, Findings, Sending};

/// The longest subject that SNS accepts.
const SUBJECT_LENGTH: usize = 100;

/// The sender of the messages.
pub(super) struct Sender {
    /// The CloudFormation stack, if there is one.
    pub(super) stack: Option<String>,
    /// The name of this function.
    pub(super) function: String,
}

/// A message, in the form of the attribute `alert`.
#[derive(Serialize)]
pub(super) struct Message<'a> {
    id: &'a str,
    kind: Kind,
    /// The section of `shared/CODES.md`.
    code: Kind,
    status: &'static str,
    provider: &'a str,
    shop: Option<&'a str>,
    /// The number of findings since the last message.
    count: u64,
    /// The number of findings since the alert was opened.
    total: u64,
    since: Timestamp,
    events: &'a [Example],
    details: &'a [String],
    cause: &'static str,
    action: &'static str,
    commands: Vec<String>,
}

/// The cause of a kind of finding, and the action to take.
fn guide(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Quarantined => (
            "Deliveries were not understood. They are stored and not published.",
            "Look at them, correct the mapping, deploy it and reprocess them; dismiss what no mapping will ever understand.",
        ),
        Kind::Conflict => (
            "A known event was sent again with another body. The first body was published, the other is stored.",
            "Compare the two bodies, and publish the other one if it is right.",
        ),
        Kind::Failed => (
            "Events are not tried any more. They are stored and not published.",
            "Remove the cause, and requeue them.",
        ),
        Kind::Drift => (
            "Payloads have a field or a word that the mapping does not know. The events are published; the field is in unmapped.",
            "Map it, or list it in the provider's unmapped.rs with the reason.",
        ),
        Kind::Misconfigured => (
            "The secret cannot be used, or the provider refuses a key in it. Deliveries are answered 500, after 15 minutes \
             at the latest.",
            "Correct the secret. No deployment is needed.",
        ),
        Kind::WrongCredentials => (
            "Requests for this shop carried credentials that do not pass. They were refused with 401.",
            "If the provider sent them, store the credentials that it uses in the secret, or orders are lost; if a stranger \
             did, nothing got in (functions/redrive/README.md, Alarms).",
        ),
        Kind::Silence => (
            "The shop has sent no authentic delivery for longer than SilenceHours or the silence_hours of its secret.",
            "Check in the provider's admin that the webhook is active and calls the URL of the stack's outputs.",
        ),
        Kind::Unsubscribed => (
            "A subscription has ended, is not as it was made, or cannot be checked. Its events may not be delivered.",
            "If this was not intended, subscribe as the provider's README says. If `connect` has made the subscription, run \
             it: an event whose subscription ended or is missing is subscribed again. If the details ask for `again`, look \
             in the shop first, and name the event with --again. Enable a disabled subscription at the provider.",
        ),
    }
}

impl<'a> Message<'a> {
    pub(super) fn new(sender: &Sender, subject: &'a Subject, sending: &'a Sending) -> Self {
        let (cause, action) = guide(subject.kind);
        Self {
            id: &sending.id,
            kind: subject.kind,
            code: subject.kind,
            status: if sending.is_over { "over" } else { "open" },
            provider: &subject.provider,
            shop: subject.shop.as_deref(),
            count: sending.findings.count,
            total: sending.total,
            since: sending.since,
            events: &sending.findings.events,
            details: &sending.findings.details,
            cause,
            action,
            commands: if sending.is_over {
                Vec::new()
            } else {
                sender.commands(subject, &sending.findings)
            },
        }
    }

    fn is_over(&self) -> bool {
        self.status == "over"
    }

    /// The subject of the message. SNS accepts only printable ASCII.
    pub(super) fn subject(&self, sender: &Sender) -> String {
        let stack = sender.stack.as_deref().unwrap_or("order-webhooks");
        let kind = self.kind.as_str().replace('_', " ");
        let what = if self.is_over() {
            format!("{kind} is over")
        } else {
            format!("{} {kind}", self.count)
        };
        let subject = format!("{stack}: {what}, {}", self.place());
        let subject = subject.chars().filter(|character| matches!(character, ' '..='~'));
        subject.take(SUBJECT_LENGTH).collect()
    }

    fn place(&self) -> String {
        match self.shop {
            Some(shop) => format!("{}/{shop}", self.provider),
            None => self.provider.to_owned(),
        }
    }

    /// The text for people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let code = self.kind.as_str();
        // Writing to a text does not fail.
        let _ = match (self.is_over(), self.kind) {
            (false, _) => writeln!(text, "{}", self.cause),
            (true, Kind::Quarantined | Kind::Failed) => writeln!(text, "Over: none of these events waits any more."),
            (true, Kind::Silence) => writeln!(text, "Over: the shop has sent a delivery, or is not watched any more."),
            (true, _) => writeln!(text, "Over: nothing new was found for a period."),
        };
        let _ = writeln!(
            text,
            "\nKind: {code} (shared/CODES.md#{code})\nProvider: {}\nShop: {}",
            self.provider,
            self.shop.unwrap_or("all shops of the provider")
        );
        let _ = writeln!(
            text,
            "New since the last message: {}\nTotal since {:.0}: {}",
            self.count, self.since, self.total
        );
        if !self.details.is_empty() {
            let _ = writeln!(text, "Details: {}", self.details.join("; "));
        }
        for Example {
            event_id,
            order,
            payload_sha256,
        } in self.events
        {
            let _ = write!(text, "Event: {event_id}");
            if let Some(order) = order {
                let _ = write!(text, ", order {order}");
            }
            if let Some(payload_sha256) = payload_sha256 {
                let _ = write!(text, ", body {payload_sha256}");
            }
            text.push('\n');
        }
        if !self.is_over() {
            let _ = writeln!(text, "\nWhat to do: {}\n\n{}", self.action, self.commands.join("\n"));
        }
        let _ = writeln!(text, "\nAlert: {}", self.id);
        text
    }

    /// The message attributes: those for filter policies, and the JSON for programs.
    pub(super) fn attributes(&self) -> Vec<(&'static str, String)> {
        let mut attributes = vec![
            ("alert", json!(self).to_string()),
            ("kind", self.kind.as_str().to_owned()),
            ("provider", self.provider.to_owned()),
        ];
        attributes.extend(self.shop.map(|shop| ("shop", shop.to_owned())));
        attributes
    }
}

impl Sender {
    /// The commands to run. They contain nothing from a payload.
    fn commands(&self, subject: &Subject, findings: &Findings) -> Vec<String> {
        let event = findings.events.first();
        let is_of_another = |detail: &String| detail.ends_with(NOT_NOTED);
        let is_by_hand = !findings.details.is_empty() && findings.details.iter().all(is_of_another);
        let get =
            event.map(|Example { event_id, .. }| (format!("get {event_id}"), json!({"get": {"event_id": event_id}})));
        let task = match (subject.kind, &subject.shop) {
            (Kind::Quarantined, Some(shop)) => {
                let provider = &subject.provider;
                let command = format!("reprocess --provider {provider} --shop {shop}");
                Some((command, json!({"reprocess": {"provider": provider, "shop": shop}})))
            }
            (Kind::Conflict, _) => event.and_then(|event| {
                let (id, sha256) = (&event.event_id, event.payload_sha256.as_ref()?);
                let payload = json!({"publish_conflict": {"event_id": id, "payload_sha256": sha256}});
                Some((format!("publish-conflict {id} {sha256}"), payload))
            }),
            (Kind::Failed, _) => Some(("requeue".to_owned(), json!({"requeue": {}}))),
            _ => None,
        };
        let tasks: Vec<_> = get.into_iter().chain(task).collect();
        let connect = match (subject.kind, &subject.shop) {
            // A shop that was subscribed by hand would be subscribed twice.
            (Kind::Unsubscribed, Some(shop)) if !is_by_hand => {
                Some(self.local(&format!("connect {} {shop}", subject.provider)))
            }
            _ => None,
        };
        if tasks.is_empty() && connect.is_none() {
            let stack = self.stack.as_deref().unwrap_or("STACK");
            let outputs = format!("sam list stack-outputs --stack-name {stack}");
            let put = "aws secretsmanager put-secret-value --secret-id SECRET_ARN --secret-string file://secret.json";
            let put = (subject.kind != Kind::Silence).then(|| put.to_owned());
            return [outputs].into_iter().chain(put).collect();
        }
        let local = tasks.iter().map(|(command, _)| self.local(command));
        let invoked = tasks.iter().map(|(_, payload)| self.invoke(payload));
        connect.into_iter().chain(local).chain(invoked).collect()
    }

    fn local(&self, command: &str) -> String {
        match &self.stack {
            Some(stack) => format!("cargo local {command} --stack {stack}"),
            None => format!("cargo local {command}"),
        }
    }

    fn invoke(&self, payload: &Value) -> String {
        format!(
            "AWS_MAX_ATTEMPTS=1 aws lambda invoke --function-name {} --cli-read-timeout 900 --cli-binary-format \
             raw-in-base64-out --payload '{payload}' answer.json",
            self.function
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::Alert;
    use super::*;
    use jiff::SignedDuration;
    use shared::identity::{EventId, Shop};

    const KINDS: [Kind; 8] = [
        Kind::Quarantined,
        Kind::Conflict,
        Kind::Failed,
        Kind::Drift,
        Kind::Misconfigured,
        Kind::WrongCredentials,
        Kind::Silence,
        Kind::Unsubscribed,
    ];

    fn sending(order: &str) -> Sending {
        let mut findings = Findings::default();
        let event = Example {
            event_id: EventId::parse(&"a".repeat(64)).expect("an id"),
            order: Some(order.to_owned()),
            payload_sha256: Some("b".repeat(64)),
        };
        findings.add(3, Some(event), Some("unknown_event"));
        let mut alert = Alert::default();
        alert.add(findings, [], Timestamp::UNIX_EPOCH);
        alert.claim(Timestamp::UNIX_EPOCH, SignedDuration::from_hours(1), false);
        alert.sending().cloned().expect("a message")
    }

    fn sender(stack: &str) -> Sender {
        Sender {
            stack: Some(stack.to_owned()).filter(|stack| !stack.is_empty()),
            function: "redrive".to_owned(),
        }
    }

    #[test]
    fn a_subject_is_short_ascii_that_begins_with_the_stack() {
        let sending = sending("7");
        for (stack, begins) in [
            ("mine", "mine: 3 "),
            ("", "order-webhooks: 3 "),
            (&"s".repeat(128), "sss"),
        ] {
            for kind in KINDS {
                let subject = Subject::new(kind, "aboutyou", Shop::parse(&"x".repeat(64)).as_ref());
                let sender = sender(stack);
                let subject = Message::new(&sender, &subject, &sending).subject(&sender);
                assert!(
                    subject.starts_with(begins) && subject.len() <= SUBJECT_LENGTH,
                    "{subject}"
                );
            }
        }
    }

    #[test]
    fn a_message_names_the_event_the_order_and_the_command() {
        let sending = sending("1001");
        let sender = sender("mine");
        for kind in KINDS {
            let subject = Subject::new(kind, "selldone", Shop::parse("main").as_ref());
            let message = Message::new(&sender, &subject, &sending);
            let text = message.text();
            for named in [
                &"a".repeat(64),
                "order 1001",
                "Shop: main",
                "unknown_event",
                &format!("CODES.md#{}", kind.as_str()),
                "--stack mine",
                "--function-name redrive",
            ] {
                assert!(text.contains(named), "{named} is not in {text}");
            }
        }
    }

    #[test]
    fn a_subscription_is_made_again_by_a_command() {
        let mut sending = sending("7");
        let subject = Subject::new(Kind::Unsubscribed, "cartum", Shop::parse("main").as_ref());
        let connect = "cargo local connect cartum main --stack mine";
        let commands = Message::new(&sender("mine"), &subject, &sending).commands;
        assert_eq!((commands[0].as_str(), commands.len()), (connect, 3));
        // A subscription that was made by hand would be made twice.
        sending.findings.details = vec![format!("order_paid: {NOT_NOTED}")];
        let commands = Message::new(&sender("mine"), &subject, &sending).commands;
        assert!(commands.len() == 2 && !commands.iter().any(|command| command.contains("connect")));
        sending
            .findings
            .details
            .push("order_paid: the subscription was ended".to_owned());
        // A run of reconcile finds a missing subscription without an event.
        sending.findings.events.clear();
        let commands = Message::new(&sender("mine"), &subject, &sending).commands;
        assert_eq!(commands, [connect]);
    }

    #[test]
    fn no_text_of_a_payload_is_in_a_command() {
        let sending = sending("'; rm -rf ~; '");
        let sender = sender("mine");
        for kind in KINDS {
            let subject = Subject::new(kind, "selldone", Shop::parse("main").as_ref());
            let commands = Message::new(&sender, &subject, &sending).commands;
            assert!(!commands.is_empty() && commands.iter().all(|command| !command.contains("rm -rf")));
        }
    }
}
