//! Creating objects.

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

use ibverbs_sys as ffi;

use crate::input::{NewQp, Range, Way};
use crate::memory;
use crate::objects::{created, pick, verb, Cq, Mr, Objects, Qp, Room, PORT};

/// Flags of `ibv_reg_mr` that are rights.
const RIGHTS: u32 = 0x1f;

impl Objects {
    pub fn open(&mut self, number: usize) {
        if self.contexts.len() < 4 {
            let context = created(crate::open(number)).expect("it can be opened");
            // SAFETY: the context is alive, and the field is not written.
            crate::objects::do_not_wait(unsafe { (*context).async_fd });
            self.contexts.push(context);
        }
    }

    pub fn reg_mr(&mut self, pd: *mut ffi::ibv_pd, range: Range, iova: Option<u32>, access: u32) {
        let base = memory::base();
        let (start, len) = match range {
            Range::Memory { start, len } => {
                let start = usize::from(start) % memory::LEN;
                (base + start, usize::from(len) % (memory::LEN - start + 1))
            }
            Range::Beyond { front: true, len } => (base - 1, usize::from(len) + 1),
            Range::Beyond { front: false, len } => {
                (base + memory::LEN, memory::WATCHED + usize::from(len) + 1)
            }
            Range::Wraps { len } => (usize::MAX - 10, usize::from(len) + 100),
        };
        let addr = start as *mut c_void;
        let mr = match iova {
            None => verb!(ibv_reg_mr(pd, addr, len, access as c_int)),
            Some(iova) => verb!(ibv_reg_mr_iova2(pd, addr, len, iova.into(), access)),
        };
        let valid = matches!(range, Range::Memory { .. }) && len > 0;
        assert!(valid || mr.is_null(), "what is not memory was registered: {start:#x} {len}");
        assert!(!mr.is_null() || !valid || iova.is_some() || access != RIGHTS, "it was refused");
        if let Some(raw) = created(mr) {
            // SAFETY: the region is alive.
            let region = unsafe { raw.read() };
            assert_eq!((region.addr, region.length), (addr, len));
            let addr = iova.map_or(start as u64, u64::from);
            self.mrs.push(Mr { raw, addr, key: region.lkey });
        }
    }

    pub fn create_cq(
        &mut self,
        context: *mut ffi::ibv_context,
        entries: u32,
        channel: Option<u8>,
        vector: i8,
    ) {
        let channel = self.channel(channel);
        let entries = entries as c_int;
        let cq = verb!(ibv_create_cq(context, entries, null_mut(), channel, vector.into()));
        self.add_cq(cq, None);
    }

    pub fn create_cq_ex(
        &mut self,
        context: *mut ffi::ibv_context,
        entries: u32,
        channel: Option<u8>,
        fields: u16,
        odd: Option<[u32; 2]>,
    ) {
        let [comp_mask, flags] = odd.unwrap_or_default();
        let mut attr = ffi::ibv_cq_init_attr_ex {
            cqe: entries,
            channel: self.channel(channel),
            wc_flags: fields.into(),
            comp_mask,
            flags,
            ..Default::default()
        };
        let cq = verb!(ibv_create_cq_ex(context, &mut attr));
        self.add_cq(cq.cast(), Some(fields.into()));
    }

    fn add_cq(&mut self, cq: *mut ffi::ibv_cq, fields: Option<u64>) {
        if let Some(raw) = created(cq) {
            // SAFETY: the queue is alive.
            let entries = unsafe { (*raw).cqe };
            assert!(entries > 0);
            self.cqs.push(Cq { raw, fields, room: Room::new(entries as u32) });
        }
    }

    fn channel(&self, place: Option<u8>) -> *mut ffi::ibv_comp_channel {
        place.and_then(|place| pick(&self.channels, place)).map_or(null_mut(), |channel| *channel)
    }

    pub fn create_srq(&mut self, pd: *mut ffi::ibv_pd, max_wr: u32, max_sge: u32, srq_limit: u32) {
        let attr = ffi::ibv_srq_attr { max_wr, max_sge, srq_limit };
        let mut init = ffi::ibv_srq_init_attr { srq_context: null_mut(), attr };
        if let Some(srq) = created(verb!(ibv_create_srq(pd, &mut init))) {
            assert!(init.attr.max_wr >= max_wr && init.attr.max_sge >= max_sge);
            self.srqs.push(srq);
        }
    }

    pub fn create_qp(&mut self, pd: *mut ffi::ibv_pd, new: &NewQp) {
        let cq = |place: Option<u8>| place.and_then(|place| pick(&self.cqs, place));
        let (send_cq, recv_cq) = (cq(new.send_cq), cq(new.recv_cq));
        let raw = |cq: Option<&Cq>| cq.map_or(null_mut(), |cq| cq.raw);
        let srq = new.srq.and_then(|place| pick(&self.srqs, place));
        let qp_type = match new.service % 8 {
            0..=3 => ffi::IBV_QPT_RC,
            4 => ffi::IBV_QPT_UC,
            5 | 6 => ffi::IBV_QPT_UD,
            _ => new.service.into(),
        };
        let mut attr = ffi::ibv_qp_init_attr_ex {
            send_cq: raw(send_cq),
            recv_cq: raw(recv_cq),
            srq: srq.map_or(null_mut(), |srq| *srq),
            cap: ffi::ibv_qp_cap {
                max_send_wr: u32::from(new.depths[0]) % 40,
                max_recv_wr: u32::from(new.depths[1]) % 40,
                max_send_sge: u32::from(new.entries[0]) % 5,
                max_recv_sge: u32::from(new.entries[1]) % 5,
                max_inline_data: new.inline.into(),
            },
            qp_type,
            sq_sig_all: new.signal_all.into(),
            comp_mask: ffi::IBV_QP_INIT_ATTR_PD,
            pd,
            ..Default::default()
        };
        if new.extended {
            attr.comp_mask |= ffi::IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
            attr.send_ops_flags = new.operations.into();
        }
        if let Some(odd) = &new.odd {
            attr.comp_mask = odd.mask;
            attr.create_flags = odd.flags;
            let [send, recv, send_sge, recv_sge, inline] = odd.sizes;
            attr.cap = ffi::ibv_qp_cap {
                max_send_wr: send,
                max_recv_wr: recv,
                max_send_sge: send_sge,
                max_recv_sge: recv_sge,
                max_inline_data: inline,
            };
        }
        // SAFETY: the domain is alive, and the field is not written.
        let context = unsafe { (*pd).context };
        let Some(raw) = created(verb!(ibv_create_qp_ex(context, &mut attr))) else { return };
        let (Some(send_cq), Some(recv_cq)) = (send_cq, recv_cq) else {
            panic!("a queue pair without queues");
        };
        // SAFETY: the queue pair is alive, and the field is not written.
        let number = unsafe { (*raw).qp_num };
        let known = self.qps.iter().any(|qp| qp.number == number && qp.context() == context);
        assert!(!known && number < 1 << 24);
        let qp = Qp {
            raw,
            number,
            service: qp_type,
            rooms: [send_cq.room.clone(), recv_cq.room.clone()],
            signal_all: new.signal_all,
            shared: srq.is_some(),
        };
        self.qps.push(qp);
    }

    pub fn create_ah(&mut self, pd: *mut ffi::ibv_pd, way: &Way) {
        let ah = match way {
            Way::Back { header, flags, port } => {
                let mut grh: ffi::ibv_grh = grh(header);
                let mut wc = ffi::ibv_wc { wc_flags: (*flags).into(), ..Default::default() };
                verb!(ibv_create_ah_from_wc(pd, &mut wc, &mut grh, *port))
            }
            way => verb!(ibv_create_ah(pd, &mut self.address(way))),
        };
        self.ahs.extend(created(ah));
    }

    /// An address vector.
    pub fn address(&self, way: &Way) -> ffi::ibv_ah_attr {
        match *way {
            Way::Here { context, numbers, flow_label } => {
                let context = pick(&self.contexts, context);
                context.map_or_else(Default::default, |context| {
                    let mut attr = here(*context);
                    [attr.grh.traffic_class, attr.grh.hop_limit] = numbers;
                    attr.grh.flow_label = flow_label;
                    attr
                })
            }
            Way::Any { gid, index, global, port, lid } => {
                let grh = ffi::ibv_global_route {
                    dgid: ffi::ibv_gid { raw: gid },
                    sgid_index: index,
                    ..Default::default()
                };
                let (is_global, port_num, dlid) = (global, port, lid);
                ffi::ibv_ah_attr { grh, is_global, port_num, dlid, ..Default::default() }
            }
            Way::Back { header, flags, port } => {
                let Some(context) = self.contexts.first() else { return Default::default() };
                let mut grh = grh(&header);
                let mut wc = ffi::ibv_wc { wc_flags: flags.into(), ..Default::default() };
                let mut attr = ffi::ibv_ah_attr::default();
                verb!(ibv_init_ah_from_wc(*context, port, &mut wc, &mut grh, &mut attr));
                attr
            }
        }
    }
}

/// The address of a device.
pub fn here(context: *mut ffi::ibv_context) -> ffi::ibv_ah_attr {
    const ADDRESS: u8 = 1;
    let mut dgid = ffi::ibv_gid { raw: [0; 16] };
    assert_eq!(verb!(ibv_query_gid(context, PORT, ADDRESS.into(), &mut dgid)), 0);
    let grh = ffi::ibv_global_route { dgid, sgid_index: ADDRESS, ..Default::default() };
    ffi::ibv_ah_attr { grh, is_global: 1, port_num: PORT, ..Default::default() }
}

/// What is said to be in front of a datagram.
fn grh(bytes: &[[u8; 20]; 2]) -> ffi::ibv_grh {
    let from = bytes.as_ptr().cast::<ffi::ibv_grh>();
    // SAFETY: it is so long, and any bytes are numbers.
    unsafe { from.read_unaligned() }
}
