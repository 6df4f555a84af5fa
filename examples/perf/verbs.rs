//! Transports and operations as types: which operation a transport has is decided by the compiler, and so the loops that
//! measure have nothing to decide.

use anyhow::Result;
use ibverbs::{
    AccessFlags, AddressHandle, Atomic, Connected, Grh, Init, Mtu, Payload, ProtectionDomain,
    QueuePair, QueuePairBuilder, QueuePairEndpoint, Rc, RdmaRead, RdmaWrite, RemoteMemorySlice,
    SendOp, SendOps, Shared, SharedBatch, SharedSlice, Transport, Uc, Ud,
};

/// How queue pairs of a transport are connected, and how an operation finds its peer.
pub(crate) trait Way: Transport {
    /// What must be known of the peer to send to it.
    type To;

    /// Whether a message arrives, or the queue pair fails.
    const IS_RELIABLE: bool;

    /// How many bytes stand before a message that was received.
    const HEADER: usize;

    /// Makes packets no longer than this.
    fn set_mtu(builder: QueuePairBuilder<'_, Self>, mtu: Mtu) -> QueuePairBuilder<'_, Self>;

    fn connect(
        pd: &ProtectionDomain,
        qp: QueuePair<Self, Init>,
        endpoint: QueuePairEndpoint,
    ) -> Result<(QueuePair<Self>, Self::To)>;

    /// Begins an operation.
    fn op<'b, 'qp>(
        batch: &'b mut SharedBatch<'qp, Self>,
        to: &'qp Self::To,
    ) -> SendOp<'b, Self, Shared>;
}

macro_rules! connected {
    ($transport:ty, reliable: $is_reliable:literal) => {
        impl Way for $transport {
            type To = ();
            const IS_RELIABLE: bool = $is_reliable;
            const HEADER: usize = 0;

            fn set_mtu(
                builder: QueuePairBuilder<'_, Self>,
                mtu: Mtu,
            ) -> QueuePairBuilder<'_, Self> {
                builder.set_path_mtu(mtu)
            }

            fn connect(
                _: &ProtectionDomain,
                qp: QueuePair<Self, Init>,
                endpoint: QueuePairEndpoint,
            ) -> Result<(QueuePair<Self>, ())> {
                Ok((handshake(qp, endpoint)?, ()))
            }

            #[inline]
            fn op<'b, 'qp>(
                batch: &'b mut SharedBatch<'qp, Self>,
                _: &'qp (),
            ) -> SendOp<'b, Self, Shared> {
                batch.op()
            }
        }
    };
}

connected!(Rc, reliable: true);
connected!(Uc, reliable: false);

fn handshake<T: Connected>(
    qp: QueuePair<T, Init>,
    endpoint: QueuePairEndpoint,
) -> Result<QueuePair<T>> {
    Ok(qp.handshake(endpoint)?)
}

/// Datagrams with another key are dropped.
const QKEY: u32 = 0x1bad_cafe;

impl Way for Ud {
    type To = (AddressHandle, u32);
    const IS_RELIABLE: bool = false;
    const HEADER: usize = Grh::BYTES;

    fn set_mtu(builder: QueuePairBuilder<'_, Self>, _: Mtu) -> QueuePairBuilder<'_, Self> {
        builder
    }

    fn connect(
        pd: &ProtectionDomain,
        qp: QueuePair<Self, Init>,
        endpoint: QueuePairEndpoint,
    ) -> Result<(QueuePair<Self>, Self::To)> {
        let handle = pd.create_ah(&qp.address_of(&endpoint)?)?;
        Ok((qp.activate(QKEY)?, (handle, endpoint.qp_num())))
    }

    #[inline]
    fn op<'b, 'qp>(
        batch: &'b mut SharedBatch<'qp, Self>,
        (handle, number): &'qp Self::To,
    ) -> SendOp<'b, Self, Shared> {
        batch.to(handle, *number, QKEY)
    }
}

/// What an operation carries, and where to.
#[derive(Clone, Copy)]
pub(crate) struct Load<'m> {
    /// Memory of this side.
    pub(crate) memory: [SharedSlice<'m>; 1],
    /// What is sent instead, unless it is empty.
    pub(crate) inline: &'m [u8],
    /// Memory of the peer's.
    pub(crate) remote: RemoteMemorySlice,
}

impl Load<'_> {
    #[inline]
    fn payload(&self) -> Payload<'_, Shared> {
        if self.inline.is_empty() {
            (&self.memory).into()
        } else {
            self.inline.into()
        }
    }
}

/// How an operation is noticed by whoever waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// By the completion of a receive, at the peer.
    Receive,
    /// By a look into memory, at the peer.
    Memory,
    /// By its own completion.
    Completion,
}

/// An operation that the transport `T` has.
pub(crate) trait Verb<T: Way>: Copy + Default {
    /// What a queue pair is created for.
    const OPS: SendOps;
    /// What the peer may do with the memory of this side.
    const RIGHTS: AccessFlags;
    const NOTICE: Notice;

    /// Adds the operation to a batch. `number` is how many came before it on the queue pair: it tells it from others where
    /// some may be lost.
    fn add(self, op: SendOp<'_, T, Shared>, id: u64, load: &Load<'_>, number: u64);
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Send;
#[derive(Clone, Copy, Default)]
pub(crate) struct Write;
#[derive(Clone, Copy, Default)]
pub(crate) struct Read;
#[derive(Clone, Copy, Default)]
pub(crate) struct FetchAdd;
#[derive(Clone, Copy, Default)]
pub(crate) struct CompareSwap;

impl<T: Way> Verb<T> for Send {
    const OPS: SendOps = if T::IS_RELIABLE { SendOps::SEND } else { SendOps::SEND_WITH_IMM };
    const RIGHTS: AccessFlags = AccessFlags::empty();
    const NOTICE: Notice = Notice::Receive;

    #[inline]
    fn add(self, op: SendOp<'_, T, Shared>, id: u64, load: &Load<'_>, number: u64) {
        if T::IS_RELIABLE {
            op.send(id, load.payload());
        } else {
            op.imm(number as u32).send(id, load.payload());
        }
    }
}

impl<T: Way + RdmaWrite> Verb<T> for Write {
    const OPS: SendOps = SendOps::RDMA_WRITE;
    const RIGHTS: AccessFlags = AccessFlags::REMOTE_WRITE;
    const NOTICE: Notice = Notice::Memory;

    #[inline]
    fn add(self, op: SendOp<'_, T, Shared>, id: u64, load: &Load<'_>, _: u64) {
        op.write(id, load.payload(), load.remote);
    }
}

impl<T: Way + RdmaRead> Verb<T> for Read {
    const OPS: SendOps = SendOps::RDMA_READ;
    const RIGHTS: AccessFlags = AccessFlags::REMOTE_READ;
    const NOTICE: Notice = Notice::Completion;

    #[inline]
    fn add(self, op: SendOp<'_, T, Shared>, id: u64, load: &Load<'_>, _: u64) {
        op.read(id, &load.memory, load.remote);
    }
}

impl<T: Way + Atomic> Verb<T> for FetchAdd {
    const OPS: SendOps = SendOps::ATOMIC_FETCH_AND_ADD;
    const RIGHTS: AccessFlags = AccessFlags::REMOTE_ATOMIC;
    const NOTICE: Notice = Notice::Completion;

    #[inline]
    fn add(self, op: SendOp<'_, T, Shared>, id: u64, load: &Load<'_>, _: u64) {
        op.atomic_fetch_add(id, load.memory[0], load.remote, 1);
    }
}

impl<T: Way + Atomic> Verb<T> for CompareSwap {
    const OPS: SendOps = SendOps::ATOMIC_CMP_AND_SWP;
    const RIGHTS: AccessFlags = AccessFlags::REMOTE_ATOMIC;
    const NOTICE: Notice = Notice::Completion;

    #[inline]
    fn add(self, op: SendOp<'_, T, Shared>, id: u64, load: &Load<'_>, number: u64) {
        // The memory begins with zero: each of them replaces what the one before has left.
        op.atomic_cmp_swap(id, load.memory[0], load.remote, number, number + 1);
    }
}
