use std::cell::Cell;

use proptest::prelude::*;

use super::*;

#[derive(Deserialize, Debug)]
struct Tokens {
    tokens: Live<Token>,
}

#[test]
fn a_malformed_secret_is_refused_without_its_text() {
    for json in [
        "",
        "hunter2hunter2hunter2",
        r#"{"shops":{"main":{}}}"#,
        r#"{"shops":{"main":{"tokens":[]}}}"#,
        r#"{"shops":{"main":{"tokens":"hunter2hunter2hunter2"}}}"#,
        r#"{"shops":{"main":{"tokens":["hunter2"]}}}"#,
        r#"{"shops":{"main":{"tokens":["hunter2 hunter2 hunter2"]}}}"#,
    ] {
        let refusal = parse::<Tokens>(json).expect_err(json);
        assert!(matches!(refusal, Refusal::Misconfigured(_)), "{json}");
        assert!(!format!("{refusal} {refusal:?}").contains("hunter2"), "{refusal}");
    }
}

#[test]
fn a_secret_is_not_printed() {
    let shops = parse::<Tokens>(r#"{"shops":{"main":{"tokens":["local-development-token"]}}}"#).expect("secrets");
    assert_eq!(shops["main"].tokens.len(), 1);
    assert!(!format!("{:?}", shops["main"]).contains("local-development-token"));
}

#[test]
fn an_inline_secret_answers_for_its_shops_alone() {
    let settings = Settings::from_table([(
        "SECRETS",
        r#"{"shops":{"main":{"tokens":["local-development-token"]}}}"#,
    )]);
    let secrets = Secrets::<Tokens>::from_settings(&settings).expect("settings");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        assert!(
            secrets
                .of(&Shop::parse("main").expect("a shop"))
                .await
                .expect("secrets")
                .is_some()
        );
        assert!(
            secrets
                .of(&Shop::parse("other").expect("a shop"))
                .await
                .expect("secrets")
                .is_none()
        );
    });
}

thread_local! {
    /// What the two clocks show beyond the time at which a test began.
    static CLOCKS: Cell<(Duration, Duration)> = const { Cell::new((Duration::ZERO, Duration::ZERO)) };
}

/// The clocks of a test: they stand still but for [`pass`].
fn clock() -> Moment {
    static BEGUN: std::sync::LazyLock<Moment> = std::sync::LazyLock::new(Moment::now);
    let (steady, wall) = CLOCKS.get();
    Moment {
        steady: BEGUN.steady + steady,
        wall: BEGUN.wall + wall,
    }
}

/// The wall's clock, in seconds since the test began.
fn now() -> u64 {
    CLOCKS.get().1.as_secs()
}

/// Lets time pass. Of a frozen process only the wall's clock goes on.
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

/// Secrets Manager, as far as a secret's versions go: how often it was asked, and what it answers.
pub(super) struct Script {
    calls: Arc<Mutex<Vec<u64>>>,
    answer: Arc<dyn Fn(u64) -> Result<String, Refusal> + Send + Sync>,
}

impl Script {
    pub(super) fn read(&self) -> Result<(String, String), Refusal> {
        self.calls.lock().expect("no panic here").push(now());
        let json = (self.answer)(now())?;
        Ok((crate::identity::sha256_hex(json.as_bytes()), json))
    }
}

const OLD: &str = "a-token-from-before-the-rotation";
const NEW: &str = "a-token-from-after-the-rotation";

fn document(tokens: &[&str]) -> String {
    serde_json::json!({"shops": {"main": {"tokens": tokens}}}).to_string()
}

/// A function that has been started, its secret, and when it asked for it.
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
        };
        let function = Self {
            secrets: Secrets::of_source(Source::Script(script), clock),
            calls,
            runtime: tokio::runtime::Builder::new_current_thread()
                .build()
                .expect("a runtime"),
        };
        // What it meets here it meets again with the first delivery.
        let _ = function.runtime.block_on(function.secrets.prepare());
        function
    }

    /// Whether a delivery with this token is let in, as the receiver decides it.
    fn lets_in(&self, token: &str) -> Result<bool, Refusal> {
        let main = Shop::parse("main").expect("a shop");
        let known = |secrets: ShopSecrets<Tokens>| {
            secrets.is_some_and(|secrets| secrets.tokens.iter().any(|live| live.expose() == token.as_bytes()))
        };
        self.runtime
            .block_on(async { Ok(known(self.secrets.of(&main).await?) || known(self.secrets.changed(&main).await)) })
    }

    fn calls(&self) -> Vec<u64> {
        self.calls.lock().expect("no panic here").clone()
    }
}

fn unreachable_service() -> Refusal {
    Refusal::Unavailable("nobody answers".to_owned())
}

proptest! {
    /// Whatever comes and whenever: forgeries, pauses, frozen processes.
    #[test]
    fn a_value_stored_five_minutes_ahead_is_never_refused_and_one_taken_out_five_minutes_ago_always(
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
            // Often many come within the 30 seconds in which nothing is asked again.
            let pause = if pause < 200 { pause % 10 } else { pause };
            pass(pause, if frozen { Process::Frozen } else { Process::Running });
            let at = now();
            match token {
                0 if at < taken_out_at => prop_assert_eq!(function.lets_in(OLD), Ok(true), "at {}", at),
                0 if at >= taken_out_at + 300 => prop_assert_eq!(function.lets_in(OLD), Ok(false), "at {}", at),
                1 if at >= stored_at + 300 => prop_assert_eq!(function.lets_in(NEW), Ok(true), "at {}", at),
                _ => prop_assert_eq!(function.lets_in("a-token-that-never-was-live"), Ok(false), "at {}", at),
            }
        }
        let calls = function.calls();
        prop_assert!(calls.windows(2).all(|pair| pair[1] - pair[0] >= 30), "asked at {:?}", calls);
    }
}

#[test]
fn a_new_value_is_found_by_its_first_delivery_thirty_seconds_after_the_last_question() {
    let function = Function::start(|now| Ok(document(if now < 10 { &[OLD] } else { &[NEW] })));
    pass(29, Process::Running);
    assert_eq!(function.lets_in(NEW), Ok(false), "it is not asked again yet");
    pass(1, Process::Running);
    assert_eq!(function.lets_in(NEW), Ok(true));
    assert_eq!(function.lets_in(OLD), Ok(false), "what is taken out is refused");
    assert_eq!(function.calls(), [0, 30]);
}

#[test]
fn while_secrets_manager_is_unreachable_the_last_good_value_is_kept_and_asked_for_twice_a_minute() {
    let function = Function::start(|now| match now {
        0..10 | 4_000.. => Ok(document(&[OLD])),
        _ => Err(unreachable_service()),
    });
    for _ in 0..400 {
        pass(10, Process::Running);
        assert_eq!(function.lets_in(OLD), Ok(true));
        assert_eq!(function.lets_in(NEW), Ok(false));
    }
    let calls = function.calls();
    assert!(calls.windows(2).all(|pair| pair[1] - pair[0] >= 30), "{calls:?}");
}

#[test]
fn a_malformed_new_value_costs_no_delivery_as_long_as_there_is_a_good_one() {
    let function = Function::start(|now| {
        Ok(if now == 0 {
            document(&[OLD])
        } else {
            r#"{"shops":"#.to_owned()
        })
    });
    pass(1_000, Process::Running);
    assert_eq!(function.lets_in(OLD), Ok(true));
    let started_now = Function::start(|_| Ok(r#"{"shops":"#.to_owned()));
    assert!(matches!(started_now.lets_in(OLD), Err(Refusal::Misconfigured(_))));
}

#[test]
fn an_emptied_secret_lets_nothing_in_until_there_is_a_shop_again() {
    let function = Function::start(|now| match now {
        100..500 => Ok(r#"{"shops":{}}"#.to_owned()),
        _ => Ok(document(&[OLD])),
    });
    assert_eq!(function.lets_in(OLD), Ok(true));
    pass(300, Process::Running);
    assert!(matches!(function.lets_in(OLD), Err(Refusal::Misconfigured(_))));
    pass(199, Process::Running);
    assert!(matches!(function.lets_in(OLD), Err(Refusal::Misconfigured(_))));
    pass(1, Process::Running);
    assert_eq!(function.lets_in(OLD), Ok(true), "it need not wait for what is put in");
}

#[test]
fn without_any_value_every_delivery_asks_and_the_first_answer_ends_it() {
    let function = Function::start(|now| {
        if now < 3 {
            Err(unreachable_service())
        } else {
            Ok(document(&[OLD]))
        }
    });
    for _ in 0..2 {
        pass(1, Process::Running);
        assert_eq!(function.lets_in(OLD), Err(unreachable_service()));
    }
    pass(1, Process::Running);
    assert_eq!(function.lets_in(OLD), Ok(true));
    assert_eq!(function.calls(), [0, 1, 2, 3]);
}
