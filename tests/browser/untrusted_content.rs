//! Deliveries and other pages in the browser are untrusted: no script in a delivery runs, and no other page can read or
//! change anything.

use bytes::Bytes;
use http::{Request, Response};
use local::net::server::Port;
use serde_json::{Value, json};
use tests::browser::{Browser, REBOUND};
use tests::{ORDERS, json_body};

use crate::{ROWS, stack};

const HOSTILE: [&str; 8] = [
    "<script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "\"><svg onload=window.hacked=1>",
    "</pre></script><script>window.hacked = 1</script>",
    "javascript:window.hacked=1",
    "\u{2028}\u{2029}\u{202e}\u{2066}gnp.exe\u{0}\u{1b}[2J",
    "{{constructor.constructor('window.hacked=1')()}}${window.hacked=1}",
    "مرحبا بالعالم שלום ‏<b>bold</b>",
];

/// Replaces every text that does not name the event by hostile text, and adds fields with hostile names and very long
/// words.
fn poison(value: &mut Value, count: &mut usize) {
    const KEPT: [&str; 12] = [
        "event",
        "action",
        "eventName",
        "mode",
        "createdOn",
        "updatedAt",
        "updated_at",
        "created_at",
        "timestamp",
        "currency",
        "state",
        "status",
    ];
    match value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut().filter(|(name, _)| !KEPT.contains(&name.as_str())) {
                // Amounts must stay valid.
                if !["price", "total", "amount"]
                    .iter()
                    .any(|word| name.to_ascii_lowercase().contains(word))
                {
                    poison(field, count);
                }
            }
            fields.insert(HOSTILE[*count % HOSTILE.len()].to_owned(), json!("W".repeat(3000)));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| poison(value, count)),
        Value::String(text) => {
            HOSTILE[*count % HOSTILE.len()].clone_into(text);
            *count += 1;
        }
        _ => {}
    }
}

#[tokio::test]
async fn no_script_in_a_delivery_ever_runs() {
    let Some(browser) = Browser::start().await else { return };
    let stack = stack().await;
    let mut pages = vec!["/".to_owned(), "/try".to_owned(), "/connect".to_owned()];
    for (index, (provider, event)) in ORDERS.into_iter().cycle().take(4 * ORDERS.len()).enumerate() {
        let mut fixture = stack.unsigned(provider, event);
        let mut body = json_body(&fixture);
        // Each field gets another text each time.
        let mut count = index / ORDERS.len() * 3;
        poison(&mut body, &mut count);
        if provider == "snipcart" {
            body["content"]["token"] = json!(format!("{}/{index}", HOSTILE[index / ORDERS.len()]));
        }
        fixture.set_body(body.to_string());
        fixture.set_header("user-agent", "<script>window.hacked=1</script>");
        fixture.set_header("x-note", "\"><img src=x onerror=window.hacked=1>");
        stack.sign(&mut fixture);
        let mut query = fixture.query();
        query.push((
            "<img src=x onerror=window.hacked=1>".to_owned(),
            HOSTILE[index % HOSTILE.len()].to_owned(),
        ));
        fixture.set_query(&query);
        stack.send(&fixture).await;
        pages.push(format!("/deliveries/{}", index + 1));
    }
    // Bodies that are not JSON, and malformed shops.
    for (body, path) in [
        (
            "<script>window.hacked=1</script>",
            "/webhooks/selldone/main?token=local-development-token",
        ),
        ("{}", "/webhooks/selldone/%3Cscript%3Ewindow.hacked=1%3C%2Fscript%3E"),
        ("{}", "/webhooks/%3Cimg%20src=x%20onerror=window.hacked=1%3E/%22%3E"),
    ] {
        let request = Request::post(format!("{}{path}", stack.url())).header("content-type", "application/json");
        stack
            .send_request(request.body(Bytes::from_static(body.as_bytes())).expect("a request"))
            .await;
        pages.push(format!("/deliveries/{}", pages.len() - 2));
    }
    let mut accepted = 0;
    let mut orders = Vec::new();
    browser.open(&stack.url()).await;
    browser.until(&format!("{ROWS} === 23")).await;
    browser
        .until("document.querySelectorAll('.space .c-order').length > 0")
        .await;
    for page in &pages {
        browser.open(&format!("{}{page}", stack.url())).await;
        browser.until("document.readyState === 'complete'").await;
        browser
            .run("document.querySelectorAll('details').forEach((details) => details.open = true)")
            .await;
        assert_harmless(&browser, page).await;
        let text = browser.text("document.body.innerText").await;
        accepted += usize::from(text.contains("The event is new."));
        let link = browser
            .run("return document.querySelector('.facts a')?.getAttribute('href')")
            .await;
        orders.extend(link.as_str().map(str::to_owned));
    }
    assert!(accepted >= 8, "only {accepted} of the hostile orders were accepted");
    orders.sort();
    orders.dedup();
    assert!(orders.iter().any(|order| order.contains("script")), "{orders:?}");
    for page in &orders {
        browser.open(&format!("{}{page}", stack.url())).await;
        browser.until("document.querySelector('.timeline')").await;
        assert_harmless(&browser, page).await;
    }

    // The content security policy stops scripts even in unescaped text.
    let refused = browser
        .run(
            "try { document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hacked=1\">'); return 'inserted' }
             catch (error) { return error.name }",
        )
        .await;
    assert_eq!(refused, "TypeError");
    browser.run("const it = document.createElement('a'); try { it.setAttribute('onclick', 'window.hacked = 1') } catch {} it.click()").await;
    assert_eq!(browser.run("return window.hacked").await, Value::Null);
}

/// Asserts that no text of a delivery became markup, and that no script ran or tried to.
async fn assert_harmless(browser: &Browser, page: &str) {
    assert_eq!(
        browser.run("return window.hacked").await,
        Value::Null,
        "{page}: a script ran"
    );
    let foreign = browser
        .run(
            "return [...document.querySelectorAll('img, svg, iframe, object, embed, b > b, script:not([src^=\"/assets/\"]):not([type=\"application/json\"]), style')]
                .map((it) => it.outerHTML).concat([...document.querySelectorAll('*')]
                .filter((it) => [...it.attributes].some((at) => at.name.startsWith('on') || /^\\s*javascript:/i.test(at.value)))
                .map((it) => it.outerHTML))",
        )
        .await;
    assert_eq!(foreign, json!([]), "{page}");
    let wide = browser
        .run("return document.documentElement.scrollWidth - innerWidth")
        .await;
    assert!(wide.as_i64() <= Some(0), "{page} is {wide} pixels too wide");
    let console = browser.console().await;
    assert!(console.is_empty(), "{page}: {console:?}");
}

#[tokio::test]
async fn another_site_can_neither_read_nor_change_anything() {
    let Some(browser) = Browser::start().await else { return };
    let stack = stack().await;
    stack.deliver("selldone", "checkout-order").await;
    let url = stack.url();
    // A page of another server on this machine.
    let attack = format!(
        "<!doctype html><title>elsewhere</title><iframe id=frame src='{url}/'></iframe>
         <form id=form method=post action='{url}/do/fault' target=frame><input name=name value=sns-down><input name=on value=true></form>
         <script>
         window.seen = [];
         const note = (what) => (answer) => seen.push(what + ':' + answer);
         fetch('{url}/deliveries.json').then((it) => it.text()).then(note('read'), () => note('read')('failed'));
         fetch('{url}/deliveries.json', {{mode: 'no-cors'}}).then((it) => it.text()).then((it) => note('opaque')(it.length), () => note('opaque')('failed'));
         fetch('{url}/do/fault', {{method: 'POST', mode: 'no-cors', body: new URLSearchParams({{name: 'sns-down', on: true}})}})
           .then(() => note('post')('sent'), () => note('post')('failed'));
         const live = new EventSource('{url}/live');
         live.onmessage = live.onopen = () => note('live')('heard');
         live.onerror = () => note('live')('failed');
         document.getElementById('form').submit();
         </script>"
    );
    let elsewhere = Port::take(0, "").await.expect("a port").serve(1 << 20, move |_, _| {
        let mut page = Response::new(Bytes::from(attack.clone()));
        page.headers_mut()
            .insert("content-type", http::HeaderValue::from_static("text/html"));
        async move { Some(page) }
    });
    browser.open(&elsewhere.url()).await;
    browser.until("window.seen.length >= 4").await;
    let seen = browser.run("return window.seen").await;
    let seen: Vec<&str> = seen
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert!(
        seen.contains(&"read:failed") && seen.contains(&"live:failed"),
        "{seen:?}"
    );
    assert!(!seen.iter().any(|seen| seen.ends_with("heard")), "{seen:?}");

    // The requests had no effect, and only loopback host names get the page.
    browser.open(&format!("{url}/try")).await;
    browser
        .until("document.getElementById('pending').textContent === '0'")
        .await;
    assert_eq!(
        browser.run("return document.getElementById('faults').hidden").await,
        true
    );
    let port = url.rsplit(':').next().expect("a port");
    browser.open(&format!("http://{REBOUND}:{port}/")).await;
    let text = browser.text("document.body.innerText").await;
    assert!(text.contains("Not Found") && !text.contains("Deliveries"), "{text}");

    // Requests that a browser would not send.
    let request = |headers: &str| {
        let body = "name=sns-down&on=true";
        format!(
            "POST /do/fault HTTP/1.1\r\n{headers}content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    };
    let host = format!("host: 127.0.0.1:{port}\r\n");
    for (headers, status) in [
        (host.clone(), "403"),
        (format!("{host}origin: https://evil.example\r\n"), "403"),
        (format!("{host}origin: null\r\n"), "403"),
        (format!("{host}origin: {url}\r\nsec-fetch-site: cross-site\r\n"), "403"),
        (
            format!("{host}origin: {url}\r\nx-forwarded-for: 203.0.113.1\r\n"),
            "404",
        ),
        (
            format!("host: {REBOUND}:{port}\r\norigin: http://{REBOUND}:{port}\r\n"),
            "404",
        ),
        (format!("{host}origin: {url}\r\n"), "200"),
    ] {
        let answer = stack.send_raw(request(&headers).as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{headers}: {answer}");
    }
    let invoke = Request::post(format!(
        "{}/2015-03-31/functions/redrive/invocations",
        stack.endpoints().messages_url()
    ));
    let invoke = invoke
        .header("origin", "https://evil.example")
        .body(Bytes::new())
        .expect("a request");
    assert_eq!(stack.send_request(invoke).await.status, 403);
    // A webhook is still accepted through a tunnel.
    let mut sent = stack.signed("selldone", "payment-order");
    sent.set_header("x-forwarded-host", "tunnel.example");
    stack.send(&sent).await.event_id("accepted");
}
