//! The Lambda function that receives Deeple's webhooks.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    shared::run::<deeple::Deeple>().await
}
