#![doc = include_str!("../README.md")]

#[cfg(not(target_os = "linux"))]
compile_error!(
    "ibverbs-sys supports Linux only: the RDMA verbs are an interface of the Linux kernel"
);

#[cfg(all(not(target_pointer_width = "64"), not(feature = "bindgen")))]
compile_error!(
    "the committed bindings of ibverbs-sys are for 64-bit targets: enable the cargo feature `bindgen` of ibverbs-sys, \
     which generates them from the headers of the target's rdma-core"
);

#[rustfmt::skip]
#[cfg_attr(not(feature = "bindgen"), path = "bindings.rs")]
#[cfg_attr(feature = "bindgen", path = "bindings_built.rs")]
#[allow(
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unused_imports,
    clippy::all,
    clippy::multiple_unsafe_ops_per_block,
    clippy::undocumented_unsafe_blocks
)]
mod bindings;
mod native;
pub mod provider;
pub mod registered;
mod table;
pub mod transitions;

/// Every exported function, by the name of its symbol. For a few of these names, the crate root has what the headers make of them
/// instead: a macro or an inline function.
pub mod symbols {
    #[doc(no_inline)]
    pub use crate::table::*;
}
mod verbs_inline;

pub use bindings::*;
pub use table::*;
// Named one by one, and therefore ahead of the exported functions of the same name that `table` has.
pub use verbs_inline::context::ibv_query_port;
pub use verbs_inline::mr::{ibv_reg_mr, ibv_reg_mr_iova};
pub use verbs_inline::*;
