//! The C interface: what stands in the place of libibverbs.

use ibverbs_sys::provider::Provider;

use crate::options::Options;

/// The software devices as a provider of verbs. The options of the first call are those of the process.
pub fn provider(options: Options) -> Provider {
    let _ = options;
    todo!()
}
