//! Rules 7 and 8: values that nobody has heard of are numbers without a name, wherever they appear.

use ibverbs::{
    ffi, GidType, LinkLayer, Mtu, PhysicalState, PortState, QpState, QueuePairAttrMask, WcFlags,
    WcOpcode, WcStatus,
};
use null_provider::Completion;

use crate::common::{connected, null, open, parts, Parts};

/// Around the values that there are, in the middle, and at both ends.
const STRANGE: [u32; 6] = [25, 99, 1 << 16, i32::MAX as u32, 1 << 31, u32::MAX];

#[test]
fn completions() {
    let null = null();
    let Parts { cq, .. } = parts();
    for value in STRANGE {
        let completion = Completion {
            status: value,
            opcode: value,
            wc_flags: value,
            vendor_err: value,
            ..Completion::default()
        };
        null.complete(cq.as_raw(), completion);
        let mut completions = cq.poll().unwrap().unwrap();
        let wc = completions.next().unwrap();
        let error = wc.ok().unwrap_err();
        assert_eq!((error.status, wc.status()), (WcStatus(value), WcStatus(value)));
        assert_eq!(error.status.name(), None);
        assert!(error.to_string().contains(&value.to_string()), "{error}");
        assert_eq!(wc.opcode(), WcOpcode(value));
        assert_eq!(wc.flags(), WcFlags::from_bits_retain(value));
        assert!(format!("{wc:?} {:?} {}", wc.opcode(), wc.opcode()).contains("unknown"));
    }
}

#[test]
fn an_unknown_opcode_of_a_success_prints() {
    let null = null();
    let Parts { cq, .. } = parts();
    for value in STRANGE {
        let completion = Completion { opcode: value, ..Completion::default() };
        null.complete(cq.as_raw(), completion);
        let mut completions = cq.poll().unwrap().unwrap();
        let wc = completions.next().unwrap();
        wc.ok().unwrap();
        assert!(format!("{wc:?}").contains(&value.to_string()));
    }
}

#[test]
fn ports() {
    let null = null();
    let ctx = open(0);
    for value in STRANGE {
        null.configure(|config| {
            config.edit_port_attr = Some(Box::new(move |attr| {
                attr.state = value;
                attr.max_mtu = value;
                attr.active_mtu = value;
                attr.link_layer = value as u8 | 0x80;
                attr.phys_state = value as u8 | 0x80;
                attr.active_speed_ex = value;
                attr.active_width = value as u8;
                attr.max_vl_num = value as u8;
                attr.subnet_timeout = value as u8;
                attr.port_cap_flags = value;
                attr.port_cap_flags2 = value as u16;
                attr.gid_tbl_len = value as i32;
            }));
        });
        let port = ctx.query_port(1).unwrap();
        assert_eq!((port.state(), port.active_mtu()), (PortState(value), Mtu(value)));
        assert_eq!(port.active_mtu().bytes(), None);
        assert_eq!(port.link_layer(), LinkLayer(value as u8 | 0x80));
        assert_eq!(port.physical_state(), PhysicalState(value as u8 | 0x80));
        assert!(format!("{port:?}").contains(&format!("PortState({value})")));
    }
}

#[test]
fn devices() {
    let null = null();
    let ctx = open(0);
    for value in STRANGE {
        null.configure(|config| {
            config.edit_device_attr = Some(Box::new(move |attr| {
                attr.fw_ver = [-1; 64];
                attr.atomic_cap = value as _;
                attr.device_cap_flags = value;
                attr.max_qp_wr = value as i32;
                attr.max_sge = value as i32;
                attr.local_ca_ack_delay = value as u8;
            }));
        });
        let device = ctx.query_device().unwrap();
        assert_eq!(device.max_sge(), u32::try_from(value as i32).unwrap_or(0));
        assert_eq!(device.firmware_version().chars().count(), 64);
        assert!(!format!("{device:?} {:?}", ctx.query_device_ex().unwrap()).is_empty());
    }
}

#[test]
fn gids() {
    let null = null();
    let ctx = open(0);
    for value in STRANGE {
        null.configure(|config| {
            config.edit_gid_entry = Some(Box::new(move |entry| {
                entry.gid_type = value;
                entry.gid_index = value;
                entry.ndev_ifindex = value;
            }));
        });
        for entry in ctx.gid_table().unwrap() {
            assert_eq!(entry.gid_type(), GidType(value));
            // Miri does not have the function that is asked for the name.
            assert!(cfg!(miri) || entry.netdev_name().is_none_or(|name| !name.is_empty()));
            assert!(format!("{entry:?}").contains(&value.to_string()));
        }
        ctx.routable_gid(1).unwrap();
    }
}

#[test]
fn queue_pairs() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let mut qp = connected(&pd, &cq);
    for value in STRANGE {
        null.configure(|config| {
            config.edit_qp_attr = Some(Box::new(move |attr| {
                attr.qp_state = value;
                attr.cur_qp_state = value;
                attr.path_mtu = value;
                attr.path_mig_state = value;
                attr.qp_access_flags = value;
                attr.timeout = value as u8;
                attr.min_rnr_timer = value as u8;
                attr.en_sqd_async_notify = value as u8;
            }));
        });
        let attr = qp.query(QueuePairAttrMask::all()).unwrap();
        assert_eq!((attr.state(), attr.path_mtu()), (Some(QpState(value)), Some(Mtu(value))));
        assert!(format!("{attr:?}").contains(&format!("QpState({value})")));
        // From such a state no transition is known; the refusal is explained all the same.
        let attr = ibverbs::QueuePairAttr::new().set_state(QpState::SQD);
        assert!(qp.modify(&attr).unwrap_err().to_string().contains(&value.to_string()));
    }
}

#[test]
fn a_queue_that_drains_is_reported() {
    let null = null();
    let Parts { pd, cq, .. } = parts();
    let mut qp = connected(&pd, &cq);
    for (value, draining) in [(0, false), (1, true), (u8::MAX, true)] {
        null.configure(|config| {
            config.edit_qp_attr = Some(Box::new(move |attr| attr.sq_draining = value));
        });
        let attr = qp.query(QueuePairAttrMask::STATE).unwrap();
        assert_eq!(attr.sq_draining(), Some(draining));
        let attr = qp.query(QueuePairAttrMask::PORT).unwrap();
        assert_eq!(attr.sq_draining(), None);
    }
}

#[test]
fn a_query_reports_the_state() {
    let _null = null();
    let Parts { pd, cq, .. } = parts();
    let mut qp = connected(&pd, &cq);
    let state = |qp: &mut ibverbs::QueuePair<ibverbs::Rc>| {
        qp.query(QueuePairAttrMask::STATE).unwrap().state().unwrap()
    };
    assert_eq!(state(&mut qp), QpState::RTS);
    qp.modify(&ibverbs::QueuePairAttr::new().set_state(QpState::ERR)).unwrap();
    assert_eq!(state(&mut qp), QpState::ERR);
    // SAFETY: the queue pair is alive, and nobody else uses it.
    let stored = unsafe { (*qp.as_raw()).qp_base.state };
    assert_eq!(stored, ffi::IBV_QPS_ERR);
}
