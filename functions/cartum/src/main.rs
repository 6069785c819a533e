//! The Lambda function that receives Cartum's webhooks.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    shared::run::<cartum::Cartum>().await
}
