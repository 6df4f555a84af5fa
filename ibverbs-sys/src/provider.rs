//! Who fills the function table.
//!
//! A *provider* is whatever stands behind the verbs: the library that is loaded at run time, the one that was linked, the
//! one that was built in, or a device in software. There is one per process, and it is chosen before the first verb: by
//! [`install`], or else by the cargo features, in the order `static-linking`, `dynamic-linking`, `dynamic-loading`.
//!
//! Objects of one provider mean nothing to another. This is why the choice is final, and why it is made before there are
//! any.

use std::sync::OnceLock;

use crate::native;
pub use crate::native::LoadError;
use crate::table::{Efa, Rdmacm, Verbs};

/// The tables of one provider.
///
/// Data-path calls do not go through them: like the inline functions of the C header, those use the pointers that the
/// provider has put into the `ibv_context`, `ibv_qp_ex` and `ibv_cq_ex` it returned.
#[derive(Clone, Copy, Debug)]
pub struct Provider {
    /// What messages call it.
    pub name: &'static str,
    /// Its functions in the place of libibverbs.
    pub verbs: &'static Verbs,
    /// Its functions in the place of librdmacm; [`Rdmacm::EMPTY`] if it has none.
    pub rdmacm: &'static Rdmacm,
    /// Its functions in the place of libefa; [`Efa::EMPTY`] if it has none.
    pub efa: &'static Efa,
}

/// [`install`] came too late: the process has a provider, which it keeps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot install the RDMA provider `{rejected}`: this process already uses `{in_place}`. There is one provider per \
     process; install yours once, and before the first verb is called"
)]
pub struct AlreadyChosen {
    /// The provider that the process uses.
    pub in_place: &'static str,
    /// The one that was to be installed.
    pub rejected: &'static str,
}

enum Choice {
    Installed(Provider),
    Native,
}

static CHOICE: OnceLock<Choice> = OnceLock::new();
static VERBS: OnceLock<Result<Verbs, LoadError>> = OnceLock::new();
static RDMACM: OnceLock<Result<Rdmacm, LoadError>> = OnceLock::new();
static EFA: OnceLock<Result<Efa, LoadError>> = OnceLock::new();

/// Makes `provider` the provider of this process.
///
/// # Errors
///
/// [`AlreadyChosen`] if there is one: another was installed, or a verb was called before.
///
/// # Safety
///
/// The functions in the tables behave as the manual pages of the C functions of the same names demand, and so do the
/// function pointers in the objects that they return. Whoever calls a verb relies on it.
pub unsafe fn install(provider: Provider) -> Result<(), AlreadyChosen> {
    let rejected = provider.name;
    CHOICE
        .set(Choice::Installed(provider))
        .map_err(|_| AlreadyChosen { in_place: name(), rejected })
}

/// The functions of libibverbs, resolved at the first call.
///
/// # Errors
///
/// If the library cannot be loaded; the same error at every call.
pub fn verbs() -> Result<&'static Verbs, &'static LoadError> {
    match choice() {
        Choice::Installed(provider) => Ok(provider.verbs),
        Choice::Native => VERBS.get_or_init(native::verbs).as_ref(),
    }
}

/// The functions of librdmacm, resolved at the first call; a program that never gets here does not need the library.
///
/// # Errors
///
/// If the library cannot be loaded; the same error at every call.
pub fn rdmacm() -> Result<&'static Rdmacm, &'static LoadError> {
    match choice() {
        Choice::Installed(provider) => Ok(provider.rdmacm),
        Choice::Native => RDMACM.get_or_init(native::rdmacm).as_ref(),
    }
}

/// The functions of libefa, resolved at the first call; a program that never gets here does not need the library.
///
/// # Errors
///
/// If the library cannot be loaded; the same error at every call.
pub fn efa() -> Result<&'static Efa, &'static LoadError> {
    match choice() {
        Choice::Installed(provider) => Ok(provider.efa),
        Choice::Native => EFA.get_or_init(native::efa).as_ref(),
    }
}

/// The provider that the program has installed, if it has.
pub fn installed() -> Option<Provider> {
    match CHOICE.get() {
        Some(Choice::Installed(provider)) => Some(*provider),
        Some(Choice::Native) | None => None,
    }
}

/// The name of the provider that is in place, or that the first verb would choose.
pub fn name() -> &'static str {
    installed().map_or(native::NAME, |provider| provider.name)
}

fn choice() -> &'static Choice {
    CHOICE.get_or_init(|| Choice::Native)
}
