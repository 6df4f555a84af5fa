//! RDMA for Rust that the compiler checks: a safe library over libibverbs.
//!
//! Which operations a queue pair can post, which state it is in, who may touch a buffer and how long a
//! polled completion lives are all types.
//!
//! ```no_run
//! use ibverbs::{AccessFlags, RecvRequest};
//!
//! fn main() -> ibverbs::Result<()> {
//!     let ctx = ibverbs::devices()?.iter().next().expect("no device").open()?;
//!     let cq = ctx.create_cq(16).build()?;
//!     let pd = ctx.alloc_pd()?;
//!     let prepared = pd
//!         .create_qp::<ibverbs::Rc>(&cq, &cq, 1)?     // port 1
//!         .set_gid_index(1)
//!         .build()?;
//!     let endpoint = prepared.endpoint()?;            // endpoint.to_bytes() is the wire format
//!     let mut qp = prepared.handshake(endpoint)?;     // here with itself
//!     let mut recv = pd.allocate(4096, AccessFlags::PERMISSIVE)?;
//!     let mut send = pd.allocate(4096, AccessFlags::PERMISSIVE)?;
//!     send.bytes_mut()[..5].copy_from_slice(b"hello");
//!     unsafe { qp.post_recv([RecvRequest::new(1, &[recv.slice(..)])]) }?;
//!     let mut batch = qp.start_send();
//!     batch.op().signaled().send(2, &[send.slice(..5)]);
//!     unsafe { batch.submit() }?;
//!     let mut pending = 2;
//!     while pending > 0 {
//!         if let Some(mut completions) = cq.poll()? {
//!             while let Some(wc) = completions.next() {
//!                 wc.ok().expect("work request failed");
//!                 pending -= 1;
//!             }
//!         }
//!     }
//!     assert_eq!(&recv.bytes_mut()[..5], b"hello");
//!     Ok(())
//! }
//! ```
//!
//! # Where things are
//!
//! | what | C | here |
//! |---|---|---|
//! | devices | `ibv_get_device_list` | [`devices`], [`Device`], [`Context`] |
//! | queries | `ibv_query_*` | [`DeviceAttr`], [`DeviceAttrEx`], [`PortAttr`], [`GidEntry`] |
//! | memory | `ibv_reg_mr` | [`ProtectionDomain::allocate`], [`MemoryRegion`], [`SharedRegion`], [`BufferPool`], [`RemoteMemorySlice`] |
//! | completion queues | `ibv_create_cq_ex` | [`CompletionQueue`], [`Completions`], [`WorkCompletion`], [`Wc`] |
//! | completion events | `ibv_create_comp_channel` | [`CompletionChannel`], [`CompletionQueue::wait`] |
//! | queue pairs | `ibv_create_qp_ex` | [`QueuePairBuilder`], [`QueuePair`], [`QueuePairEndpoint`] |
//! | shared receive queues | `ibv_create_srq` | [`SharedReceiveQueue`] |
//! | datagrams | `ibv_create_ah`, `ibv_attach_mcast` | [`Ud`], [`AddressHandle`], [`Grh`], [`QueuePair::attach_mcast`] |
//! | posting | `ibv_wr_*`, `ibv_post_send`, `ibv_post_recv` | [`SendBatch`], [`SharedBatch`], [`SendOp`], [`Payload`], [`RecvRequest`], [`RecvChain`] |
//! | posting what is moved | the same | [`OwnedQueuePair`], [`OwnedCompletionQueue`], [`OwnedSharedReceiveQueue`], [`Buffer`] |
//! | memory windows | `ibv_alloc_mw` | [`MemoryWindow`] |
//! | memory on the device | `ibv_alloc_dm` | [`DeviceMemory`] |
//! | asynchronous events | `ibv_get_async_event` | [`Context::poll_async_event`], [`AsyncEvent`] |
//! | the connection manager | `rdma_*` | with the feature `rdmacm`: the module `rdmacm` |
//! | what EFA has of its own | `efadv_*` | with the feature `efa`: `Srd`, `efa` |
//! | a device in software | | with the feature `soft`: the module `soft` |
//! | the C API itself | | `ffi` |
//!
//! # Three promises, and what they rest on
//!
//! **Misuse does not compile.** The transport and the state of a queue pair are type parameters.
//!
//! **Safe code cannot cause undefined behaviour.** What the types cannot see, namely who touches a buffer while the
//! device or a peer uses it, is the contract of a few `unsafe` functions: those that post ([`SendBatch::submit`],
//! [`QueuePair::post_recv`] and their like), those that give memory to peers ([`MemoryRegion::remote`],
//! [`SendOp::bind_window`]), and [`ProtectionDomain::register_from_raw`]. Nothing of this is needed for a
//! [`SharedRegion`], which is posted on the level [`Shared`]: there is no reference to it, and it stays registered for
//! as long as anything could reach it; nor for a [`Buffer`], which is moved to an [`OwnedQueuePair`] and back.
//!
//! **The data path is thin.** It calls the driver as the inline functions of the C header do, with no
//! allocation, lock or reference count per operation.
//!
//! # Cargo features
//!
//! How libibverbs is found: `dynamic-loading` (default) opens it at the first verb, `dynamic-linking` links
//! it, `static-linking` builds it in, and `bindgen` makes the bindings from the headers in use. The crate
//! `ibverbs-sys` says more.
//!
//! `rdmacm` adds the module of that name: queue pairs connected by IP address. `tokio` adds what can be awaited: completion
//! queues, asynchronous events of devices, connecting and accepting. `serde` makes what
//! peers exchange serializable: [`QueuePairEndpoint`], [`RemoteMemorySlice`], [`Gid`] and [`Guid`]. `efa` adds what the
//! adapters of Amazon EC2 have of their own: the transport `Srd` and the module `efa`. `soft` adds a device in software.
//!
//! # The provider of the verbs
//!
//! What stands behind the verbs is one *provider* for the whole process: the native library, or with the feature `soft` the
//! software device, which needs no adapter, no kernel module and no rights. It is for development and tests. A program asks
//! for it (`soft::install`), or whoever runs it does:
//!
//! | `IBVERBS_PROVIDER` | |
//! |---|---|
//! | not set, or `native` | the native library |
//! | `soft` | the software device |
//!
//! The variable is read at the first verb. Anything else in it is [`Error::InvalidVariable`], and so is `soft` in a program
//! without the feature; it is [`Error::ProviderChosen`] if the C API was used before. A provider that the program has installed
//! itself (`soft::install`, `ffi::provider::install`) comes first: then the variable is not read. Nothing chooses the software
//! device by itself.
//!
//! # What is not here
//!
//! `ffi` has the C API for what is not wrapped: the repository's page *Coming from C* has the place of each function, and says
//! why.
//!
//! # Threads and `fork`
//!
//! The objects that verbs create are `Send`; a batch, a poll and what is lent by them stay on their thread. A
//! [`CompletionQueue`] is not `Sync`: one owner polls it. See [`fork_init`] for programs that fork.

#[cfg(not(target_os = "linux"))]
compile_error!("ibverbs works on Linux only: RDMA verbs are an interface of the Linux kernel");

// A receive request of the shared level knows its domain where the C structure has padding, which it has there only.
#[cfg(not(target_pointer_width = "64"))]
compile_error!("ibverbs works on 64-bit targets only: ibverbs-sys has bindings for others");

mod ah;
mod attr;
mod c_enum;
mod clock;
mod context;
mod cq;
mod device;
mod dm;
#[cfg(feature = "efa")]
pub mod efa;
mod error;
mod event;
mod fork;
mod gid;
mod grh;
mod handle;
mod mr;
mod mw;
mod owned;
mod pd;
mod post;
mod provider;
mod qp;
#[cfg(feature = "rdmacm")]
pub mod rdmacm;
mod readiness;
#[cfg(feature = "serde")]
mod serialize;
#[cfg(feature = "soft")]
pub mod soft;
mod srq;

/// The raw bindings, for what has no safe wrapper yet: every object has an `as_raw`.
pub use ibverbs_sys as ffi;

pub use ah::{AddressHandle, AddressVector, DatagramSender, GlobalRoute};
pub use attr::*;
pub use clock::RtValues;
pub use context::Context;
#[cfg(feature = "tokio")]
pub use cq::AsyncCompletionQueue;
pub use cq::{
    CompletionChannel, CompletionEvent, CompletionQueue, CompletionQueueBuilder, Completions,
    TagMatchingInfo, Wc, WcError, WcFields, WcFlags, WcOpcode, WcStatus, WorkCompletion,
};
pub use device::{devices, Device, DeviceIter, DeviceList, Guid, NodeType, TransportType};
pub use dm::DeviceMemory;
#[cfg(feature = "efa")]
pub use efa::Srd;
pub use error::{Error, Failed, Result};
#[cfg(feature = "tokio")]
pub use event::AsyncEvents;
pub use event::{AsyncEvent, EventSource, EventType};
pub use fork::{fork_init, ForkStatus};
pub use gid::{Gid, GidEntry, GidType};
pub use grh::Grh;
pub use mr::{
    AccessFlags, Advice, AdviseFlags, LocalMemorySlice, MemoryRegion, PageBuf, RemoteMemorySlice,
    SharedAtomicU64, SharedRegion, SharedSlice,
};
pub use mw::{MemoryWindow, WindowType, WindowType1, WindowType2};
pub use owned::{
    Buffer, BufferPool, Owned, OwnedBatch, OwnedCompletion, OwnedCompletionQueue, OwnedCompletions,
    OwnedOp, OwnedQueuePair, OwnedSharedReceiveQueue,
};
pub use pd::ProtectionDomain;
pub use post::{
    FlushLevel, FlushPlacement, Imm, Level, NoImm, Payload, Raw, RecvChain, RecvRequest, SendBatch,
    SendOp, Shared, SharedBatch, WithoutImm,
};
pub use qp::{
    AckTimeout, Atomic, CanModify, CanReceive, CanSend, Connected, DataInOrder, DataOperation,
    Datagram, Init, Manual, PreparedQueuePair, QpState, QueueLevel, QueuePair, QueuePairAttr,
    QueuePairAttrMask, QueuePairBuilder, QueuePairCapacity, QueuePairEndpoint, Rc, RdmaRead,
    RdmaWrite, Reliable, Reset, RnrRetry, RnrTimer, RouteFailure, Rtr, Rts, SendOps, State,
    TransitionFailure, Transport, Uc, Ud, Unconnected,
};
pub use srq::{SharedReceiveQueue, SharedReceiveQueueAttr, SharedReceiveQueueBuilder};
