//! Identifiers of the connection manager and their events where it goes wrong, as a C program sees it.
//!
//! A device that fails in a test, or is full, is of no other test.

// Not every test program needs all of it.
#[allow(dead_code)]
mod c;

use std::ffi::c_int;
use std::net::Ipv6Addr;
use std::ptr::null_mut;

use c::{created, errno, eventually, verb, Bed};
use ibverbs_soft::{Faults, Options};
use ibverbs_sys as ffi;

fn options() -> Options {
    Options { devices: 6, ..Options::default() }
}

const ANY: [u8; 4] = [0; 4];

fn address(bed: &Bed) -> [u8; 4] {
    // SAFETY: every bit pattern is valid for the union's bytes.
    let gid = unsafe { bed.gid().raw };
    Ipv6Addr::from(gid).to_ipv4_mapped().unwrap().octets()
}

fn sockaddr(ip: [u8; 4], port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port,
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(ip) },
        sin_zero: [0; 8],
    }
}

/// An event channel, which is destroyed in the end.
struct Channel(*mut ffi::rdma_event_channel);

impl Channel {
    #[track_caller]
    fn new() -> Channel {
        Channel(created(verb!(rdma_create_event_channel())))
    }

    fn is_readable(&self) -> bool {
        // SAFETY: it is alive.
        let fd = unsafe { (*self.0).fd };
        let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: there is one entry.
        unsafe { libc::poll(&mut entry, 1, 0) == 1 }
    }

    /// Takes the next event, and acknowledges it.
    #[track_caller]
    fn next(&self) -> ffi::rdma_cm_event {
        eventually("an event", || self.is_readable());
        let mut event = null_mut();
        assert_eq!(verb!(rdma_get_cm_event(self.0, &mut event)), 0);
        // SAFETY: it was not acknowledged.
        let copy = unsafe { event.read() };
        assert_eq!(verb!(rdma_ack_cm_event(event)), 0);
        copy
    }

    /// Takes the next event, which is this one of this identifier.
    #[track_caller]
    fn expect(&self, id: &Id, event: ffi::rdma_cm_event_type) {
        let next = self.next();
        assert_eq!((next.id, next.event, next.status), (id.0, event, 0));
    }

    /// Takes the next event, which is a request; returns its identifier.
    #[track_caller]
    fn request(&self, listener: &Id) -> Id {
        let next = self.next();
        assert_eq!((next.listen_id, next.event), (listener.0, ffi::RDMA_CM_EVENT_CONNECT_REQUEST));
        Id(next.id)
    }
}

impl Channel {
    fn set_nonblocking(&self) {
        // SAFETY: it is alive.
        let fd = unsafe { (*self.0).fd };
        // SAFETY: the descriptor is open.
        assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK) }, 0);
    }

    /// Whether the next event is a request. Its identifier is on this channel, and is destroyed.
    fn has_request(&self) -> bool {
        let mut event = null_mut();
        if verb!(rdma_get_cm_event(self.0, &mut event)) != 0 {
            assert_eq!(errno(), libc::EAGAIN);
            return false;
        }
        // SAFETY: it was not acknowledged.
        let ffi::rdma_cm_event { id, event: what, .. } = unsafe { event.read() };
        // SAFETY: neither was the identifier destroyed.
        let channel = unsafe { (*id).channel };
        assert_eq!(verb!(rdma_ack_cm_event(event)), 0);
        let is_request = what == ffi::RDMA_CM_EVENT_CONNECT_REQUEST;
        if is_request {
            drop(Id(id));
        }
        assert_eq!(channel, self.0);
        is_request
    }
}

// SAFETY: channels may be used by any thread.
unsafe impl Sync for Channel {}

impl Drop for Channel {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            verb!(rdma_destroy_event_channel(self.0));
        }
    }
}

/// An identifier, which is destroyed in the end.
struct Id(*mut ffi::rdma_cm_id);

impl Id {
    #[track_caller]
    fn of_space(channel: *mut ffi::rdma_event_channel, ps: ffi::rdma_port_space) -> Id {
        let mut raw = null_mut();
        assert_eq!(verb!(rdma_create_id(channel, &mut raw, null_mut(), ps)), 0);
        Id(raw)
    }

    #[track_caller]
    fn on(channel: *mut ffi::rdma_event_channel) -> Id {
        Id::of_space(channel, ffi::RDMA_PS_TCP)
    }

    #[track_caller]
    fn listening(channel: &Channel, at: [u8; 4]) -> Id {
        Id::on(channel.0).listen(at)
    }

    #[track_caller]
    fn listen(self, at: [u8; 4]) -> Id {
        let id = self;
        let mut addr = sockaddr(at, 0);
        assert_eq!(verb!(rdma_bind_addr(id.0, (&raw mut addr).cast())), 0);
        assert_eq!(verb!(rdma_listen(id.0, 0)), 0);
        id
    }

    /// One that asks for a connection, with a queue pair of this number that there need not be.
    #[track_caller]
    fn asking(channel: &Channel, from: [u8; 4], to: [u8; 4], listener: &Id, qp_num: u32) -> Id {
        let id = Id::on(channel.0);
        let mut source = sockaddr(from, 0);
        let mut dest = sockaddr(to, verb!(rdma_get_src_port(listener.0)));
        let (source, dest) = ((&raw mut source).cast(), (&raw mut dest).cast());
        assert_eq!(verb!(rdma_resolve_addr(id.0, source, dest, 1000)), 0);
        channel.expect(&id, ffi::RDMA_CM_EVENT_ADDR_RESOLVED);
        assert_eq!(verb!(rdma_resolve_route(id.0, 1000)), 0);
        channel.expect(&id, ffi::RDMA_CM_EVENT_ROUTE_RESOLVED);
        assert_eq!(id.with_param(qp_num, |id, param| verb!(rdma_connect(id, param))), 0);
        id
    }

    fn with_param(
        &self,
        qp_num: u32,
        call: impl FnOnce(*mut ffi::rdma_cm_id, *mut ffi::rdma_conn_param) -> c_int,
    ) -> c_int {
        let mut param = ffi::rdma_conn_param { qp_num, ..Default::default() };
        call(self.0, &mut param)
    }

    #[track_caller]
    fn accept(&self, qp_num: u32) {
        assert_eq!(self.with_param(qp_num, |id, param| verb!(rdma_accept(id, param))), 0);
    }

    #[track_caller]
    fn disconnect(&self) {
        assert_eq!(verb!(rdma_disconnect(self.0)), 0);
    }
}

impl Drop for Id {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(verb!(rdma_destroy_id(self.0)), 0);
        }
    }
}

/// A connection from one device to another, and that it has ended: the client, whose time of waiting is running.
#[track_caller]
fn ended(clients: &Channel, from: &Bed, servers: &Channel, at: &Bed, qp_num: u32) -> Id {
    let listener = Id::listening(servers, address(at));
    let client = Id::asking(clients, address(from), address(at), &listener, qp_num);
    let server = servers.request(&listener);
    server.accept(qp_num);
    clients.expect(&client, ffi::RDMA_CM_EVENT_CONNECT_RESPONSE);
    assert_eq!(verb!(rdma_establish(client.0)), 0);
    servers.expect(&server, ffi::RDMA_CM_EVENT_ESTABLISHED);
    client.disconnect();
    servers.expect(&server, ffi::RDMA_CM_EVENT_DISCONNECTED);
    server.disconnect();
    clients.expect(&client, ffi::RDMA_CM_EVENT_DISCONNECTED);
    client
}

#[test]
fn what_is_destroyed_reports_nothing_though_its_device_has_failed() {
    let (fails, other) = (Bed::open(0), Bed::open(1));
    let (clients, servers) = (Channel::new(), Channel::new());
    let first = ended(&clients, &fails, &servers, &other, 1);
    let second = ended(&clients, &fails, &servers, &other, 2);
    Faults::of_device(0).unwrap().fail_device().unwrap();
    drop(first);
    // Its time would have been over before.
    clients.expect(&second, ffi::RDMA_CM_EVENT_TIMEWAIT_EXIT);
    assert!(!clients.is_readable());
}

#[test]
fn who_listens_at_all_devices_does_so_at_those_that_have_not_failed() {
    let fails = Bed::open(5);
    let (channel, clients) = (Channel::new(), Channel::new());
    let _user = Id::listening(&channel, address(&fails));
    Faults::of_device(5).unwrap().fail_device().unwrap();
    let other = Bed::open(2);
    let listener = Id::listening(&channel, ANY);
    let _client = Id::asking(&clients, address(&other), address(&other), &listener, 77);
    drop(channel.request(&listener));
}

#[test]
fn requests_move_with_their_listener() {
    let bed = Bed::open(2);
    let (old, new, clients) = (Channel::new(), Channel::new(), Channel::new());
    let listener = Id::listening(&old, address(&bed));
    let ask = |qp_num| Id::asking(&clients, address(&bed), address(&bed), &listener, qp_num);
    let (client, gives_up) = (ask(1), ask(2));
    eventually("the requests", || old.is_readable());
    drop(gives_up);
    assert_eq!(verb!(rdma_migrate_id(listener.0, new.0)), 0);
    let server = new.request(&listener);
    let given_up = new.request(&listener);
    let event = new.next();
    assert_eq!((event.id, event.event), (given_up.0, ffi::RDMA_CM_EVENT_REJECTED));
    // What comes later does so there, too.
    server.accept(1);
    clients.expect(&client, ffi::RDMA_CM_EVENT_CONNECT_RESPONSE);
    assert_eq!(verb!(rdma_establish(client.0)), 0);
    new.expect(&server, ffi::RDMA_CM_EVENT_ESTABLISHED);
    assert!(!old.is_readable());
}

#[test]
fn requests_are_taken_while_their_listener_moves() {
    const REQUESTS: u32 = 100;
    let bed = Bed::open(2);
    let (channels, clients) = ([Channel::new(), Channel::new()], Channel::new());
    let listener = Id::listening(&channels[0], address(&bed));
    for channel in &channels {
        channel.set_nonblocking();
    }
    std::thread::scope(|scope| {
        let channels = &channels;
        scope.spawn(move || {
            for _ in 0..REQUESTS {
                eventually("a request", || channels.iter().any(Channel::has_request));
            }
        });
        for number in 0..REQUESTS {
            let _client = Id::asking(&clients, address(&bed), address(&bed), &listener, 1 + number);
            let to = channels[number as usize % 2].0;
            assert_eq!(verb!(rdma_migrate_id(listener.0, to)), 0);
        }
    });
}

#[test]
fn a_request_that_there_is_no_room_for_is_rejected() {
    let (full, other) = (Bed::open(3), Bed::open(4));
    let (servers, clients) = (Channel::new(), Channel::new());
    // It listens at all devices, and has none until there is a request.
    let listener = Id::listening(&servers, ANY);
    let pds: Vec<_> = std::iter::repeat_with(|| verb!(ibv_alloc_pd(full.context)))
        .take_while(|pd| !pd.is_null())
        .collect();
    let client = Id::asking(&clients, address(&other), address(&full), &listener, 1);
    // The request is behind nothing else.
    eventually("the request", || servers.is_readable());
    let user = ffi::RDMA_CM_EVENT_USER;
    assert_eq!(verb!(rdma_write_cm_event(listener.0, user, 0, 7)), 0);
    servers.expect(&listener, user);
    let event = clients.next();
    assert_eq!((event.id, event.event), (client.0, ffi::RDMA_CM_EVENT_REJECTED));
    for pd in pds {
        assert_eq!(verb!(ibv_dealloc_pd(pd)), 0);
    }
}

#[test]
fn nobody_listens_to_those_who_ask_for_the_other_kind_of_queue_pair() {
    let bed = Bed::open(4);
    let (servers, clients) = (Channel::new(), Channel::new());
    const NO_DATAGRAMS: c_int = 2;
    const NO_CONNECTION: c_int = 28;
    for (ps, qp_type, event, status) in [
        (ffi::RDMA_PS_TCP, ffi::IBV_QPT_UD, ffi::RDMA_CM_EVENT_UNREACHABLE, NO_DATAGRAMS),
        (ffi::RDMA_PS_UDP, ffi::IBV_QPT_RC, ffi::RDMA_CM_EVENT_REJECTED, NO_CONNECTION),
    ] {
        let listener = Id::of_space(servers.0, ps).listen(address(&bed));
        let mut dest = sockaddr(address(&bed), verb!(rdma_get_src_port(listener.0)));
        let mut info = ffi::rdma_addrinfo {
            ai_port_space: ps as c_int,
            ai_qp_type: qp_type as c_int,
            ai_dst_addr: (&raw mut dest).cast(),
            ai_dst_len: size_of_val(&dest) as u32,
            ..Default::default()
        };
        let mut raw = null_mut();
        assert_eq!(verb!(rdma_create_ep(&mut raw, &mut info, null_mut(), null_mut())), 0);
        let client = Id(raw);
        assert_eq!(verb!(rdma_migrate_id(client.0, clients.0)), 0);
        assert_eq!(client.with_param(1, |id, param| verb!(rdma_connect(id, param))), 0);
        let told = clients.next();
        assert_eq!((told.id, told.event, told.status), (client.0, event, status));
        assert!(!servers.is_readable());
    }
}

#[test]
fn a_call_that_meets_a_status_of_the_program_fails_with_it_if_it_is_an_error_number() {
    let bed = Bed::open(4);
    for (status, expected) in [
        (libc::EPIPE, libc::EPIPE),
        (-4095, 4095),
        (4096, libc::EINVAL),
        (-70_000, libc::EINVAL),
        (c_int::MIN, libc::EINVAL),
    ] {
        let id = Id::on(null_mut());
        let write = || verb!(rdma_write_cm_event(id.0, ffi::RDMA_CM_EVENT_USER, status, 0));
        assert_eq!(write(), 0);
        let mut request = null_mut();
        assert_eq!(verb!(rdma_get_request(id.0, &mut request)), -1);
        assert_eq!(errno(), expected, "{status}");
        assert_eq!(write(), 0);
        let mut dest = sockaddr(address(&bed), 7);
        let dest = (&raw mut dest).cast();
        assert_eq!(verb!(rdma_resolve_addr(id.0, null_mut(), dest, 1000)), -1);
        assert_eq!(errno(), expected, "{status}");
    }
}
