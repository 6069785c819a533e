//! The Lambda function that receives Selldone's webhooks.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    shared::run::<selldone::Selldone>().await
}
