//! What all tests need: the provider, and objects on it.

use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ibverbs::{
    AccessFlags, AddressHandle, AddressVector, CompletionQueue, Context, Error, GlobalRoute,
    MemoryRegion, MemoryWindow, PreparedQueuePair, ProtectionDomain, QueuePair, Rc, RecvRequest,
    RemoteMemorySlice, Result, SendBatch, SendOps, Transport, Ud,
};
use null_provider::{Completion, Controls, Kind, Verb};

/// The provider, for one test at a time. At the end of a test there must be no violation, and nothing
/// may be alive.
pub(crate) struct Null {
    controls: &'static Controls,
    _serial: MutexGuard<'static, ()>,
}

pub(crate) fn null() -> Null {
    static SERIAL: Mutex<()> = Mutex::new(());
    let serial = SERIAL.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the tests clear function pointers of the extended structures, shorten them to lengths that
    // there were, and change values; nothing else.
    let controls = unsafe { null_provider::install() }.unwrap();
    controls.reset();
    Null { controls, _serial: serial }
}

impl Null {
    /// That exactly these objects were leaked; they are forgotten then.
    pub(crate) fn expect_leaked(&self, kinds: &[Kind]) {
        let mut alive = self.all_live();
        for kind in kinds {
            let place = alive.iter().position(|found| found == kind);
            alive.swap_remove(place.unwrap_or_else(|| panic!("no {kind:?} was leaked")));
        }
        assert!(alive.is_empty(), "more was leaked: {alive:?}");
        assert_eq!(self.take_violations(), [""; 0]);
        self.reset();
    }

    /// The provider, for something that outlives the borrow of this.
    pub(crate) fn controls(&self) -> &'static Controls {
        self.controls
    }

    /// The verbs that were called since the last look.
    pub(crate) fn verbs(&self) -> Vec<Verb> {
        self.take_calls().iter().map(|call| call.verb).collect()
    }

    /// That the provider was not called since the last look.
    pub(crate) fn expect_no_calls(&self) {
        assert_eq!(self.verbs(), []);
    }
}

impl Deref for Null {
    type Target = Controls;

    fn deref(&self) -> &Controls {
        self.controls
    }
}

impl Drop for Null {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.take_violations(), [""; 0]);
            assert_eq!(self.all_live(), [], "these objects are still alive");
        }
    }
}

pub(crate) fn open(device: usize) -> Context {
    ibverbs::devices().unwrap().get(device).unwrap().open().unwrap()
}

pub(crate) struct Parts {
    pub(crate) ctx: Context,
    pub(crate) pd: ProtectionDomain,
    pub(crate) cq: CompletionQueue,
}

pub(crate) fn parts() -> Parts {
    let ctx = open(0);
    let pd = ctx.alloc_pd().unwrap();
    let cq = ctx.create_cq(16).build().unwrap();
    Parts { ctx, pd, cq }
}

/// A connected queue pair with two scatter entries and 64 bytes of inline data.
pub(crate) fn connected(pd: &ProtectionDomain, cq: &CompletionQueue) -> QueuePair<Rc> {
    connected_to(pd, cq, cq)
}

pub(crate) fn connected_to(
    pd: &ProtectionDomain,
    send_cq: &CompletionQueue,
    recv_cq: &CompletionQueue,
) -> QueuePair<Rc> {
    let builder = pd.create_qp::<Rc>(send_cq, recv_cq, 1).unwrap();
    let builder = builder.set_max_send_sge(2).set_max_recv_sge(2).set_max_inline_data(64);
    let prepared = builder.build().unwrap();
    let endpoint = prepared.endpoint().unwrap();
    prepared.handshake(endpoint).unwrap()
}

/// A connected queue pair that can post everything there is.
pub(crate) fn with_windows(pd: &ProtectionDomain, cq: &CompletionQueue) -> QueuePair<Rc> {
    let builder = pd.create_qp::<Rc>(cq, cq, 1).unwrap();
    let prepared = builder.set_send_ops(SendOps::all()).set_max_inline_data(64).build().unwrap();
    let endpoint = prepared.endpoint().unwrap();
    prepared.handshake(endpoint).unwrap()
}

/// Binds a window to the whole region, for reading.
pub(crate) fn bind(
    qp: &mut QueuePair<Rc>,
    window: &mut MemoryWindow,
    region: &MemoryRegion,
) -> RemoteMemorySlice {
    let mut batch = qp.start_send();
    // SAFETY: there is no peer.
    let remote =
        unsafe { batch.op().bind_window(77, window, region, .., AccessFlags::REMOTE_READ) };
    submit(batch).unwrap();
    remote
}

/// The queue key of [`activated`].
pub(crate) const QKEY: u32 = 0x1234_5678;

/// A datagram queue pair that is ready, with two scatter entries and 64 bytes of inline data.
pub(crate) fn activated(pd: &ProtectionDomain, cq: &CompletionQueue) -> QueuePair<Ud> {
    prepared(pd, cq).activate(QKEY).unwrap()
}

/// One that is not ready yet.
pub(crate) fn prepared(pd: &ProtectionDomain, cq: &CompletionQueue) -> PreparedQueuePair<Ud> {
    let builder = pd.create_qp::<Ud>(cq, cq, 1).unwrap();
    let builder = builder.set_max_send_sge(2).set_max_recv_sge(2).set_max_inline_data(64);
    builder.build().unwrap()
}

/// The way to a port that there may be.
pub(crate) fn some_address() -> AddressVector {
    let dgid = "::ffff:10.0.0.7".parse().unwrap();
    let (flow_label, gid_index, hop_limit, traffic_class) = (0xabcde, 1, 9, 0x20);
    let grh = GlobalRoute { dgid, flow_label, gid_index, hop_limit, traffic_class };
    let (port, dlid, service_level, src_path_bits, static_rate) = (1, 5, 3, 1, 2);
    AddressVector { port, dlid, service_level, src_path_bits, static_rate, grh: Some(grh) }
}

/// A handle of it.
pub(crate) fn some_handle(pd: &ProtectionDomain) -> AddressHandle {
    pd.create_ah(&some_address()).unwrap()
}

pub(crate) fn submit<T: Transport>(batch: SendBatch<'_, T>) -> Result<()> {
    // SAFETY: the null provider never touches the memory of a scatter entry.
    unsafe { batch.submit() }
}

pub(crate) fn post<'a>(
    qp: &mut QueuePair<Rc>,
    requests: impl AsMut<[RecvRequest<'a>]>,
) -> Result<()> {
    // SAFETY: as above.
    unsafe { qp.post_recv(requests) }
}

/// Puts successful completions with these identifiers into the queue.
pub(crate) fn complete(null: &Null, cq: &CompletionQueue, wr_ids: impl IntoIterator<Item = u64>) {
    for wr_id in wr_ids {
        null.complete(cq.as_raw(), Completion { wr_id, ..Completion::default() });
    }
}

/// The identifiers of all completions that are in the queue.
pub(crate) fn poll_all(cq: &CompletionQueue) -> Vec<u64> {
    let mut wr_ids = Vec::new();
    if let Some(mut completions) = cq.poll().unwrap() {
        while let Some(wc) = completions.next() {
            wr_ids.push(wc.wr_id());
        }
    }
    wr_ids
}

/// That this failed because a poll is open.
#[track_caller]
pub(crate) fn expect_poll_in_progress<T>(result: Result<T, impl Into<Error>>) {
    match result.map_err(Into::into) {
        Err(Error::PollInProgress) => {}
        Err(other) => panic!("it failed for another reason: {other:?}"),
        Ok(_) => panic!("it was done although a poll is open"),
    }
}
