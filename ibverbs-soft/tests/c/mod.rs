//! Verbs as a C program calls them, and objects that are destroyed in the end.

use std::ffi::c_int;
use std::ptr::{null_mut, NonNull};
use std::sync::Once;
use std::time::{Duration, Instant};

use ibverbs_sys as ffi;

/// Calls a verb.
macro_rules! verb {
    ($name:ident($($argument:expr),* $(,)?)) => {
        // SAFETY: the objects are alive, and the structures whole: tests are written like that.
        unsafe { ibverbs_sys::$name($($argument),*) }
    };
}
pub(crate) use verb;

/// Long enough for everything that happens at all.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
pub(crate) const PORT: u8 = 1;
pub(crate) const QKEY: u32 = 0x1111_1111;
/// The first packet's number, in both directions.
const PSN: u32 = 0xff_fff0;
/// The GID that is the device's address.
pub(crate) const GID_INDEX: u8 = 1;

pub(crate) fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// The object that a verb has created.
#[track_caller]
pub(crate) fn created<T>(object: *mut T) -> *mut T {
    assert!(!object.is_null(), "{}", std::io::Error::last_os_error());
    object
}

/// The error number with which a verb refused to create something.
#[track_caller]
pub(crate) fn refused<T>(object: *mut T) -> c_int {
    let errno = errno();
    assert!(object.is_null());
    errno
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < end, "{what}: not within {DEADLINE:?}");
        std::thread::yield_now();
    }
}

/// An opened device, with a protection domain.
pub(crate) struct Bed {
    pub(crate) context: *mut ffi::ibv_context,
    pub(crate) pd: *mut ffi::ibv_pd,
}

impl Bed {
    /// Opens the device with this place in the list.
    #[track_caller]
    pub(crate) fn open(number: usize) -> Bed {
        static INSTALL: Once = Once::new();
        INSTALL.call_once(|| {
            let provider = ibverbs_soft::provider(crate::options());
            // SAFETY: the provider's functions do what their manual pages say.
            unsafe { ffi::provider::install(provider) }.expect("no verb was called before");
        });
        let mut len = 0;
        let list = created(verb!(ibv_get_device_list(&mut len)));
        assert!(number < len as usize);
        let place = list.wrapping_add(number);
        // SAFETY: there are more than `number` entries.
        let device = unsafe { place.read() };
        let context = created(verb!(ibv_open_device(device)));
        verb!(ibv_free_device_list(list));
        let pd = created(verb!(ibv_alloc_pd(context)));
        Bed { context, pd }
    }

    #[track_caller]
    pub(crate) fn new() -> Bed {
        Bed::open(0)
    }

    pub(crate) fn device_attr(&self) -> ffi::ibv_device_attr {
        let mut attr = ffi::ibv_device_attr { max_qp: -1, ..zeroed() };
        assert_eq!(verb!(ibv_query_device(self.context, &mut attr)), 0);
        attr
    }

    pub(crate) fn gid(&self) -> ffi::ibv_gid {
        let mut gid = ffi::ibv_gid { raw: [0; 16] };
        let index = c_int::from(GID_INDEX);
        assert_eq!(verb!(ibv_query_gid(self.context, PORT, index, &mut gid)), 0);
        gid
    }

    /// The way to oneself.
    pub(crate) fn way(&self) -> ffi::ibv_ah_attr {
        let grh = ffi::ibv_global_route {
            dgid: self.gid(),
            flow_label: 0,
            sgid_index: GID_INDEX,
            hop_limit: 64,
            traffic_class: 0,
        };
        ffi::ibv_ah_attr { grh, is_global: 1, port_num: PORT, ..Default::default() }
    }

    #[track_caller]
    pub(crate) fn cq(&self, entries: c_int) -> Cq<'_> {
        let cq = verb!(ibv_create_cq(self.context, entries, null_mut(), null_mut(), 0));
        Cq { raw: created(cq), _bed: self }
    }

    /// A queue that is polled by the extended interface, with these fields.
    #[track_caller]
    pub(crate) fn cq_ex(&self, entries: u32, wc_flags: u64) -> Cq<'_> {
        let mut attr = ffi::ibv_cq_init_attr_ex { cqe: entries, wc_flags, ..Default::default() };
        let cq = created(verb!(ibv_create_cq_ex(self.context, &mut attr)));
        Cq { raw: cq.cast(), _bed: self }
    }

    #[track_caller]
    pub(crate) fn mem(&self, len: usize) -> Mem<'_> {
        let access = ffi::IBV_ACCESS_LOCAL_WRITE
            | ffi::IBV_ACCESS_REMOTE_WRITE
            | ffi::IBV_ACCESS_REMOTE_READ
            | ffi::IBV_ACCESS_REMOTE_ATOMIC;
        Mem::register(self, vec![0; len.div_ceil(8)], len, access)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(verb!(ibv_dealloc_pd(self.pd)), 0);
            assert_eq!(verb!(ibv_close_device(self.context)), 0);
        }
    }
}

/// A structure of numbers that are zero.
pub(crate) fn zeroed<T: Copy>() -> T {
    // SAFETY: the tests ask for C structures of numbers, arrays and pointers, for which zero is valid.
    unsafe { std::mem::zeroed() }
}

/// Registered memory.
pub(crate) struct Mem<'b> {
    pub(crate) mr: NonNull<ffi::ibv_mr>,
    words: NonNull<[u64]>,
    len: usize,
    _bed: &'b Bed,
}

impl<'b> Mem<'b> {
    #[track_caller]
    fn register(bed: &'b Bed, words: Vec<u64>, len: usize, access: u32) -> Mem<'b> {
        let words = NonNull::from(Box::leak(words.into_boxed_slice()));
        let addr = words.as_ptr().cast();
        let mr = created(verb!(ibv_reg_mr(bed.pd, addr, len, access as c_int)));
        Mem { mr: NonNull::new(mr).expect("it was created"), words, len, _bed: bed }
    }

    pub(crate) fn addr(&self) -> u64 {
        self.words.as_ptr().cast::<u64>() as u64
    }

    fn mr(&self) -> ffi::ibv_mr {
        // SAFETY: the region is alive.
        unsafe { self.mr.read() }
    }

    pub(crate) fn rkey(&self) -> u32 {
        self.mr().rkey
    }

    pub(crate) fn sge(&self, offset: usize, length: usize) -> ffi::ibv_sge {
        let (addr, lkey) = (self.addr() + offset as u64, self.mr().lkey);
        ffi::ibv_sge { addr, length: length as u32, lkey }
    }

    /// To be called when nothing is under way.
    pub(crate) fn write(&self, bytes: &[u8]) {
        assert!(bytes.len() <= self.len);
        let to = self.words.as_ptr().cast::<u8>();
        // SAFETY: there is room, and nobody else is at the memory.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// To be called when nothing is under way.
    pub(crate) fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        assert!(offset + len <= self.len);
        let from = self.words.as_ptr().cast::<u8>().wrapping_add(offset);
        // SAFETY: so many bytes are there, and nobody is writing them.
        unsafe { std::slice::from_raw_parts(from, len) }.to_vec()
    }
}

impl Drop for Mem<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(verb!(ibv_dereg_mr(self.mr.as_ptr())), 0);
            // SAFETY: it was leaked when it was registered.
            drop(unsafe { Box::from_raw(self.words.as_ptr()) });
        }
    }
}

/// A completion queue.
pub(crate) struct Cq<'b> {
    pub(crate) raw: *mut ffi::ibv_cq,
    _bed: &'b Bed,
}

impl Cq<'_> {
    /// What is in it now.
    #[track_caller]
    pub(crate) fn poll(&self) -> Vec<ffi::ibv_wc> {
        let mut wcs = [ffi::ibv_wc::default(); 8];
        let count = verb!(ibv_poll_cq(self.raw, wcs.len() as c_int, wcs.as_mut_ptr()));
        assert!(count >= 0, "{count}");
        wcs[..count as usize].to_vec()
    }

    /// Waits for so many completions, and finds no more.
    #[track_caller]
    pub(crate) fn wait(&self, count: usize) -> Vec<ffi::ibv_wc> {
        let mut found = Vec::new();
        eventually("the completions", || {
            found.extend(self.poll());
            found.len() >= count
        });
        assert_eq!(found.len(), count);
        found
    }

    /// Waits for one completion: its identifier and its status.
    #[track_caller]
    pub(crate) fn wait_one(&self) -> (u64, ffi::ibv_wc_status) {
        let wc = self.wait(1)[0];
        (wc.wr_id, wc.status)
    }
}

impl Drop for Cq<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(verb!(ibv_destroy_cq(self.raw)), 0);
        }
    }
}

/// A queue pair.
pub(crate) struct Qp<'q> {
    pub(crate) raw: *mut ffi::ibv_qp,
    pub(crate) bed: &'q Bed,
}

/// What a queue pair is made with unless a test says otherwise.
pub(crate) fn init_attr(cq: &Cq<'_>, qp_type: ffi::ibv_qp_type) -> ffi::ibv_qp_init_attr_ex {
    let cap = ffi::ibv_qp_cap {
        max_send_wr: 16,
        max_recv_wr: 16,
        max_send_sge: 2,
        max_recv_sge: 2,
        max_inline_data: 64,
    };
    ffi::ibv_qp_init_attr_ex { send_cq: cq.raw, recv_cq: cq.raw, cap, qp_type, ..zeroed() }
}

impl<'q> Qp<'q> {
    #[track_caller]
    pub(crate) fn new(bed: &'q Bed, cq: &'q Cq<'q>, qp_type: ffi::ibv_qp_type) -> Qp<'q> {
        Qp::with(bed, init_attr(cq, qp_type))
    }

    #[track_caller]
    pub(crate) fn with(bed: &'q Bed, mut attr: ffi::ibv_qp_init_attr_ex) -> Qp<'q> {
        attr.comp_mask |= ffi::IBV_QP_INIT_ATTR_PD;
        attr.pd = bed.pd;
        Qp { raw: created(verb!(ibv_create_qp_ex(bed.context, &mut attr))), bed }
    }

    pub(crate) fn number(&self) -> u32 {
        // SAFETY: the queue pair is alive, and the field is not written.
        unsafe { (*self.raw).qp_num }
    }

    pub(crate) fn qp_type(&self) -> ffi::ibv_qp_type {
        // SAFETY: the queue pair is alive, and the field is not written.
        unsafe { (*self.raw).qp_type }
    }

    #[track_caller]
    pub(crate) fn query(&self) -> (ffi::ibv_qp_attr, ffi::ibv_qp_init_attr) {
        let (mut attr, mut init) = (ffi::ibv_qp_attr::default(), zeroed());
        assert_eq!(verb!(ibv_query_qp(self.raw, &mut attr, 0, &mut init)), 0);
        (attr, init)
    }

    #[track_caller]
    pub(crate) fn state(&self) -> ffi::ibv_qp_state {
        self.query().0.qp_state
    }

    pub(crate) fn try_modify(&self, attr: &ffi::ibv_qp_attr, mask: u32) -> c_int {
        let mut attr = *attr;
        verb!(ibv_modify_qp(self.raw, &mut attr, mask as c_int))
    }

    /// Attributes that are right for every transition of a queue pair whose peer has this number.
    pub(crate) fn attr(&self, to: ffi::ibv_qp_state, peer: u32) -> ffi::ibv_qp_attr {
        ffi::ibv_qp_attr {
            qp_state: to,
            cur_qp_state: self.state(),
            path_mtu: ffi::IBV_MTU_1024,
            qkey: QKEY,
            rq_psn: PSN,
            sq_psn: PSN,
            dest_qp_num: peer,
            qp_access_flags: ffi::IBV_ACCESS_REMOTE_WRITE
                | ffi::IBV_ACCESS_REMOTE_READ
                | ffi::IBV_ACCESS_REMOTE_ATOMIC,
            ah_attr: self.bed.way(),
            max_rd_atomic: 4,
            max_dest_rd_atomic: 4,
            min_rnr_timer: 12,
            port_num: PORT,
            timeout: 14,
            retry_cnt: 6,
            // For ever: however slow the machine is, a receive may come later.
            rnr_retry: 7,
            ..Default::default()
        }
    }

    /// Goes to a state from the one before it, with what that takes.
    #[track_caller]
    pub(crate) fn go(&self, to: ffi::ibv_qp_state, peer: u32) {
        let rule = ffi::transitions::rule(self.qp_type(), self.state(), to);
        let mask = rule.expect("there is such a transition").required | ffi::IBV_QP_STATE;
        assert_eq!(self.try_modify(&self.attr(to, peer), mask), 0, "to state {to}");
    }

    /// Goes from `RESET` to `RTS`, towards a peer.
    #[track_caller]
    pub(crate) fn connect(self, peer: u32) -> Qp<'q> {
        for state in [ffi::IBV_QPS_INIT, ffi::IBV_QPS_RTR, ffi::IBV_QPS_RTS] {
            self.go(state, peer);
        }
        self
    }

    /// Goes from `RESET` to `RTS`, towards itself.
    #[track_caller]
    pub(crate) fn connect_to_itself(self) -> Qp<'q> {
        let number = self.number();
        self.connect(number)
    }

    /// Posts a chain of sends; if one is refused, its place and why.
    pub(crate) fn post_send(&self, wrs: &mut [ffi::ibv_send_wr]) -> Result<(), (usize, c_int)> {
        let first = wrs.as_mut_ptr();
        for place in 1..wrs.len() {
            wrs[place - 1].next = first.wrapping_add(place);
        }
        let mut bad = null_mut();
        match verb!(ibv_post_send(self.raw, first, &mut bad)) {
            0 => Ok(()),
            code => Err((place_of(bad, first), code)),
        }
    }

    /// Posts a chain of receives; if one is refused, its place and why.
    pub(crate) fn post_recv(&self, wrs: &mut [ffi::ibv_recv_wr]) -> Result<(), (usize, c_int)> {
        let first = link(wrs);
        let mut bad = null_mut();
        match verb!(ibv_post_recv(self.raw, first, &mut bad)) {
            0 => Ok(()),
            code => Err((place_of(bad, first), code)),
        }
    }
}

/// Links receives, and returns the first.
pub(crate) fn link(wrs: &mut [ffi::ibv_recv_wr]) -> *mut ffi::ibv_recv_wr {
    let first = wrs.as_mut_ptr();
    for place in 1..wrs.len() {
        wrs[place - 1].next = first.wrapping_add(place);
    }
    first
}

/// Which request of an array this is.
pub(crate) fn place_of<T>(bad: *mut T, first: *mut T) -> usize {
    (bad as usize - first as usize) / size_of::<T>()
}

impl Drop for Qp<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(verb!(ibv_destroy_qp(self.raw)), 0);
        }
    }
}

/// A signaled send of this opcode.
pub(crate) fn send_wr(
    wr_id: u64,
    opcode: ffi::ibv_wr_opcode,
    sges: &mut [ffi::ibv_sge],
) -> ffi::ibv_send_wr {
    ffi::ibv_send_wr {
        wr_id,
        sg_list: sges.as_mut_ptr(),
        num_sge: sges.len() as c_int,
        opcode,
        send_flags: ffi::IBV_SEND_SIGNALED,
        ..zeroed()
    }
}

pub(crate) fn recv_wr(wr_id: u64, sges: &mut [ffi::ibv_sge]) -> ffi::ibv_recv_wr {
    ffi::ibv_recv_wr {
        wr_id,
        next: null_mut(),
        sg_list: sges.as_mut_ptr(),
        num_sge: sges.len() as c_int,
    }
}
