//! Posting requests.

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

use ibverbs_sys as ffi;

use crate::input::{Entry, Key, NewBind, Send, Step, Target};
use crate::memory;
use crate::objects::{pick, verb, Objects, Qp, QKEY};

const ATOMIC: u32 = 8;
const SIGNALED: u32 = ffi::IBV_SEND_SIGNALED;

impl Objects {
    pub fn post_send(&mut self, place: u8, sends: &[Send]) {
        let Some(qp) = pick(&self.qps, place) else { return };
        let mut lists: Vec<Vec<ffi::ibv_sge>> = Vec::new();
        let mut wrs = Vec::new();
        for send in sends {
            let inline = u32::from(send.flags) & ffi::IBV_SEND_INLINE != 0;
            let mut sges: Vec<ffi::ibv_sge> = send
                .entries
                .iter()
                .map(|entry| if inline { readable(entry) } else { self.sge(entry) })
                .collect();
            let opcode = ffi::ibv_wr_opcode::from(send.opcode) % 16;
            let datagram = qp.service == ffi::IBV_QPT_UD;
            if datagram && self.ahs.is_empty() {
                continue;
            }
            let mut wr = ffi::ibv_send_wr {
                wr_id: self.requests.next_id(),
                next: null_mut(),
                sg_list: sges.as_mut_ptr(),
                num_sge: if send.negative { -1 } else { sges.len() as c_int },
                opcode,
                send_flags: send.flags.into(),
                ..Default::default()
            };
            wr.__bindgen_anon_1.imm_data = send.imm;
            let target = &send.target;
            let remote = self.sge(&target.memory);
            if [ffi::IBV_WR_LOCAL_INV, ffi::IBV_WR_SEND_WITH_INV].contains(&opcode) {
                wr.__bindgen_anon_1.invalidate_rkey = remote.lkey;
            }
            if let Some((mw, bind_info)) = target.bind.and_then(|bind| self.bind_info(&bind)) {
                let rkey = ffi::ibv_inc_rkey(key_of(mw));
                wr.__bindgen_anon_2.bind_mw =
                    ffi::ibv_send_wr__bindgen_ty_4__bindgen_ty_1 { mw, rkey, bind_info };
            }
            wr.wr = match opcode {
                _ if datagram => self.datagram(target),
                ffi::IBV_WR_ATOMIC_CMP_AND_SWP | ffi::IBV_WR_ATOMIC_FETCH_AND_ADD => {
                    if let [sge] = &mut sges[..] {
                        sge.length = ATOMIC;
                    }
                    ffi::ibv_send_wr__bindgen_ty_2 {
                        atomic: ffi::ibv_send_wr__bindgen_ty_2__bindgen_ty_2 {
                            remote_addr: remote.addr,
                            compare_add: target.values[0],
                            swap: target.values[1],
                            rkey: remote.lkey,
                        },
                    }
                }
                _ => ffi::ibv_send_wr__bindgen_ty_2 {
                    rdma: ffi::ibv_send_wr__bindgen_ty_2__bindgen_ty_1 {
                        remote_addr: remote.addr,
                        rkey: remote.lkey,
                    },
                },
            };
            lists.push(sges);
            wrs.push(wr);
        }
        if wrs.is_empty() {
            return;
        }
        let first = wrs.as_mut_ptr();
        for place in 1..wrs.len() {
            wrs[place - 1].next = first.wrapping_add(place);
        }
        let mut bad = null_mut();
        let code = verb!(ibv_post_send(qp.raw, first, &mut bad));
        for wr in &wrs[..taken(code, bad, first, wrs.len())] {
            if wr.opcode == ffi::IBV_WR_BIND_MW {
                // SAFETY: it was taken, and so is one that binds a window.
                let bind = unsafe { wr.__bindgen_anon_2.bind_mw };
                // SAFETY: the window is alive.
                unsafe { (*bind.mw).rkey = bind.rkey };
            }
            self.requests.posted(wr.wr_id, qp, 0);
            if !qp.signal_all && wr.send_flags & SIGNALED == 0 {
                self.requests.silent(wr.wr_id);
            }
        }
    }

    fn datagram(&self, target: &Target) -> ffi::ibv_send_wr__bindgen_ty_2 {
        let (ah, remote_qpn, remote_qkey) = self.to(target);
        ffi::ibv_send_wr__bindgen_ty_2 {
            ud: ffi::ibv_send_wr__bindgen_ty_2__bindgen_ty_3 { ah, remote_qpn, remote_qkey },
        }
    }

    /// Where a datagram goes to. There is at least one address handle.
    fn to(&self, target: &Target) -> (*mut ffi::ibv_ah, u32, u32) {
        let ah = pick(&self.ahs, target.ah).expect("there is one");
        let number = pick(&self.qps, target.qp).map_or(0, |qp| qp.number);
        (*ah, number, target.qkey.unwrap_or(QKEY))
    }

    pub fn post_recv(&mut self, place: u8, requests: &[Vec<Entry>]) {
        let Some(qp) = pick(&self.qps, place) else { return };
        let mut chain = Chain::new(self, requests);
        let ids = self.requests.next_ids(chain.wrs.len());
        let taken = chain.post(ids.clone(), |first, bad| verb!(ibv_post_recv(qp.raw, first, bad)));
        assert!(taken == 0 || !qp.shared);
        for id in ids.take(taken) {
            self.requests.posted(id, qp, 1);
        }
    }

    pub fn post_srq_recv(&mut self, place: u8, requests: &[Vec<Entry>]) {
        let Some(&srq) = pick(&self.srqs, place) else { return };
        let mut chain = Chain::new(self, requests);
        let ids = self.requests.next_ids(chain.wrs.len());
        let taken = chain.post(ids.clone(), |first, bad| verb!(ibv_post_srq_recv(srq, first, bad)));
        for id in ids.take(taken) {
            self.requests.shared(id);
        }
        // Any queue pair of this queue may take them, and complete them.
        for qp in self.qps.iter().filter(|qp| qp.shared) {
            (0..taken).for_each(|_| qp.rooms[1].post());
        }
    }

    /// A scatter entry.
    pub fn sge(&self, entry: &Entry) -> ffi::ibv_sge {
        let (start, lkey) = match entry.key {
            Key::Of(place) => pick(&self.mrs, place).map_or((0, 0), |mr| (mr.addr, mr.key)),
            Key::OfWindow(place) => {
                (memory::base() as u64, pick(&self.mws, place).map_or(0, |&mw| key_of(mw)))
            }
            Key::Any(key) => (memory::base() as u64, key),
        };
        let addr = start.wrapping_add(entry.offset.into());
        ffi::ibv_sge { addr, length: entry.len.get(), lkey }
    }

    /// A window, and what it is to be bound to.
    fn bind_info(&self, bind: &NewBind) -> Option<(*mut ffi::ibv_mw, ffi::ibv_mw_bind_info)> {
        let mw = *pick(&self.mws, bind.window)?;
        let region = bind.region.and_then(|place| pick(&self.mrs, place));
        let info = ffi::ibv_mw_bind_info {
            mr: region.map_or(null_mut(), |mr| mr.raw),
            addr: region.map_or(0, |mr| mr.addr).wrapping_add(bind.offset.into()),
            length: bind.len.into(),
            mw_access_flags: bind.access.unwrap_or(0xe),
        };
        Some((mw, info))
    }

    pub fn bind_mw(&mut self, place: u8, bind: &NewBind, flags: u8) {
        let Some((mw, bind_info)) = self.bind_info(bind) else { return };
        let Some(qp) = pick(&self.qps, place) else { return };
        let wr_id = self.requests.next_id();
        let send_flags = flags.into();
        let mut bind = ffi::ibv_mw_bind { wr_id, send_flags, bind_info };
        match verb!(ibv_bind_mw(qp.raw, mw, &mut bind)) {
            0 => {
                self.requests.posted(wr_id, qp, 0);
                if !qp.signal_all && send_flags & SIGNALED == 0 {
                    self.requests.silent(wr_id);
                }
            }
            // The region is of another domain.
            libc::EPERM | libc::EINVAL | libc::ENOMEM => {}
            code => panic!("a bind answers {code}"),
        }
    }

    /// The extended interface.
    pub fn batch(&mut self, place: u8, steps: &[Step], abort: bool) {
        let Some(qp) = pick(&self.qps, place) else { return };
        let raw = verb!(ibv_qp_to_qp_ex(qp.raw));
        if raw.is_null() {
            return;
        }
        let mut ids = Vec::new();
        verb!(ibv_wr_start(raw));
        for step in steps {
            if let Some(signaled) = self.step(raw, qp, step, self.requests.after(ids.len())) {
                ids.push(signaled);
            }
        }
        if abort {
            verb!(ibv_wr_abort(raw));
        } else {
            let code = verb!(ibv_wr_complete(raw));
            let numbers = self.requests.next_ids(ids.len());
            for (id, signaled) in numbers.zip(ids) {
                if code == 0 {
                    self.requests.posted(id, qp, 0);
                    if !signaled {
                        self.requests.silent(id);
                    }
                }
            }
        }
    }

    /// Whether a request was begun, and if so whether it is signaled.
    fn step(&self, raw: *mut ffi::ibv_qp_ex, qp: &Qp, step: &Step, id: u64) -> Option<bool> {
        // SAFETY: the queue pair is alive, and a batch is open.
        let functions = unsafe { raw.read() };
        match step {
            Step::Begin { operation, flags, imm, target } => {
                // SAFETY: as above; the fields are there for that.
                unsafe { (*raw).wr_id = id };
                // SAFETY: as above.
                unsafe { (*raw).wr_flags = (*flags).into() };
                let ffi::ibv_sge { addr, lkey: rkey, .. } = self.sge(&target.memory);
                let [first, second] = target.values;
                // Which operations there are, the device says.
                macro_rules! begin {
                    ($name:ident $function:ident($($argument:expr),*)) => {{
                        functions.$function?;
                        verb!($name(raw $(, $argument)*))
                    }};
                }
                match operation % 9 {
                    0 => begin!(ibv_wr_send wr_send()),
                    1 => begin!(ibv_wr_send_imm wr_send_imm(*imm)),
                    2 => begin!(ibv_wr_rdma_write wr_rdma_write(rkey, addr)),
                    3 => begin!(ibv_wr_rdma_write_imm wr_rdma_write_imm(rkey, addr, *imm)),
                    4 => begin!(ibv_wr_rdma_read wr_rdma_read(rkey, addr)),
                    5 => begin!(ibv_wr_atomic_cmp_swp wr_atomic_cmp_swp(rkey, addr, first, second)),
                    6 => begin!(ibv_wr_atomic_fetch_add wr_atomic_fetch_add(rkey, addr, first)),
                    7 => begin!(ibv_wr_send_inv wr_send_inv(rkey)),
                    _ => begin!(ibv_wr_local_inv wr_local_inv(rkey)),
                }
                return Some(qp.signal_all || u32::from(*flags) & SIGNALED != 0);
            }
            Step::BindMw { bind, flags } => {
                functions.wr_bind_mw?;
                let (mw, info) = self.bind_info(bind)?;
                // SAFETY: as above.
                unsafe { (*raw).wr_id = id };
                // SAFETY: as above.
                unsafe { (*raw).wr_flags = (*flags).into() };
                let rkey = ffi::ibv_inc_rkey(key_of(mw));
                verb!(ibv_wr_bind_mw(raw, mw, rkey, &info));
                // SAFETY: the window is alive. What is not posted makes the key one that the device does not know.
                unsafe { (*mw).rkey = rkey };
                return Some(qp.signal_all || u32::from(*flags) & SIGNALED != 0);
            }
            Step::Address(target) => {
                functions.wr_set_ud_addr?;
                if !self.ahs.is_empty() {
                    let (ah, number, qkey) = self.to(target);
                    verb!(ibv_wr_set_ud_addr(raw, ah, number, qkey));
                }
            }
            Step::Entry(entry) => {
                let ffi::ibv_sge { addr, length, lkey } = self.sge(entry);
                verb!(ibv_wr_set_sge(raw, lkey, addr, length));
            }
            Step::Entries(entries) => {
                let sges: Vec<ffi::ibv_sge> = entries.iter().map(|entry| self.sge(entry)).collect();
                verb!(ibv_wr_set_sge_list(raw, sges.len(), sges.as_ptr()));
            }
            Step::Inline { offset, len } => {
                let ffi::ibv_data_buf { addr, length } = buffer(*offset, *len);
                verb!(ibv_wr_set_inline_data(raw, addr, length));
            }
            Step::Inlines(places) => {
                let buffers: Vec<ffi::ibv_data_buf> =
                    places.iter().map(|&(offset, len)| buffer(offset, len)).collect();
                verb!(ibv_wr_set_inline_data_list(raw, buffers.len(), buffers.as_ptr()));
            }
        }
        None
    }
}

/// The key that a window has, as far as the program knows.
fn key_of(mw: *mut ffi::ibv_mw) -> u32 {
    // SAFETY: the window is alive.
    unsafe { (*mw).rkey }
}

/// Memory that is copied from at once: it must be there.
fn buffer(offset: u16, len: u16) -> ffi::ibv_data_buf {
    let offset = usize::from(offset) % memory::LEN;
    let length = usize::from(len) % (memory::LEN - offset);
    ffi::ibv_data_buf { addr: (memory::base() + offset) as *mut c_void, length }
}

fn readable(entry: &Entry) -> ffi::ibv_sge {
    let ffi::ibv_data_buf { addr, length } = buffer(entry.offset, entry.len.get() as u16);
    ffi::ibv_sge { addr: addr as u64, length: length as u32, lkey: 0 }
}

/// How many requests of a chain were taken.
fn taken<T>(code: c_int, bad: *mut T, first: *mut T, len: usize) -> usize {
    match code {
        0 => len,
        libc::EINVAL | libc::ENOMEM | libc::EOPNOTSUPP => {
            let taken = (bad as usize - first as usize) / size_of::<T>();
            assert!(taken < len);
            taken
        }
        code => panic!("a post answers {code}"),
    }
}

/// Receives, and the lists that they point to.
struct Chain {
    _lists: Vec<Vec<ffi::ibv_sge>>,
    wrs: Vec<ffi::ibv_recv_wr>,
}

impl Chain {
    fn new(objects: &Objects, requests: &[Vec<Entry>]) -> Chain {
        let mut lists: Vec<Vec<ffi::ibv_sge>> = requests
            .iter()
            .map(|entries| entries.iter().map(|entry| objects.sge(entry)).collect())
            .collect();
        let wr = |list: &mut Vec<ffi::ibv_sge>| ffi::ibv_recv_wr {
            wr_id: 0,
            next: null_mut(),
            sg_list: list.as_mut_ptr(),
            num_sge: list.len() as c_int,
        };
        let wrs = lists.iter_mut().map(wr).collect();
        Chain { _lists: lists, wrs }
    }

    /// How many of them were taken.
    fn post(
        &mut self,
        ids: impl Iterator<Item = u64>,
        post: impl FnOnce(*mut ffi::ibv_recv_wr, *mut *mut ffi::ibv_recv_wr) -> c_int,
    ) -> usize {
        let len = self.wrs.len();
        if len == 0 {
            return 0;
        }
        let first = self.wrs.as_mut_ptr();
        for (place, (wr, id)) in self.wrs.iter_mut().zip(ids).enumerate() {
            wr.wr_id = id;
            wr.next = if place + 1 < len { first.wrapping_add(place + 1) } else { null_mut() };
        }
        let mut bad = null_mut();
        taken(post(first, &mut bad), bad, first, len)
    }
}
