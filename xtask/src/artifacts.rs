//! Building with cargo, and which programs came of it.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{bail, Context, Result};
use serde_json::Value;

/// A program that cargo built.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// The name of its target.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// Runs a cargo command that builds; returns the programs, in the order of their names.
pub(crate) fn build(cargo: &mut Command) -> Result<Vec<Program>> {
    Ok(programs(&messages(cargo)?, |_| true))
}

/// Runs a cargo command that builds tests; returns their programs, in the order of their names, and no others.
pub(crate) fn build_tests(cargo: &mut Command) -> Result<Vec<Program>> {
    Ok(programs(&messages(cargo)?, |message| message["profile"]["test"] == true))
}

/// Runs a cargo command that builds one static library; returns its path.
pub(crate) fn static_library(cargo: &mut Command) -> Result<PathBuf> {
    archive(&messages(cargo)?).context("cargo built no static library")
}

/// Runs a cargo command that builds; returns its messages.
fn messages(cargo: &mut Command) -> Result<String> {
    cargo.arg("--message-format=json-render-diagnostics");
    let output =
        cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the build failed ({})", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn archive(messages: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let is_static = |message: &Value| {
        message["target"]["kind"]
            .as_array()
            .is_some_and(|kind| kind.iter().any(|kind| kind == "staticlib"))
    };
    messages
        .filter(is_static)
        .find_map(|message| message["filenames"][0].as_str().map(PathBuf::from))
}

/// The programs that cargo's messages tell of, if they are wanted.
fn programs(messages: &str, is_wanted: impl Fn(&Value) -> bool) -> Vec<Program> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str(line).ok());
    let mut programs: Vec<Program> = messages
        .filter(is_wanted)
        .filter_map(|message: Value| {
            let path = message["executable"].as_str()?;
            Some(Program { name: message["target"]["name"].as_str()?.into(), path: path.into() })
        })
        .collect();
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    programs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_are_found() {
        let messages = "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"rc\"},\"executable\":\"/t/rc-1\"}\n\
            {\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"ibverbs\"},\"executable\":null}\n\
            {\"reason\":\"build-finished\",\"success\":true}\nnot json\n";
        assert_eq!(archive(messages), None);
        let rc = Program { name: "rc".into(), path: "/t/rc-1".into() };
        assert_eq!(programs(messages, |_| true), [rc]);
    }

    #[test]
    fn programs_can_be_chosen() {
        let message = |name: &str, test: bool| {
            let message = serde_json::json!({
                "target": { "name": name }, "profile": { "test": test }, "executable": "/t/x",
            });
            format!("{message}\n")
        };
        let messages = message("b", true) + &message("bin", false) + &message("a", true);
        let is_test = |message: &Value| message["profile"]["test"] == true;
        let names =
            |programs: Vec<Program>| programs.into_iter().map(|it| it.name).collect::<Vec<_>>();
        assert_eq!(names(programs(&messages, is_test)), ["a", "b"]);
        assert_eq!(names(programs(&messages, |_| true)), ["a", "b", "bin"]);
    }

    #[test]
    fn the_static_library_is_found() {
        let messages = "{\"reason\":\"compiler-artifact\",\"target\":{\"kind\":[\"lib\"]},\"filenames\":[\"/t/a.rlib\"]}\n\
            {\"reason\":\"compiler-artifact\",\"target\":{\"kind\":[\"staticlib\"]},\"filenames\":[\"/t/b.a\"]}\n";
        assert_eq!(archive(messages), Some("/t/b.a".into()));
    }
}
