//! Calls on librdmacm that are expected to succeed, and those that are not.

use std::ffi::c_int;
use std::io::Error;
use std::net::{SocketAddr, SocketAddrV4};
use std::ops::Deref;
use std::ptr::{null_mut, NonNull};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ibverbs_sys as ffi;
use null_provider::{CmArgs, Controls, Kind, Verb};

/// The provider, for one test at a time. At the end of a test there must be no violation, and nothing may be
/// alive.
pub(crate) struct Null {
    controls: &'static Controls,
    _serial: MutexGuard<'static, ()>,
}

pub(crate) fn null() -> Null {
    static SERIAL: Mutex<()> = Mutex::new(());
    let serial = SERIAL.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the tests change values, and nothing else.
    let controls = unsafe { null_provider::install() }.unwrap();
    controls.reset();
    Null { controls, _serial: serial }
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

impl Null {
    /// Lets waits that are in vain end soon.
    pub(crate) fn be_impatient(&self) {
        self.configure(|config| config.patience = Some(Duration::from_millis(20)));
    }

    pub(crate) fn controls(&self) -> &'static Controls {
        self.controls
    }

    /// That this is what was done wrong, and nothing else.
    #[track_caller]
    pub(crate) fn expect_violation(&self, expected: &str) {
        let found = self.take_violations();
        assert!(found.len() == 1 && found[0].contains(expected), "{found:?}");
    }

    /// The arguments of the last call of this function, since the last look.
    #[track_caller]
    pub(crate) fn args(&self, verb: Verb) -> CmArgs {
        let calls = self.take_cm_calls().into_iter();
        let last = calls.rev().find(|call| call.verb == verb);
        last.expect("the function was called").args
    }
}

/// What a function of librdmacm has returned.
#[track_caller]
pub(crate) fn ok(code: c_int) {
    assert_eq!(code, 0, "{}", Error::last_os_error());
}

#[track_caller]
pub(crate) fn fails(code: c_int, with: c_int) {
    let errno = Error::last_os_error();
    assert_eq!((code, errno.raw_os_error()), (-1, Some(with)), "{errno}");
}

/// An address in the form that C has.
pub(crate) struct SockAddr(libc::sockaddr_in);

impl SockAddr {
    pub(crate) fn raw(&mut self) -> *mut libc::sockaddr {
        (&raw mut self.0).cast()
    }
}

/// An address like "10.0.0.1:7".
pub(crate) fn addr(text: &str) -> SockAddr {
    let addr: SocketAddrV4 = text.parse().unwrap();
    SockAddr(libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: addr.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*addr.ip()).to_be() },
        sin_zero: [0; 8],
    })
}

pub(crate) fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// An event channel, which is destroyed with this.
pub(crate) struct Channel(NonNull<ffi::rdma_event_channel>);

// SAFETY: the functions of librdmacm may be called from any thread.
unsafe impl Send for Channel {}
// SAFETY: as above; the provider tells which may not be called at the same time.
unsafe impl Sync for Channel {}

pub(crate) fn channel() -> Channel {
    // SAFETY: the function has no preconditions.
    let raw = unsafe { ffi::rdma_create_event_channel() };
    let channel = Channel(NonNull::new(raw).expect("an event channel"));
    // SAFETY: the descriptor is open.
    let code = unsafe { libc::fcntl(channel.fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    assert_eq!(code, 0);
    channel
}

impl Channel {
    pub(crate) fn raw(&self) -> *mut ffi::rdma_event_channel {
        self.0.as_ptr()
    }

    pub(crate) fn fd(&self) -> c_int {
        // SAFETY: the channel is alive.
        unsafe { (*self.raw()).fd }
    }

    pub(crate) fn create(&self, ps: ffi::rdma_port_space) -> Id {
        let mut raw = null_mut();
        let context = std::ptr::without_provenance_mut(7);
        // SAFETY: the channel is alive, and there is room for a pointer.
        ok(unsafe { ffi::rdma_create_id(self.raw(), &raw mut raw, context, ps) });
        Id(raw)
    }

    pub(crate) fn tcp(&self) -> Id {
        self.create(ffi::RDMA_PS_TCP)
    }

    /// The next event, which must be there.
    #[track_caller]
    pub(crate) fn event(&self) -> Event {
        let mut raw = null_mut();
        // SAFETY: the channel is alive, and there is room for a pointer.
        ok(unsafe { ffi::rdma_get_cm_event(self.raw(), &raw mut raw) });
        Event(raw)
    }

    /// The next event, which must be of this type.
    #[track_caller]
    pub(crate) fn expect(&self, event: ffi::rdma_cm_event_type) -> Event {
        let found = self.event();
        assert_eq!(found.get().event, event);
        found
    }

    /// That there is no event.
    #[track_caller]
    pub(crate) fn expect_empty(&self) {
        let mut raw = null_mut();
        // SAFETY: the channel is alive, and there is room for a pointer.
        fails(unsafe { ffi::rdma_get_cm_event(self.raw(), &raw mut raw) }, libc::EAGAIN);
        assert!(raw.is_null());
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: the channel is alive; the provider tells if something still uses it.
        unsafe { ffi::rdma_destroy_event_channel(self.raw()) }
    }
}

/// An identifier, which is destroyed with this.
pub(crate) struct Id(pub(crate) *mut ffi::rdma_cm_id);

// SAFETY: the functions of librdmacm may be called from any thread.
unsafe impl Send for Id {}
// SAFETY: as above; the provider tells which may not be called at the same time.
unsafe impl Sync for Id {}

impl Id {
    pub(crate) fn raw(&self) -> *mut ffi::rdma_cm_id {
        self.0
    }

    /// What the program sees of it.
    pub(crate) fn get(&self) -> ffi::rdma_cm_id {
        // SAFETY: the identifier is alive.
        unsafe { self.0.read() }
    }

    pub(crate) fn bind(&self, text: &str) -> c_int {
        // SAFETY: the identifier is alive, and the address is one.
        unsafe { ffi::rdma_bind_addr(self.0, addr(text).raw()) }
    }

    pub(crate) fn listen(&self) -> c_int {
        // SAFETY: the identifier is alive.
        unsafe { ffi::rdma_listen(self.0, 3) }
    }

    pub(crate) fn resolve_addr(&self, text: &str) -> c_int {
        // SAFETY: the identifier is alive, and the address is one.
        unsafe { ffi::rdma_resolve_addr(self.0, null_mut(), addr(text).raw(), 2000) }
    }

    pub(crate) fn resolve_route(&self) -> c_int {
        // SAFETY: the identifier is alive.
        unsafe { ffi::rdma_resolve_route(self.0, 2000) }
    }

    /// Resolves the address and the route.
    #[track_caller]
    pub(crate) fn resolve(&self, channel: &Channel, text: &str) {
        ok(self.resolve_addr(text));
        channel.expect(ffi::RDMA_CM_EVENT_ADDR_RESOLVED);
        ok(self.resolve_route());
        channel.expect(ffi::RDMA_CM_EVENT_ROUTE_RESOLVED);
    }

    pub(crate) fn connect(&self, mut param: ffi::rdma_conn_param) -> c_int {
        // SAFETY: the identifier is alive, and the parameters are.
        unsafe { ffi::rdma_connect(self.0, &raw mut param) }
    }

    pub(crate) fn accept(&self, mut param: ffi::rdma_conn_param) -> c_int {
        // SAFETY: the identifier is alive, and the parameters are.
        unsafe { ffi::rdma_accept(self.0, &raw mut param) }
    }

    pub(crate) fn reject(&self, data: &[u8]) -> c_int {
        // SAFETY: the identifier is alive, and the data are so long.
        unsafe { ffi::rdma_reject(self.0, data.as_ptr().cast(), data.len() as u8) }
    }

    pub(crate) fn establish(&self) -> c_int {
        // SAFETY: the identifier is alive.
        unsafe { ffi::rdma_establish(self.0) }
    }

    pub(crate) fn disconnect(&self) -> c_int {
        // SAFETY: the identifier is alive.
        unsafe { ffi::rdma_disconnect(self.0) }
    }

    pub(crate) fn migrate(&self, to: &Channel) -> c_int {
        // SAFETY: the identifier and the channel are alive.
        unsafe { ffi::rdma_migrate_id(self.0, to.raw()) }
    }

    pub(crate) fn qp_attr(
        &self,
        qp_state: ffi::ibv_qp_state,
    ) -> Result<(ffi::ibv_qp_attr, u32), c_int> {
        let mut attr = ffi::ibv_qp_attr { qp_state, rate_limit: 5, ..Default::default() };
        let mut mask = 0;
        // SAFETY: the identifier is alive, and there is room for both.
        match unsafe { ffi::rdma_init_qp_attr(self.0, &raw mut attr, &raw mut mask) } {
            0 => Ok((attr, mask as u32)),
            _ => Err(Error::last_os_error().raw_os_error().unwrap()),
        }
    }

    pub(crate) fn src_port(&self) -> u16 {
        // SAFETY: the identifier is alive.
        u16::from_be(unsafe { ffi::rdma_get_src_port(self.0) })
    }

    pub(crate) fn dst_port(&self) -> u16 {
        // SAFETY: the identifier is alive.
        u16::from_be(unsafe { ffi::rdma_get_dst_port(self.0) })
    }

    /// Destroys it, and returns what the function returns.
    pub(crate) fn destroy(&self) -> c_int {
        // SAFETY: the provider tells if it is not alive.
        unsafe { ffi::rdma_destroy_id(self.0) }
    }

    /// Does not destroy it.
    pub(crate) fn forget(self) -> *mut ffi::rdma_cm_id {
        let raw = self.0;
        std::mem::forget(self);
        raw
    }
}

impl Drop for Id {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            ok(self.destroy());
        }
    }
}

/// An event, which is acknowledged with this.
pub(crate) struct Event(pub(crate) *mut ffi::rdma_cm_event);

impl Event {
    pub(crate) fn get(&self) -> ffi::rdma_cm_event {
        // SAFETY: the event was not acknowledged.
        unsafe { self.0.read() }
    }

    /// The parameters of a connection.
    pub(crate) fn conn(&self) -> ffi::rdma_conn_param {
        // SAFETY: every bit pattern is one of the numbers.
        unsafe { self.get().param.conn }
    }

    pub(crate) fn private_data(&self) -> Vec<u8> {
        let ffi::rdma_conn_param { private_data, private_data_len, .. } = self.conn();
        if private_data.is_null() {
            return Vec::new();
        }
        // SAFETY: the event was not acknowledged, and has so many bytes.
        unsafe { std::slice::from_raw_parts(private_data.cast(), private_data_len.into()) }.to_vec()
    }

    /// The new identifier of a connect request.
    pub(crate) fn request(&self) -> Id {
        Id(self.get().id)
    }

    pub(crate) fn ack(self) -> c_int {
        let raw = self.0;
        std::mem::forget(self);
        // SAFETY: the provider tells if it was acknowledged before.
        unsafe { ffi::rdma_ack_cm_event(raw) }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the provider tells if it was acknowledged before.
        ok(unsafe { ffi::rdma_ack_cm_event(self.0) });
    }
}

/// Parameters of a connection.
pub(crate) fn param(qp_num: u32) -> ffi::rdma_conn_param {
    ffi::rdma_conn_param {
        responder_resources: 3,
        initiator_depth: 2,
        retry_count: 6,
        rnr_retry_count: 5,
        qp_num,
        ..Default::default()
    }
}

/// The same with private data, which must live until the call.
pub(crate) fn param_with(qp_num: u32, data: &[u8]) -> ffi::rdma_conn_param {
    ffi::rdma_conn_param {
        private_data: data.as_ptr().cast(),
        private_data_len: data.len() as u8,
        ..param(qp_num)
    }
}

/// Both ends of a connection that is being made, after the request was read.
pub(crate) struct Ends {
    pub(crate) listener: Id,
    pub(crate) client: Id,
    pub(crate) server: Id,
}

/// A client that has sent a request to a listener.
pub(crate) fn requested(channel: &Channel) -> Ends {
    let listener = channel.tcp();
    ok(listener.bind("0.0.0.0:7"));
    ok(listener.listen());
    let client = channel.tcp();
    client.resolve(channel, "10.0.0.1:7");
    ok(client.connect(param(11)));
    let server = channel.expect(ffi::RDMA_CM_EVENT_CONNECT_REQUEST).request();
    Ends { listener, client, server }
}

/// A connection.
pub(crate) fn connected(channel: &Channel) -> Ends {
    let ends = requested(channel);
    ok(ends.server.accept(param(22)));
    channel.expect(ffi::RDMA_CM_EVENT_CONNECT_RESPONSE);
    ok(ends.client.establish());
    channel.expect(ffi::RDMA_CM_EVENT_ESTABLISHED);
    ends
}

/// That so many objects of the kind are alive.
#[track_caller]
pub(crate) fn expect_live(null: &Null, kind: Kind, count: usize) {
    assert_eq!(null.live(kind), count);
}
