//! Where to send: the address of a remote port.

use std::fmt;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use crate::context::ContextInner;
use crate::error::{created, Error, Result};
use crate::ffi;
use crate::gid::{best_of_port, Gid, GidType};
use crate::grh::Grh;
use crate::handle::{Destroy, Handle};
use crate::pd::{PdHandle, ProtectionDomain};
use crate::qp::RouteFailure;

/// The path to a remote port (`struct ibv_ah_attr`).
#[doc(alias = "ibv_ah_attr")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressVector {
    /// The local port to send from. Ports count from 1.
    pub port: u8,
    /// The remote port's local identifier. Means nothing on Ethernet.
    pub dlid: u16,
    /// The service level, 0 to 15; on Ethernet the priority, 0 to 7.
    pub service_level: u8,
    /// The low bits of the local identifier to send from.
    pub src_path_bits: u8,
    /// The static rate (`enum ibv_rate`); 0 for the port's own.
    pub static_rate: u8,
    /// The global route. Needed on Ethernet, and between InfiniBand subnets.
    pub grh: Option<GlobalRoute>,
}

/// The global part of an address (`struct ibv_global_route`): on RoCE v2, an IP header.
#[doc(alias = "ibv_global_route")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GlobalRoute {
    /// The remote port's GID.
    pub dgid: Gid,
    /// The flow label, 20 bits.
    pub flow_label: u32,
    /// The index of the local GID to send from.
    pub gid_index: u8,
    /// The hop limit: on RoCE v2, the time to live.
    pub hop_limit: u8,
    /// The traffic class: on RoCE v2, the type of service.
    pub traffic_class: u8,
}

impl AddressVector {
    /// The path from a local GID, the one at `gid_index` of the table of `port`, to a remote one, or to a
    /// multicast group: all that an address takes on Ethernet. Everything else is zero, but for a hop limit of 64.
    pub fn to_gid(port: u8, gid_index: u8, dgid: Gid) -> AddressVector {
        let grh = GlobalRoute {
            dgid,
            flow_label: 0,
            gid_index,
            hop_limit: DEFAULT_HOP_LIMIT,
            traffic_class: 0,
        };
        AddressVector {
            port,
            dlid: 0,
            service_level: 0,
            src_path_bits: 0,
            static_rate: 0,
            grh: Some(grh),
        }
    }

    pub(crate) fn to_raw(self) -> ffi::ibv_ah_attr {
        let mut raw = MaybeUninit::<ffi::ibv_ah_attr>::zeroed();
        // SAFETY: the structure is numbers and byte arrays, for which zero is valid.
        let raw_ref = unsafe { raw.assume_init_mut() };
        raw_ref.port_num = self.port;
        raw_ref.dlid = self.dlid;
        raw_ref.sl = self.service_level;
        raw_ref.src_path_bits = self.src_path_bits;
        raw_ref.static_rate = self.static_rate;
        if let Some(grh) = self.grh {
            raw_ref.is_global = 1;
            raw_ref.grh.dgid.raw = grh.dgid.into();
            raw_ref.grh.flow_label = grh.flow_label;
            raw_ref.grh.sgid_index = grh.gid_index;
            raw_ref.grh.hop_limit = grh.hop_limit;
            raw_ref.grh.traffic_class = grh.traffic_class;
        }
        *raw_ref
    }

    pub(crate) fn from_raw(raw: &ffi::ibv_ah_attr) -> AddressVector {
        // SAFETY: every bit pattern is valid for the union's bytes.
        let dgid = unsafe { raw.grh.dgid.raw };
        AddressVector {
            port: raw.port_num,
            dlid: raw.dlid,
            service_level: raw.sl,
            src_path_bits: raw.src_path_bits,
            static_rate: raw.static_rate,
            grh: (raw.is_global != 0).then(|| GlobalRoute {
                dgid: Gid::from(dgid),
                flow_label: raw.grh.flow_label,
                gid_index: raw.grh.sgid_index,
                hop_limit: raw.grh.hop_limit,
                traffic_class: raw.grh.traffic_class,
            }),
        }
    }
}

/// Who sent a datagram, as its completion says; from [`WorkCompletion::sender`](crate::WorkCompletion::sender).
///
/// It is a copy, so that it may be used after the poll has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DatagramSender {
    /// The number of the queue pair that sent it.
    pub src_qp: u32,
    /// The sender's local identifier. Means nothing on Ethernet.
    pub slid: u32,
    /// The service level.
    pub service_level: u8,
    /// The low bits of the local identifier that it was sent to.
    pub dlid_path_bits: u8,
    /// Whether the first 40 bytes of the receive are a global route header.
    pub has_grh: bool,
}

/// Refuses what does not fit into a packet's header: providers would cut it off.
pub(crate) fn check_route(service_level: u8, flow_label: u32) -> Result<()> {
    for (what, value, max, expected) in [
        ("the service level", u32::from(service_level), 15, "it must be at most 15"),
        ("the flow label", flow_label, 0xf_ffff, "it has 20 bits"),
    ] {
        if value > max {
            return Err(Error::InvalidArgument { what, value: u64::from(value), expected });
        }
    }
    Ok(())
}

/// As far as a packet goes unless somebody says otherwise.
pub(crate) const DEFAULT_HOP_LIMIT: u8 = 64;

/// The way back to a sender. How far a packet goes on it is not told by the one that came.
const REPLY_HOP_LIMIT: u8 = 255;

impl AddressVector {
    /// The address of whoever sent a datagram that came in at `port`. `received` is the beginning of the
    /// receive: at least 40 bytes, if the completion says that there is a global route header.
    fn of_sender(
        context: &ContextInner,
        port: u8,
        sender: &DatagramSender,
        received: &[u8],
    ) -> Result<AddressVector> {
        let grh = if sender.has_grh {
            let header = received.get(..Grh::BYTES).unwrap_or(received);
            Some(way_back(context, port, &Grh::from_bytes(header)?)?)
        } else {
            None
        };
        Ok(AddressVector {
            port,
            // The extended identifiers of Omni-Path, which alone are longer, do not work with address handles.
            dlid: sender.slid as u16,
            service_level: sender.service_level,
            src_path_bits: sender.dlid_path_bits,
            static_rate: 0,
            grh,
        })
    }
}

fn way_back(context: &ContextInner, port: u8, grh: &Grh) -> Result<GlobalRoute> {
    context.query_port(port)?;
    let local = grh.dgid();
    let mut entries = context.gid_table()?;
    entries.retain(|entry| {
        let is_local = if local.is_multicast() {
            entry.gid().is_ipv4_mapped() == local.is_ipv4_mapped()
        } else {
            entry.gid() == local
        };
        is_local && (entry.gid_type() == GidType::ROCE_V2) == grh.is_roce_v2()
    });
    let entry = best_of_port(&entries, port);
    let gid_index = entry.and_then(|entry| entry.gid_index());
    Ok(GlobalRoute {
        dgid: grh.sgid(),
        flow_label: grh.flow_label(),
        gid_index: gid_index.ok_or(Error::NoGid { port })?,
        hop_limit: REPLY_HOP_LIMIT,
        traffic_class: grh.traffic_class(),
    })
}

/// The way to a remote port, for [datagrams](crate::Datagram).
///
/// It works with the queue pairs of its protection domain, any number of them.
///
/// It may be dropped while datagrams to it are under way, for a device copies the address when an operation is
/// added to a batch. But SoftRoCE, on kernels since 5.18, looks at the handle when it sends: if that is gone by
/// then, the request fails and the queue pair with it. A program that runs there as well keeps a handle
/// until what it sent with it is complete.
#[doc(alias = "ibv_ah")]
pub struct AddressHandle {
    inner: Handle<AhInner>,
}

struct AhInner {
    raw: NonNull<ffi::ibv_ah>,
    pd: PdHandle,
}

// SAFETY: verbs may be called by any thread, as `handle.rs` argues, and what `ibv_create_ah` returned is
// only read after that, by providers as well: they copy the address out of it.
unsafe impl Send for AhInner {}
// SAFETY: as above.
unsafe impl Sync for AhInner {}

impl Destroy for AhInner {
    const RESOURCE: &'static str = "address handle";
    const VERB: &'static str = "ibv_destroy_ah";

    unsafe fn destroy(&mut self) -> i32 {
        // SAFETY: the handle came from `ibv_create_ah`, and is destroyed once as the caller promises.
        unsafe { ffi::ibv_destroy_ah(self.raw.as_ptr()) }
    }
}

impl ProtectionDomain {
    /// Creates an address handle: the way to the port that `address` names. A peer's is at
    /// [`QueuePair::address_of`](crate::QueuePair::address_of).
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidArgument`] if the service level or the flow label is out of its range.
    /// - [`Error::InvalidPort`] if the device has no such port, [`Error::InvalidIndex`] if the port has no GID of
    ///   that index.
    /// - [`Error::Route`] if the route to the port cannot be resolved, or there is none on Ethernet.
    /// - [`Error::Unsupported`] on EFA, if there is no global route.
    /// - [`Error::Verb`] if the device refuses for another reason.
    #[doc(alias = "ibv_create_ah")]
    pub fn create_ah(&self, address: &AddressVector) -> Result<AddressHandle> {
        let flow_label = address.grh.map_or(0, |grh| grh.flow_label);
        check_route(address.service_level, flow_label)?;
        if address.grh.is_none() && self.handle().context().query_device()?.is_efa() {
            // Its kernel driver would take the address to be all zero.
            return Err(Error::Unsupported {
                operation: "an address without a GID, on EFA (`AddressVector::to_gid` makes one that has it)",
            });
        }
        let mut raw = address.to_raw();
        // SAFETY: the domain is alive, and the address is a whole structure.
        let ah = created(|| unsafe { ffi::ibv_create_ah(self.as_raw(), &mut raw) });
        let raw = ah.map_err(|code| self.ah_error(address, code))?;
        let inner = Handle::new(AhInner { raw, pd: self.handle().clone() });
        Ok(AddressHandle { inner })
    }

    #[cold]
    fn ah_error(&self, address: &AddressVector, code: i32) -> Error {
        let context = self.handle().context();
        if let Err(error) = context.query_port(address.port) {
            return error;
        }
        if let Some(grh) = address.grh {
            if let Err(error) = context.check_source_gid(address.port, grh.gid_index) {
                return error;
            }
        }
        match RouteFailure::diagnose(context, "ibv_create_ah", address, code) {
            Some(route) => Error::Route(Box::new(route)),
            None => Error::from_code("ibv_create_ah", code),
        }
    }

    /// Creates an address handle that goes back to whoever sent a datagram. `port` is the one that it came in
    /// at; `received` is the beginning of the receive, of which the first 40 bytes are read if the completion
    /// says that they are a [global route header](Grh).
    ///
    /// The sender can write any address into his packet: what comes back to it is no proof of who asked.
    ///
    /// EFA does not deliver that header: there, a completion may tell the sender's GID (`efa_sender_gid`, of the feature
    /// `efa`), or a peer says it in the message.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidBytes`] if there should be a global route header, but there is none.
    /// - [`Error::NoGid`] if the address that it was sent to is no GID of the port (any more).
    /// - Those of [`create_ah`](Self::create_ah), and of [`gid_table`](crate::Context::gid_table).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use ibverbs::{AddressHandle, MemoryRegion, ProtectionDomain, Result, WorkCompletion};
    /// # fn answer(pd: &ProtectionDomain, wc: WorkCompletion<'_>, region: &MemoryRegion) -> Result<AddressHandle> {
    /// let (sender, length) = (wc.sender(), wc.len() as usize);
    /// let received = &region.bytes()[..length];
    /// pd.create_ah_from_wc(1, &sender, received)
    /// # }
    /// ```
    #[doc(alias = "ibv_create_ah_from_wc")]
    #[doc(alias = "ibv_init_ah_from_wc")]
    pub fn create_ah_from_wc(
        &self,
        port: u8,
        sender: &DatagramSender,
        received: &[u8],
    ) -> Result<AddressHandle> {
        let context = self.handle().context();
        self.create_ah(&AddressVector::of_sender(context, port, sender, received)?)
    }
}

impl AddressHandle {
    /// The number of the queue pair that a datagram to a multicast group is sent to: all that are attached.
    pub const MULTICAST_QPN: u32 = 0x00ff_ffff;

    #[inline]
    pub(crate) fn pd(&self) -> &PdHandle {
        &self.inner.pd
    }

    /// Destroys the handle. Dropping does the same, but cannot tell what went wrong.
    ///
    /// Unlike other objects it is not handed back if that fails, but leaked: one provider (ocrdma) has freed it
    /// by then.
    ///
    /// # Errors
    ///
    /// [`Error::Verb`] if the device refuses; one that was unplugged answers `EIO`.
    #[doc(alias = "ibv_destroy_ah")]
    pub fn close(self) -> Result<()> {
        self.inner.close().map_err(|failed| {
            std::mem::forget(failed.resource);
            failed.error
        })
    }

    /// The C structure.
    #[inline]
    pub fn as_raw(&self) -> *mut ffi::ibv_ah {
        self.inner.raw.as_ptr()
    }
}

impl fmt::Debug for AddressHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddressHandle")
            .field("device", &self.inner.pd.context().device().name())
            .finish_non_exhaustive()
    }
}
