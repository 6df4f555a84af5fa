//! No cargo feature: the program has to install a provider.

use super::LoadError;
use crate::table::{Efa, Rdmacm, Verbs};

pub(crate) const NAME: &str = "none";

pub(crate) fn verbs() -> Result<Verbs, LoadError> {
    Err(unavailable("libibverbs"))
}

pub(crate) fn rdmacm() -> Result<Rdmacm, LoadError> {
    Err(unavailable("librdmacm"))
}

pub(crate) fn efa() -> Result<Efa, LoadError> {
    Err(unavailable("libefa"))
}

fn unavailable(library: &'static str) -> LoadError {
    LoadError {
        library,
        reason: "this program was built without a way to reach it, and it has installed no provider".to_owned(),
        advice: "Enable one of the cargo features `dynamic-loading`, `dynamic-linking` and `static-linking` of \
                 ibverbs-sys, or call `ibverbs_sys::provider::install` before the first verb",
    }
}
