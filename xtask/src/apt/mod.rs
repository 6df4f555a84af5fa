//! apt in a folder of its own: its own sources and package lists, nothing of the machine's changed.

pub(crate) mod sources;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{bail, Context, Result};

use crate::host::{self, Need};
use crate::process;
use sources::{Archive, Debian};

/// What a private apt reads its packages from.
pub(crate) enum SourceList<'a> {
    /// These suites of a Debian archive; `kind` is `deb` or `deb-src`.
    Debian { archive: &'a Debian, kind: &'static str, suites: &'a [Suite] },
    /// The machine's own sources as they are.
    OfTheMachine,
}

/// A suite and the archive that holds it.
pub(crate) struct Suite {
    pub(crate) archive: Archive,
    pub(crate) name: &'static str,
}

/// An apt whose state is below one folder.
pub(crate) struct PrivateApt {
    options: Vec<String>,
}

impl PrivateApt {
    /// Sets the folder up; [`PrivateApt::update`] fetches the package lists.
    pub(crate) fn new(folder: &Path, sources: &SourceList<'_>) -> Result<Self> {
        for name in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(folder.join(name))
                .with_context(|| format!("cannot create folders in {}", folder.display()))?;
        }
        // With an empty status file no package counts as installed.
        fs::write(folder.join("status"), "")?;
        let at = |name: &str| folder.join(name).display().to_string();
        let mut options = vec![
            format!("Dir::State={}", at("")),
            format!("Dir::State::status={}", at("status")),
            format!("Dir::Cache={}", at("")),
            "Dir::Etc::preferences=/dev/null".into(),
            "Dir::Etc::preferencesparts=/dev/null".into(),
            // The unprivileged user that apt would download as cannot write into a private folder.
            "APT::Sandbox::User=".into(),
            "Acquire::Languages=none".into(),
            "Acquire::Retries=3".into(),
        ];
        if let SourceList::Debian { archive, kind, suites } = sources {
            fs::write(
                folder.join("sources.list"),
                source_lines(archive, kind, suites, keyring()?),
            )?;
            options.push(format!("Dir::Etc::sourcelist={}", at("sources.list")));
            options.push("Dir::Etc::sourceparts=/dev/null".into());
        }
        Ok(Self { options })
    }

    /// What one of apt's programs prints.
    pub(crate) fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        self.output_in(Path::new("/"), program, arguments)
    }

    /// The same, run in a folder: that is where `apt-get download` puts what it fetches.
    pub(crate) fn output_in(
        &self,
        folder: &Path,
        program: &str,
        arguments: &[&str],
    ) -> Result<String> {
        let result = self.complete(folder, program, arguments)?;
        if !result.status.success() {
            // The many options are left out: they say nothing about the cause.
            let (words, said) = (arguments.join(" "), process::tail(&result.stderr));
            bail!("`{program} {words}` failed ({}):\n{said}", result.status);
        }
        Ok(String::from_utf8_lossy(&result.stdout).into_owned())
    }

    fn complete(&self, folder: &Path, program: &str, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").current_dir(folder);
        command.args(self.options.iter().map(|option| format!("-o{option}"))).args(arguments);
        process::complete(&mut command)
    }

    /// Fetches the package lists. A suite that cannot be had (a mirror may lack one) is no error by itself, since the
    /// others may do: what apt complained about is returned, for the message when they do not.
    pub(crate) fn update(&self) -> Result<String> {
        let result = self.complete(Path::new("/"), "apt-get", &["update"])?;
        Ok(process::tail(&result.stderr))
    }
}

/// The source list of some suites, in the one-line format, which every apt reads.
fn source_lines(archive: &Debian, kind: &str, suites: &[Suite], keyring: &str) -> String {
    suites
        .iter()
        .filter_map(|suite| Some((archive.uri(suite.archive)?, suite.name)))
        .map(|(uri, suite)| format!("{kind} [signed-by={keyring}] {uri} {suite} main\n"))
        .collect()
}

/// The keys that Debian signs its archive with.
fn keyring() -> Result<&'static str> {
    const PLACES: [&str; 2] = [
        "/usr/share/keyrings/debian-archive-keyring.gpg",
        "/usr/share/keyrings/debian-archive-keyring.pgp",
    ];
    host::need(&[Need::any_file(&PLACES, "debian-archive-keyring")])?;
    PLACES
        .into_iter()
        .find(|place| Path::new(place).is_file())
        .context("the keys of Debian's archive went away")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_of_an_unknown_archive_are_left_out() {
        let archive = Debian::with_main("http://mirror.example/debian");
        let suites = [
            Suite { archive: Archive::Main, name: "sid" },
            Suite { archive: Archive::Security, name: "trixie-security" },
        ];
        let lines = source_lines(&archive, "deb-src", &suites, "/k.gpg");
        assert_eq!(lines, "deb-src [signed-by=/k.gpg] http://mirror.example/debian sid main\n");
    }
}
