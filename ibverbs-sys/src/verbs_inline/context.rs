//! Contexts, what is asked of them, and domains.

use core::ffi::{c_int, c_void};
use core::mem::{offset_of, size_of};

use super::context_operations;
use crate::bindings::*;
use crate::table;

/// `IBV_ALLOCATOR_USE_DEFAULT`: what an allocator of a parent domain returns to leave the allocation to the provider.
pub const IBV_ALLOCATOR_USE_DEFAULT: *mut c_void = usize::MAX as *mut c_void;

/// `__VERBS_ABI_IS_EXTENDED`: what `abi_compat` is in a context that lies inside a `verbs_context`.
const ABI_IS_EXTENDED: usize = usize::MAX;

/// Port of the inline function `verbs_get_ctx`: the `verbs_context` around a context, or null if there is none.
///
/// The structure grows at its front. If the library is older than these bindings, the pointer lies before the
/// beginning of what the library allocated, and only the fields whose distance to the end is at most `sz` exist.
///
/// # Safety
///
/// `context` is the context of an open device.
#[inline]
pub unsafe fn verbs_get_ctx(context: *mut ibv_context) -> *mut verbs_context {
    // SAFETY: a live context, as the caller promises.
    let abi_compat = unsafe { (*context).abi_compat };
    if abi_compat as usize != ABI_IS_EXTENDED {
        return core::ptr::null_mut();
    }
    context.wrapping_byte_sub(offset_of!(verbs_context, context)).cast()
}

/// The operation at `offset` in the `verbs_context` around `context`, unless that is null, too short, or not there.
///
/// # Safety
///
/// `context` is the context of an open device, and `offset` is that of the field to which `_field` refers.
#[inline]
pub(crate) unsafe fn operation<F: Copy>(
    context: *mut ibv_context,
    offset: usize,
    _field: fn(&verbs_context) -> &Option<F>,
) -> Option<F> {
    // SAFETY: the context of an open device, as the caller promises.
    let extended = unsafe { verbs_get_ctx(context) };
    if extended.is_null() {
        return None;
    }
    // `sz` stands immediately before the context in every extended structure, and says how much of it there is.
    let size = extended.wrapping_byte_add(offset_of!(verbs_context, sz)).cast::<usize>();
    // SAFETY: since `abi_compat` marks the context as extended, there is a `verbs_context` around it, with this field.
    let size = unsafe { size.read() };
    if size < size_of::<verbs_context>() - offset {
        return None;
    }
    let field = extended.wrapping_byte_add(offset).cast::<Option<F>>();
    // SAFETY: the library's structure reaches back to this field, whose type is the one that the caller promises.
    unsafe { field.read() }
}

/// Reads the attributes of a port.
///
/// Port of the macro `ibv_query_port` and the inline function `___ibv_query_port`: calls `query_port` of the
/// `verbs_context`; a library that does not have it fills the part of the structure that it knows, and the rest is zero.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page ibv_query_port(3). Pointers are valid for what it does
/// with them, and objects come from the process's provider and are alive.
#[inline]
pub unsafe fn ibv_query_port(
    context: *mut ibv_context,
    port_num: u8,
    port_attr: *mut ibv_port_attr,
) -> c_int {
    let Some(query_port) = super::operation!(context, query_port) else {
        // SAFETY: valid for a write, as the caller promises; all zeros is a value of the type.
        unsafe { port_attr.write_bytes(0, 1) };
        // SAFETY: the exported function writes the structure as it was in version 1.1, which is the beginning of this one.
        return unsafe { table::ibv_query_port(context, port_num, port_attr.cast()) };
    };
    // SAFETY: the operation fills as much of the structure as its size allows.
    unsafe { query_port(context, port_num, port_attr, size_of::<ibv_port_attr>()) }
}

/// Reads the extended attributes of a device.
///
/// Port of the inline function `ibv_query_device_ex`: calls `query_device_ex` of the `verbs_context`; if that is not there
/// or not supported, calls `ibv_query_device` and leaves the rest zero.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page ibv_query_device_ex(3). `input` may be null.
#[inline]
pub unsafe fn ibv_query_device_ex(
    context: *mut ibv_context,
    input: *const ibv_query_device_ex_input,
    attr: *mut ibv_device_attr_ex,
) -> c_int {
    // SAFETY: null or valid, as the caller promises.
    if unsafe { input.as_ref() }.is_some_and(|input| input.comp_mask != 0) {
        return libc::EINVAL;
    }
    if let Some(query_device_ex) = super::operation!(context, query_device_ex) {
        // SAFETY: the operation fills as much of the structure as its size allows.
        let result =
            unsafe { query_device_ex(context, input, attr, size_of::<ibv_device_attr_ex>()) };
        if result != libc::EOPNOTSUPP && result != libc::ENOSYS {
            return result;
        }
    }
    // SAFETY: valid for a write, as the caller promises; all zeros is a value of the type.
    unsafe { attr.write_bytes(0, 1) };
    // SAFETY: part of the structure that the caller promises to be valid.
    let original = unsafe { &raw mut (*attr).orig_attr };
    // SAFETY: a live context, and a structure to fill.
    unsafe { table::ibv_query_device(context, original) }
}

/// Reads an entry of a port's GID table, with its type and network interface.
///
/// Port of the inline function `ibv_query_gid_ex`: passes the size of the entry to `_ibv_query_gid_ex`.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page ibv_query_gid_ex(3).
#[inline]
pub unsafe fn ibv_query_gid_ex(
    context: *mut ibv_context,
    port_num: u32,
    gid_index: u32,
    entry: *mut ibv_gid_entry,
    flags: u32,
) -> c_int {
    // SAFETY: the contract is the caller's, and the size is that of the entry.
    unsafe {
        table::_ibv_query_gid_ex(
            context,
            port_num,
            gid_index,
            entry,
            flags,
            size_of::<ibv_gid_entry>(),
        )
    }
}

/// Reads the valid entries of the GID tables of all ports; returns their number, or a negative error number.
///
/// Port of the inline function `ibv_query_gid_table`: passes the size of an entry to `_ibv_query_gid_table`.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page ibv_query_gid_table(3).
#[inline]
pub unsafe fn ibv_query_gid_table(
    context: *mut ibv_context,
    entries: *mut ibv_gid_entry,
    max_entries: usize,
    flags: u32,
) -> isize {
    // SAFETY: the contract is the caller's, and the size is that of an entry.
    unsafe {
        table::_ibv_query_gid_table(
            context,
            entries,
            max_entries,
            flags,
            size_of::<ibv_gid_entry>(),
        )
    }
}

/// Reads the capabilities of the device's completion counters.
///
/// Port of the inline function `ibv_query_comp_cntr_caps`: passes the size of the structure to
/// `_ibv_query_comp_cntr_caps`.
///
/// # Safety
///
/// The contract is that of the C function: see the manual page ibv_query_comp_cntr_caps(3).
#[inline]
pub unsafe fn ibv_query_comp_cntr_caps(
    context: *mut ibv_context,
    caps: *mut ibv_comp_cntr_caps,
) -> c_int {
    // SAFETY: the contract is the caller's, and the size is that of the structure.
    unsafe { table::_ibv_query_comp_cntr_caps(context, caps, size_of::<ibv_comp_cntr_caps>()) }
}

context_operations! {
    /// Reads the device's clock.
    fn ibv_query_rt_values_ex(context: *mut ibv_context, values: *mut ibv_values_ex) -> c_int {
        calls query_rt_values of context else errno
    }
    /// Allocates a thread domain.
    fn ibv_alloc_td(context: *mut ibv_context, init_attr: *mut ibv_td_init_attr) -> *mut ibv_td {
        calls alloc_td of context else null
    }
    /// Frees a thread domain.
    fn ibv_dealloc_td(td: *mut ibv_td) -> c_int {
        calls dealloc_td of td.context else errno
    }
    /// Allocates a parent domain.
    fn ibv_alloc_parent_domain(context: *mut ibv_context, attr: *mut ibv_parent_domain_init_attr) -> *mut ibv_pd {
        calls alloc_parent_domain of context else null
    }
    /// Opens a domain of extended reliable connections.
    fn ibv_open_xrcd(context: *mut ibv_context, xrcd_init_attr: *mut ibv_xrcd_init_attr) -> *mut ibv_xrcd {
        calls open_xrcd of context else null
    }
    /// Closes a domain of extended reliable connections.
    fn ibv_close_xrcd(xrcd: *mut ibv_xrcd) -> c_int {
        calls close_xrcd of xrcd.context else errno
    }
}

/// The UDP source port that RoCEv2 derives from a flow label.
///
/// Port of the inline function `ibv_flow_label_to_udp_sport`.
#[inline]
pub const fn ibv_flow_label_to_udp_sport(flow_label: u32) -> u16 {
    let low = flow_label & 0x03FFF;
    let high = flow_label & 0xFC000;
    ((low ^ (high >> 14)) | IB_ROCE_UDP_ENCAP_VALID_PORT_MIN) as u16
}
