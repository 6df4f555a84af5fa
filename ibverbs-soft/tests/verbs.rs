//! What a C program finds: devices, what they say, states, limits, and what is refused.

// Not every test program needs all of it.
#[allow(dead_code)]
mod c;

use std::ffi::{c_int, CStr};
use std::ptr::null_mut;

use c::{
    created, errno, init_attr, refused, verb, zeroed, Bed, Qp, DEADLINE, GID_INDEX, PORT, QKEY,
};
use ibverbs_soft::Options;
use ibverbs_sys as ffi;
use ibverbs_sys::transitions::rule;

fn options() -> Options {
    Options { devices: 2, ..Options::default() }
}

#[test]
fn the_list_names_the_devices() {
    drop(Bed::new());
    let mut len = 0;
    let list = created(verb!(ibv_get_device_list(&mut len)));
    assert_eq!(len, 2);
    let entry = |number: usize| {
        let place = list.wrapping_add(number);
        // SAFETY: there are two entries, and the null at the end.
        unsafe { place.read() }
    };
    assert!(entry(2).is_null());
    let mut guids = Vec::new();
    for number in 0..2 {
        let device = entry(number);
        let name = verb!(ibv_get_device_name(device));
        // SAFETY: the device is alive, and so is its name.
        let name = unsafe { CStr::from_ptr(name) };
        assert_eq!(name.to_str().unwrap(), format!("soft{number}"));
        assert_eq!(verb!(ibv_get_device_index(device)), number as c_int);
        // SAFETY: the device is alive.
        let device = unsafe { device.read() };
        assert_eq!(device.node_type, ffi::IBV_NODE_CA);
        assert_eq!(device.transport_type, ffi::IBV_TRANSPORT_IB);
        guids.push(verb!(ibv_get_device_guid(entry(number))));
    }
    assert!(guids[0] != 0 && guids[0] != guids[1]);
    // Whoever looks behind a device finds nothing.
    let bytes = entry(0).cast::<u8>();
    for offset in size_of::<ffi::ibv_device>()..712 {
        let place = bytes.wrapping_add(offset);
        // SAFETY: a device is at least so long.
        assert_eq!(unsafe { place.read() }, 0);
    }
    let again = created(verb!(ibv_get_device_list(null_mut())));
    // SAFETY: there are two entries.
    assert_eq!(unsafe { again.read() }, entry(0), "a device stays where it is");
    verb!(ibv_free_device_list(again));
    verb!(ibv_free_device_list(list));
}

#[test]
fn a_device_can_be_opened_again_and_again() {
    let (a, b, other) = (Bed::new(), Bed::new(), Bed::open(1));
    assert_ne!(a.context, b.context);
    let raw = |bed: &Bed| {
        let gid = bed.gid();
        // SAFETY: every bit pattern is valid for the union's bytes.
        unsafe { gid.raw }
    };
    assert_eq!(raw(&a), raw(&b));
    assert_ne!(raw(&a), raw(&other));
    drop(a);
    for _ in 0..20 {
        drop(Bed::new());
    }
    b.device_attr();
}

#[test]
fn what_is_in_use_is_not_destroyed() {
    let bed = Bed::new();
    let channel = created(verb!(ibv_create_comp_channel(bed.context)));
    let raw_cq = created(verb!(ibv_create_cq(bed.context, 4, null_mut(), channel, 0)));
    assert_eq!(verb!(ibv_destroy_comp_channel(channel)), libc::EBUSY);
    let attr = ffi::ibv_srq_attr { max_wr: 4, max_sge: 1, srq_limit: 0 };
    let mut init = ffi::ibv_srq_init_attr { srq_context: null_mut(), attr };
    let srq = created(verb!(ibv_create_srq(bed.pd, &mut init)));
    let cq = bed.cq(4);
    let mut attr = init_attr(&cq, ffi::IBV_QPT_RC);
    (attr.send_cq, attr.srq) = (raw_cq, srq);
    let qp = Qp::with(&bed, attr);
    assert_eq!(verb!(ibv_destroy_cq(raw_cq)), libc::EBUSY);
    assert_eq!(verb!(ibv_destroy_cq(cq.raw)), libc::EBUSY);
    assert_eq!(verb!(ibv_destroy_srq(srq)), libc::EBUSY);
    let mem = bed.mem(64);
    let mut way = bed.way();
    let ah = created(verb!(ibv_create_ah(bed.pd, &mut way)));
    drop(qp);
    assert_eq!(verb!(ibv_destroy_srq(srq)), 0);
    assert_eq!(verb!(ibv_dealloc_pd(bed.pd)), libc::EBUSY, "there are a region and a handle");
    drop(mem);
    assert_eq!(verb!(ibv_dealloc_pd(bed.pd)), libc::EBUSY, "there is a handle");
    assert_eq!(verb!(ibv_destroy_ah(ah)), 0);
    assert_eq!(verb!(ibv_destroy_comp_channel(channel)), libc::EBUSY);
    assert_eq!(verb!(ibv_destroy_cq(raw_cq)), 0);
    assert_eq!(verb!(ibv_destroy_comp_channel(channel)), 0);
}

#[test]
fn the_device_tells_its_limits_in_structures_of_every_length() {
    let bed = Bed::new();
    let attr = bed.device_attr();
    assert_eq!((attr.phys_port_cnt, attr.max_pkeys), (PORT, 1));
    // SAFETY: the text ends with a zero.
    let version = unsafe { CStr::from_ptr(attr.fw_ver.as_ptr()) };
    assert_eq!(version.to_str().unwrap(), env!("CARGO_PKG_VERSION"));
    assert_eq!((attr.max_mw, attr.max_mcast_grp), (16_384, 128));
    assert_eq!((attr.max_mcast_qp_attach, attr.max_total_mcast_qp_attach), (256, 128 * 256));

    let mut ex: ffi::ibv_device_attr_ex = zeroed();
    assert_eq!(verb!(ibv_query_device_ex(bed.context, std::ptr::null(), &mut ex)), 0);
    assert_eq!(ex.orig_attr.max_qp, attr.max_qp);
    assert_eq!((ex.hca_core_clock, ex.completion_timestamp_mask), (1_000_000, u64::MAX));
    assert_eq!(ex.odp_caps.general_caps, 0);
    let input = ffi::ibv_query_device_ex_input { comp_mask: 1 };
    assert_eq!(verb!(ibv_query_device_ex(bed.context, &input, &mut ex)), libc::EINVAL);

    // The exported function knows a shorter structure.
    let mut port: ffi::ibv_port_attr = zeroed();
    port.active_speed_ex = 0x5a5a_5a5a;
    let exported = ffi::provider::verbs().unwrap().ibv_query_port.unwrap();
    let to = (&raw mut port).cast();
    // SAFETY: there is room for more than that structure.
    assert_eq!(unsafe { exported(bed.context, PORT, to) }, 0);
    assert_eq!((port.state, port.active_speed_ex), (ffi::IBV_PORT_ACTIVE, 0x5a5a_5a5a));
    assert_eq!(verb!(ibv_query_port(bed.context, PORT, &mut port)), 0);
    assert_ne!(port.active_speed_ex, 0x5a5a_5a5a);
    assert_eq!(u32::from(port.link_layer), ffi::IBV_LINK_LAYER_ETHERNET);
    assert_eq!((port.pkey_tbl_len, port.max_msg_sz), (1, 1 << 31));
    for wrong in [0, 2, 255] {
        assert_eq!(verb!(ibv_query_port(bed.context, wrong, &mut port)), libc::EINVAL);
    }
}

#[test]
fn the_tables_of_the_port() {
    let bed = Bed::new();
    let mut entries: [ffi::ibv_gid_entry; 8] = zeroed();
    let query = |entries: &mut [ffi::ibv_gid_entry]| {
        verb!(ibv_query_gid_table(bed.context, entries.as_mut_ptr(), entries.len(), 0))
    };
    let count = query(&mut entries);
    assert_eq!(count, 2);
    for (entry, index) in entries[..2].iter().zip(0..) {
        assert_eq!((entry.gid_index, entry.port_num), (index, u32::from(PORT)));
        assert_eq!(entry.gid_type, ffi::IBV_GID_TYPE_ROCE_V2);
        assert_ne!(entry.ndev_ifindex, 0);
        let mut same: ffi::ibv_gid_entry = zeroed();
        let port = u32::from(PORT);
        assert_eq!(verb!(ibv_query_gid_ex(bed.context, port, index, &mut same, 0)), 0);
        // SAFETY: every bit pattern is valid for the union's bytes.
        let raw = |entry: &ffi::ibv_gid_entry| unsafe { entry.gid.raw };
        assert_eq!(raw(&same), raw(entry));
    }
    assert_eq!(query(&mut entries[..1]), -(libc::EINVAL as isize));
    let mut gid = ffi::ibv_gid { raw: [0; 16] };
    for (port, index) in [(PORT, 2), (PORT, -1), (0, 0), (2, 0)] {
        assert_eq!(verb!(ibv_query_gid(bed.context, port, index, &mut gid)), -1);
        assert_eq!(errno(), libc::EINVAL);
    }
    let mut pkey = 0;
    assert_eq!(verb!(ibv_query_pkey(bed.context, PORT, 0, &mut pkey)), 0);
    assert_eq!(pkey, 0xffff);
    assert_eq!(verb!(ibv_query_pkey(bed.context, PORT, 1, &mut pkey)), -1);
    assert_eq!(verb!(ibv_get_pkey_index(bed.context, PORT, 0xffff)), 0);
    assert_eq!(verb!(ibv_get_pkey_index(bed.context, PORT, 0x7fff)), -1);
}

#[test]
fn the_clock_runs() {
    let bed = Bed::new();
    let mut values = ffi::ibv_values_ex { comp_mask: 1, ..zeroed() };
    let mut read = || {
        assert_eq!(verb!(ibv_query_rt_values_ex(bed.context, &mut values)), 0);
        assert_eq!(values.comp_mask, ffi::IBV_VALUES_MASK_RAW_CLOCK);
        values.raw_clock.tv_nsec
    };
    let before = read();
    std::thread::sleep(std::time::Duration::from_millis(2));
    let passed = read() - before;
    assert!((2_000_000..DEADLINE.as_nanos() as i64).contains(&passed), "{passed} ns");
}

#[test]
fn regions_are_what_they_were_asked_to_be_or_refused() {
    let bed = Bed::new();
    let mut memory = vec![0u64; 1024];
    let addr = memory.as_mut_ptr();
    let start = addr as u64;
    let register = |addr: *mut u64, len, iova, access| {
        verb!(ibv_reg_mr_iova2(bed.pd, addr.cast(), len, iova, access))
    };
    let write = ffi::IBV_ACCESS_LOCAL_WRITE;
    let remote = ffi::IBV_ACCESS_REMOTE_WRITE;
    for (access, code) in [
        (remote, libc::EINVAL),
        (ffi::IBV_ACCESS_REMOTE_ATOMIC, libc::EINVAL),
        (write | ffi::IBV_ACCESS_ZERO_BASED, libc::EINVAL),
        (write | 1 << 15, libc::EINVAL),
        (write | ffi::IBV_ACCESS_ON_DEMAND, libc::EOPNOTSUPP),
        (write | remote | ffi::IBV_ACCESS_FLUSH_GLOBAL, libc::EOPNOTSUPP),
    ] {
        assert_eq!(refused(register(addr, 64, start, access)), code, "{access:#x}");
    }
    for (len, iova) in [(0, start), (usize::MAX, start), (64, start + 1), (64, u64::MAX)] {
        assert_eq!(refused(register(addr, len, iova, write)), libc::EINVAL, "{len} {iova:#x}");
    }
    assert_eq!(refused(register(null_mut(), 4096, 0, write)), libc::EFAULT);
    for access in [0, write, write | remote | ffi::IBV_ACCESS_RELAXED_ORDERING] {
        let mr = created(register(addr, 8192, start, access));
        // SAFETY: the region is alive.
        let read = unsafe { mr.read() };
        assert_eq!((read.addr as u64, read.length, read.lkey), (start, 8192, read.rkey));
        assert_eq!(verb!(ibv_dereg_mr(mr)), 0);
    }
    let mr = created(register(addr, 64, start % 4096 + (1 << 40), write));
    assert_eq!(verb!(ibv_dereg_mr(mr)), 0);
    assert_eq!(refused(verb!(ibv_reg_dmabuf_mr(bed.pd, 0, 64, 0, 0, 1))), libc::EOPNOTSUPP);
    drop(memory);
}

#[test]
fn a_buffer_of_the_device_is_memory_of_its_domain() {
    let bed = Bed::new();
    let mut buf = null_mut();
    let addr = created(verb!(ibv_alloc_buf(bed.pd, 5000, &mut buf)));
    let bytes = std::ptr::slice_from_raw_parts_mut(addr.cast::<u8>(), 5000);
    // SAFETY: the buffer is so long, and nobody else is at it.
    unsafe { (*bytes).fill(7) };
    let access = ffi::IBV_ACCESS_LOCAL_WRITE as c_int;
    let register = |pd, offset: usize, len| {
        verb!(ibv_reg_buf_mr(pd, buf, addr.wrapping_byte_add(offset), len, access))
    };
    for (offset, len) in [(0, 5000), (4000, 1000)] {
        let mr = created(register(bed.pd, offset, len));
        // SAFETY: the region is alive.
        let told = unsafe { mr.read() };
        assert_eq!((told.addr, told.length), (addr.wrapping_byte_add(offset), len));
        assert_eq!(verb!(ibv_dereg_mr(mr)), 0);
    }
    for (offset, len) in [(0, 0), (0, 1 << 16), (1 << 16, 1), (1, usize::MAX), (usize::MAX, 1)] {
        assert_eq!(refused(register(bed.pd, offset, len)), libc::EINVAL, "{offset} {len}");
    }
    let other = created(verb!(ibv_alloc_pd(bed.context)));
    assert_eq!(refused(register(other, 0, 5000)), libc::EINVAL);
    assert_eq!(verb!(ibv_dealloc_pd(other)), 0);
    assert_eq!((verb!(ibv_export_buf_dmabuf_fd(buf)), errno()), (-1, libc::ENODATA));
    assert_eq!(verb!(ibv_dealloc_pd(bed.pd)), libc::EBUSY);
    verb!(ibv_free_buf(buf));
    for (size, errno) in [(0, libc::EINVAL), (usize::MAX, libc::ENOMEM)] {
        assert_eq!(refused(verb!(ibv_alloc_buf(bed.pd, size, &mut buf))), errno, "{size}");
    }
}

#[test]
fn what_is_too_large_is_refused() {
    let bed = Bed::new();
    let device = bed.device_attr();
    for (entries, vector) in [(0, 0), (-1, 0), (device.max_cqe + 1, 0), (1, 2), (1, -1)] {
        let cq = verb!(ibv_create_cq(bed.context, entries, null_mut(), null_mut(), vector));
        assert_eq!(refused(cq), libc::EINVAL, "{entries} entries");
    }
    let cq = bed.cq(device.max_cqe);
    assert_eq!(verb!(ibv_resize_cq(cq.raw, device.max_cqe + 1)), libc::EINVAL);
    assert_eq!(verb!(ibv_resize_cq(cq.raw, 0)), libc::EINVAL);
    assert_eq!(verb!(ibv_resize_cq(cq.raw, 7)), 0);
    // SAFETY: the queue is alive.
    assert_eq!(unsafe { (*cq.raw).cqe }, 7);

    let fine = init_attr(&cq, ffi::IBV_QPT_RC);
    let create = |change: &dyn Fn(&mut ffi::ibv_qp_init_attr_ex)| {
        let mut attr = fine;
        (attr.comp_mask, attr.pd) = (ffi::IBV_QP_INIT_ATTR_PD, bed.pd);
        change(&mut attr);
        refused(verb!(ibv_create_qp_ex(bed.context, &mut attr)))
    };
    let (max_wr, max_sge) = (device.max_qp_wr as u32, device.max_sge as u32);
    assert_eq!(create(&|attr| attr.cap.max_send_wr = max_wr + 1), libc::EINVAL);
    assert_eq!(create(&|attr| attr.cap.max_recv_wr = max_wr + 1), libc::EINVAL);
    assert_eq!(create(&|attr| attr.cap.max_send_sge = max_sge + 1), libc::EINVAL);
    assert_eq!(create(&|attr| attr.cap.max_recv_sge = max_sge + 1), libc::EINVAL);
    assert_eq!(create(&|attr| attr.cap.max_inline_data = 1 << 20), libc::EINVAL);
    assert_eq!(create(&|attr| attr.send_cq = null_mut()), libc::EINVAL);
    for qp_type in [ffi::IBV_QPT_RAW_PACKET, ffi::IBV_QPT_XRC_SEND, ffi::IBV_QPT_DRIVER, 77] {
        assert_eq!(create(&|attr| attr.qp_type = qp_type), libc::EOPNOTSUPP);
    }
    for (qp_type, op) in [
        (ffi::IBV_QPT_UD, ffi::IBV_QP_EX_WITH_BIND_MW),
        (ffi::IBV_QPT_UC, ffi::IBV_QP_EX_WITH_SEND_WITH_INV),
        (ffi::IBV_QPT_UC, ffi::IBV_QP_EX_WITH_RDMA_READ),
        (ffi::IBV_QPT_UD, ffi::IBV_QP_EX_WITH_RDMA_WRITE),
    ] {
        let code = create(&|attr| {
            attr.qp_type = qp_type;
            attr.comp_mask |= ffi::IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
            attr.send_ops_flags = op.into();
        });
        assert_eq!(code, libc::EOPNOTSUPP, "{qp_type} {op}");
    }
    // As much as is offered can be had.
    let mut attr = fine;
    (attr.cap.max_send_wr, attr.cap.max_recv_sge) = (max_wr, max_sge);
    let qp = Qp::with(&bed, attr);
    let (_, init) = qp.query();
    assert_eq!((init.cap.max_send_wr, init.cap.max_recv_sge), (max_wr, max_sge));
    assert!(verb!(ibv_qp_to_qp_ex(qp.raw)).is_null(), "it was not asked to be extended");

    for (max_wr, max_sge) in
        [(0, 1), (device.max_srq_wr as u32 + 1, 1), (1, device.max_srq_sge as u32 + 1)]
    {
        let attr = ffi::ibv_srq_attr { max_wr, max_sge, srq_limit: 0 };
        let mut init = ffi::ibv_srq_init_attr { srq_context: null_mut(), attr };
        assert_eq!(refused(verb!(ibv_create_srq(bed.pd, &mut init))), libc::EINVAL);
    }
}

#[test]
fn completion_fields_that_are_not_there_are_refused() {
    let bed = Bed::new();
    let create = |wc_flags: u32, comp_mask, flags| {
        let wc_flags = wc_flags.into();
        let mut attr =
            ffi::ibv_cq_init_attr_ex { cqe: 1, wc_flags, comp_mask, flags, ..Default::default() };
        verb!(ibv_create_cq_ex(bed.context, &mut attr))
    };
    for fields in
        [ffi::IBV_WC_EX_WITH_CVLAN, ffi::IBV_WC_EX_WITH_FLOW_TAG, ffi::IBV_WC_EX_WITH_TM_INFO]
    {
        assert_eq!(refused(create(fields, 0, 0)), libc::EOPNOTSUPP);
    }
    assert_eq!(refused(create(0, ffi::IBV_CQ_INIT_ATTR_MASK_PD, 0)), libc::EOPNOTSUPP);
    let single = ffi::IBV_CREATE_CQ_ATTR_SINGLE_THREADED;
    let cq = created(create(0, ffi::IBV_CQ_INIT_ATTR_MASK_FLAGS, single));
    assert_eq!(verb!(ibv_destroy_cq(cq.cast())), 0);
    let mut attr = zeroed();
    let cq = bed.cq(1);
    assert_eq!(verb!(ibv_modify_cq(cq.raw, &mut attr)), libc::EOPNOTSUPP);
}

fn gid(address: &str) -> ffi::ibv_gid {
    ffi::ibv_gid { raw: address.parse::<std::net::Ipv6Addr>().unwrap().octets() }
}

#[test]
fn groups_are_for_datagrams_and_for_addresses_of_groups() {
    let bed = Bed::new();
    let cq = bed.cq(4);
    let datagrams = Qp::new(&bed, &cq, ffi::IBV_QPT_UD);
    let attach = |qp: &Qp, address: &str, lid| {
        let gid = gid(address);
        [verb!(ibv_attach_mcast(qp.raw, &gid, lid)), verb!(ibv_detach_mcast(qp.raw, &gid, lid))]
    };
    let group = "::ffff:239.7.3.1";
    for qp_type in [ffi::IBV_QPT_RC, ffi::IBV_QPT_UC] {
        assert_eq!(attach(&Qp::new(&bed, &cq, qp_type), group, 0), [libc::EINVAL; 2]);
    }
    for address in ["::", "::1", "fe80::1", "::ffff:127.0.0.1", "::ffff:255.255.255.255"] {
        assert_eq!(attach(&datagrams, address, 0), [libc::EINVAL; 2], "{address}");
    }
    // In any state, and with any local identifier, which groups of Ethernet do not have.
    assert_eq!(attach(&datagrams, group, 0xc001), [0; 2]);
    let datagrams = datagrams.connect(0);
    assert_eq!(attach(&datagrams, group, 0), [0; 2]);
    let group = gid(group);
    assert_eq!(verb!(ibv_attach_mcast(datagrams.raw, &group, 0)), 0);
    assert_eq!(verb!(ibv_destroy_qp(datagrams.raw)), libc::EBUSY);
    assert_eq!(verb!(ibv_detach_mcast(datagrams.raw, &group, 0)), 0);
    assert_eq!(verb!(ibv_detach_mcast(datagrams.raw, &group, 0)), libc::EINVAL);
}

#[test]
fn addresses_that_lead_nowhere_are_refused() {
    let bed = Bed::new();
    let create = |change: &dyn Fn(&mut ffi::ibv_ah_attr)| {
        let mut way = bed.way();
        change(&mut way);
        refused(verb!(ibv_create_ah(bed.pd, &mut way)))
    };
    assert_eq!(create(&|way| way.port_num = 2), libc::EINVAL);
    assert_eq!(create(&|way| way.is_global = 0), libc::EINVAL);
    assert_eq!(create(&|way| way.grh.sgid_index = 2), libc::EINVAL);
    let to = |address: &str| {
        let gid: std::net::Ipv6Addr = address.parse().unwrap();
        create(&|way| way.grh.dgid.raw = gid.octets())
    };
    assert_eq!(to("2001:db8::1"), libc::EINVAL);
    assert_eq!(to("::ffff:0.0.0.0"), libc::EINVAL);
    assert_eq!(to("::ffff:255.255.255.255"), libc::EOPNOTSUPP);
    assert_eq!(to("ff0e::1"), libc::EINVAL, "a group of IPv6, from an address of IPv4");
    assert_eq!(to("::ffff:192.0.2.1"), libc::ENETUNREACH, "from a loopback address");
    let mut way = bed.way();
    let mut same = way;
    same.grh.dgid.raw = *b"\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\x63";
    let mut group = way;
    group.grh.dgid = gid("::ffff:239.1.2.3");
    let handles =
        [&mut way, &mut same, &mut group].map(|way| created(verb!(ibv_create_ah(bed.pd, way))));
    for handle in handles {
        assert_eq!(verb!(ibv_destroy_ah(handle)), 0);
    }
}

#[test]
fn names_and_rates() {
    drop(Bed::new());
    let text = |name: *const std::ffi::c_char| {
        // SAFETY: names are C strings that stay.
        unsafe { CStr::from_ptr(name) }.to_str().unwrap()
    };
    assert_eq!(text(verb!(ibv_wc_status_str(ffi::IBV_WC_SUCCESS))), "success");
    assert_eq!(text(verb!(ibv_wc_status_str(999))), "unknown");
    assert_eq!(text(verb!(ibv_port_state_str(ffi::IBV_PORT_ACTIVE))), "active");
    assert_eq!(text(verb!(ibv_node_type_str(-1))), "unknown");
    assert_eq!(text(verb!(ibv_event_type_str(ffi::IBV_EVENT_CQ_ERR))), "CQ error");
    assert_eq!(verb!(ibv_rate_to_mult(ffi::IBV_RATE_40_GBPS)), 16);
    assert_eq!(verb!(ibv_rate_to_mult(ffi::IBV_RATE_100_GBPS)), -1);
    assert_eq!(verb!(mult_to_ibv_rate(16)), ffi::IBV_RATE_40_GBPS);
    assert_eq!(verb!(mult_to_ibv_rate(-1)), ffi::IBV_RATE_MAX);
    assert_eq!(verb!(ibv_rate_to_mbps(ffi::IBV_RATE_100_GBPS)), 103_125);
    assert_eq!(verb!(mbps_to_ibv_rate(103_125)), ffi::IBV_RATE_100_GBPS);
    assert_eq!(verb!(mbps_to_ibv_rate(1)), ffi::IBV_RATE_MAX);
}

const TYPES: [ffi::ibv_qp_type; 3] = [ffi::IBV_QPT_RC, ffi::IBV_QPT_UC, ffi::IBV_QPT_UD];

/// A queue pair in this state; `None` if there is no way there.
fn in_state<'q>(
    bed: &'q Bed,
    cq: &'q c::Cq<'q>,
    qp_type: ffi::ibv_qp_type,
    state: ffi::ibv_qp_state,
) -> Option<Qp<'q>> {
    const PATH: [ffi::ibv_qp_state; 4] =
        [ffi::IBV_QPS_INIT, ffi::IBV_QPS_RTR, ffi::IBV_QPS_RTS, ffi::IBV_QPS_SQD];
    let qp = Qp::new(bed, cq, qp_type);
    let steps = match state {
        ffi::IBV_QPS_ERR => 1,
        ffi::IBV_QPS_SQE => 3,
        state => state as usize,
    };
    for to in &PATH[..steps] {
        qp.go(*to, qp.number());
    }
    match state {
        ffi::IBV_QPS_ERR => qp.go(state, 0),
        ffi::IBV_QPS_SQE if qp_type == ffi::IBV_QPT_RC => return None,
        ffi::IBV_QPS_SQE => {
            // Memory that is not registered.
            let mut sges = [ffi::ibv_sge { addr: 4096, length: 8, lkey: 1 }];
            let mut wr = c::send_wr(1, ffi::IBV_WR_SEND, &mut sges);
            let mut way = bed.way();
            let ah = created(verb!(ibv_create_ah(bed.pd, &mut way)));
            if qp_type == ffi::IBV_QPT_UD {
                wr.wr.ud.ah = ah;
                wr.wr.ud.remote_qpn = qp.number();
                wr.wr.ud.remote_qkey = QKEY;
            }
            qp.post_send(&mut [wr]).unwrap();
            assert_eq!(cq.wait_one(), (1, ffi::IBV_WC_LOC_PROT_ERR));
            assert_eq!(verb!(ibv_destroy_ah(ah)), 0);
        }
        _ => {}
    }
    assert_eq!(qp.state(), state, "type {qp_type}");
    Some(qp)
}

/// All attributes but the state, one by one.
fn attributes() -> impl Iterator<Item = u32> {
    (0..26).map(|bit| 1 << bit).filter(|&bit| bit != ffi::IBV_QP_STATE)
}

#[test]
fn legal_transitions_work_and_all_others_are_refused() {
    let bed = Bed::new();
    let cq = bed.cq(64);
    for qp_type in TYPES {
        for from in 0..7 {
            let Some(first) = in_state(&bed, &cq, qp_type, from) else { continue };
            for to in 0..8 {
                let what = format!("type {qp_type}: {from} -> {to}");
                let number = first.number();
                let attr = first.attr(to, number);
                let Some(rule) = rule(qp_type, from, to) else {
                    for more in attributes().chain([0]) {
                        let code = first.try_modify(&attr, ffi::IBV_QP_STATE | more);
                        assert_eq!(code, libc::EINVAL, "{what} with {more:#x}");
                    }
                    assert_eq!(first.state(), from, "{what}: a refusal changes nothing");
                    continue;
                };
                let required = rule.required | ffi::IBV_QP_STATE;
                for bit in attributes() {
                    if required & bit != 0 {
                        let code = first.try_modify(&attr, required & !bit);
                        assert_eq!(code, libc::EINVAL, "{what} without {bit:#x}");
                    } else if rule.optional & bit == 0 {
                        let code = first.try_modify(&attr, required | bit);
                        assert_eq!(code, libc::EINVAL, "{what} with {bit:#x}");
                    }
                }
                assert_eq!(first.state(), from, "{what}: a refusal changes nothing");
                for bit in attributes().filter(|bit| rule.optional & bit != 0).chain([0]) {
                    let qp = in_state(&bed, &cq, qp_type, from).unwrap();
                    let code = qp.try_modify(&qp.attr(to, qp.number()), required | bit);
                    // Paths do not migrate.
                    let possible = bit != ffi::IBV_QP_ALT_PATH;
                    let expected = if possible { 0 } else { libc::EINVAL };
                    assert_eq!(code, expected, "{what} with {bit:#x}");
                    let after = if possible { to } else { from };
                    assert_eq!(qp.state(), after, "{what} with {bit:#x}");
                    // SAFETY: the queue pair is alive.
                    assert_eq!(unsafe { (*qp.raw).state }, after, "{what} with {bit:#x}");
                }
            }
        }
    }
}

#[test]
fn values_that_cannot_be_are_refused() {
    let bed = Bed::new();
    let cq = bed.cq(4);
    let qp = Qp::new(&bed, &cq, ffi::IBV_QPT_RC);
    type Wrong = (u32, fn(&mut ffi::ibv_qp_attr));
    let check = |to, wrongs: &[Wrong]| {
        let required = rule(ffi::IBV_QPT_RC, qp.state(), to).unwrap().required;
        for (bit, spoil) in wrongs {
            let mut attr = qp.attr(to, qp.number());
            spoil(&mut attr);
            let mask = required | bit | ffi::IBV_QP_STATE;
            assert_eq!(qp.try_modify(&attr, mask), libc::EINVAL, "{bit:#x} to {to}");
        }
        qp.go(to, qp.number());
    };
    check(
        ffi::IBV_QPS_INIT,
        &[
            (ffi::IBV_QP_PORT, |attr| attr.port_num = 2),
            (ffi::IBV_QP_PORT, |attr| attr.port_num = 0),
            (ffi::IBV_QP_PKEY_INDEX, |attr| attr.pkey_index = 1),
        ],
    );
    check(
        ffi::IBV_QPS_RTR,
        &[
            (ffi::IBV_QP_AV, |attr| attr.ah_attr.is_global = 0),
            (ffi::IBV_QP_AV, |attr| attr.ah_attr.grh.sgid_index = 9),
            (ffi::IBV_QP_AV, |attr| attr.ah_attr.port_num = 9),
            (ffi::IBV_QP_PATH_MTU, |attr| attr.path_mtu = 0),
            (ffi::IBV_QP_PATH_MTU, |attr| attr.path_mtu = 6),
            (ffi::IBV_QP_DEST_QPN, |attr| attr.dest_qp_num = 1 << 24),
            (ffi::IBV_QP_MAX_DEST_RD_ATOMIC, |attr| attr.max_dest_rd_atomic = 17),
            (ffi::IBV_QP_MIN_RNR_TIMER, |attr| attr.min_rnr_timer = 32),
        ],
    );
    check(
        ffi::IBV_QPS_RTS,
        &[
            (ffi::IBV_QP_TIMEOUT, |attr| attr.timeout = 32),
            (ffi::IBV_QP_RETRY_CNT, |attr| attr.retry_cnt = 8),
            (ffi::IBV_QP_RNR_RETRY, |attr| attr.rnr_retry = 8),
            (ffi::IBV_QP_MAX_QP_RD_ATOMIC, |attr| attr.max_rd_atomic = 17),
            (ffi::IBV_QP_CUR_STATE, |attr| attr.cur_qp_state = ffi::IBV_QPS_RTS),
            (ffi::IBV_QP_PATH_MIG_STATE, |attr| attr.path_mig_state = ffi::IBV_MIG_ARMED),
        ],
    );
    // Sequence numbers have 24 bits; the rest does not count.
    qp.go(ffi::IBV_QPS_RESET, 0);
    qp.go(ffi::IBV_QPS_INIT, 0);
    let mut attr = qp.attr(ffi::IBV_QPS_RTR, 5);
    attr.rq_psn = 0xff00_0007;
    let required = rule(ffi::IBV_QPT_RC, ffi::IBV_QPS_INIT, ffi::IBV_QPS_RTR).unwrap().required;
    assert_eq!(qp.try_modify(&attr, required | ffi::IBV_QP_STATE), 0);
    assert_eq!(qp.query().0.rq_psn, 7);
}

#[test]
fn a_query_tells_what_was_set() {
    let bed = Bed::new();
    let cq = bed.cq(4);
    let mut init = init_attr(&cq, ffi::IBV_QPT_RC);
    init.qp_context = 77 as *mut _;
    init.sq_sig_all = 1;
    let qp = Qp::with(&bed, init).connect(0x12345);
    let set = qp.attr(ffi::IBV_QPS_RTS, 0x12345);
    let (told, told_init) = qp.query();
    assert_eq!((told.qp_state, told.cur_qp_state), (ffi::IBV_QPS_RTS, ffi::IBV_QPS_RTS));
    assert_eq!((told.path_mtu, told.dest_qp_num), (set.path_mtu, 0x12345));
    assert_eq!((told.sq_psn, told.rq_psn), (set.sq_psn, set.rq_psn));
    assert_eq!(told.qp_access_flags, set.qp_access_flags);
    assert_eq!((told.port_num, told.pkey_index, told.timeout), (PORT, 0, set.timeout));
    assert_eq!((told.retry_cnt, told.rnr_retry), (set.retry_cnt, set.rnr_retry));
    assert_eq!((told.max_rd_atomic, told.max_dest_rd_atomic), (4, 4));
    assert_eq!(told.min_rnr_timer, set.min_rnr_timer);
    assert_eq!(told.ah_attr.grh.sgid_index, GID_INDEX);
    // SAFETY: every bit pattern is valid for the union's bytes.
    let gid = |attr: &ffi::ibv_qp_attr| unsafe { attr.ah_attr.grh.dgid.raw };
    assert_eq!(gid(&told), gid(&set));
    assert_eq!(told.cap.max_send_wr, init.cap.max_send_wr);
    assert_eq!((told_init.qp_context, told_init.sq_sig_all), (init.qp_context, 1));
    assert_eq!((told_init.send_cq, told_init.qp_type), (cq.raw, ffi::IBV_QPT_RC));
    let (mut attr, mut init) = (told, told_init);
    let mask = ffi::IBV_QP_RATE_LIMIT as c_int;
    assert_eq!(verb!(ibv_query_qp(qp.raw, &mut attr, mask, &mut init)), libc::EOPNOTSUPP);
    qp.go(ffi::IBV_QPS_RESET, 0);
    assert_eq!((qp.query().0.ah_attr.is_global, qp.query().0.qp_access_flags), (0, 0));
}
