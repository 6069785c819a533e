//! The screenshots of the README.

use std::time::Duration;

use local::project::build::workspace;
use serde_json::json;
use tests::ORDERS;
use tests::browser::Browser;

use crate::{send_order, stack};

/// The page of the order.
const ORDER: &str = "/order?provider=selldone&shop=main&id=1001";

/// `UPDATE_SCREENSHOTS=1 cargo test --workspace --test browser screenshots` updates the screenshots of the README.
#[tokio::test]
async fn screenshots() {
    let Some(browser) = Browser::start().await else { return };
    let stack = stack().await;
    for round in 0..12 {
        for (provider, event) in ORDERS {
            let fixture = stack.renewed(provider, event);
            stack.send(&fixture).await;
            if round % 4 == 1 {
                stack.send(&fixture).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(300 * (round % 3))).await;
    }
    let mut forged = stack.signed("cartum", "order-created");
    forged.set_query(&[("token".to_owned(), "wrong".to_owned())]);
    stack.send(&forged).await;
    stack.deliver("aboutyou", "stock-updated").await;
    stack.deliver("snipcart", "unknown-event").await;
    send_order(&stack).await;
    stack.deliver("cartum", "order-created-odd-time").await;

    let mut taken = Vec::new();
    for (name, page, width, height, colours) in [
        ("list", "/", 1120, 620, "light"),
        ("list-dark", "/", 1120, 620, "dark"),
        ("delivery", "/deliveries/ID", 1120, 760, "light"),
        ("order", ORDER, 1120, 660, "light"),
    ] {
        browser.look(width, height, colours).await;
        let newest = browser.run_with("return Math.max(0, ...[...document.querySelectorAll('.space a.row')].map((row) => Number(row.href.split('/').at(-1)) || 0))", json!([])).await;
        let id = newest
            .as_u64()
            .filter(|id| *id > 0)
            .map_or_else(|| "1".to_owned(), |id| id.to_string());
        let page = page.replace(
            "ID",
            &if page.contains("ID") && id == "1" {
                "82".to_owned()
            } else {
                id
            },
        );
        browser.open(&format!("{}{page}", stack.url())).await;
        browser.until("document.getElementById('live').textContent === 'live' && document.getElementById('pending').textContent === '0'").await;
        browser.until("!document.getElementById('legend') || document.getElementById('legend').textContent.includes('median')").await;
        let image = browser.screenshot().await;
        assert!(image.starts_with(b"\x89PNG"), "{name}");
        taken.push((name, image));
    }
    if let Some(folder) = std::env::var_os("UPDATE_SCREENSHOTS") {
        let folder = if folder == "1" {
            workspace().join("local/screenshots")
        } else {
            folder.into()
        };
        std::fs::create_dir_all(&folder).expect("the folder exists");
        for (name, image) in taken {
            std::fs::write(folder.join(format!("{name}.png")), image).expect("the file is written");
        }
    }
}
