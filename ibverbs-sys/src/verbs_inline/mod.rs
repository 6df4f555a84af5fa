//! The static inline functions of the C headers, ported by hand: they are in no library.
//!
//! Each names the C function that it ports. Two things differ from C. A *control-path* function whose provider does not
//! have the operation reports `EOPNOTSUPP`, also where C would call a null pointer. A *data-path* function calls the
//! pointer that the provider has put into the object, like C and at the same price, without looking whether there is one:
//! that it is there is part of its contract.

pub(crate) mod context;
mod cq;
mod dm;
mod efa;
mod flow;
pub(crate) mod mr;
mod qp;
mod rdmacm;
mod srq;
mod wq;
mod wr;

pub use context::*;
pub use cq::*;
pub use dm::*;
pub use efa::*;
pub use flow::*;
pub use mr::*;
pub use qp::*;
pub use rdmacm::*;
pub use srq::*;
pub use wq::*;
pub use wr::*;

/// Ports of control-path functions that do nothing but call an operation of `struct verbs_context`.
///
/// `calls OPERATION of ARGUMENT` for one whose argument is the context itself, `of ARGUMENT.context` for one that has an
/// object of it.
macro_rules! context_operations {
    ($(
        $(#[$doc:meta])*
        fn $name:ident($($argument:ident: $ty:ty),*) -> $result:ty
        { calls $operation:ident of $object:ident $(. $context:ident)? else $failure:ident }
    )*) => {$(
        $(#[$doc])*
        ///
        #[doc = concat!(
            "Port of the inline function `", stringify!($name), "`: calls `", stringify!($operation), "` of the ",
            "`verbs_context`. ", crate::verbs_inline::failure!(doc $failure),
        )]
        ///
        /// # Safety
        ///
        #[doc = concat!(
            "The contract is that of the C function: see the manual page ", stringify!($name), "(3). Pointers are valid ",
            "for what it does with them, and objects come from the process's provider and are alive.",
        )]
        #[inline]
        pub unsafe fn $name($($argument: $ty),*) -> $result {
            let context = crate::verbs_inline::context_of!($object $(. $context)?);
            match crate::verbs_inline::operation!(context, $operation) {
                // SAFETY: the operation belongs to this function, and its contract is the caller's.
                Some(operation) => unsafe { operation($($argument),*) },
                None => crate::verbs_inline::failure!($failure),
            }
        }
    )*};
}
pub(crate) use context_operations;

/// What a control-path function without an operation to call returns, and the sentence that documents it.
macro_rules! failure {
    (null) => {{
        crate::table::set_errno(libc::EOPNOTSUPP);
        core::ptr::null_mut()
    }};
    (errno) => {
        libc::EOPNOTSUPP
    };
    (doc null) => {
        "Null if the provider has no such operation; `errno` is then `EOPNOTSUPP`."
    };
    (doc errno) => {
        "`EOPNOTSUPP` if the provider has no such operation."
    };
}
pub(crate) use failure;

/// The `ibv_context` that is an argument, or that an object points to.
macro_rules! context_of {
    ($context:ident) => {
        $context
    };
    ($object:ident . context) => {
        // SAFETY: by the caller's contract the pointer is that of a live object, which has its context as a field.
        unsafe { (*$object).context }
    };
}
pub(crate) use context_of;

/// Port of the macro `verbs_get_ctx_op`: an operation of a device's `verbs_context`, if it has it.
///
/// To be used where the caller's contract says that the context is alive.
macro_rules! operation {
    ($context:expr, $operation:ident) => {{
        let (context, offset) = ($context, core::mem::offset_of!(crate::bindings::verbs_context, $operation));
        // SAFETY: by the caller's contract this is the context of an open device; and the offset is that of the field
        // whose type the closure shows.
        unsafe { crate::verbs_inline::context::operation(context, offset, |context| &context.$operation) }
    }};
}
pub(crate) use operation;

/// A function pointer of which the caller's contract says that the provider has put it there.
///
/// # Safety
///
/// `pointer` is valid for a read, and the field it points to is not null.
#[inline(always)]
pub(crate) unsafe fn present<F: Copy>(pointer: *const Option<F>) -> F {
    // SAFETY: valid for a read, as the caller promises.
    let function = unsafe { pointer.read() };
    // SAFETY: not null, as the caller promises.
    unsafe { function.unwrap_unchecked() }
}

/// Ports of data-path functions: each calls a function pointer of its first argument, without a check.
macro_rules! object_calls {
    ($(
        $(#[$doc:meta])*
        fn $name:ident($object:ident: *mut $class:ident $(, $argument:ident: $ty:ty)*) $(-> $result:ty)?
        { calls $function:ident }
    )*) => {$(
        $(#[$doc])*
        ///
        #[doc = concat!(
            "Port of the inline function `", stringify!($name), "`: calls the pointer `", stringify!($function),
            "` of `struct ", stringify!($class), "`.",
        )]
        ///
        /// # Safety
        ///
        #[doc = concat!(
            "`", stringify!($object), "` is a live object of the process's provider, which has set `",
            stringify!($function), "` in it; everything else is as in the manual page of the C function.",
        )]
        #[inline(always)]
        pub unsafe fn $name($object: *mut $class $(, $argument: $ty)*) $(-> $result)? {
            // SAFETY: the object is alive and the provider made it large enough for a pointer that it has set.
            let field = unsafe { &raw const (*$object).$function };
            // SAFETY: part of that object, and set, both as the caller promises.
            let function = unsafe { crate::verbs_inline::present(field) };
            // SAFETY: the pointer belongs to this function, and its contract is the caller's.
            unsafe { function($object $(, $argument)*) }
        }
    )*};
}
pub(crate) use object_calls;
