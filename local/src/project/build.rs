//! The binaries of the functions, built with cargo, so that what runs is always what the sources say.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::Error;

/// The built binaries by their name.
#[derive(Debug, Clone)]
pub struct Binaries(BTreeMap<String, PathBuf>);

/// How much of the build is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Cargo's progress and all diagnostics.
    Progress,
    /// Only diagnostics.
    Diagnostics,
}

/// The folder of the workspace.
pub fn workspace() -> PathBuf {
    // Cargo sets the folder of the package for what it runs. A binary that is run by itself knows where it was built.
    let package =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map(Path::to_path_buf).unwrap_or_default()
}

/// The profile of this program, by the folder that cargo has put it into; `dev` if the folder does not say.
pub fn profile() -> String {
    let program = std::env::current_exe().unwrap_or_default();
    let folders = program
        .ancestors()
        .skip(1)
        .filter_map(|folder| folder.file_name()?.to_str());
    // Tests are in a folder `deps`.
    match folders.into_iter().find(|name| *name != "deps") {
        Some(name @ ("optimized" | "release")) => name.to_owned(),
        _ => "dev".to_owned(),
    }
}

impl Binaries {
    /// Builds all binaries of the workspace at `root`. Compiler errors appear on standard error.
    ///
    /// It builds the complete workspace, so that dependencies have the same features as in `cargo test` and are not
    /// built twice, and in the profile of this program, so that an optimized program runs optimized functions.
    pub fn build(root: &Path, output: Output) -> Result<Self, Error> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .current_dir(root)
            .args([
                "build",
                "--workspace",
                "--bins",
                "--message-format=json-render-diagnostics",
                "--profile",
                &profile(),
            ])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit());
        if output == Output::Diagnostics {
            command.arg("--quiet");
        }
        // Cargo's variables for the running package would look like a change to build scripts.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(of_package) {
                command.env_remove(name);
            }
        }
        let built = command
            .output()
            .map_err(|error| Error::Build(format!("cargo cannot be run to build the functions: {error}")))?;
        if !built.status.success() {
            return Err(Error::Build(
                "the functions do not build; the errors are above".to_owned(),
            ));
        }
        Ok(Self(executables(&built.stdout)))
    }

    /// The path of the binary `name`.
    pub fn get(&self, name: &str) -> Result<&Path, Error> {
        self.0.get(name).map(PathBuf::as_path).ok_or_else(|| {
            let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
            Error::Build(format!(
                "template.yaml names the function {name}, but the workspace builds only {}",
                known.join(", ")
            ))
        })
    }
}

impl FromIterator<(String, PathBuf)> for Binaries {
    /// Binaries that were built elsewhere.
    fn from_iter<T: IntoIterator<Item = (String, PathBuf)>>(binaries: T) -> Self {
        Self(binaries.into_iter().collect())
    }
}

fn of_package(variable: &str) -> bool {
    let named = [
        "CARGO_CRATE_NAME",
        "CARGO_BIN_NAME",
        "CARGO_PRIMARY_PACKAGE",
        "CARGO_TARGET_TMPDIR",
        "OUT_DIR",
    ];
    variable.starts_with("CARGO_PKG_")
        || variable.starts_with("CARGO_MANIFEST_")
        || variable.starts_with("CARGO_BIN_EXE_")
        || named.contains(&variable)
}

/// Reads the paths of the executables from cargo's messages, which are one JSON object a line.
///
/// `cargo_metadata` would do the same, but it needs `unbounded_depth` of `serde_json`, which the deployed functions do
/// not have.
fn executables(messages: &[u8]) -> BTreeMap<String, PathBuf> {
    messages
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter_map(|message| {
            let name = message["target"]["name"].as_str()?.to_owned();
            Some((name, PathBuf::from(message["executable"].as_str()?)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_taken_from_cargos_messages() {
        let messages = br#"{"reason":"compiler-artifact","target":{"name":"shared","kind":["lib"]},"executable":null}
{"reason":"compiler-artifact","target":{"name":"cartum","kind":["bin"]},"executable":"/target/debug/cartum"}
not json
{"reason":"build-finished","success":true}
"#;
        let binaries = Binaries(executables(messages));
        assert_eq!(binaries.get("cartum").unwrap(), Path::new("/target/debug/cartum"));
        assert!(
            binaries
                .get("selldone")
                .unwrap_err()
                .to_string()
                .ends_with("only cartum")
        );
    }
}
