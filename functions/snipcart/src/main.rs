//! The Lambda function that receives Snipcart's webhooks.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    shared::run::<snipcart::Snipcart>().await
}
