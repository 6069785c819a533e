//! Reads the outputs of a deployed stack and invokes its functions with the AWS CLI. The CLI knows the operator's access (a
//! profile, SSO, a role), and this program sees no credentials.

use std::process::Stdio;

use local::Error;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Longer than the function runs, in seconds.
const PATIENCE: &str = "900";

/// The value of an output of a stack.
pub(crate) async fn output(stack: &str, name: &str) -> Result<String, Error> {
    let query = format!("Stacks[0].Outputs[?OutputKey=='{name}'].OutputValue | [0]");
    let said = aws(
        &[
            "cloudformation",
            "describe-stacks",
            "--stack-name",
            stack,
            "--query",
            &query,
        ],
        b"",
    )
    .await?;
    match String::from_utf8_lossy(&said).trim() {
        "" | "None" => Err(failed(format!(
            "the stack {stack} has no output {name}; is it deployed from template.yaml, with the parameters that it needs?"
        ))),
        value => Ok(value.to_owned()),
    }
}

/// Invokes a function and returns its result.
pub(crate) async fn invoke<T: DeserializeOwned>(function: &str, payload: &Value) -> Result<T, Error> {
    let said = aws(
        &[
            "lambda",
            "invoke",
            "--function-name",
            function,
            "--cli-read-timeout",
            PATIENCE,
            // As bytes, which both major versions of the CLI send unchanged.
            "--payload",
            "fileb:///dev/stdin",
            // Printed after the result, which goes to standard output too.
            "--query",
            "FunctionError",
            "/dev/stdout",
        ],
        payload.to_string().as_bytes(),
    )
    .await?;
    let (answer, fault) = read(&said).ok_or_else(|| failed("the AWS CLI printed no answer".to_owned()))?;
    let answered = |what| Error::Invoke {
        function: function.to_owned(),
        what,
    };
    if fault == "None" {
        return serde_json::from_str(answer).map_err(|error| answered(format!("the answer is not readable: {error}")));
    }
    let error: Value = serde_json::from_str(answer).unwrap_or_default();
    let message = error["errorMessage"].as_str();
    Err(answered(message.unwrap_or(answer).to_owned()))
}

/// Splits the output into the result of the function and the word after it: the kind of its error, or `None`.
fn read(said: &[u8]) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(said).ok()?.trim_end();
    // The result is one line, and ends before the output of the CLI.
    let end = text.rfind(['}', ']', '"'])? + 1;
    let (answer, word) = text.split_at(end);
    Some((answer, word.trim()))
}

async fn aws(arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, Error> {
    let mut child = Command::new("aws")
        .args(arguments)
        .args(["--output", "text"])
        .env("AWS_PAGER", "")
        // A retry of the CLI would start a second run of the function.
        .env("AWS_MAX_ATTEMPTS", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            failed(format!(
                "--stack needs the AWS CLI, which cannot be run ({error}); see https://docs.aws.amazon.com/cli/ to install it"
            ))
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        // If the CLI ends before it has read the payload, standard error says why.
        let _ = stdin.write_all(input).await;
    }
    let output = child
        .wait_with_output()
        .await
        .map_err(|error| failed(format!("the AWS CLI was interrupted: {error}")))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

fn failed(what: String) -> Error {
    Error::Invoke {
        function: "aws".to_owned(),
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_split_from_the_output_of_the_cli() {
        let answer = r#"{"done":true,"outage":null}"#;
        assert_eq!(read(format!("{answer}None\n").as_bytes()), Some((answer, "None")));
        let answer = r#"{"errorMessage":"no {task}"}"#;
        assert_eq!(
            read(format!("{answer}Unhandled\n").as_bytes()),
            Some((answer, "Unhandled"))
        );
        assert!(read(b"None\n").is_none());
    }
}
