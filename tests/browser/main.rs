//! The dashboard in a real browser. Skipped with a message if no browser is installed; `.ci/run` installs one.

mod list_performance;
mod screenshots;
mod untrusted_content;

use local::dashboard;
use local::project::build::workspace;
use local::project::settings;
use local::providers::samples::{Catalogue, Fixture};
use local::recorder::Recorder;
use local::recorder::redaction::Redactor;
use tests::browser::Browser;
use tests::{ORDERS, Stack, json_body};

/// A stack with the dashboard.
async fn stack() -> Stack {
    let recorder = recorder();
    stack_with(recorder).await
}

fn recorder() -> Recorder {
    let secrets = settings::secrets(ORDERS.map(|(provider, _)| provider));
    Recorder::new(Redactor::new(secrets.values()))
}

async fn stack_with(recorder: Recorder) -> Stack {
    let catalogue = Catalogue::read(workspace().join("events")).expect("events/");
    Stack::with(|config| {
        config.dashboard = Some(dashboard::Config {
            recorder,
            catalogue,
            secrets: dashboard::Secrets::Development,
        });
    })
    .await
}

/// An expression: the number of visible rows.
const ROWS: &str = "document.querySelectorAll('.space .row:not([hidden])').length";

/// An expression: the text of the newest row.
const NEWEST: &str = "[...document.querySelectorAll('.space .row:not([hidden])')]
    .sort((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top)[0].innerText";

#[tokio::test]
async fn the_list_updates_itself_and_its_filters_are_in_the_url() {
    let Some(browser) = Browser::start().await else { return };
    let stack = stack().await;
    browser.open(&stack.url()).await;
    browser
        .until("document.body.innerText.includes('No deliveries yet')")
        .await;
    browser
        .until("document.getElementById('live').textContent === 'live'")
        .await;
    browser.run("window.before = true").await;

    stack.deliver("selldone", "checkout-order").await;
    browser.until(&format!("{ROWS} === 1")).await;
    browser
        .until(&format!(
            "{NEWEST}.includes('order.created') && {NEWEST}.includes('1001')"
        ))
        .await;
    stack.deliver("selldone", "checkout-order").await;
    stack.deliver("snipcart", "order-completed").await;
    stack.deliver("snipcart", "taxes-calculate").await;
    stack.deliver("aboutyou", "not-json").await;
    let mut forged = stack.signed("cartum", "order-created");
    forged.set_query(&[("token".to_owned(), "wrong".to_owned())]);
    stack.send(&forged).await;
    browser.until(&format!("{ROWS} === 6")).await;
    for outcome in ["accepted", "duplicate", "unsupported", "quarantined", "refused"] {
        browser
            .until(&format!(
                "document.getElementById('list').innerText.includes('{outcome}')"
            ))
            .await;
    }
    assert_eq!(
        browser.run("return window.before").await,
        true,
        "the page was loaded again"
    );

    browser
        .run(
            "document.querySelector('[name=provider]').value = 'snipcart';
        document.querySelector('[name=provider]').dispatchEvent(new Event('input', {bubbles: true}))",
        )
        .await;
    browser.until(&format!("{ROWS} === 2")).await;
    assert_eq!(browser.text("location.search").await, "?provider=snipcart");
    browser.press("/").await;
    browser.write("[name=order]", "1001").await;
    browser
        .until(&format!(
            "{ROWS} === 0 && location.search === '?provider=snipcart&order=1001'"
        ))
        .await;
    browser
        .open(&format!("{}/?outcome=duplicate&order=1001", stack.url()))
        .await;
    browser
        .until(&format!("{ROWS} === 1 && {NEWEST}.includes('duplicate')"))
        .await;
    browser.press("\u{e00c}").await;
    browser.until(&format!("{ROWS} === 6 && location.search === ''")).await;

    browser.press("jjk").await;
    browser
        .until("document.querySelectorAll('.row.selected').length === 1")
        .await;
    browser.press("\u{e007}").await;
    browser.until("location.pathname === '/deliveries/6'").await;
    browser
        .until("document.body.innerText.includes('the token is wrong')")
        .await;
    browser.press("\u{e00c}").await;
    browser
        .until(&format!("location.pathname === '/' && {ROWS} === 6"))
        .await;
}

#[tokio::test]
async fn a_delivery_is_shown_without_its_secrets() {
    let Some(browser) = Browser::start().await else { return };
    let stack = stack().await;
    let sent = stack.signed("deeple", "order-changed");
    let signature = sent.header("signature").expect("a signature").to_owned();
    stack.send(&sent).await.event_id("accepted");
    stack.deliver("cartum", "order-created-basic-password").await;
    stack.deliver("selldone", "checkout-order-odd-field").await;
    stack.deliver("snipcart", "unknown-event").await;
    let mut forged = stack.signed("deeple", "order-changed");
    forged.set_header("signature", "00");
    stack.send(&forged).await;

    let open = async |id: usize| {
        browser.open(&format!("{}/deliveries/{id}", stack.url())).await;
        browser.until("document.querySelector('.summary')").await;
    };
    open(1).await;
    browser.until("document.querySelector('details')").await;
    browser
        .run("document.querySelectorAll('details').forEach((details) => details.open = true)")
        .await;
    let page = browser.text("document.documentElement.outerHTML").await;
    assert!(
        !page.contains(&signature) && !page.contains("local-secret"),
        "the signature is shown"
    );
    let text = browser.text("document.body.innerText").await;
    for shown in [
        "signature\t••••••",
        "local-pid",
        "\"orderNumber\"",
        "\"specversion\": \"1.0\"",
        "The event is new. It was verified, stored and normalized.",
        "The event was published at ",
        "payload_sha256",
        "The message is identical to the event above.",
        "\"status\": \"accepted\"",
    ] {
        assert!(text.contains(shown), "{shown} is not in {text}");
    }
    // The sections are side by side.
    let beside =
        "const [one, other] = [...document.querySelectorAll('.sides section')].map((it) => it.getBoundingClientRect());
        return one.top === other.top && one.right < other.left";
    assert_eq!(browser.run(beside).await, true);

    open(2).await;
    let page = browser.text("document.documentElement.outerHTML").await;
    assert!(
        page.contains("Basic ••••••") && !page.contains(settings::TOKEN),
        "{page}"
    );

    open(3).await;
    let marked = |remark: &str| format!("document.querySelectorAll('pre .{remark}').length > 0");
    for remark in ["assumed", "warned", "unmapped"] {
        browser.until(&marked(remark)).await;
    }
    open(4).await;
    browser
        .until("document.body.innerText.includes('the payload names an unknown order event')")
        .await;
    open(5).await;
    browser
        .until("document.body.innerText.includes('The function logged: the signature is wrong.')")
        .await;
    browser
        .until("document.body.innerText.includes('Nothing is stored.')")
        .await;

    // The refused delivery is a duplicate when it is sent again with a new signature.
    browser.click("[data-do='/do/again']").await;
    browser
        .until("document.querySelector('.do output').textContent === '200 duplicate'")
        .await;
}

#[tokio::test]
async fn an_order_is_shown_as_a_timeline_of_changes() {
    let Some(browser) = Browser::start().await else { return };
    let stack = stack().await;
    send_order(&stack).await;
    browser
        .open(&format!("{}/order?provider=selldone&shop=main&id=1001", stack.url()))
        .await;
    browser
        .until("document.querySelectorAll('.timeline > li').length >= 4")
        .await;
    let text = browser.text("document.querySelector('.timeline').innerText").await;
    for shown in [
        "order.created",
        "order.paid",
        "order.shipped",
        "status",
        "unpaid → paid",
        "tracking",
    ] {
        assert!(text.contains(shown), "{shown} is not in {text}");
    }
    // The state is that of the latest event, and says which event states a fact.
    let facts = browser.text("document.querySelector('.facts').innerText").await;
    assert!(facts.contains("delivered") && facts.contains("paid"), "{facts}");
    let title = browser.text("document.querySelector('.facts span').title").await;
    assert!(title.starts_with("stated by event "), "{title}");
    browser.click("article.order > details summary").await;
    browser
        .until("document.querySelector('article.order > details').innerText.includes('\"stated_by\"')")
        .await;
    browser.click(".timeline a").await;
    browser.until("location.pathname.startsWith('/deliveries/')").await;
    browser.click(".facts a").await;
    browser.until("location.pathname === '/order'").await;
}

/// Sends the events of one order.
async fn send_order(stack: &Stack) {
    for (name, status) in [
        ("checkout-order", 1),
        ("payment-order", 2),
        ("order-confirm", 3),
        ("preparing-order", 4),
        ("sent-order-tracking", 5),
        ("to-customer", 6),
    ] {
        let mut fixture = stack.unsigned("selldone", name);
        at_minute(&mut fixture, status * 17);
        stack.sign(&mut fixture);
        stack.send(&fixture).await;
    }
}

/// Gives a sample the id of one order and a time on one day, since the samples are of several orders and times.
fn at_minute(fixture: &mut Fixture, minute: i64) {
    let mut body = json_body(fixture);
    let time: jiff::Timestamp = "2026-01-31T09:00:00Z".parse().expect("a time");
    let time = time + jiff::SignedDuration::from_mins(minute);
    body["basket"]["id"] = 1001.into();
    body["basket"]["updated_at"] = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z").to_string().into();
    fixture.set_body(body.to_string());
}

#[tokio::test]
async fn the_page_sends_samples_and_injects_faults() {
    let Some(browser) = Browser::start().await else { return };
    let stack = stack().await;
    browser.open(&format!("{}/try", stack.url())).await;
    browser
        .until("document.getElementById('pending').textContent === '0'")
        .await;

    for (provider, event) in ORDERS {
        browser
            .click(&format!("[data-provider={provider}] [data-event={event}]"))
            .await;
        let sent = format!("document.getElementById('sent').firstChild.innerText.includes('200 accepted {provider}')");
        browser.until(&sent).await;
    }
    browser.click("[data-fault=sns-down]").await;
    browser
        .until("document.getElementById('faults').innerText.includes('SNS down')")
        .await;
    for _ in 0..3 {
        browser.click("[data-provider=deeple] [data-event=order-changed]").await;
    }
    browser
        .until("document.getElementById('pending').textContent === '3'")
        .await;
    browser
        .until("document.getElementById('waiting').textContent === '3'")
        .await;
    browser.click("[data-due=now]").await;
    browser
        .until("document.querySelector('.do output').textContent.includes('SNS is down')")
        .await;
    assert_eq!(
        browser.text("document.getElementById('pending').textContent").await,
        "3"
    );

    browser.click("#faults button").await;
    browser.until("document.getElementById('faults').hidden").await;
    browser.click("[data-due=now]").await;
    browser
        .until("document.querySelector('.do output').textContent === '3 published'")
        .await;
    browser
        .until("document.getElementById('pending').textContent === '0'")
        .await;
    let messages = stack.messages().await;
    assert_eq!(messages.len(), ORDERS.len() + 3);

    browser.click("[data-fault=dynamodb-throttled]").await;
    browser
        .until("document.getElementById('faults').innerText.includes('DynamoDB throttled')")
        .await;
    browser.click("[data-provider=cartum] [data-event=order-created]").await;
    browser
        .until("document.getElementById('sent').firstChild.innerText.includes('503')")
        .await;
    browser.click("[data-fault=dynamodb-throttled]").await;
    browser.until("document.getElementById('faults').hidden").await;

    // The fault occurs once, and the stored event stays in the outbox.
    browser.click("[data-fault=kill-before-publish]").await;
    browser
        .until("document.getElementById('faults').innerText.includes('Kill')")
        .await;
    browser.click("[data-provider=cartum] [data-event=order-created]").await;
    browser
        .until("document.getElementById('sent').firstChild.innerText.includes('500')")
        .await;
    browser.until("document.getElementById('faults').hidden").await;
    browser
        .until("document.getElementById('pending').textContent === '1'")
        .await;
    browser.open(&stack.url()).await;
    browser.until(&format!("{NEWEST}.includes('crashed')")).await;
}

#[tokio::test]
async fn every_page_is_readable_on_a_phone() {
    let Some(browser) = Browser::start().await else { return };
    let stack = stack().await;
    send_order(&stack).await;
    browser.look(360, 740, "dark").await;
    for page in [
        "/",
        "/deliveries/1",
        "/order?provider=selldone&shop=main&id=1001",
        "/alerts",
        "/reconciliation",
        "/try",
        "/connect",
    ] {
        browser.open(&format!("{}{page}", stack.url())).await;
        browser
            .until("document.getElementById('live').textContent === 'live'")
            .await;
        let wide = browser.run("return document.documentElement.scrollWidth").await;
        assert!(wide.as_u64() <= Some(360), "{page} is {wide} pixels wide");
        let dark = browser
            .run("return getComputedStyle(document.body).backgroundColor")
            .await;
        assert_eq!(dark, "rgb(22, 24, 26)", "{page} is dark if the browser prefers it");
        let small = browser.run("return [...document.querySelectorAll('main *')].filter((it) => it.offsetParent && it.childNodes.length && parseFloat(getComputedStyle(it).fontSize) < 11).length").await;
        assert_eq!(small, 0, "{page} has text that is too small to read");
    }
    browser.open(&stack.url()).await;
    browser
        .until(&format!("{ROWS} === 6 && {NEWEST}.includes('1001')"))
        .await;
}
