//! The ported inline functions against those of the C headers, and against objects made by hand.

#[allow(unreachable_pub)]
mod c;

use std::ffi::{c_int, c_void};
use std::fmt::Write as _;
use std::mem::{offset_of, size_of};
use std::process::Command;
use std::ptr::{null, null_mut};

use ibverbs_sys::*;

/// The operations that are looked up in `verbs_context`, with the size from which on a library has them.
macro_rules! operations {
    ($($operation:ident)*) => {
        &[$((stringify!($operation), size_of::<verbs_context>() - offset_of!(verbs_context, $operation))),*]
    };
}

const OPERATIONS: &[(&str, usize)] = operations! {
    query_port advise_mr alloc_null_mr read_counters attach_counters_point_flow create_counters destroy_counters
    reg_dm_mr alloc_dm free_dm modify_flow_action_esp destroy_flow_action create_flow_action_esp modify_qp_rate_limit
    alloc_parent_domain dealloc_td alloc_td modify_cq post_srq_ops destroy_rwq_ind_table create_rwq_ind_table destroy_wq
    modify_wq create_wq query_rt_values create_cq_ex query_device_ex ibv_destroy_flow ibv_create_flow open_qp create_qp_ex
    get_srq_num create_srq_ex open_xrcd close_xrcd
};

const NUMBERS: [u32; 9] = [0, 1, 0x7f, 0xff, 0x1ff, 0x3fff, 0x4000, 0xfffff, u32::MAX];

/// Runs a C program that has the headers, and compares what it prints with what the ports give.
#[test]
fn ports_agree_with_the_c_functions() {
    let Some(c) = c::Compiler::with_headers() else { return };
    let mut program = String::from(
        "#include <stdio.h>\n#include <stddef.h>\n#include <infiniband/verbs.h>\n#include <rdma/rdma_cma.h>\n\
         int main(void) {\n",
    );
    let mut expected = String::new();
    let mut line = |c: String, rust: u64| {
        writeln!(program, "printf(\"%llu\\n\", (unsigned long long)({c}));")
            .expect("writing to a string succeeds");
        writeln!(expected, "{rust}").expect("writing to a string succeeds");
    };
    for (operation, size) in OPERATIONS {
        let c =
            format!("sizeof(struct verbs_context) - offsetof(struct verbs_context, {operation})");
        line(c, *size as u64);
    }
    line("(uintptr_t)__VERBS_ABI_IS_EXTENDED".to_owned(), usize::MAX as u64);
    line("(uintptr_t)IBV_ALLOCATOR_USE_DEFAULT".to_owned(), IBV_ALLOCATOR_USE_DEFAULT as u64);
    for number in NUMBERS {
        line(format!("ibv_inc_rkey({number}u)"), ibv_inc_rkey(number).into());
        line(
            format!("ibv_flow_label_to_udp_sport({number}u)"),
            ibv_flow_label_to_udp_sport(number).into(),
        );
        for qp_type in [IBV_QPT_RC, IBV_QPT_UC, IBV_QPT_UD, IBV_QPT_RAW_PACKET, IBV_QPT_XRC_SEND] {
            let c = format!("ibv_is_qpt_supported({number}u, {qp_type})");
            line(c, ibv_is_qpt_supported(number, qp_type).into());
        }
    }
    line("offsetof(struct rdma_cm_id, route.addr.src_addr)".to_owned(), local_address_offset());
    line("offsetof(struct rdma_cm_id, route.addr.dst_addr)".to_owned(), peer_address_offset());
    program.push_str("return 0; }\n");

    let binary = c::scratch("ports");
    c.compile(&program, &binary).unwrap_or_else(|messages| {
        panic!("the C program does not compile with {}:\n{messages}", c.headers().display())
    });
    let output = Command::new(&binary).output().expect("the program that was just built runs");
    assert!(output.status.success());
    assert!(expected.lines().count() > 100, "too little was compared");
    let printed = String::from_utf8(output.stdout).expect("numbers are text");
    for (index, (c, rust)) in printed.lines().zip(expected.lines()).enumerate() {
        let statement = program.lines().filter(|line| line.starts_with("printf")).nth(index);
        assert_eq!(c, rust, "C (left) and Rust (right) differ about {statement:?}");
    }
    assert_eq!(printed.lines().count(), expected.lines().count());
}

fn local_address_offset() -> u64 {
    let mut id = rdma_cm_id::default();
    // SAFETY: a live id.
    let address = unsafe { rdma_get_local_addr(&mut id) };
    address as u64 - (&raw const id) as u64
}

fn peer_address_offset() -> u64 {
    let mut id = rdma_cm_id::default();
    // SAFETY: a live id.
    let address = unsafe { rdma_get_peer_addr(&mut id) };
    address as u64 - (&raw const id) as u64
}

/// A device's context as a provider makes it, in which some operations are set.
fn extended(set: impl FnOnce(&mut verbs_context)) -> Box<verbs_context> {
    let mut context =
        Box::new(verbs_context { sz: size_of::<verbs_context>(), ..verbs_context::default() });
    context.context.abi_compat = usize::MAX as *mut c_void;
    set(&mut context);
    context
}

/// A pointer to the plain context, from which the ports find the way back to the rest.
fn plain(context: &mut verbs_context) -> *mut ibv_context {
    let whole = &raw mut *context;
    whole.wrapping_byte_add(offset_of!(verbs_context, context)).cast()
}

unsafe extern "C" fn alloc_td(_: *mut ibv_context, _: *mut ibv_td_init_attr) -> *mut ibv_td {
    0x1000 as *mut ibv_td
}

unsafe extern "C" fn query_port(
    _: *mut ibv_context,
    port: u8,
    attr: *mut ibv_port_attr,
    size: usize,
) -> c_int {
    assert_eq!(size, size_of::<ibv_port_attr>());
    // SAFETY: the attributes of the test below.
    unsafe { (*attr).lid = u16::from(port) };
    0
}

fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().expect("errno is a number")
}

fn clear_errno() {
    // SAFETY: no preconditions.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: this thread's `errno`.
    unsafe { errno.write(0) };
}

#[test]
fn an_operation_is_called_if_it_is_there() {
    let mut context = extended(|context| {
        context.alloc_td = Some(alloc_td);
        context.query_port = Some(query_port);
    });
    let context = plain(&mut context);
    // SAFETY: a live context.
    let domain = unsafe { ibv_alloc_td(context, null_mut()) };
    assert_eq!(domain as usize, 0x1000);
    let mut attr = ibv_port_attr::default();
    // SAFETY: a live context and attributes.
    assert_eq!(unsafe { ibv_query_port(context, 7, &mut attr) }, 0);
    assert_eq!(attr.lid, 7);
}

#[test]
fn an_operation_that_is_null_is_not_supported() {
    let mut context = extended(|_| {});
    let context = plain(&mut context);
    clear_errno();
    // SAFETY: a live context.
    assert!(unsafe { ibv_alloc_td(context, null_mut()) }.is_null());
    assert_eq!(errno(), libc::EOPNOTSUPP);
    let mut domain = ibv_td { context };
    // SAFETY: a live context in a live domain.
    assert_eq!(unsafe { ibv_dealloc_td(&mut domain) }, libc::EOPNOTSUPP);
}

#[test]
fn an_operation_beyond_an_older_library_is_not_looked_at() {
    // As large as it was when `alloc_td` was the last thing that had been added to it.
    let size = size_of::<verbs_context>() - offset_of!(verbs_context, alloc_td);
    let mut context = extended(|context| {
        context.sz = size;
        context.alloc_td = Some(alloc_td);
        context.dealloc_td = None;
    });
    let context_pointer = plain(&mut context);
    // SAFETY: a live context.
    assert!(!unsafe { ibv_alloc_td(context_pointer, null_mut()) }.is_null());
    context.sz = size - 1;
    let context_pointer = plain(&mut context);
    // SAFETY: a live context.
    assert!(unsafe { ibv_alloc_td(context_pointer, null_mut()) }.is_null());
}

#[test]
fn a_context_that_is_not_extended_has_no_operations() {
    let mut context = extended(|context| {
        context.alloc_td = Some(alloc_td);
        context.context.abi_compat = null_mut();
    });
    let context = plain(&mut context);
    // SAFETY: a live context.
    assert!(unsafe { verbs_get_ctx(context) }.is_null());
    // SAFETY: a live context.
    assert!(unsafe { ibv_alloc_td(context, null_mut()) }.is_null());
    let mut domain = ibv_xrcd { context };
    // SAFETY: a live context in a live domain. In C this would call a null pointer.
    assert_eq!(unsafe { ibv_close_xrcd(&mut domain) }, libc::EOPNOTSUPP);
}

#[test]
fn windows_are_checked_before_they_are_bound() {
    let mut context = ibv_context::default();
    let mut domains = [ibv_pd::default(), ibv_pd::default()];
    let mut region = ibv_mr { pd: &mut domains[0], ..ibv_mr::default() };
    let mut window = ibv_mw {
        context: &mut context,
        pd: &mut domains[1],
        type_: IBV_MW_TYPE_1,
        ..ibv_mw::default()
    };
    let bind = |window: &mut ibv_mw, mr: *mut ibv_mr, length: u64| {
        let bind_info = ibv_mw_bind_info { mr, length, ..ibv_mw_bind_info::default() };
        let mut bind = ibv_mw_bind { bind_info, ..ibv_mw_bind::default() };
        // SAFETY: a live window and a live region or none; the queue pair is not looked at without an operation.
        unsafe { ibv_bind_mw(null_mut(), window, &mut bind) }
    };
    assert_eq!(bind(&mut window, &mut region, 1), libc::EPERM);
    assert_eq!(bind(&mut window, null_mut(), 1), libc::EINVAL);
    // Unbinding: nothing is wrong with it, but this context has no operation.
    assert_eq!(bind(&mut window, null_mut(), 0), libc::EOPNOTSUPP);
    window.type_ = IBV_MW_TYPE_2;
    assert_eq!(bind(&mut window, null_mut(), 0), libc::EINVAL);
}

unsafe extern "C" fn wr_set_sge(qp: *mut ibv_qp_ex, lkey: u32, addr: u64, length: u32) {
    // SAFETY: the queue pair of the test below.
    unsafe { (*qp).wr_id = u64::from(lkey) + addr + u64::from(length) };
}

unsafe extern "C" fn read_imm_data(cq: *mut ibv_cq_ex) -> __be32 {
    // SAFETY: the completion queue of the test below.
    unsafe { (*cq).wr_id as u32 }
}

#[test]
fn data_path_ports_call_the_object_s_pointer() {
    let mut qp = ibv_qp_ex { wr_set_sge: Some(wr_set_sge), ..ibv_qp_ex::default() };
    // SAFETY: a live queue pair, with this pointer.
    unsafe { ibv_wr_set_sge(&mut qp, 1, 20, 300) };
    assert_eq!(qp.wr_id, 321);
    let mut cq =
        ibv_cq_ex { read_imm_data: Some(read_imm_data), wr_id: 77, ..ibv_cq_ex::default() };
    // SAFETY: a live completion queue, with this pointer.
    assert_eq!(unsafe { ibv_wc_read_imm_data(&mut cq) }, 77);
    // SAFETY: as above; in C both names read the same field.
    assert_eq!(unsafe { ibv_wc_read_invalidated_rkey(&mut cq) }, 77);
}

#[test]
fn device_memory_without_a_copy_function_is_not_supported() {
    let mut memory = ibv_dm::default();
    let mut host = [0_u8; 4];
    let to: *mut c_void = host.as_mut_ptr().cast();
    // SAFETY: live device memory; nothing is copied.
    assert_eq!(unsafe { ibv_memcpy_from_dm(to, &mut memory, 0, 4) }, libc::EOPNOTSUPP);
    // SAFETY: live device memory; nothing is copied.
    assert_eq!(unsafe { ibv_memcpy_to_dm(&mut memory, 0, null(), 0) }, libc::EOPNOTSUPP);
}
