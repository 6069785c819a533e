//! The Lambda function that receives ABOUT YOU's webhooks.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    shared::run::<aboutyou::AboutYou>().await
}
