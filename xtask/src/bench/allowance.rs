//! How many own instructions more than raw FFI a case may need: `benches/allowances.txt`.

use std::collections::BTreeMap;

use anyhow::{ensure, Context, Result};

/// The allowances, by case.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Allowances(BTreeMap<String, u64>);

impl Allowances {
    /// Reads lines of a case, a number and the reason. Others are empty, or begin with `#`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut allowances = BTreeMap::new();
        let lines =
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in lines {
            let not_understood = || format!("not a case, a number and a reason: {line}");
            let (case, rest) = line.split_once(' ').with_context(not_understood)?;
            let (number, reason) = rest.trim().split_once(' ').with_context(not_understood)?;
            ensure!(!reason.trim().is_empty(), not_understood());
            let number = number.parse().with_context(not_understood)?;
            let before = allowances.insert(case.to_owned(), number);
            ensure!(before.is_none(), "there are two allowances for `{case}`");
        }
        Ok(Allowances(allowances))
    }

    pub(crate) fn of(&self, case: &str) -> Option<u64> {
        self.0.get(case).copied()
    }

    /// The cases that have one.
    pub(crate) fn cases(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_has_a_reason() {
        let allowances =
            Allowances::parse("# a comment\n\nsend   12  a batch has a state\npoll 0 none\n")
                .unwrap();
        assert_eq!((allowances.of("send"), allowances.of("poll")), (Some(12), Some(0)));
        assert_eq!(allowances.of("other"), None);
        assert_eq!(allowances.cases().collect::<Vec<_>>(), ["poll", "send"]);
        for wrong in ["send", "send 12", "send twelve reason", "send -1 reason", "a 1 r\na 2 r"] {
            assert!(Allowances::parse(wrong).is_err(), "{wrong}");
        }
    }
}
