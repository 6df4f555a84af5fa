//! Which provider of the verbs the process has: what the program has installed, or what the environment says. All first
//! verbs come by here.

use std::ffi::OsString;
use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::ffi::provider;

/// The variable that chooses the provider.
const VARIABLE: &str = "IBVERBS_PROVIDER";

/// Makes sure that there is a provider, and that it has libibverbs.
pub(crate) fn verbs() -> Result<()> {
    choose()?;
    provider::verbs()?;
    Ok(())
}

/// Makes sure that there is a provider, and that it has librdmacm.
#[cfg(feature = "rdmacm")]
pub(crate) fn rdmacm() -> Result<()> {
    choose()?;
    provider::rdmacm()?;
    Ok(())
}

/// Makes sure that there is a provider, and that it has libefa.
#[cfg(feature = "efa")]
pub(crate) fn efa() -> Result<()> {
    choose()?;
    provider::efa()?;
    Ok(())
}

/// Does what the environment says, unless the program has installed a provider. What has succeeded once is not asked again.
fn choose() -> Result<()> {
    static CHOSEN: OnceLock<()> = OnceLock::new();
    if CHOSEN.get().is_none() {
        if provider::installed().is_none() {
            match choice(std::env::var_os(VARIABLE))? {
                Choice::Native => {}
                Choice::Soft => install_soft()?,
            }
        }
        CHOSEN.get_or_init(|| ());
    }
    Ok(())
}

/// What the variable can say.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Native,
    Soft,
}

fn choice(value: Option<OsString>) -> Result<Choice> {
    let value = value.unwrap_or_default();
    match value.to_str() {
        Some("" | "native") => Ok(Choice::Native),
        Some("soft") => Ok(Choice::Soft),
        _ => Err(refused(value, "can only be `native` or `soft`")),
    }
}

fn refused(value: OsString, expected: &'static str) -> Error {
    Error::InvalidVariable { variable: VARIABLE, value, expected }
}

#[cfg(feature = "soft")]
fn install_soft() -> Result<()> {
    crate::soft::install()
}

#[cfg(not(feature = "soft"))]
fn install_soft() -> Result<()> {
    Err(refused(
        "soft".into(),
        "needs the cargo feature `soft` of ibverbs, without which this program was built",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_variable_can_say() {
        let choice = |value: &str| choice(Some(value.into()));
        assert_eq!(super::choice(None).unwrap(), Choice::Native);
        assert_eq!(choice("").unwrap(), Choice::Native);
        assert_eq!(choice("native").unwrap(), Choice::Native);
        assert_eq!(choice("soft").unwrap(), Choice::Soft);
        for value in ["Soft", "soft ", "rxe", "1"] {
            let message = choice(value).unwrap_err().to_string();
            assert_eq!(
                message,
                format!("IBVERBS_PROVIDER is {value:?} in the environment, but it can only be `native` or `soft`")
            );
        }
    }

    #[cfg(not(feature = "soft"))]
    #[test]
    fn without_the_feature_it_is_named() {
        let message = install_soft().unwrap_err().to_string();
        assert!(
            message.contains("\"soft\"") && message.contains("cargo feature `soft`"),
            "{message}"
        );
    }
}
