//! Carries out calls, and looks at what they answer.

use std::ffi::c_int;
use std::ptr::null_mut;
use std::time::Duration;

use ibverbs_sys as ffi;

use crate::create::here;
use crate::input::{Call, Kind, Values};
use crate::objects::{
    created, destroy, do_not_wait, pick, take_async_event, take_cq_event, verb, Objects, Qp, PORT,
    QKEY,
};

#[derive(Default)]
pub struct Machine {
    objects: Objects,
}

impl Machine {
    pub fn carry_out(&mut self, call: Call) {
        let objects = &mut self.objects;
        match call {
            Call::Open { device } => objects.open(device.into()),
            Call::AllocPd { context } => {
                if let Some(context) = pick(&objects.contexts, context) {
                    objects.pds.extend(created(verb!(ibv_alloc_pd(*context))));
                }
            }
            Call::RegMr { pd, range, iova, access } => {
                if let Some(&pd) = pick(&objects.pds, pd) {
                    objects.reg_mr(pd, range, iova, access.get());
                }
            }
            Call::AllocMw { pd, two } => {
                if let Some(&pd) = pick(&objects.pds, pd) {
                    let kind = if two { ffi::IBV_MW_TYPE_2 } else { ffi::IBV_MW_TYPE_1 };
                    objects.mws.extend(created(verb!(ibv_alloc_mw(pd, kind))));
                }
            }
            Call::BindMw { qp, bind, flags } => objects.bind_mw(qp, &bind, flags),
            Call::CreateChannel { context } => {
                if let Some(context) = pick(&objects.contexts, context) {
                    let channel = created(verb!(ibv_create_comp_channel(*context)));
                    let channel = channel.expect("it can be created");
                    // SAFETY: the channel is alive, and the field is not written.
                    do_not_wait(unsafe { (*channel).fd });
                    objects.channels.push(channel);
                }
            }
            Call::CreateCq { context, entries, channel, vector } => {
                if let Some(&context) = pick(&objects.contexts, context) {
                    objects.create_cq(context, entries.get(), channel, vector);
                }
            }
            Call::CreateCqEx { context, entries, channel, fields, odd } => {
                if let Some(&context) = pick(&objects.contexts, context) {
                    objects.create_cq_ex(context, entries.get(), channel, fields, odd);
                }
            }
            Call::ResizeCq { cq, entries } => {
                if let Some(cq) = pick(&objects.cqs, cq) {
                    if verb!(ibv_resize_cq(cq.raw, entries.get() as c_int)) == 0 {
                        cq.room.resize(entries.get());
                    }
                }
            }
            Call::CreateSrq { pd, depth, entries, limit } => {
                if let Some(&pd) = pick(&objects.pds, pd) {
                    objects.create_srq(pd, depth.get(), entries.get(), limit.into());
                }
            }
            Call::ModifySrq { srq, depth, limit, mask } => {
                if let Some(&srq) = pick(&objects.srqs, srq) {
                    let (max_wr, srq_limit) = (depth.get(), limit.into());
                    let mut attr = ffi::ibv_srq_attr { max_wr, max_sge: 0, srq_limit };
                    verb!(ibv_modify_srq(srq, &mut attr, mask.into()));
                }
            }
            Call::CreateQp { pd, qp } => {
                if let Some(&pd) = pick(&objects.pds, pd) {
                    objects.create_qp(pd, &qp);
                }
            }
            Call::CreateAh { pd, way } => {
                if let Some(&pd) = pick(&objects.pds, pd) {
                    objects.create_ah(pd, &way);
                }
            }
            Call::Connect { qp, peer, access, times, drained } => {
                self.connect(qp, peer, access, times, drained);
            }
            Call::Modify { qp, state, mask, values } => self.modify(qp, state, mask, &values),
            Call::Fail { qp } => self.fail(qp),
            Call::Reset { qp } => {
                if let Some(qp) = pick(&objects.qps, qp) {
                    objects.requests.doubt(qp.number);
                    assert_eq!(change(qp, ffi::IBV_QPS_RESET), 0);
                }
            }
            Call::Query { kind, place, number } => self.query(kind, place, number),
            Call::PostSend { qp, requests } => objects.post_send(qp, &requests),
            Call::Batch { qp, steps, abort } => objects.batch(qp, &steps, abort),
            Call::PostRecv { qp, requests } => objects.post_recv(qp, &requests),
            Call::PostSrqRecv { srq, requests } => objects.post_srq_recv(srq, &requests),
            Call::Poll { cq, count } => {
                objects.poll(cq, count.into());
            }
            Call::PollEx { cq, count } => objects.poll_ex(cq, count),
            Call::Arm { cq, solicited } => {
                if let Some(cq) = pick(&objects.cqs, cq) {
                    assert_eq!(verb!(ibv_req_notify_cq(cq.raw, solicited.into())), 0);
                }
            }
            Call::TakeCqEvent { channel } => {
                if let Some(channel) = pick(&objects.channels, channel) {
                    take_cq_event(*channel);
                }
            }
            Call::TakeAsyncEvent { context } => {
                if let Some(context) = pick(&objects.contexts, context) {
                    take_async_event(*context);
                }
            }
            Call::Destroy { kind, place } => {
                objects.destroy(kind, place);
            }
            Call::Pause => std::thread::sleep(Duration::from_micros(100)),
        }
    }

    /// Brings a queue pair up, as far as its state lets it.
    fn connect(&mut self, qp: u8, peer: u8, access: u8, times: [u8; 4], drained: bool) {
        let qps = &self.objects.qps;
        let (Some(qp), Some(peer)) = (pick(qps, qp), pick(qps, peer)) else { return };
        let [timeout, retry_cnt, rnr_retry, max_rd_atomic] = times;
        let mut attr = ffi::ibv_qp_attr {
            path_mtu: ffi::IBV_MTU_1024,
            qkey: QKEY,
            dest_qp_num: peer.number,
            qp_access_flags: u32::from(access) ^ 0xf,
            ah_attr: here(peer.context()),
            max_rd_atomic: max_rd_atomic % 17,
            max_dest_rd_atomic: max_rd_atomic % 17,
            min_rnr_timer: 1,
            port_num: PORT,
            timeout: timeout % 20,
            retry_cnt: retry_cnt % 8,
            rnr_retry: rnr_retry % 8,
            ..Default::default()
        };
        let drained = drained.then_some(ffi::IBV_QPS_SQD);
        let way = [ffi::IBV_QPS_INIT, ffi::IBV_QPS_RTR, ffi::IBV_QPS_RTS].into_iter();
        for to in way.chain(drained) {
            let Some(rule) = ffi::transitions::rule(qp.service, qp.state(), to) else { continue };
            attr.qp_state = to;
            let mask = rule.required | ffi::IBV_QP_STATE;
            // A queue pair that fails meanwhile refuses.
            let code = verb!(ibv_modify_qp(qp.raw, &mut attr, mask as c_int));
            assert!(code == 0 || code == libc::EINVAL, "{code}");
        }
    }

    fn modify(&mut self, qp: u8, state: u8, mask: u32, values: &Values) {
        let Some(qp) = pick(&self.objects.qps, qp) else { return };
        let [qkey, rq_psn, sq_psn, dest_qp_num] = values.numbers;
        let [notify, rd, dest_rd, rnr_timer, port_num, timeout, retry_cnt, rnr_retry] =
            values.bytes;
        let mut attr = ffi::ibv_qp_attr {
            qp_state: u32::from(state) % 9,
            cur_qp_state: values.current.into(),
            path_mtu: values.mtu.into(),
            path_mig_state: values.migration.into(),
            qkey,
            rq_psn,
            sq_psn,
            dest_qp_num,
            qp_access_flags: values.access,
            ah_attr: self.objects.address(&values.way),
            pkey_index: values.pkey_index,
            en_sqd_async_notify: notify,
            max_rd_atomic: rd,
            max_dest_rd_atomic: dest_rd,
            min_rnr_timer: rnr_timer,
            port_num,
            timeout,
            retry_cnt,
            rnr_retry,
            ..Default::default()
        };
        let before = qp.state();
        let code = verb!(ibv_modify_qp(qp.raw, &mut attr, mask as c_int));
        let to = if mask & ffi::IBV_QP_STATE == 0 { before } else { attr.qp_state };
        if code == 0 {
            assert!(ffi::transitions::rule(qp.service, before, to).is_some(), "{before} to {to}");
            if to == ffi::IBV_QPS_RESET {
                self.objects.requests.doubt(qp.number);
            }
        }
    }

    /// Lets a queue pair fail: everything that was posted completes.
    fn fail(&mut self, qp: u8) {
        let Some(qp) = pick(&self.objects.qps, qp) else { return };
        if qp.state() == ffi::IBV_QPS_RESET {
            return;
        }
        assert_eq!(change(qp, ffi::IBV_QPS_ERR), 0);
        let number = qp.number;
        for place in 0..self.objects.cqs.len() {
            while self.objects.poll(place as u8, 16) > 0 {}
        }
        self.objects.requests.assert_none_of(number);
    }

    fn query(&self, kind: u8, place: u8, number: u32) {
        let objects = &self.objects;
        if let Some(qp) = pick(&objects.qps, place) {
            qp.state();
            verb!(ibv_query_qp_data_in_order(qp.raw, number, number));
        }
        if let Some(srq) = pick(&objects.srqs, place) {
            let mut attr = ffi::ibv_srq_attr { max_wr: 0, max_sge: 0, srq_limit: 0 };
            assert_eq!(verb!(ibv_query_srq(*srq, &mut attr)), 0);
        }
        assert!(!verb!(ibv_wc_status_str(number)).is_null());
        assert!(!verb!(ibv_node_type_str(number as ffi::ibv_node_type)).is_null());
        assert!(!verb!(ibv_port_state_str(number)).is_null());
        assert!(!verb!(ibv_event_type_str(number)).is_null());
        verb!(ibv_rate_to_mbps(number));
        verb!(ibv_rate_to_mult(number));
        verb!(mult_to_ibv_rate(number as c_int));
        verb!(mbps_to_ibv_rate(number as c_int));
        let Some(&context) = pick(&objects.contexts, place) else { return };
        let mut device = ffi::ibv_device_attr_ex::default();
        assert_eq!(verb!(ibv_query_device_ex(context, null_mut(), &mut device)), 0);
        let mut port = ffi::ibv_port_attr::default();
        let code = verb!(ibv_query_port(context, kind, &mut port));
        assert_eq!(code == 0, kind == PORT);
        let mut gid = ffi::ibv_gid { raw: [0; 16] };
        verb!(ibv_query_gid(context, kind, number as c_int, &mut gid));
        let mut entry = ffi::ibv_gid_entry::default();
        verb!(ibv_query_gid_ex(context, kind.into(), number, &mut entry, number));
        let mut entries = [ffi::ibv_gid_entry::default(); 4];
        let len = usize::from(kind) % 5;
        let found = verb!(ibv_query_gid_table(context, entries.as_mut_ptr(), len, number % 2));
        assert!(found <= len as isize);
        let mut pkey = 0;
        verb!(ibv_query_pkey(context, kind, number as c_int, &mut pkey));
        verb!(ibv_get_pkey_index(context, kind, number as u16));
    }

    /// Destroys everything.
    pub fn finish(mut self) {
        for place in 0..self.objects.qps.len() {
            self.fail(place as u8);
        }
        self.objects.take_events();
        for kind in [
            Kind::Qp,
            Kind::Srq,
            Kind::Cq,
            Kind::Channel,
            Kind::Ah,
            Kind::Mw,
            Kind::Mr,
            Kind::Pd,
            Kind::Context,
        ] {
            while let Some(destroyed) = self.objects.destroy(kind, 0) {
                assert!(destroyed, "a {kind:?} that nothing uses is in use");
            }
        }
    }
}

impl Objects {
    /// Polls with the plain interface; how many completions there were.
    fn poll(&mut self, place: u8, count: usize) -> usize {
        let Some(cq) = pick(&self.cqs, place) else { return 0 };
        let mut wcs = [ffi::ibv_wc::default(); 16];
        let count = count.min(wcs.len());
        let found = verb!(ibv_poll_cq(cq.raw, count as c_int, wcs.as_mut_ptr()));
        // A queue that has overflown has failed.
        let Ok(found) = usize::try_from(found) else {
            assert!(!cq.room.is_enough(), "polling answers {found}");
            return 0;
        };
        assert!(found <= count);
        for wc in &wcs[..found] {
            assert!(wc.status <= ffi::IBV_WC_GENERAL_ERR);
            self.requests.completed(wc.wr_id);
        }
        found
    }

    /// Polls with the extended interface, and reads all that there is.
    fn poll_ex(&mut self, place: u8, count: u8) {
        let Some((raw, fields)) =
            pick(&self.cqs, place).and_then(|cq| Some((cq.raw.cast(), cq.fields?)))
        else {
            return;
        };
        let mut attr = ffi::ibv_poll_cq_attr { comp_mask: 0 };
        if verb!(ibv_start_poll(raw, &mut attr)) != 0 {
            return;
        }
        for _ in 0..=count {
            // SAFETY: a poll is open, and so the fields are those of a completion.
            self.requests.completed(unsafe { (*raw).wr_id });
            read(raw, fields);
            if verb!(ibv_next_poll(raw)) != 0 {
                break;
            }
        }
        verb!(ibv_end_poll(raw));
    }

    fn take_events(&self) {
        for channel in &self.channels {
            while take_cq_event(*channel) {}
        }
        for context in &self.contexts {
            while take_async_event(*context) {}
        }
    }

    /// Whether nothing but contexts is left.
    fn are_gone(&self) -> bool {
        self.qps.is_empty()
            && self.srqs.is_empty()
            && self.cqs.is_empty()
            && self.channels.is_empty()
            && self.ahs.is_empty()
            && self.mws.is_empty()
            && self.mrs.is_empty()
            && self.pds.is_empty()
    }

    /// Destroys an object, if there is one: whether it could be. Nothing is said of a context that is not to be closed yet.
    fn destroy(&mut self, kind: Kind, place: u8) -> Option<bool> {
        match kind {
            Kind::Qp => {
                let qp = destroy(&mut self.qps, place, |qp| verb!(ibv_destroy_qp(qp.raw)))?;
                if let Some(qp) = &qp {
                    self.requests.doubt(qp.number);
                }
                Some(qp.is_some())
            }
            Kind::Srq => destroyed(&mut self.srqs, place, |srq| verb!(ibv_destroy_srq(*srq))),
            Kind::Cq => destroyed(&mut self.cqs, place, |cq| verb!(ibv_destroy_cq(cq.raw))),
            Kind::Channel => destroyed(&mut self.channels, place, |channel| {
                verb!(ibv_destroy_comp_channel(*channel))
            }),
            Kind::Ah => destroyed(&mut self.ahs, place, |ah| verb!(ibv_destroy_ah(*ah))),
            Kind::Mw => destroyed(&mut self.mws, place, |mw| verb!(ibv_dealloc_mw(*mw))),
            Kind::Mr => destroyed(&mut self.mrs, place, |mr| verb!(ibv_dereg_mr(mr.raw))),
            Kind::Pd => destroyed(&mut self.pds, place, |pd| verb!(ibv_dealloc_pd(*pd))),
            Kind::Context => {
                // Closing takes along what is left, which no program may use any more.
                if !self.are_gone() {
                    return None;
                }
                destroyed(&mut self.contexts, place, |context| verb!(ibv_close_device(*context)))
            }
        }
    }
}

fn destroyed<T>(objects: &mut Vec<T>, place: u8, verb: impl FnOnce(&T) -> c_int) -> Option<bool> {
    destroy(objects, place, verb).map(|object| object.is_some())
}

/// Reads the fields of a completion that its queue was made with.
fn read(cq: *mut ffi::ibv_cq_ex, fields: u64) {
    let has = |field: u32| fields & u64::from(field) != 0;
    verb!(ibv_wc_read_opcode(cq));
    verb!(ibv_wc_read_vendor_err(cq));
    verb!(ibv_wc_read_wc_flags(cq));
    macro_rules! read {
        ($($field:ident $name:ident),* $(,)?) => {
            $( if has(ffi::$field) { verb!($name(cq)); } )*
        };
    }
    read! {
        IBV_WC_EX_WITH_BYTE_LEN ibv_wc_read_byte_len,
        IBV_WC_EX_WITH_IMM ibv_wc_read_imm_data,
        IBV_WC_EX_WITH_QP_NUM ibv_wc_read_qp_num,
        IBV_WC_EX_WITH_SRC_QP ibv_wc_read_src_qp,
        IBV_WC_EX_WITH_SLID ibv_wc_read_slid,
        IBV_WC_EX_WITH_SL ibv_wc_read_sl,
        IBV_WC_EX_WITH_DLID_PATH_BITS ibv_wc_read_dlid_path_bits,
        IBV_WC_EX_WITH_COMPLETION_TIMESTAMP ibv_wc_read_completion_ts,
        IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK ibv_wc_read_completion_wallclock_ns,
    }
}

/// Goes to a state that takes no attributes.
fn change(qp: &Qp, to: ffi::ibv_qp_state) -> c_int {
    let mut attr = ffi::ibv_qp_attr { qp_state: to, ..Default::default() };
    verb!(ibv_modify_qp(qp.raw, &mut attr, ffi::IBV_QP_STATE as c_int))
}
