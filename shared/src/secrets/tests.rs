use std::cell::Cell;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Deserialize, Debug)]
struct Tokens {
    tokens: Live<Token>,
}

/// The secrets of a shop with values of every type.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Everything {
    tokens: Live<Token>,
    #[serde(default)]
    keys: OptIn<SigningKey>,
    header: Option<HeaderName>,
}

#[test]
fn a_malformed_secret_is_refused_without_its_text() {
    for json in [
        "",
        "hunter2hunter2hunter2",
        r#"{"shop":"hunter2hunter2hunter2"}"#,
        r#"{"shops":"hunter2hunter2hunter2"}"#,
        r#"{"shops":null}"#,
        r#"{"shops":{"main":{"tokens":["hunter2"]}"#,
    ] {
        let refusal = parse::<Everything>(json).expect_err(json);
        assert!(matches!(refusal, Refusal::Misconfigured(_)), "{json}");
        assert!(!format!("{refusal} {refusal:?}").contains("hunter2"), "{refusal}");
    }
}

#[test]
fn a_malformed_shop_is_named_with_its_field() {
    const GOOD: &str = r#"{"tokens":["local-development-token"],"keys":["hunter2"],"header":"X-Signature"}"#;
    for (malformed, cause) in [
        ("null", "its value is not as documented"),
        ("{}", "tokens is missing"),
        (r#"{"tokens":null}"#, "tokens is not as documented"),
        (r#"{"tokens":[]}"#, "tokens: a list of live values is empty"),
        (r#"{"tokens":"hunter2hunter2hunter2"}"#, "tokens is not as documented"),
        (
            r#"{"tokens":["local-development-token",7]}"#,
            "tokens[1] is not as documented",
        ),
        (
            r#"{"tokens":["hunter2"]}"#,
            "tokens[0]: a token is not [A-Za-z0-9_-]{20,128}",
        ),
        (
            r#"{"tokens":["local-development-token"],"keys":null}"#,
            "keys is not as documented",
        ),
        (
            r#"{"tokens":["local-development-token"],"keys":[]}"#,
            "keys: a list of live values is empty",
        ),
        (
            r#"{"tokens":["local-development-token"],"keys":[""]}"#,
            "keys[0]: a key is empty",
        ),
        (
            r#"{"tokens":["local-development-token"],"header":"hunter2: no"}"#,
            "header: not a valid header name",
        ),
        (
            r#"{"tokens":["local-development-token"],"key":["hunter2"]}"#,
            "key is an unknown field",
        ),
        (
            r#"{"tokens":["local-development-token"],"hunter2":1}"#,
            "? is an unknown field",
        ),
    ] {
        let json = format!(r#"{{"shops":{{"main":{malformed},"other":{GOOD},"hunter2 ":{malformed}}}}}"#);
        let shops = parse::<Everything>(&json).expect(&json);
        let other = shops["other"].as_ref().expect("the other shop is not malformed");
        assert_eq!(
            (other.0.tokens.len(), other.0.keys.live().map(|keys| keys.len())),
            (1, Some(1))
        );
        assert_eq!(other.0.header.as_ref().map(HeaderName::as_str), Some("x-signature"));
        let fault = shops["main"].as_ref().expect_err(&json);
        assert_eq!(*fault, format!("the secret is not as documented: shop main: {cause}"));
        let fault = shops["hunter2 "].as_ref().expect_err(&json);
        assert!(!fault.contains("hunter2"), "{fault}");
    }
}

#[test]
fn a_byte_order_mark_before_a_secret_is_skipped() {
    let shops = parse::<Tokens>(&format!("\u{feff}{}", document(&[OLD]))).expect("secrets");
    assert_eq!(shops["main"].as_ref().expect("tokens").0.tokens.len(), 1);
}

#[test]
fn a_secret_is_not_printed() {
    let shops = parse::<Tokens>(r#"{"shops":{"main":{"tokens":["local-development-token"]}}}"#).expect("secrets");
    let main = shops["main"].as_ref().expect("tokens");
    assert_eq!(main.0.tokens.len(), 1);
    assert!(!format!("{main:?}").contains("local-development-token"));
}

#[test]
fn an_inline_secret_knows_only_its_own_shops() {
    let settings = Settings::from_table([(
        "SECRETS",
        r#"{"shops":{"main":{"tokens":["local-development-token"]}}}"#,
    )]);
    let secrets = Secrets::<Tokens>::from_settings(&settings).expect("settings");
    runtime().block_on(async {
        assert!(
            secrets
                .of(&Shop::parse("main").expect("a shop"), soon())
                .await
                .expect("secrets")
                .is_some()
        );
        assert!(
            secrets
                .of(&Shop::parse("other").expect("a shop"), soon())
                .await
                .expect("secrets")
                .is_none()
        );
    });
}

thread_local! {
    /// The time since the beginning of a test, on the two clocks.
    static CLOCKS: Cell<(Duration, Duration)> = const { Cell::new((Duration::ZERO, Duration::ZERO)) };
}

/// The clocks of a test. Only [`pass`] advances them.
fn clock() -> Moment {
    static BEGUN: std::sync::LazyLock<Moment> = std::sync::LazyLock::new(Moment::now);
    let (steady, wall) = CLOCKS.get();
    Moment {
        steady: BEGUN.steady + steady,
        wall: BEGUN.wall + wall,
    }
}

/// The wall clock, in seconds since the beginning of the test.
fn now() -> u64 {
    CLOCKS.get().1.as_secs()
}

/// Lets time pass. Only the wall clock of a frozen process advances.
fn pass(seconds: u64, process: Process) {
    let (steady, wall) = CLOCKS.get();
    let passed = Duration::from_secs(seconds);
    let steady = match process {
        Process::Running => steady + passed,
        Process::Frozen => steady,
    };
    CLOCKS.set((steady, wall + passed));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Process {
    Running,
    Frozen,
}

/// A simulated Secrets Manager with the versions of one secret, which records its calls.
pub(super) struct Script {
    calls: Arc<Mutex<Vec<u64>>>,
    answer: Arc<dyn Fn(u64) -> Result<String, Refusal> + Send + Sync>,
    is_silent: bool,
}

impl Script {
    /// A Secrets Manager that never answers.
    fn silent() -> Self {
        Self {
            calls: Arc::default(),
            answer: Arc::new(|_| Ok(String::new())),
            is_silent: true,
        }
    }

    pub(super) async fn read(&self) -> Result<(String, String), Refusal> {
        self.calls.lock().expect("no panic here").push(now());
        if self.is_silent {
            std::future::pending::<()>().await;
        }
        tokio::task::yield_now().await;
        let json = (self.answer)(now())?;
        Ok((crate::identity::sha256_hex(json.as_bytes()), json))
    }
}

const OLD: &str = "a-token-from-before-the-rotation";
const NEW: &str = "a-token-from-after-the-rotation";

fn document(tokens: &[&str]) -> String {
    serde_json::json!({"shops": {"main": {"tokens": tokens}}}).to_string()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
}

/// A started function, its secret, and the times of its calls.
struct Function {
    secrets: Secrets<Tokens>,
    calls: Arc<Mutex<Vec<u64>>>,
    runtime: tokio::runtime::Runtime,
}

impl Function {
    fn start(answer: impl Fn(u64) -> Result<String, Refusal> + Send + Sync + 'static) -> Self {
        CLOCKS.set((Duration::ZERO, Duration::ZERO));
        let calls = Arc::<Mutex<Vec<u64>>>::default();
        let script = Script {
            calls: Arc::clone(&calls),
            answer: Arc::new(answer),
            is_silent: false,
        };
        let function = Self {
            secrets: Secrets::of_source(Source::Script(script), clock),
            calls,
            runtime: runtime(),
        };
        // An error here is met again by the first delivery.
        let _ = function
            .runtime
            .block_on(async { function.secrets.prepare(soon()).await });
        function
    }

    /// Whether a delivery for the shop `main` with this token passes, as the receiver decides it.
    fn passes(&self, token: &str) -> Result<bool, Refusal> {
        self.passes_for("main", token)
    }

    fn passes_for(&self, shop: &str, token: &str) -> Result<bool, Refusal> {
        let shop = Shop::parse(shop).expect("a shop");
        let knows = |secrets: &ShopSecrets<Tokens>| {
            secrets
                .as_ref()
                .is_some_and(|secrets| secrets.tokens.iter().any(|live| live.expose() == token.as_bytes()))
        };
        self.runtime.block_on(async {
            let secrets = self.secrets.of(&shop, soon()).await?;
            Ok(knows(&secrets) || knows(&self.secrets.changed(&shop, &secrets, soon()).await))
        })
    }

    fn calls(&self) -> Vec<u64> {
        self.calls.lock().expect("no panic here").clone()
    }
}

fn unreachable_service() -> Refusal {
    Refusal::Unavailable("no answer".to_owned())
}

proptest! {
    /// With any sequence of deliveries, forgeries, pauses and frozen processes.
    #[test]
    fn a_value_is_known_and_forgotten_within_five_minutes(
        stored_at in 0_u64..1_000,
        deliveries in proptest::collection::vec((0_u64..400, 0_u8..3, any::<bool>()), 1..150),
    ) {
        let taken_out_at = stored_at + 1_000;
        let function = Function::start(move |now| {
            let live: &[&str] = match now {
                now if now < stored_at => &[OLD],
                now if now < taken_out_at => &[OLD, NEW],
                _ => &[NEW],
            };
            Ok(document(live))
        });
        for (pause, token, frozen) in deliveries {
            // Many deliveries arrive within the 30 seconds in which the secret is not read again.
            let pause = if pause < 200 { pause % 10 } else { pause };
            pass(pause, if frozen { Process::Frozen } else { Process::Running });
            let at = now();
            match token {
                0 if at < taken_out_at => prop_assert_eq!(function.passes(OLD), Ok(true), "at {}", at),
                0 if at >= taken_out_at + 300 => prop_assert_eq!(function.passes(OLD), Ok(false), "at {}", at),
                1 if at >= stored_at + 300 => prop_assert_eq!(function.passes(NEW), Ok(true), "at {}", at),
                _ => prop_assert_eq!(function.passes("a-token-that-never-was-live"), Ok(false), "at {}", at),
            }
        }
        let calls = function.calls();
        prop_assert!(calls.windows(2).all(|pair| pair[1] - pair[0] >= 30), "asked at {:?}", calls);
    }
}

#[test]
fn the_first_delivery_with_a_new_value_finds_it() {
    let function = Function::start(|now| Ok(document(if now < 10 { &[OLD] } else { &[NEW] })));
    pass(29, Process::Running);
    assert_eq!(function.passes(NEW), Ok(false), "the secret is not read again yet");
    pass(1, Process::Running);
    assert_eq!(function.passes(NEW), Ok(true));
    assert_eq!(function.passes(OLD), Ok(false), "a removed value is refused");
    assert_eq!(function.calls(), [0, 30]);
}

#[test]
fn during_an_outage_the_last_good_value_is_kept() {
    let function = Function::start(|now| match now {
        0..10 | 4_000.. => Ok(document(&[OLD])),
        _ => Err(unreachable_service()),
    });
    for _ in 0..400 {
        pass(10, Process::Running);
        assert_eq!(function.passes(OLD), Ok(true));
        assert_eq!(function.passes(NEW), Ok(false));
    }
    let calls = function.calls();
    assert!(calls.windows(2).all(|pair| pair[1] - pair[0] >= 30), "{calls:?}");
}

/// A secret of two shops: `main` with good tokens, and `other` with the given ones.
fn two_shops(other: &serde_json::Value) -> String {
    serde_json::json!({"shops": {"main": {"tokens": [OLD]}, "other": {"tokens": other}}}).to_string()
}

fn is_misconfigured(passed: &Result<bool, Refusal>) -> bool {
    matches!(passed, Err(Refusal::Misconfigured(_)))
}

#[test]
fn an_unusable_secret_is_reported_and_fails_closed_in_time() {
    let unusable: [fn() -> Result<String, Refusal>; 2] = [
        || Ok(r#"{"shops":"#.to_owned()),
        || Err(Refusal::Misconfigured("denied".to_owned())),
    ];
    for answer in unusable {
        let function = Function::start(move |now| match now {
            0..10 | 5_000.. => Ok(document(&[OLD])),
            // An outage in between neither ends nor extends the grace period.
            400..700 => Err(unreachable_service()),
            _ => answer(),
        });
        assert!(function.secrets.reports().is_empty());
        pass(300, Process::Running);
        assert_eq!(function.passes(OLD), Ok(true), "within the grace period");
        assert_eq!(function.secrets.reports().len(), 1, "at the first read that finds it");
        for _ in 0..29 {
            pass(30, Process::Frozen);
            assert_eq!(function.passes(OLD), Ok(true), "at {}", now());
        }
        let reports = function.secrets.reports().len();
        assert_eq!(reports, 19, "at each read except those during the outage");
        pass(29, Process::Running);
        assert_eq!(function.passes(OLD), Ok(true), "at {}", now());
        pass(1, Process::Running);
        assert!(
            is_misconfigured(&function.passes(OLD)),
            "the grace period is over at {}",
            now()
        );
        pass(3_800, Process::Running);
        assert_eq!(function.passes(OLD), Ok(true), "it can be used again");
    }
}

#[test]
fn an_unusable_secret_that_was_never_good_is_refused_at_once() {
    let function = Function::start(|_| Ok(r#"{"shops":"#.to_owned()));
    assert!(is_misconfigured(&function.passes(OLD)));
    assert_eq!(function.secrets.reports().len(), 1);
}

#[test]
fn a_malformed_shop_does_not_affect_the_others() {
    let function = Function::start(|_| Ok(two_shops(&serde_json::json!(["short"]))));
    let reports = function.secrets.reports();
    let [report] = reports.as_slice() else {
        panic!("{reports:?}")
    };
    assert!(report.contains("shop other: tokens[0]"), "{report}");
    assert_eq!(function.passes(OLD), Ok(true));
    assert!(is_misconfigured(&function.passes_for("other", OLD)));
    assert_eq!(function.passes_for("unknown", OLD), Ok(false));
}

#[test]
fn a_malformed_shop_has_its_last_good_value_for_the_grace() {
    let function = Function::start(|now| {
        let tokens = match now {
            0..10 | 5_000.. => serde_json::json!([NEW]),
            // Another fault does not begin another grace period.
            10..600 => serde_json::json!(["short"]),
            _ => serde_json::Value::Null,
        };
        Ok(two_shops(&tokens))
    });
    pass(300, Process::Running);
    for _ in 0..30 {
        assert_eq!(function.passes_for("other", NEW), Ok(true), "at {}", now());
        assert_eq!(function.passes_for("other", OLD), Ok(false), "at {}", now());
        pass(30, Process::Frozen);
    }
    assert!(is_misconfigured(&function.passes_for("other", NEW)), "at {}", now());
    assert_eq!(function.passes(OLD), Ok(true), "the other shop");
    pass(3_800, Process::Running);
    assert_eq!(function.passes_for("other", NEW), Ok(true), "it can be used again");
}

#[test]
fn an_emptied_secret_refuses_everything_until_it_is_filled() {
    let function = Function::start(|now| match now {
        100..500 => Ok(r#"{"shops":{}}"#.to_owned()),
        _ => Ok(document(&[OLD])),
    });
    assert_eq!(function.passes(OLD), Ok(true));
    pass(300, Process::Running);
    assert!(is_misconfigured(&function.passes(OLD)));
    pass(195, Process::Running);
    assert!(is_misconfigured(&function.passes(OLD)));
    pass(5, Process::Running);
    assert_eq!(function.passes(OLD), Ok(true), "a new shop is found within 5 seconds");
}

#[test]
fn without_a_usable_value_it_is_read_every_five_seconds() {
    let unusable: [fn() -> Result<String, Refusal>; 4] = [
        || Err(unreachable_service()),
        || Err(Refusal::Misconfigured("denied".to_owned())),
        || Ok(r#"{"shops":{}}"#.to_owned()),
        || Ok(r#"{"shops":{"main":{}}}"#.to_owned()),
    ];
    for answer in unusable {
        let function = Function::start(move |now| if now < 12 { answer() } else { Ok(document(&[OLD])) });
        for _ in 0..14 {
            assert!(function.passes(OLD).is_err(), "at {}", now());
            pass(1, Process::Running);
        }
        pass(1, Process::Running);
        assert_eq!(function.passes(OLD), Ok(true));
        assert_eq!(function.calls(), [0, 5, 10, 15]);
    }
}

#[test]
fn an_unknown_shop_causes_two_reads_a_minute() {
    let function = Function::start(|_| Ok(document(&[OLD])));
    for _ in 0..100 {
        assert_eq!(function.passes_for("unknown", OLD), Ok(false));
        pass(1, Process::Running);
    }
    assert_eq!(function.calls(), [0, 30, 60, 90]);
}

#[test]
fn concurrent_deliveries_share_one_read() {
    let function = Function::start(|now| {
        if now == 0 {
            Err(unreachable_service())
        } else {
            Ok(document(&[OLD]))
        }
    });
    pass(5, Process::Running);
    let main = Shop::parse("main").expect("a shop");
    let all = (0..50).map(|_| function.secrets.of(&main, soon()));
    let all = async { futures_util::future::join_all(all).await };
    let found = function.runtime.block_on(all);
    assert!(found.iter().all(|found| matches!(found, Ok(Some(_)))));
    assert_eq!(function.calls(), [0, 5]);
}

#[test]
fn a_read_that_timed_out_is_not_repeated_at_once() {
    let secrets = Secrets::<Tokens>::of_source(Source::Script(Script::silent()), clock);
    let main = Shop::parse("main").expect("a shop");
    CLOCKS.set((Duration::ZERO, Duration::ZERO));
    let (first, second) = runtime().block_on(async {
        let until = Instant::now() + Duration::from_millis(10);
        let first = secrets.of(&main, until).await;
        // A second read would hang here.
        (first, secrets.of(&main, soon()).await)
    });
    for timed_out in [first, second] {
        let refusal = timed_out.expect_err("no answer");
        assert!(matches!(refusal, Refusal::Unavailable(_)), "{refusal}");
    }
}
