//! A real browser: Chromium, controlled by the `WebDriver` protocol of the W3C.
//!
//! The tests need only a few calls of the protocol. The libraries for it enable `serde_json/preserve_order`, which
//! would change the JSON of the functions, or have another licence.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request};
use local::net::client::Client;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, SemaphorePermit};

/// The number of browsers at a time, each of which keeps a processor busy.
static ROOM: Semaphore = Semaphore::const_new(2);

/// How long to wait for a condition.
const PATIENCE: Duration = Duration::from_secs(20);

/// The host name of another site that resolves to this machine.
pub const REBOUND: &str = "rebound.example";

/// A browser with one page. Dropping the value ends the browser.
pub struct Browser {
    driver: Child,
    client: Client,
    url: String,
    session: String,
    _room: SemaphorePermit<'static>,
}

impl Browser {
    /// Starts a browser; `None`, with a message, if none is installed.
    pub async fn start() -> Option<Self> {
        let room = ROOM.acquire().await.expect("the semaphore is never closed");
        let driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let Ok(mut driver) = driver else {
            eprintln!("skipped: there is no chromedriver (on Debian: apt-get install chromium chromium-driver)");
            return None;
        };
        let mut lines = BufReader::new(driver.stdout.take().expect("the output")).lines();
        let port = loop {
            let line = lines
                .next_line()
                .await
                .expect("a line")
                .expect("the line with the port");
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let url = format!("http://127.0.0.1:{port}");
        let mut browser = Self {
            driver,
            client: Client::new(&url).expect("a client"),
            url,
            session: String::new(),
            _room: room,
        };
        let options = json!({
            // Without a sandbox, since the tests may run as root. The browser only opens pages of this machine.
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,800",
                "--no-first-run", "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
                format!("--host-resolver-rules=MAP {REBOUND} 127.0.0.1")],
        });
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let made = browser.ask(Method::POST, "/session", &wanted).await;
        made["sessionId"]
            .as_str()
            .expect("a session")
            .clone_into(&mut browser.session);
        Some(browser)
    }

    async fn ask(&self, method: Method, path: &str, body: &Value) -> Value {
        let body = if method == Method::GET {
            Bytes::new()
        } else {
            body.to_string().into()
        };
        let request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        let request = request
            .header("content-type", "application/json")
            .body(body)
            .expect("a request");
        let answer = self.client.send(request).await.expect("the driver answers");
        let mut said: Value = serde_json::from_slice(answer.body()).expect("JSON");
        assert!(answer.status().is_success(), "{path}: {}", said["value"]["message"]);
        said["value"].take()
    }

    async fn command(&self, path: &str, body: Value) -> Value {
        self.ask(Method::POST, &format!("/session/{}{path}", self.session), &body)
            .await
    }

    /// Opens a page and waits until it is loaded.
    pub async fn open(&self, url: &str) {
        self.command("/url", json!({ "url": url })).await;
    }

    /// Runs the body of a function in the page and returns its result.
    pub async fn run(&self, script: &str) -> Value {
        self.run_with(script, json!([])).await
    }

    /// Runs the body of a function with `arguments` in the page and returns its result.
    pub async fn run_with(&self, script: &str, arguments: Value) -> Value {
        self.command("/execute/sync", json!({"script": script, "args": arguments}))
            .await
    }

    /// The value of an expression as text.
    pub async fn text(&self, expression: &str) -> String {
        let value = self.run(&format!("return String({expression})")).await;
        value.as_str().expect("text").to_owned()
    }

    /// Waits until an expression is true in the page.
    #[track_caller]
    pub fn until(&self, expression: &str) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let begun = Instant::now();
            let script = format!("return Boolean({expression})");
            while self.run(&script).await != true {
                if begun.elapsed() > PATIENCE {
                    let page = self
                        .text("location.href + '\\n' + document.body.innerText.slice(0, 3000)")
                        .await;
                    panic!("{caller}: timeout while waiting for {expression} on {page}");
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        }
    }

    /// Clicks on the first element that matches a CSS selector.
    pub async fn click(&self, selector: &str) {
        let element = self.find(selector).await;
        self.command(&format!("/element/{element}/click"), json!({})).await;
    }

    /// Types into the first element that matches a CSS selector.
    pub async fn write(&self, selector: &str, text: &str) {
        let element = self.find(selector).await;
        self.command(&format!("/element/{element}/value"), json!({ "text": text }))
            .await;
    }

    async fn find(&self, selector: &str) -> String {
        let found = self
            .command("/element", json!({"using": "css selector", "value": selector}))
            .await;
        let id = found.as_object().and_then(|found| found.values().next()?.as_str());
        id.expect("an element").to_owned()
    }

    /// Presses keys, one after another; `\u{e007}` is Enter and `\u{e00c}` Escape.
    pub async fn press(&self, keys: &str) {
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key})))
            .collect();
        let body = json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]});
        self.command("/actions", body).await;
    }

    /// The messages on the console since the last call, including those of the browser itself.
    pub async fn console(&self) -> Vec<String> {
        let log = self.command("/se/log", json!({"type": "browser"})).await;
        let lines = log.as_array().into_iter().flatten();
        lines
            .map(|line| line["message"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// Sets the size of the page in CSS pixels, and the preferred colour scheme.
    pub async fn look(&self, width: u32, height: u32, colours: &str) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": colours}]});
        self.devtools("Emulation.setEmulatedMedia", media).await;
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.command("/goog/cdp/execute", json!({"cmd": command, "params": parameters}))
            .await
    }

    /// A screenshot of the page as a PNG.
    pub async fn screenshot(&self) -> Vec<u8> {
        let path = format!("/session/{}/screenshot", self.session);
        let image = self.ask(Method::GET, &path, &Value::Null).await;
        STANDARD.decode(image.as_str().expect("base64")).expect("base64")
    }
}

impl Drop for Browser {
    /// Deletes the session, which ends the browser. A killed driver would leave the browser running.
    fn drop(&mut self) {
        let ended = || -> std::io::Result<()> {
            let mut stream = TcpStream::connect(self.url.trim_start_matches("http://"))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(
                stream,
                "DELETE /session/{} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
                self.session
            )?;
            // The driver answers when the browser has ended, and may keep the connection open.
            stream.read(&mut [0; 512]).map(|_| ())
        };
        if let Err(error) = ended() {
            eprintln!("the browser may be left running: {error}");
        }
        let _ = self.driver.start_kill();
    }
}
