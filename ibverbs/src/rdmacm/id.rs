//! Identifiers: what a connection, or a listener, is to the connection manager.

mod events;

use std::ffi::{c_int, c_void};
use std::fmt;
use std::net::SocketAddr;
use std::ptr::{self, NonNull};
use std::time::Duration;

use super::address::{from_storage, RawAddress};
use super::channel::{EventChannel, Turn};
use super::device;
use super::params::{ConnectionParams, PrivateDataLimit};
use super::port_space::{self, PortSpace};
use crate::context::Context;
use crate::device::Device;
use crate::error::{last_errno, Error, Failed, Result};
use crate::event::EventType;
use crate::ffi;
use crate::handle::{Destroy, Handle};
use crate::qp::QpState;

/// An identifier of the connection manager: the end of a connection to be, or a listener. It does not wait for the peer:
/// what it is asked for ends with an event.
///
/// | a client asks for | which ends with | a server asks for | which ends with |
/// |---|---|---|---|
/// | [`resolve_addr`](Self::resolve_addr) | `ADDR_RESOLVED` | [`bind_addr`](Self::bind_addr), [`listen`](Self::listen) | `CONNECT_REQUEST`, with an identifier for each |
/// | [`resolve_route`](Self::resolve_route) | `ROUTE_RESOLVED` | [`bring_up`](Self::bring_up), [`accept`](Self::accept) | `ESTABLISHED` |
/// | [`connect`](Self::connect) | `CONNECT_RESPONSE`, or `REJECTED` | | |
/// | [`bring_up`](Self::bring_up), [`establish`](Self::establish) | | | |
/// | [`disconnect`](Self::disconnect) | `DISCONNECTED` | [`disconnect`](Self::disconnect) | `DISCONNECTED` |
///
/// Its events come on [its own channel](Self::poll_cm_event), or on [one that it shares](Self::create_on). Programs
/// that may wait are shorter with [`Connector`](super::Connector) and [`Acceptor`](super::Acceptor).
///
/// The queue pair is the program's own: the identifier only says which attributes it takes, and
/// [`bring_up`](Self::bring_up) applies them. Dropping the identifier ends the connection for the peer; a request
/// that was not accepted is rejected. The queue pair stays as it is. That message is sent once, and may be lost;
/// [`disconnect`](Self::disconnect) repeats it.
#[doc(alias = "rdma_cm_id")]
#[must_use = "dropping it ends the connection, or rejects the request"]
pub struct CmId {
    inner: Handle<IdInner>,
}

struct IdInner {
    /// `None` once it had to be given up: see [`IdInner::leave`].
    raw: Option<NonNull<ffi::rdma_cm_id>>,
    channel: EventChannel,
    /// Whether nobody else's events come on the channel.
    owns_channel: bool,
    /// Whether it has accepted a connection request.
    accepted: bool,
    /// The multicast groups that were joined, or are being joined.
    groups: Vec<SocketAddr>,
}

// SAFETY: an identifier may be used by any thread, by one at a time: everything that touches it takes its channel's
// turn. What librdmacm shares between identifiers is under its own locks (`mut` in librdmacm/cma.c, `acm_lock` in acm.c),
// but for three things: `ucma_init` looks whether it was called, which it was when the first channel was created;
// `af_ib_support` is not written after that; and `ucma_idm`, whose entries are pointers, is read for events that name no
// identifier only, which kernels since 5.10 do not send.
unsafe impl Send for IdInner {}

impl Destroy for IdInner {
    const RESOURCE: &'static str = "connection identifier";
    const VERB: &'static str = "rdma_destroy_id";

    unsafe fn destroy(&mut self) -> i32 {
        let groups = std::mem::take(&mut self.groups);
        let Some(raw) = self.raw else { return 0 };
        let mut turn = self.channel.handle().turn();
        // librdmacm would lose what it keeps for a group that is not left.
        let mut all_left = true;
        for group in groups {
            all_left &= leave(raw, group) == 0;
        }
        destroy(raw, all_left, &mut turn)
    }
}

/// Destroys an identifier. If groups were not left as they should be, that must succeed: see [`IdInner::leave`].
fn destroy(raw: NonNull<ffi::rdma_cm_id>, all_left: bool, turn: &mut Turn<'_>) -> c_int {
    // SAFETY: the identifier came from librdmacm, and is destroyed once, for who calls this forgets it unless this fails.
    // It is this thread's turn, all its events were acknowledged, so that this does not wait for any, and it
    // has no queue pair that librdmacm knows of.
    let code = unsafe { ffi::rdma_destroy_id(raw.as_ptr()) };
    if code != 0 && !all_left {
        turn.give_up();
    }
    code
}

/// Leaves a multicast group, when it is the caller's turn.
fn leave(raw: NonNull<ffi::rdma_cm_id>, group: SocketAddr) -> c_int {
    let mut address = RawAddress::new(group);
    // SAFETY: the identifier is alive, it is this thread's turn, and the address is a whole one of its family. Each event
    // of the membership that was read is acknowledged, so that this does not wait.
    unsafe { ffi::rdma_leave_multicast(raw.as_ptr(), address.as_mut_ptr()) }
}

impl IdInner {
    /// Calls a function of librdmacm for this identifier, when it is this thread's turn. Returns the error number.
    fn call(&self, call: impl FnOnce(*mut ffi::rdma_cm_id) -> c_int) -> Result<(), c_int> {
        let Some(raw) = self.raw else { return Err(libc::ENODEV) };
        let _turn = self.channel.handle().turn();
        // Functions of librdmacm return -1 and set `errno`.
        match call(raw.as_ptr()) {
            0 => Ok(()),
            _ => Err(last_errno()),
        }
    }

    /// Reads something of the identifier, when it is this thread's turn. One that was given up is empty.
    fn read<R>(&self, read: impl FnOnce(&ffi::rdma_cm_id) -> R) -> R {
        let Some(raw) = self.raw else { return read(&ffi::rdma_cm_id::default()) };
        let _turn = self.channel.handle().turn();
        // SAFETY: the identifier is alive, and nobody else writes to it while it is this thread's turn.
        read(unsafe { raw.as_ref() })
    }

    /// Leaves a multicast group.
    ///
    /// If the kernel refuses, because the device was removed, librdmacm has freed what events of this membership point
    /// to, and such events may come yet. Destroying the identifier removes them. So it is given up, before the next event
    /// is taken.
    fn leave(&mut self, group: SocketAddr) -> Result<(), c_int> {
        let Some(raw) = self.raw else { return Err(libc::ENODEV) };
        let mut turn = self.channel.handle().turn();
        if leave(raw, group) == 0 {
            return Ok(());
        }
        let code = last_errno();
        if destroy(raw, false, &mut turn) != 0 {
            // Nothing is taken from the channel any more. The identifier is lost, and so is the channel, which it
            // points to.
            std::mem::forget(self.channel.clone());
        }
        drop(turn);
        self.raw = None;
        Err(code)
    }
}

impl CmId {
    /// Creates an identifier with an event channel of its own.
    ///
    /// # Errors
    ///
    /// Those of [`EventChannel::create`], and [`Error::Verb`] if the kernel refuses.
    #[doc(alias = "rdma_create_id")]
    pub fn create<P: PortSpace>(port_space: P) -> Result<CmId> {
        CmId::new(port_space, EventChannel::create()?, true)
    }

    /// Creates an identifier whose events come on a channel that it may share with others. What it was given with
    /// [`set_context`](Self::set_context) tells it from them.
    ///
    /// # Errors
    ///
    /// [`Error::Verb`] if the kernel refuses.
    #[doc(alias = "rdma_create_id")]
    pub fn create_on<P: PortSpace>(channel: &EventChannel, port_space: P) -> Result<CmId> {
        CmId::new(port_space, channel.clone(), false)
    }

    fn new<P: PortSpace>(_: P, channel: EventChannel, owns_channel: bool) -> Result<CmId> {
        let mut raw = ptr::null_mut();
        // SAFETY: the channel is alive, and the second argument points to a pointer. Nothing is done with the
        // context, which is null.
        let code = unsafe {
            ffi::rdma_create_id(channel.handle().as_raw(), &mut raw, ptr::null_mut(), P::RAW)
        };
        match NonNull::new(raw) {
            Some(raw) if code == 0 => Ok(CmId::from_parts(raw, channel, owns_channel)),
            _ => Err(Error::last_os_error("rdma_create_id")),
        }
    }

    fn from_parts(
        raw: NonNull<ffi::rdma_cm_id>,
        channel: EventChannel,
        owns_channel: bool,
    ) -> CmId {
        let (raw, accepted, groups) = (Some(raw), false, Vec::new());
        CmId { inner: Handle::new(IdInner { raw, channel, owns_channel, accepted, groups }) }
    }

    /// The identifier that came with a connection request.
    ///
    /// # Safety
    ///
    /// librdmacm has created it for an event of this channel, and nobody else destroys it.
    pub(super) unsafe fn from_request(raw: *mut ffi::rdma_cm_id, channel: &EventChannel) -> CmId {
        // SAFETY: librdmacm points to a new identifier with each connection request.
        let raw = unsafe { NonNull::new_unchecked(raw) };
        CmId::from_parts(raw, channel.clone(), false)
    }

    /// What comes with the events of this identifier: a number that tells it from others on its channel. The identifier
    /// of a connection request begins with that of the listening one.
    pub fn set_context(&mut self, context: u64) {
        let context = ptr::null_mut::<c_void>().wrapping_byte_add(context as usize);
        let Some(raw) = self.inner.raw else { return };
        let _turn = self.inner.channel.handle().turn();
        // SAFETY: the identifier is alive, and it is this thread's turn. librdmacm keeps the value and does not
        // follow it.
        unsafe { (*raw.as_ptr()).context = context };
    }

    /// What [`set_context`](Self::set_context) was given; 0 before.
    pub fn context_value(&self) -> u64 {
        self.inner.read(|id| id.context) as u64
    }

    /// Binds the identifier to a local address, and to its device unless it is a wildcard. Port 0 takes any that is
    /// free; [`local_addr`](Self::local_addr) tells which.
    ///
    /// # Errors
    ///
    /// [`Error::BindAddress`] if the address is in use, is no address of an RDMA device, or the identifier is bound.
    #[doc(alias = "rdma_bind_addr")]
    pub fn bind_addr(&mut self, address: SocketAddr) -> Result<()> {
        let mut raw = RawAddress::new(address);
        // SAFETY: the identifier is alive, and the address is a whole one of its family.
        let bound = self.inner.call(|id| unsafe { ffi::rdma_bind_addr(id, raw.as_mut_ptr()) });
        bound.map_err(|code| {
            let source = std::io::Error::from_raw_os_error(code);
            Error::BindAddress { address, source }
        })
    }

    /// Takes connection requests from now on: each is an event, and comes with an identifier. `backlog` is how many
    /// may wait; 0 lets the kernel choose.
    ///
    /// # Errors
    ///
    /// [`Error::Verb`] if the kernel refuses.
    #[doc(alias = "rdma_listen")]
    pub fn listen(&mut self, backlog: u32) -> Result<()> {
        let backlog = c_int::try_from(backlog).unwrap_or(c_int::MAX);
        // SAFETY: the identifier is alive.
        self.verb("rdma_listen", |id| unsafe { ffi::rdma_listen(id, backlog) })
    }

    /// Begins to resolve the address of a peer: finds out which device leads there. `source` is the local address to
    /// use, if it matters. Ends with `ADDR_RESOLVED` or `ADDR_ERROR`, within about `timeout`.
    ///
    /// # Errors
    ///
    /// [`Error::Resolve`] if there is no route to the peer, if no RDMA device has the address `source`, if
    /// the identifier has resolved an address before, or the two are of different families.
    #[doc(alias = "rdma_resolve_addr")]
    pub fn resolve_addr(
        &mut self,
        source: Option<SocketAddr>,
        destination: SocketAddr,
        timeout: Duration,
    ) -> Result<()> {
        let mut source = source.map(RawAddress::new);
        let source = source.as_mut().map_or(ptr::null_mut(), RawAddress::as_mut_ptr);
        let mut raw = RawAddress::new(destination);
        let timeout = milliseconds(timeout);
        let begun = self.inner.call(|id| {
            // SAFETY: the identifier is alive; the addresses are whole ones of their families, or the first is
            // null.
            unsafe { ffi::rdma_resolve_addr(id, source, raw.as_mut_ptr(), timeout) }
        });
        begun.map_err(|code| resolve_error("rdma_resolve_addr", destination, code))
    }

    /// Begins to resolve the route to the peer. Ends with `ROUTE_RESOLVED` or `ROUTE_ERROR`, within about `timeout`.
    ///
    /// If InfiniBand's assistant `ibacm` runs on this host, librdmacm asks it first, and waits for its answer.
    ///
    /// # Errors
    ///
    /// - [`Error::NotBound`] if the identifier has no device yet.
    /// - [`Error::Resolve`] if no address is resolved, or no device leads to it, as to `127.0.0.1`.
    /// - [`Error::Verb`] if there is no peer.
    #[doc(alias = "rdma_resolve_route")]
    pub fn resolve_route(&mut self, timeout: Duration) -> Result<()> {
        self.check_device()?;
        let timeout = milliseconds(timeout);
        // SAFETY: the identifier is alive, and has a device, which this function looks at.
        let begun = self.inner.call(|id| unsafe { ffi::rdma_resolve_route(id, timeout) });
        begun.map_err(|code| match self.peer_addr() {
            Some(peer) => resolve_error("rdma_resolve_route", peer, code),
            None => Error::from_code("rdma_resolve_route", code),
        })
    }

    /// Begins to connect: sends the request. Ends with `CONNECT_RESPONSE`, after which the queue pair is
    /// [brought up](Self::bring_up) and the connection [established](Self::establish); or with `REJECTED` or
    /// `UNREACHABLE`. In a datagram port space, ends with `ESTABLISHED`, which tells the peer's queue pair.
    ///
    /// See [`ConnectionParams::for_queue_pair`]; datagrams only take the private data.
    ///
    /// # Errors
    ///
    /// - [`Error::NotBound`] if the identifier has no device yet.
    /// - [`Error::PrivateDataTooLong`] if there is more private data than the request carries.
    /// - [`Error::InvalidArgument`] if a retry count is out of its range.
    /// - [`Error::Verb`] with `EINVAL` if more reads and atomics are asked for than the device can do, or the route
    ///   is not resolved.
    #[doc(alias = "rdma_connect")]
    pub fn connect(&mut self, params: &ConnectionParams) -> Result<()> {
        let limit = self.limit(PrivateDataLimit::CONNECT, PrivateDataLimit::CONNECT_DATAGRAM)?;
        let mut raw = params.to_raw(limit)?;
        // SAFETY: the identifier is alive and has a device, which this function looks at. The parameters are a whole
        // structure, whose private data is borrowed from `params`.
        self.verb("rdma_connect", |id| unsafe { ffi::rdma_connect(id, &mut raw) })
    }

    /// Accepts a connection request, when the queue pair was [brought up](Self::bring_up). Ends with
    /// `ESTABLISHED`. In a datagram port space, tells the peer the queue pair of
    /// [these parameters](ConnectionParams::set_qp_num), and nothing follows.
    ///
    /// # Errors
    ///
    /// - [`Error::NothingToAnswer`] if there is no request, or none any more: the peer may have given up.
    /// - Those of [`connect`](Self::connect). If the kernel refuses, it has rejected the request.
    #[doc(alias = "rdma_accept")]
    pub fn accept(&mut self, params: &ConnectionParams) -> Result<()> {
        let limit = self.limit(PrivateDataLimit::ACCEPT, PrivateDataLimit::ACCEPT_DATAGRAM)?;
        let mut raw = params.to_raw(limit)?;
        self.check_answerable()?;
        // SAFETY: as for `connect`.
        self.verb("rdma_accept", |id| unsafe { ffi::rdma_accept(id, &mut raw) })?;
        self.inner.accepted = true;
        Ok(())
    }

    /// Rejects a connection request that was not accepted, or a client the response. What the peer sees is
    /// [`RejectReason::CONSUMER_DEFINED`], and the private data.
    ///
    /// # Errors
    ///
    /// - [`Error::NotBound`] if the identifier has no device yet.
    /// - [`Error::PrivateDataTooLong`] if there is more private data than a refusal carries.
    /// - [`Error::NothingToAnswer`] if there is neither a request nor a response, or none any more.
    /// - [`Error::Verb`] if the kernel refuses.
    ///
    /// [`RejectReason::CONSUMER_DEFINED`]: super::RejectReason::CONSUMER_DEFINED
    #[doc(alias = "rdma_reject")]
    pub fn reject(&mut self, private_data: &[u8]) -> Result<()> {
        self.reject_with("rdma_reject", ffi::rdma_reject, private_data)
    }

    /// Rejects a connection request because of the vendor's options that it asks for. What the peer sees is
    /// [`RejectReason::VENDOR_OPTION_NOT_SUPPORTED`], and the private data.
    ///
    /// # Errors
    ///
    /// Those of [`reject`](Self::reject).
    ///
    /// [`RejectReason::VENDOR_OPTION_NOT_SUPPORTED`]: super::RejectReason::VENDOR_OPTION_NOT_SUPPORTED
    #[doc(alias = "rdma_reject_ece")]
    pub fn reject_ece(&mut self, private_data: &[u8]) -> Result<()> {
        self.reject_with("rdma_reject_ece", ffi::rdma_reject_ece, private_data)
    }

    fn reject_with(
        &mut self,
        verb: &'static str,
        reject: unsafe fn(*mut ffi::rdma_cm_id, *const c_void, u8) -> c_int,
        private_data: &[u8],
    ) -> Result<()> {
        let limit = self.limit(PrivateDataLimit::REJECT, PrivateDataLimit::ACCEPT_DATAGRAM)?;
        let len = limit.check(private_data)?;
        self.check_answerable()?;
        // SAFETY: the identifier is alive, and the private data has this length.
        self.verb(verb, |id| unsafe { reject(id, private_data.as_ptr().cast(), len) })
    }

    /// Confirms a connection, after `CONNECT_RESPONSE` and when the queue pair was brought up: the peer's event is
    /// `ESTABLISHED`. Here, nothing follows.
    ///
    /// # Errors
    ///
    /// - [`Error::PortSpaceMismatch`] in a datagram port space, where nothing is confirmed.
    /// - [`Error::NotBound`] if the identifier has no device yet.
    /// - [`Error::NothingToAnswer`] if there is no response.
    /// - [`Error::Verb`] if the kernel refuses.
    #[doc(alias = "rdma_establish")]
    pub fn establish(&mut self) -> Result<()> {
        self.check_port_space(false)?;
        self.check_answerable()?;
        // SAFETY: the identifier is alive.
        self.verb("rdma_establish", |id| unsafe { ffi::rdma_establish(id) })
    }

    /// That there is a request or a response to answer. If there is none, or it was accepted, the kernel sends a
    /// rejection, forgets that it still waits for an answer itself, and lets the identifier be destroyed only when it
    /// has given up waiting, after more than a minute.
    pub(super) fn check_answerable(&mut self) -> Result<()> {
        self.check_device()?;
        // What the peer has sent is in these attributes.
        let is_there = self.is_datagram() || self.qp_attr(QpState::RTR).is_ok();
        if self.inner.accepted || !is_there {
            let source = std::io::Error::from_raw_os_error(libc::EINVAL);
            return Err(Error::NothingToAnswer { source });
        }
        Ok(())
    }

    /// Why a request or a response could not be answered: a peer may give up at any moment, which shows in the verb that
    /// comes next.
    pub(super) fn explain<R>(&mut self, failed: Failed<R>) -> Failed<R> {
        match self.check_answerable() {
            Ok(()) => failed,
            Err(error) => Failed { error, ..failed },
        }
    }

    /// Ends the connection, or answers the peer that has ended it. Ends with `DISCONNECTED`.
    ///
    /// What the queue pair has still to do is not waited for, and the queue pair is not told. To flush it, ask it for
    /// [`QpState::ERR`](crate::QpState::ERR) before.
    ///
    /// # Errors
    ///
    /// - [`Error::NotBound`] if the identifier has no device yet.
    /// - [`Error::Verb`] with `EINVAL` if no connection was asked for. That it is over already is no error.
    #[doc(alias = "rdma_disconnect")]
    pub fn disconnect(&mut self) -> Result<()> {
        self.check_device()?;
        // SAFETY: the identifier is alive, and has a device, which this function looks at.
        self.verb("rdma_disconnect", |id| unsafe { ffi::rdma_disconnect(id) })
    }

    /// Tells the connection manager of an asynchronous event of the queue pair. The one that matters is
    /// [`EventType::COMM_EST`]: data has arrived before the peer's confirmation, which may be lost.
    ///
    /// # Errors
    ///
    /// [`Error::Verb`] if there is no connection, or the event is of another kind.
    #[doc(alias = "rdma_notify")]
    pub fn notify(&mut self, event: EventType) -> Result<()> {
        // SAFETY: the identifier is alive.
        self.verb("rdma_notify", |id| unsafe { ffi::rdma_notify(id, event.0) })
    }

    /// The local address: where a listener listens, and from where a connection goes. `None` before it is known.
    #[doc(alias = "rdma_get_local_addr")]
    #[doc(alias = "rdma_get_src_port")]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.inner.read(|id| {
            // SAFETY: every bit pattern is valid for the storage, which is the largest member of the union.
            from_storage(unsafe { &id.route.addr.__bindgen_anon_1.src_storage })
        })
    }

    /// The peer's address. `None` before it is known.
    #[doc(alias = "rdma_get_peer_addr")]
    #[doc(alias = "rdma_get_dst_port")]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        let address = self.inner.read(|id| {
            // SAFETY: as for `local_addr`.
            from_storage(unsafe { &id.route.addr.__bindgen_anon_2.dst_storage })
        });
        // The kernel gives an identifier that is bound a peer's address of the same family, which is all zero.
        address.filter(|address| !address.ip().is_unspecified() || address.port() != 0)
    }

    /// The port of the device, for [`create_qp`](crate::ProtectionDomain::create_qp). `None` if the identifier has no
    /// device yet.
    pub fn port(&self) -> Option<u8> {
        self.inner.read(|id| (!id.verbs.is_null()).then_some(id.port_num))
    }

    /// The device that the identifier is bound to, opened for the program: as long as there is a handle of it, all
    /// identifiers of this device have the same. Queue pairs may be created from it, or from another context of the
    /// same device.
    ///
    /// # Errors
    ///
    /// - [`Error::NotBound`] if the identifier has no device yet.
    /// - Those of [`Device::open`](crate::Device::open).
    pub fn context(&self) -> Result<Context> {
        device::context(&self.device()?)
    }

    /// The device that the identifier is bound to.
    pub(super) fn device(&self) -> Result<Device<'_>> {
        let context = NonNull::new(self.inner.read(|id| id.verbs)).ok_or(Error::NotBound)?;
        // SAFETY: librdmacm has opened the context, and keeps it open for as long as an identifier is bound to it, which
        // the borrow of self sees to.
        Ok(unsafe { device::of_context(context) })
    }

    pub(super) fn check_device(&self) -> Result<()> {
        self.device().map(drop)
    }

    /// Whether its queue pairs are of datagrams.
    pub(super) fn is_datagram(&self) -> bool {
        self.inner.read(|id| id.qp_type) == ffi::IBV_QPT_UD
    }

    /// Whether it is of this port space.
    pub(super) fn is_of<P: PortSpace>(&self, _: P) -> bool {
        self.inner.read(|id| id.ps) == P::RAW
    }

    /// That its queue pairs are of datagrams, or that they are not.
    pub(super) fn check_port_space(&self, datagram: bool) -> Result<()> {
        if self.is_datagram() == datagram {
            return Ok(());
        }
        let expected = if datagram { "one of datagrams" } else { "one of connections" };
        Err(Error::PortSpaceMismatch { port_space: self.port_space(), expected })
    }

    /// The name of its port space.
    pub(super) fn port_space(&self) -> &'static str {
        port_space::name(self.inner.read(|id| id.ps))
    }

    /// How much private data a message can carry, if the identifier has a device.
    fn limit(
        &self,
        connected: PrivateDataLimit,
        datagram: PrivateDataLimit,
    ) -> Result<PrivateDataLimit> {
        self.check_device()?;
        Ok(if self.is_datagram() { datagram } else { connected })
    }

    /// Calls a function of librdmacm for this identifier.
    pub(super) fn verb(
        &mut self,
        verb: &'static str,
        call: impl FnOnce(*mut ffi::rdma_cm_id) -> c_int,
    ) -> Result<()> {
        self.inner.call(call).map_err(|code| Error::from_code(verb, code))
    }

    pub(super) fn groups_mut(&mut self) -> &mut Vec<SocketAddr> {
        &mut self.inner.groups
    }

    pub(super) fn leave_group(&mut self, group: SocketAddr) -> Result<(), c_int> {
        self.inner.leave(group)
    }

    /// Destroys the identifier. Dropping does the same, but cannot tell what went wrong.
    ///
    /// # Errors
    ///
    /// [`Error::Verb`] if the kernel refuses.
    #[doc(alias = "rdma_destroy_id")]
    pub fn close(self) -> Result<(), Failed<Self>> {
        self.inner.close().map_err(|failed| failed.map(|inner| CmId { inner }))
    }

    /// The C structure. Taking events writes to it, on whatever thread that happens. Null if it had to be given up: see
    /// [`leave_multicast`](Self::leave_multicast).
    pub fn as_raw(&self) -> *mut ffi::rdma_cm_id {
        self.inner.raw.map_or(ptr::null_mut(), NonNull::as_ptr)
    }
}

fn resolve_error(verb: &'static str, address: SocketAddr, code: c_int) -> Error {
    Error::Resolve { verb, address, source: std::io::Error::from_raw_os_error(code) }
}

/// A time as librdmacm takes it: at least one millisecond, so that a short one is not none.
fn milliseconds(time: Duration) -> c_int {
    c_int::try_from(time.as_millis()).unwrap_or(c_int::MAX).max(1)
}

impl fmt::Debug for CmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CmId")
            .field("port_space", &format_args!("{}", self.port_space()))
            .field("local_addr", &self.local_addr())
            .field("peer_addr", &self.peer_addr())
            .finish_non_exhaustive()
    }
}
