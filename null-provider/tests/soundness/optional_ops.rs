//! Rules 4 and 5 for the operations that few devices have: demanded at creation if they are asked for, and complete
//! with their one call if they have no payload.

use ibverbs::{
    ffi, AccessFlags, DeviceCaps, Error, FlushLevel, FlushPlacement, MemoryRegion, MemoryWindow,
    ProtectionDomain, Rc, RemoteMemorySlice, Result, SendOps, Uc,
};
use null_provider::{Kind, Operation, Payload, Request, Verb};

use crate::common::{connected, null, parts, submit, with_windows, Null, Parts};

const REMOTE: RemoteMemorySlice = RemoteMemorySlice { addr: 0x1000, len: 64, rkey: 0x77 };
const READ: AccessFlags = AccessFlags::REMOTE_READ;

/// A region and a window.
fn bindable(pd: &ProtectionDomain) -> (MemoryRegion, MemoryWindow) {
    let access = AccessFlags::LOCAL_WRITE | AccessFlags::MW_BIND;
    (pd.allocate(64, access).unwrap(), pd.alloc_window().unwrap())
}

#[test]
fn operations_without_a_payload_are_complete_with_one_call() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let (region, mut window) = bindable(&pd);
    let mut qp = with_windows(&pd, &cq);
    let old_rkey = window.rkey();
    null.take_calls();
    let mut batch = qp.start_send();
    let access = AccessFlags::REMOTE_READ | AccessFlags::REMOTE_WRITE;
    // SAFETY: there is no peer.
    let remote =
        unsafe { batch.op().signaled().bind_window(1, &mut window, &region, 8..24, access) };
    batch.op().fenced().local_inv(2, 0x1234);
    batch.op().atomic_write(3, REMOTE, 0x0102_0304_0506_0708);
    let placement = FlushPlacement::all();
    batch.op().solicited().flush(4, REMOTE.slice(8..48), placement, FlushLevel::Region);
    batch.op().flush(5, REMOTE, FlushPlacement::GLOBAL, FlushLevel::Range);
    let bare = [Verb::WrStart].into_iter().chain([Verb::WrOperation; 5]);
    assert_eq!(null.verbs(), bare.collect::<Vec<_>>());
    batch.op().send_with_inv(6, b"inline", 0x5678);
    assert_eq!(null.verbs(), [Verb::WrOperation, Verb::WrPayload]);
    submit(batch).unwrap();

    let qp_num = qp.qp_num();
    let none = || Payload::Scatter(Vec::new());
    let request = |wr_id, flags, operation, payload| Request {
        qp_num,
        wr_id,
        flags,
        operation,
        address: None,
        payload,
    };
    let addr = region.slice(8..).addr();
    let rkey = ffi::ibv_inc_rkey(old_rkey);
    assert_eq!((remote.addr, remote.len, remote.rkey), (addr, 16, rkey));
    assert_eq!(window.rkey(), rkey);
    let bind = Operation::Bind {
        window: window.as_raw() as usize,
        region: region.as_raw() as usize,
        old_rkey,
        rkey,
        addr,
        length: 16,
        access: access.bits(),
    };
    let value = 0x0102_0304_0506_0708u64.to_ne_bytes();
    let (rkey, addr) = (0x77, 0x1000);
    let flush = |addr, length, placement: u32, level: u32| Operation::Flush {
        rkey,
        addr,
        length,
        placement: placement as u8,
        level: level as u8,
    };
    let everywhere = ffi::IBV_FLUSH_GLOBAL | ffi::IBV_FLUSH_PERSISTENT;
    let expected = [
        request(1, ffi::IBV_SEND_SIGNALED, bind, none()),
        request(2, ffi::IBV_SEND_FENCE, Operation::LocalInv { rkey: 0x1234 }, none()),
        request(3, 0, Operation::AtomicWrite { rkey, addr, value }, none()),
        request(
            4,
            ffi::IBV_SEND_SOLICITED,
            flush(0x1008, 40, everywhere, ffi::IBV_FLUSH_MR),
            none(),
        ),
        request(5, 0, flush(addr, 64, ffi::IBV_FLUSH_GLOBAL, ffi::IBV_FLUSH_RANGE), none()),
        request(
            6,
            ffi::IBV_SEND_INLINE,
            Operation::SendInv { rkey: 0x5678 },
            Payload::Inline(b"inline".to_vec()),
        ),
    ];
    assert_eq!(null.take_requests(), expected);
}

#[test]
fn what_was_not_granted_is_not_given_to_the_provider() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let (region, mut window) = bindable(&pd);
    let mut qp = connected(&pd, &cq);
    let key = window.rkey();
    null.take_calls();
    for op in [
        SendOps::BIND_MW,
        SendOps::LOCAL_INV,
        SendOps::SEND_WITH_INV,
        SendOps::FLUSH,
        SendOps::ATOMIC_WRITE,
    ] {
        let mut batch = qp.start_send();
        match op {
            SendOps::BIND_MW => {
                // SAFETY: there is no peer.
                let _ = unsafe { batch.op().bind_window(1, &mut window, &region, .., READ) };
            }
            SendOps::LOCAL_INV => batch.op().local_inv(1, 1),
            SendOps::SEND_WITH_INV => batch.op().send_with_inv(1, b"x", 1),
            SendOps::FLUSH => {
                batch.op().flush(1, REMOTE, FlushPlacement::GLOBAL, FlushLevel::Range);
            }
            _ => batch.op().atomic_write(1, REMOTE, 1),
        }
        match submit(batch) {
            Err(Error::OperationNotGranted { operation, .. }) => assert_eq!(operation, op),
            other => panic!("{other:?}"),
        }
        assert_eq!(null.verbs(), [Verb::WrStart, Verb::WrAbort]);
    }
    assert_eq!(window.rkey(), key);
}

#[test]
fn what_cannot_be_is_refused_before_the_provider_sees_it() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let mut qp = with_windows(&pd, &cq);
    let nowhere = FlushPlacement::empty();
    null.take_calls();
    let mut batch = qp.start_send();
    batch.op().flush(1, REMOTE, nowhere, FlushLevel::Range);
    assert!(matches!(submit(batch), Err(Error::InvalidArgument { value: 0, .. })));
    let too_long = RemoteMemorySlice { len: 1 << 32, ..REMOTE };
    let mut batch = qp.start_send();
    batch.op().flush(1, too_long, FlushPlacement::GLOBAL, FlushLevel::Range);
    assert!(matches!(submit(batch), Err(Error::InvalidArgument { value: 0x1_0000_0000, .. })));
    let mut batch = qp.start_send();
    batch.op().atomic_write(1, REMOTE.slice(..7), 1);
    assert!(matches!(submit(batch), Err(Error::BeyondRemote { bytes: 8, len: 7 })));
    let mut batch = qp.start_send();
    batch.op().atomic_write(1, REMOTE.slice(4..), 1);
    assert!(matches!(submit(batch), Err(Error::InvalidArgument { value: 0x1004, .. })));
    assert_eq!(null.verbs(), [Verb::WrStart, Verb::WrAbort].repeat(4));
}

#[test]
fn flushes_and_atomic_writes_are_demanded_of_the_device() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let build = |op| pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().add_send_ops(op).build();
    let flushes = DeviceCaps::FLUSH_GLOBAL | DeviceCaps::FLUSH_PERSISTENT;
    for (op, caps) in [(SendOps::FLUSH, flushes), (SendOps::ATOMIC_WRITE, DeviceCaps::ATOMIC_WRITE)]
    {
        build(op).unwrap().close().unwrap();
        null.configure(|config| {
            config.edit_device_attr_ex =
                Some(Box::new(move |attr| attr.device_cap_flags_ex &= !caps.bits()));
        });
        null.take_calls();
        let result = build(op);
        assert!(matches!(result, Err(Error::Unsupported { .. })), "{result:?}");
        assert_eq!(null.count(Verb::CreateQp), 0);
        build(SendOps::empty()).unwrap().close().unwrap();
        null.configure(|config| config.edit_device_attr_ex = None);
    }
    // Either of the two kinds of flushes will do.
    null.configure(|config| {
        config.edit_device_attr_ex = Some(Box::new(|attr| {
            attr.device_cap_flags_ex = DeviceCaps::FLUSH_PERSISTENT.bits();
        }));
    });
    build(SendOps::FLUSH).unwrap().close().unwrap();
}

/// That nothing was granted, and nothing is left.
fn expect_unsupported<T>(null: &Null, result: Result<T>) {
    assert!(matches!(result.map(drop), Err(Error::Unsupported { .. })));
    assert_eq!(null.live(Kind::Qp), 0);
}

#[test]
fn an_older_library_has_neither_flushes_nor_atomic_writes() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    null.configure(|config| {
        config.qp_ex_len = Some(std::mem::offset_of!(ffi::ibv_qp_ex, wr_atomic_write));
    });
    let builder = || pd.create_qp::<Rc>(&cq, &cq, 1).unwrap();
    for op in [SendOps::FLUSH, SendOps::ATOMIC_WRITE] {
        expect_unsupported(&null, builder().add_send_ops(op).build());
    }
    builder().add_send_ops(SendOps::WINDOWS).build().unwrap().close().unwrap();
}

#[test]
fn an_operation_that_the_transport_does_not_have_cannot_be_asked_for() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    for op in [SendOps::FLUSH, SendOps::ATOMIC_WRITE, SendOps::RDMA_READ] {
        let result = pd.create_qp::<Uc>(&cq, &cq, 1).unwrap().add_send_ops(op).build();
        assert!(matches!(result, Err(Error::InvalidSendOps { .. })), "{result:?}");
    }
    assert_eq!(null.count(Verb::CreateQp), 0);
    let builder = pd.create_qp::<Uc>(&cq, &cq, 1).unwrap();
    builder.add_send_ops(SendOps::WINDOWS).build().unwrap().close().unwrap();
}
