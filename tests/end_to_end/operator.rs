//! The tasks of `cargo local` on a deployed stack, through the AWS CLI. CloudFormation is moto's, and the invoked
//! function is the real one of the local stack. Skipped without `MOTO_SERVER` or the AWS CLI; see tests/moto.

use jiff::Timestamp;
use local::aws::faults::{Rule, Service};
use local::project::settings;
use serde_json::{Value, json};
use tests::moto::Moto;
use tests::outbox::DENIED;
use tests::{Stack, local_command};
use tokio::process::Command;

/// A program in the environment of an operator, with CloudFormation at moto and Lambda at the local stack.
fn operator(program: &str, moto: &Moto, stack: &Stack) -> Command {
    let mut command = if program == "aws" {
        Command::new("aws")
    } else {
        local_command()
    };
    command
        .env("AWS_ENDPOINT_URL_CLOUDFORMATION", format!("http://{}", moto.address()))
        .env("AWS_ENDPOINT_URL_LAMBDA", stack.endpoints().messages_url())
        .env("AWS_REGION", local::REGION)
        .env("AWS_DEFAULT_REGION", local::REGION)
        .env("AWS_ACCESS_KEY_ID", settings::AWS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", settings::AWS_KEY);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_reaches_a_deployed_stack_by_its_name() {
    let Some(moto) = Moto::start().await else {
        eprintln!("skipped: MOTO_SERVER is not set");
        return;
    };
    if Command::new("aws").arg("--version").output().await.is_err() {
        eprintln!("skipped: the AWS CLI is not installed");
        return;
    }
    let stack = Stack::start().await;
    for (name, output) in [("deployed", "Redrive"), ("another", "Other")] {
        let topic = json!({"Type": "AWS::SNS::Topic"});
        let template = json!({"Resources": {"Topic": topic}, "Outputs": {output: {"Value": settings::REDRIVE}}});
        let created = operator("aws", &moto, &stack)
            .args([
                "cloudformation",
                "create-stack",
                "--stack-name",
                name,
                "--template-body",
            ])
            .arg(template.to_string())
            .output()
            .await
            .expect("the command runs");
        assert!(created.status.success(), "{created:?}");
    }
    let ask = async |arguments: &[&str], name: &str| {
        let mut command = operator("local", &moto, &stack);
        let done = command
            .args(arguments)
            .args(["--stack", name])
            .output()
            .await
            .expect("the command runs");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        serde_json::from_slice::<Value>(&done.stdout).map_err(|_| said)
    };

    let down = stack.tap().inject(Rule::all(Service::Sns), DENIED);
    let event_id = stack.deliver("aboutyou", "order-created").await.event_id("accepted");
    let outage = ask(&["redrive"], "deployed").await;
    assert_eq!(outage.expect("an answer")["published"], 0, "the event is not due yet");
    drop(down);
    stack
        .clients()
        .make_due(Timestamp::MAX)
        .await
        .expect("the table takes it");
    let redriven = ask(&["redrive"], "deployed").await.expect("an answer");
    assert_eq!((&redriven["published"], &redriven["done"]), (&json!(1), &json!(true)));
    let shown = ask(&["show", "aboutyou", "main", "ayou-139-48201"], "deployed")
        .await
        .expect("an answer");
    assert_eq!(shown["events"][0]["event_id"], event_id);
    assert_eq!(shown["events"][0]["event"], stack.stored_event(&event_id).await);
    let erase = ["erase", "aboutyou", "main", "ayou-139-48201"];
    assert_eq!(ask(&erase, "deployed").await.expect("an answer")["erased"], 1);
    assert_eq!(
        ask(&["requeue", "--dry-run"], "deployed").await.expect("an answer")["requeued"],
        0
    );

    for (arguments, name, why) in [
        (&["get", "no-id"][..], "deployed", "event_id is not 64 hex digits"),
        (&["redrive"], "another", "has no output Redrive"),
        (&["redrive"], "nowhere", "does not exist"),
    ] {
        let error = ask(arguments, name).await.expect_err("an error");
        assert!(error.contains(why), "{error}");
    }
}
