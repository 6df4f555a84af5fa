//! Rules 4 and 5: what the provider does not have is found at creation, and nothing is left behind.

use std::mem::{offset_of, size_of};

use ibverbs::{ffi, Context, Error, Rc, SendOps, WcFields};
use null_provider::{Kind, Verb};

use crate::common::{null, open, parts, post, submit, Null, Parts};

/// Clears one function pointer.
type Clear<T> = (&'static str, fn(&mut T));

macro_rules! clear {
    ($prefix:literal: $($function:ident)*) => {
        [$( (concat!($prefix, stringify!($function)), |object| object.$function = None) ),*]
    };
}

fn expect_unsupported_cq(
    null: &Null,
    ctx: &Context,
    fields: WcFields,
    clear: Clear<ffi::ibv_cq_ex>,
) {
    let (name, clear) = clear;
    null.configure(|config| config.edit_cq = Some(Box::new(clear)));
    match ctx.create_cq(1).set_wc_fields(fields).build() {
        Err(Error::Unsupported { operation }) => assert_eq!(operation, name),
        other => panic!("{name}: {other:?}"),
    }
    assert_eq!(null.live(Kind::Cq), 0, "{name}");
}

#[test]
fn every_function_of_a_standard_field_is_demanded() {
    let null = null();
    let ctx = open(0);
    let standard: [Clear<ffi::ibv_cq_ex>; 13] = clear!("ibv_cq_ex.": start_poll next_poll end_poll
        read_opcode read_vendor_err read_byte_len read_imm_data read_qp_num read_src_qp
        read_wc_flags read_slid read_sl read_dlid_path_bits);
    for clear in standard {
        expect_unsupported_cq(&null, &ctx, WcFields::empty(), clear);
    }
}

#[test]
fn the_function_of_an_optional_field_is_demanded_if_the_field_is() {
    let null = null();
    let ctx = open(0);
    let optional: [Clear<ffi::ibv_cq_ex>; 5] = clear!("ibv_cq_ex.": read_completion_ts
        read_completion_wallclock_ns read_cvlan read_flow_tag read_tm_info);
    for (field, clear) in WcFields::all().iter().zip(optional) {
        expect_unsupported_cq(&null, &ctx, field, clear);
        // Without the field nobody misses the function.
        ctx.create_cq(1).build().unwrap();
    }
}

#[test]
fn every_function_of_an_operation_is_demanded_if_the_operation_is() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let always: [Clear<ffi::ibv_qp_ex>; 7] = clear!("ibv_qp_ex.": wr_start wr_complete wr_abort
        wr_set_sge wr_set_sge_list wr_set_inline_data wr_set_inline_data_list);
    let operations: [Clear<ffi::ibv_qp_ex>; 7] = clear!("ibv_qp_ex.": wr_send wr_send_imm
        wr_rdma_write wr_rdma_write_imm wr_rdma_read wr_atomic_cmp_swp wr_atomic_fetch_add);
    for (name, clear) in always.into_iter().chain(operations) {
        null.configure(|config| config.edit_qp = Some(Box::new(clear)));
        match pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().build() {
            Err(Error::Unsupported { operation }) => assert_eq!(operation, name),
            other => panic!("{name}: {other:?}"),
        }
        assert_eq!(null.live(Kind::Qp), 0, "{name}");
    }
    null.configure(|config| config.edit_qp = None);
    let defaults = pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().build().unwrap().send_ops();
    for ((name, clear), op) in operations.into_iter().zip([
        SendOps::SEND,
        SendOps::SEND_WITH_IMM,
        SendOps::RDMA_WRITE,
        SendOps::RDMA_WRITE_WITH_IMM,
        SendOps::RDMA_READ,
        SendOps::ATOMIC_CMP_AND_SWP,
        SendOps::ATOMIC_FETCH_AND_ADD,
    ]) {
        null.configure(|config| config.edit_qp = Some(Box::new(clear)));
        let builder = pd.create_qp::<Rc>(&cq, &cq, 1).unwrap();
        let without = builder.set_send_ops(defaults - op).build();
        assert_eq!(without.expect(name).send_ops(), defaults - op);
    }
}

#[test]
fn the_function_of_an_optional_operation_is_demanded_if_the_operation_is() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let optional: [Clear<ffi::ibv_qp_ex>; 5] = clear!("ibv_qp_ex.": wr_bind_mw wr_local_inv
        wr_send_inv wr_flush wr_atomic_write);
    for ((name, clear), op) in optional.into_iter().zip([
        SendOps::BIND_MW,
        SendOps::LOCAL_INV,
        SendOps::SEND_WITH_INV,
        SendOps::FLUSH,
        SendOps::ATOMIC_WRITE,
    ]) {
        null.configure(|config| config.edit_qp = Some(Box::new(clear)));
        let build = |ops| pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().set_send_ops(ops).build();
        match build(SendOps::all()) {
            Err(Error::Unsupported { operation }) => assert_eq!(operation, name),
            other => panic!("{name}: {other:?}"),
        }
        assert_eq!(null.live(Kind::Qp), 0, "{name}");
        assert_eq!(build(SendOps::all() - op).expect(name).send_ops(), SendOps::all() - op);
        // By default nobody asks for it.
        drop(pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().build().unwrap());
    }
}

#[test]
fn a_queue_pair_of_an_older_library_ends_after_the_abort() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let len = offset_of!(ffi::ibv_qp_ex, wr_atomic_write);
    null.configure(|config| config.qp_ex_len = Some(len));
    let mut qp = crate::common::connected(&pd, &cq);
    let mut batch = qp.start_send();
    batch.op().send(1, b"one");
    submit(batch).unwrap();
    drop(qp.start_send());
    post(&mut qp, []).unwrap();
    qp.query(ibverbs::QueuePairAttrMask::STATE).unwrap();
    qp.reset().unwrap().close().unwrap();
}

#[test]
fn a_queue_pair_without_the_extended_interface_is_refused() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    null.configure(|config| config.plain_queue_pairs = true);
    let result = pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().build();
    assert!(matches!(result, Err(Error::Unsupported { .. })), "{result:?}");
    assert_eq!(null.live(Kind::Qp), 0);
}

/// That neither completion queues nor anything that needs them can be created; the rest can.
fn expect_no_completion_queues(null: &Null) {
    let ctx = open(0);
    let result = ctx.create_cq(1).build();
    assert!(matches!(result, Err(Error::Unsupported { .. })), "{result:?}");
    assert_eq!(null.count(Verb::CreateCq), 0);
    assert_eq!(ctx.query_port(1).unwrap().active_mtu(), ibverbs::Mtu::B1024);
    assert_eq!(ctx.query_device_ex().unwrap().base().max_qp(), 1024);
    ctx.alloc_pd().unwrap();
}

#[test]
fn a_context_without_the_extended_verbs_has_no_completion_queues() {
    let null = null();
    null.configure(|config| {
        config.edit_context = Some(Box::new(|context| context.create_cq_ex = None));
    });
    expect_no_completion_queues(&null);
}

#[test]
fn a_context_of_an_older_library_is_shorter() {
    let null = null();
    null.configure(|config| {
        config.edit_context = Some(Box::new(|context| {
            context.sz = size_of::<ffi::verbs_context>() - offset_of!(ffi::verbs_context, priv_);
        }));
    });
    expect_no_completion_queues(&null);
}

#[test]
fn a_context_that_is_not_extended_has_nothing_in_front() {
    let null = null();
    null.configure(|config| {
        config.edit_context = Some(Box::new(|context| {
            context.context.abi_compat = std::ptr::null_mut();
            context.sz = size_of::<ffi::ibv_context>();
        }));
    });
    expect_no_completion_queues(&null);
}

#[test]
fn a_context_without_extended_queue_pairs_refuses_them() {
    let null = null();
    null.configure(|config| {
        config.edit_context = Some(Box::new(|context| context.create_qp_ex = None));
    });
    let Parts { pd, cq, .. } = parts();
    let result = pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().build();
    assert!(matches!(result, Err(Error::Unsupported { .. })), "{result:?}");
}

#[test]
fn a_device_that_lacks_an_operation_says_so() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    null.fail(Verb::CreateQp, libc::EOPNOTSUPP);
    let result = pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().build();
    assert!(matches!(result, Err(Error::Unsupported { .. })), "{result:?}");
    null.fail(Verb::CreateCq, libc::EOPNOTSUPP);
    let fields = WcFields::COMPLETION_TIMESTAMP;
    let result = cq.context().create_cq(1).set_wc_fields(fields).build();
    assert!(matches!(result, Err(Error::Unsupported { .. })), "{result:?}");
}

#[test]
fn verbs_that_create_fail_cleanly() {
    let null = null();
    for verb in [Verb::GetDeviceList, Verb::OpenDevice] {
        null.fail(verb, libc::EACCES);
        let result = ibverbs::devices().and_then(|list| list.get(0).unwrap().open());
        assert_eq!(result.unwrap_err().os_error(), Some(libc::EACCES));
        null.succeed(verb);
    }
    let ctx = open(0);
    null.fail(Verb::QueryGid, libc::ENODEV);
    assert_eq!(ctx.query_gid(1, 0).unwrap_err().os_error(), Some(libc::ENODEV));
    null.fail(Verb::QueryPkey, libc::ENODEV);
    assert_eq!(ctx.query_pkey(1, 0).unwrap_err().os_error(), Some(libc::ENODEV));
    null.fail(Verb::AllocPd, libc::ENOMEM);
    assert_eq!(ctx.alloc_pd().unwrap_err().os_error(), Some(libc::ENOMEM));
    null.fail(Verb::CreateCq, libc::ENOMEM);
    assert_eq!(ctx.create_cq(1).build().unwrap_err().os_error(), Some(libc::ENOMEM));
    assert_eq!(null.live(Kind::Cq), 0);
}
