//! The Lambda function that finds orders which no webhook has reported.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    reconcile::run().await
}
