//! The Lambda function that publishes what waits in the outbox.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    redrive::run().await
}
