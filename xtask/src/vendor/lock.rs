//! The lock file: which release of rdma-core is used, and what its files contain.

use std::fs;
use std::path::Path;

use anyhow::{bail, Context, Result};

/// What `vendor/rdma-core.lock` pins.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lock {
    /// The release, as upstream numbers it: `65.0`.
    pub(crate) version: String,
    /// [`super::content::Content::sha256`] of its files.
    pub(crate) sha256: String,
    /// How many files that hash covers: says in an error what kind of difference it is.
    pub(crate) files: usize,
}

impl Lock {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the lock file {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("the lock file {} is damaged", path.display()))
    }

    /// Parses `key = "value"` lines; `#` starts a comment line.
    fn parse(text: &str) -> Result<Self> {
        let (mut version, mut sha256, mut files) = (None, None, None);
        let lines =
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in lines {
            let Some((key, value)) = line.split_once('=') else {
                bail!("no `key = value`: {line}")
            };
            let value = value.trim().trim_matches('"').to_owned();
            let place = match key.trim() {
                "version" => &mut version,
                "sha256" => &mut sha256,
                "files" => &mut files,
                other => bail!("unknown key `{other}`"),
            };
            if place.replace(value).is_some() {
                bail!("`{}` is given twice", key.trim());
            }
        }
        let sha256 = sha256.context("no `sha256`")?;
        if sha256.len() != 64
            || !sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        {
            bail!("`sha256` is not 64 lower-case hexadecimal digits: {sha256}");
        }
        let files = files.context("no `files`")?;
        let files = files.parse().with_context(|| format!("`files` is not a number: {files}"))?;
        Ok(Self { version: version.context("no `version`")?, sha256, files })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn a_lock_is_read() {
        let text = format!("# why\n\nversion = \"65.0\"\nsha256 = \"{HASH}\"\nfiles = 12\n");
        let lock = Lock { version: "65.0".into(), sha256: HASH.into(), files: 12 };
        assert_eq!(Lock::parse(&text).unwrap(), lock);
    }

    #[test]
    fn a_damaged_lock_says_what_is_wrong() {
        let cases = [
            ("version = \"1\"\nfiles = 1".to_owned(), "no `sha256`"),
            (format!("sha256 = \"{HASH}\"\nfiles = 1"), "no `version`"),
            (format!("sha256 = \"{HASH}\"\nversion = \"1\""), "no `files`"),
            (
                format!("sha256 = \"{HASH}\"\nversion = \"1\"\nfiles = many"),
                "`files` is not a number",
            ),
            ("sha256 = \"AB\"".into(), "64 lower-case"),
            ("version = \"1\"\nversion = \"2\"".into(), "twice"),
            ("colour = \"red\"".into(), "unknown key `colour`"),
            ("<<<<<<< HEAD".into(), "no `key = value`"),
        ];
        for (text, expected) in cases {
            let error = Lock::parse(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?} gave {error:?}");
        }
    }
}
