//! Failures that hand back what the call was lent.

use super::Error;

/// A call that failed and hands back what it was lent.
///
/// Transitions and `close` consume their object. If they fail, the object is in here, and still
/// usable. It converts into [`Error`], so that `?` works where the object is not needed any more.
///
/// ```
/// # fn close(cq: ibverbs::CompletionQueue) -> ibverbs::Result<()> {
/// match cq.close() {
///     Ok(()) => Ok(()),
///     Err(failed) => {
///         let cq = failed.resource; // still alive: poll it once more, close what uses it, ...
///         drop(cq);
///         Err(failed.error)
///     }
/// }
/// # }
/// ```
pub struct Failed<R> {
    /// What the call had consumed.
    pub resource: R,
    /// Why it failed.
    pub error: Error,
}

impl<R> Failed<R> {
    pub(crate) fn map<Q>(self, f: impl FnOnce(R) -> Q) -> Failed<Q> {
        Failed { resource: f(self.resource), error: self.error }
    }
}

impl<R> From<Failed<R>> for Error {
    fn from(failed: Failed<R>) -> Error {
        failed.error
    }
}

impl<R> std::fmt::Debug for Failed<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Failed").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<R> std::fmt::Display for Failed<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

impl<R> std::error::Error for Failed<R> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}
