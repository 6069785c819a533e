//! The targets: the functions as they are deployed, and the peers of `tests/peers`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bytes::Bytes;
use jiff::Timestamp;

use super::process::Target;
use crate::Error;
use crate::project::settings::REDRIVE;
use crate::providers::samples::Catalogue;
use crate::providers::signing::{Credentials, sign};

/// A function that does nothing: the lower limit of this runtime.
pub const FLOOR: &str = "hello";
/// The function that the peers reimplement.
pub const COMPARED: &str = "selldone";
/// The peers: the same work in other languages.
pub const PEERS: [&str; 2] = ["python", "node"];
/// An ordinary order of each provider.
const ORDERS: [(&str, &str); 5] = [
    (COMPARED, "checkout-order"),
    ("cartum", "order-created"),
    ("deeple", "order-changed"),
    ("aboutyou", "order-created"),
    ("snipcart", "order-completed"),
];

/// Builds the functions and `hello` as `sam build` does: with cargo-lambda, and each on its own and in its own folder, so
/// that no other package of the workspace adds features to its dependencies, and a folder's `.cargo/config.toml` counts.
/// The output of the compiler is shown.
pub fn build(root: &Path) -> Result<PathBuf, Error> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let target = root.join(target);
    for function in functions().chain([FLOOR]) {
        let folder = Some(root.join("functions").join(function)).filter(|folder| folder.is_dir());
        let built = Command::new(&cargo)
            .current_dir(folder.as_deref().unwrap_or(root))
            .env("CARGO_TARGET_DIR", &target)
            .args(["lambda", "build", "--locked", "--release", "--package", function])
            .stdin(Stdio::null())
            .status();
        if !built.is_ok_and(|status| status.success()) {
            return Err(Error::Build(format!(
                "{function} does not build; the output above says why. It needs cargo-lambda (pip install cargo-lambda ziglang). \
                 --binaries selects binaries that are built already."
            )));
        }
    }
    Ok(target.join("lambda"))
}

/// The names of all functions.
pub fn functions() -> impl Iterator<Item = &'static str> {
    ORDERS.into_iter().map(|(function, _)| function).chain([REDRIVE])
}

/// The binary of `function` in `folder`, as cargo, cargo-lambda or `sam build` leaves it.
pub fn binary(folder: &Path, function: &str) -> Option<PathBuf> {
    let mut name = function.to_owned();
    name[..1].make_ascii_uppercase();
    let built = [
        folder.join(function),
        folder.join(function).join("bootstrap"),
        folder.join(format!("{name}Function/bootstrap")),
    ];
    built.into_iter().find(|path| path.is_file())
}

/// An ordinary order of `provider`.
pub fn order(catalogue: &Catalogue, provider: &str) -> Result<crate::providers::samples::Fixture, Error> {
    let name = ORDERS
        .iter()
        .find(|(known, _)| *known == provider)
        .map_or("", |(_, name)| name);
    catalogue.event(provider, name)
}

/// Signs an order, and returns it as an event for the function.
pub fn signed(mut fixture: crate::providers::samples::Fixture) -> Result<Bytes, Error> {
    sign(&mut fixture, &Credentials::default(), Timestamp::now())?;
    Ok(fixture.event.to_string().into())
}

/// Returns the targets, and a message for each that is missing. An empty `only` selects all.
pub fn all(
    root: &Path,
    binaries: &Path,
    catalogue: &Catalogue,
    only: &[String],
) -> Result<(Vec<Target>, Vec<String>), Error> {
    let wanted = |name: &str| only.is_empty() || only.iter().any(|only| only == name);
    let (mut targets, mut skipped) = (Vec::new(), Vec::new());
    let compared = signed(order(catalogue, COMPARED)?)?;
    for name in [FLOOR].into_iter().chain(functions()).filter(|name| wanted(name)) {
        let Some(program) = binary(binaries, name) else {
            skipped.push(format!("{name}: no binary in {}", binaries.display()));
            continue;
        };
        let (event, expected) = match name {
            FLOOR => (compared.clone(), "hello"),
            REDRIVE => (Bytes::from_static(br#"{"redrive":{}}"#), "{"),
            provider => (signed(order(catalogue, provider)?)?, r#"\"status\":\"accepted\""#),
        };
        targets.push(Target {
            name: name.to_owned(),
            settings: if name == FLOOR { COMPARED } else { name }.to_owned(),
            is_deployed: name != FLOOR,
            program,
            arguments: Vec::new(),
            variables: Vec::new(),
            event,
            expected,
        });
    }
    for name in PEERS.into_iter().filter(|name| wanted(name)) {
        match peer(root, name, &compared) {
            Some(target) => targets.push(target),
            None => skipped.push(format!(
                "{name}: not installed; tests/peers/install installs it in target/peers"
            )),
        }
    }
    Ok((targets, skipped))
}

fn peer(root: &Path, name: &str, event: &Bytes) -> Option<Target> {
    let installed = root.join("target/peers");
    let source = root.join("tests/peers");
    let path = |path: PathBuf| path.display().to_string();
    let (program, arguments, variables) = match name {
        "python" => (
            installed.join("python/bin/python"),
            vec!["-m".to_owned(), "awslambdaric".to_owned(), "handler.handler".to_owned()],
            vec![
                ("LAMBDA_TASK_ROOT".to_owned(), path(source.join("python"))),
                ("PYTHONPATH".to_owned(), path(source.join("python"))),
                ("PYTHONPYCACHEPREFIX".to_owned(), path(installed.join("pycache"))),
                ("_HANDLER".to_owned(), "handler.handler".to_owned()),
            ],
        ),
        "node" => {
            let program = std::fs::read_to_string(installed.join("node/program")).ok()?;
            (
                PathBuf::from(program.trim()),
                vec![path(installed.join("node/index.mjs"))],
                Vec::new(),
            )
        }
        _ => return None,
    };
    let bundle = installed.join("node/index.mjs");
    let all_there = program.is_file() && (name != "node" || bundle.is_file());
    all_there.then(|| Target {
        name: name.to_owned(),
        settings: COMPARED.to_owned(),
        is_deployed: false,
        program,
        arguments,
        variables,
        event: event.clone(),
        // Python's JSON has a space after the colon.
        expected: "accepted",
    })
}
