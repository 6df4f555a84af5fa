//! What every case works on: objects of the crate on the null provider, and the same ones as C sees them.

use ibverbs::{
    ffi, AccessFlags, AddressHandle, AddressVector, Buffer, CompletionQueue, Context, GlobalRoute,
    LocalMemorySlice, MemoryRegion, OwnedCompletionQueue, OwnedQueuePair, ProtectionDomain,
    QueuePair, Rc, RecvChain, RecvRequest, RemoteMemorySlice, SharedRegion, Transport, Ud,
};
use null_provider::{Config, Controls, DataPath};

/// How many requests there are in a batch.
pub(crate) const BATCH: usize = 32;
/// How many completions are polled at once.
pub(crate) const POLL: u32 = 16;
/// How many bytes are sent inline.
pub(crate) const INLINE_LEN: usize = 64;
/// How many pieces of `SLOT_LEN` bytes the region has.
pub(crate) const SLOTS: usize = 64;
pub(crate) const SLOT_LEN: usize = 64;

pub(crate) const REMOTE_QPN: u32 = 17;
pub(crate) const QKEY: u32 = 0x1234_5678;

/// Where completions go.
pub(crate) struct Queues {
    /// What sends that are signaled complete to.
    pub(crate) cq: CompletionQueue,
    /// [`POLL`] completions are taken out of it again and again: see [`null_provider::rewind`].
    pub(crate) full: CompletionQueue,
    /// Nothing ever completes here.
    pub(crate) empty: CompletionQueue,
}

/// What the cases of the crate work on.
pub(crate) struct Rig {
    pub(crate) queues: Queues,
    /// Its signaled sends complete, to `queues.cq`.
    pub(crate) qp: QueuePair<Rc>,
    /// Nothing that is posted to it completes.
    pub(crate) quiet: QueuePair<Rc>,
    /// Its receives complete at once, to `queues.cq`.
    pub(crate) taking: QueuePair<Rc>,
    pub(crate) owned: OwnedRig,
    /// As `qp`, for datagrams.
    pub(crate) ud: QueuePair<Ud>,
    pub(crate) ah: AddressHandle,
    pub(crate) region: MemoryRegion,
    pub(crate) shared: SharedRegion,
    /// Scatter lists of one entry each.
    pub(crate) slices: [[LocalMemorySlice; 1]; BATCH],
    pub(crate) remotes: [RemoteMemorySlice; BATCH],
    pub(crate) chain: RecvChain,
    pub(crate) bytes: [u8; INLINE_LEN],
}

/// What the cases of the owned level work on.
pub(crate) struct OwnedRig {
    /// Its signaled sends complete, and its receives at once, to `cq`.
    pub(crate) qp: OwnedQueuePair<Rc>,
    pub(crate) cq: OwnedCompletionQueue,
    /// [`BATCH`] of them.
    pub(crate) buffers: Vec<Buffer>,
    /// As many, with numbers.
    pub(crate) receives: Vec<(u64, Buffer)>,
}

impl OwnedRig {
    fn new(ctx: &Context, pd: &ProtectionDomain) -> ibverbs::Result<OwnedRig> {
        let cq = ctx.create_cq(512).build_owned()?;
        let builder = pd.create_owned_qp::<Rc>(&cq, &cq, 1)?;
        let prepared = builder.set_max_send_wr(64).set_max_recv_wr(64).build()?;
        let endpoint = prepared.endpoint()?;
        let qp = prepared.handshake(endpoint)?;
        let pool = pd.buffer_pool(2 * BATCH, SLOT_LEN)?;
        let mut buffers: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        let receives = (0..).zip(buffers.split_off(BATCH)).collect();
        Ok(OwnedRig { qp, cq, buffers, receives })
    }
}

/// What the cases of C and of raw FFI work on: pointers to parts of a [`Rig`] and of a [`Prepared`].
#[repr(C)]
pub(crate) struct Raw {
    pub(crate) qp: *mut ffi::ibv_qp_ex,
    pub(crate) quiet: *mut ffi::ibv_qp_ex,
    pub(crate) taking: *mut ffi::ibv_qp_ex,
    pub(crate) ud: *mut ffi::ibv_qp_ex,
    pub(crate) ah: *mut ffi::ibv_ah,
    pub(crate) cq: *mut ffi::ibv_cq_ex,
    pub(crate) full: *mut ffi::ibv_cq_ex,
    pub(crate) empty: *mut ffi::ibv_cq_ex,
    pub(crate) sges: *mut ffi::ibv_sge,
    pub(crate) remotes: *const Remote,
    pub(crate) chain: *mut ffi::ibv_recv_wr,
    pub(crate) bytes: *mut u8,
    pub(crate) addr: u64,
    pub(crate) lkey: u32,
    pub(crate) remote_qpn: u32,
    pub(crate) qkey: u32,
    pub(crate) rewind: unsafe extern "C" fn(*mut ffi::ibv_cq_ex, u32),
}

/// A piece of a peer's memory, as a program in C may have it.
#[repr(C)]
pub(crate) struct Remote {
    pub(crate) addr: u64,
    pub(crate) len: u64,
    pub(crate) rkey: u32,
}

/// What a program in C has prepared: the counterparts of a rig's slices and its chain.
pub(crate) struct Prepared {
    sges: [ffi::ibv_sge; BATCH],
    remotes: [Remote; BATCH],
    chain: [ffi::ibv_recv_wr; BATCH],
    bytes: [u8; INLINE_LEN],
}

impl Rig {
    /// Creates everything.
    pub(crate) fn new() -> ibverbs::Result<Rig> {
        // SAFETY: of what the controls offer, the minimal data path and completions are asked for. This program has one
        // thread.
        let null = unsafe { null_provider::install() }.expect("there is no other provider");
        completing(null, true);
        let devices = ibverbs::devices()?;
        let ctx = devices.get(0).expect("the null provider has devices").open()?;
        let pd = ctx.alloc_pd()?;
        let queue = |ctx: &Context| ctx.create_cq(512).build();
        let queues = Queues { cq: queue(&ctx)?, full: queue(&ctx)?, empty: queue(&ctx)? };
        let qp = connected(&pd, &queues.cq)?;
        let ud = builder::<Ud>(&pd, &queues.cq)?.activate(QKEY)?;
        fill(&mut connected(&pd, &queues.full)?, &queues.full)?;
        null.configure(|config: &mut Config| config.complete_receives = true);
        let owned = OwnedRig::new(&ctx, &pd)?;
        completing(null, false);
        let taking = connected(&pd, &queues.cq)?;
        null.configure(|config: &mut Config| config.complete_receives = false);
        let quiet = connected(&pd, &queues.cq)?;
        let region = pd.allocate(SLOTS * SLOT_LEN, AccessFlags::LOCAL_WRITE)?;
        let shared = pd.allocate_shared(SLOTS * SLOT_LEN, AccessFlags::LOCAL_WRITE)?;
        let slices: [_; BATCH] = std::array::from_fn(|slot| [slice(&region, slot)]);
        let remotes = std::array::from_fn(remote);
        let requests = slices.iter().zip(0..);
        let chain = RecvChain::new(requests.map(|(slice, wr_id)| RecvRequest::new(wr_id, slice)));
        let ah = pd.create_ah(&some_address())?;
        let bytes = [7; INLINE_LEN];
        Ok(Rig {
            queues,
            qp,
            quiet,
            taking,
            owned,
            ud,
            ah,
            region,
            shared,
            slices,
            remotes,
            chain,
            bytes,
        })
    }

    /// The same objects as C sees them.
    pub(crate) fn raw(&self, prepared: &mut Prepared) -> Raw {
        prepared.link();
        Raw {
            qp: self.qp.as_raw(),
            quiet: self.quiet.as_raw(),
            taking: self.taking.as_raw(),
            ud: self.ud.as_raw(),
            ah: self.ah.as_raw(),
            cq: self.queues.cq.as_raw(),
            full: self.queues.full.as_raw(),
            empty: self.queues.empty.as_raw(),
            sges: prepared.sges.as_mut_ptr(),
            remotes: prepared.remotes.as_ptr(),
            chain: prepared.chain.as_mut_ptr(),
            bytes: prepared.bytes.as_mut_ptr(),
            addr: self.slices[0][0].addr(),
            lkey: self.slices[0][0].lkey(),
            remote_qpn: REMOTE_QPN,
            qkey: QKEY,
            rewind: null_provider::rewind,
        }
    }
}

impl Prepared {
    pub(crate) fn new(rig: &Rig) -> Prepared {
        let sges = rig.slices.map(|[slice]| ffi::ibv_sge {
            addr: slice.addr(),
            length: slice.len(),
            lkey: slice.lkey(),
        });
        let remotes = rig.remotes.map(|remote| Remote {
            addr: remote.addr,
            len: remote.len,
            rkey: remote.rkey,
        });
        let chain = [ffi::ibv_recv_wr::default(); BATCH];
        Prepared { sges, remotes, chain, bytes: rig.bytes }
    }

    /// Links the chain, once this is where it stays.
    fn link(&mut self) {
        let first = self.chain.as_mut_ptr();
        for (place, request) in self.chain.iter_mut().enumerate() {
            let next = first.wrapping_add(place + 1);
            *request = ffi::ibv_recv_wr {
                wr_id: place as u64,
                next: if place + 1 < BATCH { next } else { std::ptr::null_mut() },
                sg_list: &mut self.sges[place],
                num_sge: 1,
            };
        }
    }
}

/// Says whether signaled sends of queue pairs that are created from now on complete.
fn completing(null: &Controls, complete_sends: bool) {
    null.configure(|config: &mut Config| {
        config.data_path = DataPath::Minimal;
        config.complete_sends = complete_sends;
    });
}

fn builder<T: Transport>(
    pd: &ProtectionDomain,
    cq: &CompletionQueue,
) -> ibverbs::Result<ibverbs::PreparedQueuePair<T>> {
    let builder = pd.create_qp::<T>(cq, cq, 1)?;
    let builder = builder.set_max_send_wr(64).set_max_recv_wr(64);
    builder.set_max_inline_data(INLINE_LEN as u32).build()
}

fn connected(pd: &ProtectionDomain, cq: &CompletionQueue) -> ibverbs::Result<QueuePair<Rc>> {
    let prepared = builder::<Rc>(pd, cq)?;
    let endpoint = prepared.endpoint()?;
    Ok(prepared.handshake(endpoint)?)
}

/// Completes [`POLL`] sends to `cq` and takes their completions out.
fn fill(qp: &mut QueuePair<Rc>, cq: &CompletionQueue) -> ibverbs::Result<()> {
    let mut batch = qp.start_send();
    for wr_id in 0..u64::from(POLL) {
        batch.op().signaled().send(wr_id, b"");
    }
    // SAFETY: inline data has no conditions, and the send queue was empty.
    unsafe { batch.submit() }?;
    if let Some(mut completions) = cq.poll()? {
        while completions.next().is_some() {}
    }
    Ok(())
}

fn slice(region: &MemoryRegion, slot: usize) -> LocalMemorySlice {
    region.slice(slot * SLOT_LEN..(slot + 1) * SLOT_LEN)
}

fn remote(slot: usize) -> RemoteMemorySlice {
    let len = SLOT_LEN as u64;
    RemoteMemorySlice { addr: 0x1000_0000 + slot as u64 * len, len, rkey: 77 }
}

/// The way to a port that there may be.
fn some_address() -> AddressVector {
    let dgid = "::ffff:10.0.0.7".parse().expect("it is an address");
    let (flow_label, gid_index, hop_limit, traffic_class) = (0, 1, 64, 0);
    let grh = GlobalRoute { dgid, flow_label, gid_index, hop_limit, traffic_class };
    let (port, dlid, service_level, src_path_bits, static_rate) = (1, 0, 0, 0, 0);
    AddressVector { port, dlid, service_level, src_path_bits, static_rate, grh: Some(grh) }
}

/// Ends the program, of all implementations: something did not do what it always does.
#[no_mangle]
#[cold]
#[inline(never)]
pub(crate) extern "C" fn cost_fail() -> ! {
    eprintln!("a case was not carried out");
    std::process::abort()
}
