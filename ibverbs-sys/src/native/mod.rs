//! The native libraries, as the cargo features bring them: one of four ways to fill the tables.

#[cfg(feature = "static-linking")]
#[path = "built.rs"]
mod way;
#[cfg(all(feature = "dynamic-linking", not(feature = "static-linking")))]
#[path = "linked.rs"]
mod way;
#[cfg(all(
    feature = "dynamic-loading",
    not(any(feature = "dynamic-linking", feature = "static-linking"))
))]
#[path = "loaded.rs"]
mod way;
#[cfg(not(any(
    feature = "dynamic-loading",
    feature = "dynamic-linking",
    feature = "static-linking"
)))]
#[path = "none.rs"]
mod way;

pub(crate) use way::{efa, rdmacm, verbs, NAME};

/// A native library that could not be had: which one, why, and what to do about it.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{library} is not available: {reason}. {advice}")]
pub struct LoadError {
    library: &'static str,
    reason: String,
    advice: &'static str,
}

/// As a sentence: this is the error that a `main` which returns errors shows most often.
impl std::fmt::Debug for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LoadError({self})")
    }
}

impl LoadError {
    /// The library's name: `libibverbs`, `librdmacm` or `libefa`.
    pub fn library(&self) -> &'static str {
        self.library
    }

    /// What happened, in the words of the dynamic loader where it was asked.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}
