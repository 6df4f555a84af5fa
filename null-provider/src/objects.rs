//! The objects that are alive, what each refers to, and the memory they lie in.

use std::alloc::{alloc_zeroed, dealloc, handle_alloc_error, Layout};
use std::collections::VecDeque;
use std::ffi::c_int;
use std::ptr::NonNull;
use std::thread::ThreadId;

use ibverbs_sys as ffi;

use crate::channel::{Channel, CqEvents};
use crate::cm::{EventChannel, IdData, Reported};
use crate::controls::{DataPath, State};
use crate::event::Events;
use crate::record::{Completion, Kind, Payload, Request, Verb};

/// Zeroed memory of an object that C code sees. It may be shorter than the structure it stands for.
pub(crate) struct Block {
    ptr: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a block owns its memory, as a `Box<[u8]>` would.
unsafe impl Send for Block {}

impl Block {
    pub(crate) fn new(len: usize) -> Block {
        const ALIGN: usize = 16;
        assert!(len > 0, "an object has at least one byte");
        let layout = Layout::from_size_align(len, ALIGN).expect("objects are small");
        // SAFETY: the layout is not empty, as asserted above.
        let ptr = unsafe { alloc_zeroed(layout) };
        let ptr = NonNull::new(ptr).unwrap_or_else(|| handle_alloc_error(layout));
        Block { ptr, layout }
    }

    pub(crate) fn ptr(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }

    /// Copies as much of `value` to `offset` as the block has room for.
    pub(crate) fn write_prefix<T: Copy>(&self, offset: usize, value: &T) {
        let len = size_of::<T>().min(self.layout.size() - offset);
        let to = self.ptr.as_ptr().wrapping_add(offset);
        // SAFETY: `len` bytes are inside the value and, from the offset on, inside the block; the two
        // do not overlap, since the block is memory of its own.
        unsafe { std::ptr::copy_nonoverlapping((&raw const *value).cast::<u8>(), to, len) }
    }

    /// Fills the block with the end of `value`.
    pub(crate) fn write_suffix<T: Copy>(&self, value: &T) {
        let len = self.layout.size();
        assert!(len <= size_of::<T>(), "the block is not longer than the value");
        let from = (&raw const *value).cast::<u8>().wrapping_add(size_of::<T>() - len);
        // SAFETY: the last `len` bytes of the value, which has so many, and the whole block; the two do
        // not overlap, since the block is memory of its own.
        unsafe { std::ptr::copy_nonoverlapping(from, self.ptr(), len) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: the memory was allocated in `new` with this layout and is freed once.
        unsafe { dealloc(self.ptr.as_ptr(), self.layout) }
    }
}

/// A live object.
pub(crate) struct Object {
    /// Where it lies: freed with it.
    block: Block,
    /// The addresses of the objects that must outlive this one.
    pub(crate) refers_to: Vec<usize>,
    pub(crate) data: Data,
}

/// What the provider knows of an object, by its kind.
pub(crate) enum Data {
    DeviceList,
    Context {
        device: usize,
        data_path: DataPath,
        events: Events,
    },
    Pd,
    Mr,
    /// With its bytes.
    Dm(Vec<u8>),
    CompChannel(Channel),
    Cq(CqData),
    Srq(SrqData),
    Qp(QpData),
    Ah,
    Mw(MwData),
    EventChannel(EventChannel),
    CmId(Box<IdData>),
    CmEvent(Reported),
    /// With the numbers of the devices.
    CmDevices(Vec<usize>),
    AddrInfo {
        /// What belongs to the first entry: freed with it.
        _rest: Vec<Block>,
    },
}

impl Data {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Data::DeviceList => Kind::DeviceList,
            Data::Context { .. } => Kind::Context,
            Data::Pd => Kind::Pd,
            Data::Mr => Kind::Mr,
            Data::Dm(_) => Kind::Dm,
            Data::CompChannel(_) => Kind::CompChannel,
            Data::Cq(_) => Kind::Cq,
            Data::Srq(_) => Kind::Srq,
            Data::Qp(_) => Kind::Qp,
            Data::Ah => Kind::Ah,
            Data::Mw(_) => Kind::Mw,
            Data::EventChannel(_) => Kind::EventChannel,
            Data::CmId(_) => Kind::CmId,
            Data::CmEvent(_) => Kind::CmEvent,
            Data::CmDevices(_) => Kind::CmDevices,
            Data::AddrInfo { .. } => Kind::AddrInfo,
        }
    }

    fn events(&mut self) -> Option<&mut Events> {
        match self {
            Data::Context { events, .. } => Some(events),
            _ => None,
        }
    }
}

#[derive(Default)]
pub(crate) struct CqData {
    /// The thread that holds the lock of the queue, from `start_poll` to `end_poll`.
    pub(crate) owner: Option<ThreadId>,
    pub(crate) poll: Poll,
    pub(crate) queue: VecDeque<Completion>,
    pub(crate) events: CqEvents,
    /// Whether its memory is gone, after a resize that failed half-way.
    pub(crate) lost: bool,
    /// The `efadv_cq`, if it was created with one.
    pub(crate) efa: Option<Block>,
}

/// Where a poll is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Poll {
    #[default]
    Closed,
    /// A completion is at hand.
    At(Completion),
    /// `next_poll` has failed.
    Ended,
}

pub(crate) struct SrqData {
    pub(crate) max_wr: u32,
    pub(crate) max_sge: u32,
    pub(crate) limit: u32,
    /// Whether its memory is gone, after a resize that failed half-way.
    pub(crate) lost: bool,
}

impl SrqData {
    pub(crate) fn attr(&self) -> ffi::ibv_srq_attr {
        let SrqData { max_wr, max_sge, limit: srq_limit, .. } = *self;
        ffi::ibv_srq_attr { max_wr, max_sge, srq_limit }
    }
}

pub(crate) struct MwData {
    pub(crate) pd: usize,
    /// The key that the device knows: that of the last bind that was posted.
    pub(crate) rkey: u32,
    /// The region, and the queue pair that has bound it if it is of type 2, or else zero.
    pub(crate) bound_to: Option<(usize, usize)>,
}

/// A multicast group.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) gid: [u8; 16],
    pub(crate) lid: u16,
}

pub(crate) struct QpData {
    pub(crate) qp_num: u32,
    pub(crate) qp_type: ffi::ibv_qp_type,
    pub(crate) pd: usize,
    pub(crate) groups: Vec<Group>,
    pub(crate) send_cq: usize,
    pub(crate) recv_cq: usize,
    pub(crate) send_ops: u64,
    pub(crate) max_send_wr: u32,
    pub(crate) max_send_sge: usize,
    pub(crate) max_recv_sge: usize,
    pub(crate) max_inline: usize,
    pub(crate) complete_sends: bool,
    pub(crate) complete_receives: bool,
    pub(crate) batch: Option<Batch>,
}

/// A batch between `wr_start` and `wr_complete` or `wr_abort`.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) requests: Vec<Request>,
    /// What the last request still lacks.
    pub(crate) lacks: Lacks,
}

/// What a request lacks that was begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Lacks {
    #[default]
    Nothing,
    /// Where it goes, and then what it carries.
    Address,
    Payload,
}

impl State {
    pub(crate) fn insert(
        &mut self,
        block: Block,
        offset: usize,
        refers_to: Vec<usize>,
        data: Data,
    ) {
        let address = block.ptr() as usize + offset;
        self.objects.insert(address, Object { block, refers_to, data });
    }

    /// Whether an object of this kind lives at this address; if not, that is a violation.
    pub(crate) fn expect_live(&mut self, verb: Verb, address: usize, kind: Kind) -> bool {
        match self.objects.get(&address).map(|object| object.data.kind()) {
            Some(found) if found == kind => true,
            Some(found) => {
                self.violation(format!("{verb:?}: {address:#x} is a {found:?}, not a {kind:?}"));
                false
            }
            None => {
                self.violation(format!("{verb:?}: no {kind:?} is alive at {address:#x}"));
                false
            }
        }
    }

    /// Whether the object may be destroyed; otherwise the `errno` value to return.
    pub(crate) fn may_destroy(
        &mut self,
        verb: Verb,
        address: usize,
        kind: Kind,
    ) -> Result<(), c_int> {
        self.call(verb, address);
        if !self.expect_live(verb, address, kind) {
            return Err(libc::EINVAL);
        }
        if let Err(code) = self.failure(verb) {
            self.refused.insert(address);
            return Err(code);
        }
        if self.is_of_librdmacm(address) {
            self.violation(format!("{verb:?}: the {kind:?} belongs to librdmacm"));
            return Err(libc::EPERM);
        }
        if !self.expect_unused(verb, address) {
            return Err(libc::EBUSY);
        }
        Ok(())
    }

    /// Whether no object refers to this one; if one does, that is a violation.
    pub(crate) fn expect_unused(&mut self, verb: Verb, address: usize) -> bool {
        let users = self.objects.values().filter(|user| user.refers_to.contains(&address));
        let users: Vec<Kind> = users.map(|user| user.data.kind()).collect();
        if users.is_empty() {
            return true;
        }
        let kind = self.objects.get(&address).map(|object| object.data.kind());
        let kind = kind.map_or_else(String::new, |kind| format!("{kind:?} "));
        self.violation(format!("{verb:?}: the {kind}is still used by {users:?}"));
        false
    }

    /// What points to an object; null if there is none.
    pub(crate) fn pointer<T>(&self, address: usize) -> *mut T {
        let Some(object) = self.objects.get(&address) else { return std::ptr::null_mut() };
        let start = object.block.ptr();
        start.wrapping_add(address - start as usize).cast()
    }

    /// Frees an object.
    pub(crate) fn remove(&mut self, address: usize) {
        self.objects.remove(&address);
        self.refused.remove(&address);
        self.forget_work(address);
    }

    /// Takes note that memory with this local key was posted to a queue, if work is kept.
    pub(crate) fn keep_work(&mut self, queue: usize, payload: &Payload) {
        if let (true, Payload::Scatter(list)) = (self.config.keeps_work, payload) {
            self.in_flight.extend(list.iter().map(|&(_, _, lkey)| (queue, lkey)));
        }
    }

    /// Nothing of what was posted to a queue is in flight any more.
    pub(crate) fn forget_work(&mut self, queue: usize) {
        self.in_flight.retain(|&(found, _)| found != queue);
    }

    /// The number of the device of a context, and its data path.
    pub(crate) fn context(&self, context: usize) -> (usize, DataPath) {
        match self.objects.get(&context) {
            Some(Object { data: Data::Context { device, data_path, .. }, .. }) => {
                (*device, *data_path)
            }
            _ => (0, DataPath::Checked),
        }
    }

    /// The asynchronous events of a context.
    pub(crate) fn events(&mut self, context: usize) -> Option<&mut Events> {
        self.objects.get_mut(&context).and_then(|object| object.data.events())
    }

    /// Those of all contexts.
    pub(crate) fn all_events(&mut self) -> impl Iterator<Item = &mut Events> {
        self.objects.values_mut().filter_map(|object| object.data.events())
    }

    /// Whether the object refers to this other one.
    pub(crate) fn refers_to(&self, address: usize, other: usize) -> bool {
        self.objects.get(&address).is_some_and(|object| object.refers_to.contains(&other))
    }

    /// Whether two objects, each created from a context, are of the same one.
    pub(crate) fn same_context(&self, one: usize, other: usize) -> bool {
        let context_of = |address| {
            let mut parents = self.objects.get(&address)?.refers_to.iter();
            parents.find(|parent| {
                self.objects.get(parent).is_some_and(|found| found.data.kind() == Kind::Context)
            })
        };
        context_of(one) == context_of(other)
    }

    /// The bytes of device memory.
    pub(crate) fn dm(&mut self, address: usize) -> Option<&mut Vec<u8>> {
        match self.objects.get_mut(&address) {
            Some(Object { data: Data::Dm(bytes), .. }) => Some(bytes),
            _ => None,
        }
    }

    pub(crate) fn cq(&mut self, address: usize) -> Option<&mut CqData> {
        match self.objects.get_mut(&address) {
            Some(Object { data: Data::Cq(cq), .. }) => Some(cq),
            _ => None,
        }
    }

    /// All completion queues.
    pub(crate) fn cqs(&self) -> impl Iterator<Item = &CqData> {
        self.objects.values().filter_map(|object| match &object.data {
            Data::Cq(cq) => Some(cq),
            _ => None,
        })
    }

    /// Puts a completion into a queue, and raises the event that it was armed for.
    pub(crate) fn complete(&mut self, address: usize, completion: Completion) {
        if let Some(cq) = self.cq(address) {
            cq.queue.push_back(completion);
            self.raise(address, completion.solicited);
        }
    }

    pub(crate) fn srq(&mut self, address: usize) -> Option<&mut SrqData> {
        match self.objects.get_mut(&address) {
            Some(Object { data: Data::Srq(srq), .. }) => Some(srq),
            _ => None,
        }
    }

    pub(crate) fn mw(&mut self, address: usize) -> Option<&mut MwData> {
        match self.objects.get_mut(&address) {
            Some(Object { data: Data::Mw(mw), .. }) => Some(mw),
            _ => None,
        }
    }

    /// All memory windows.
    pub(crate) fn windows(&mut self) -> impl Iterator<Item = &mut MwData> {
        self.objects.values_mut().filter_map(|object| match &mut object.data {
            Data::Mw(mw) => Some(mw),
            _ => None,
        })
    }

    /// Whether a completion of the queue pair of this number is taken away unseen: EFA keeps those of queue pairs that
    /// were destroyed, and cannot make sense of them when they are polled.
    pub(crate) fn is_stale(&self, qp_num: u32) -> bool {
        let is_alive =
            |object: &Object| matches!(&object.data, Data::Qp(qp) if qp.qp_num == qp_num);
        self.config.is_efa && !self.objects.values().any(is_alive)
    }

    pub(crate) fn qp(&mut self, address: usize) -> Option<&mut QpData> {
        match self.objects.get_mut(&address) {
            Some(Object { data: Data::Qp(qp), .. }) => Some(qp),
            _ => None,
        }
    }
}
