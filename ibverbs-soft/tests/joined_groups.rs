//! Multicast groups that the connection manager joins, as a C program does it.

// Not every test program needs all of it.
#[allow(dead_code)]
mod c;

use std::ffi::{c_int, c_void};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use c::{errno, init_attr, verb, Bed, Qp, GID_INDEX, PORT};
use ibverbs_soft::Options;
use ibverbs_sys as ffi;

/// The second one is for a test that uses all of its groups.
fn options() -> Options {
    Options { devices: 2, ..Options::default() }
}

/// The kernel's own number for what it does not support.
const ENOTSUPP: c_int = 524;

const FULL: u32 = ffi::RDMA_MC_JOIN_FLAG_FULLMEMBER;
const SEND_ONLY: u32 = ffi::RDMA_MC_JOIN_FLAG_SENDONLY_FULLMEMBER;

/// A group that no other test has, nor other processes.
fn group() -> Ipv4Addr {
    static LAST: AtomicU8 = AtomicU8::new(0);
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    Ipv4Addr::new(239, high, low, LAST.fetch_add(1, Ordering::Relaxed))
}

fn gid(group: Ipv4Addr) -> ffi::ibv_gid {
    ffi::ibv_gid { raw: group.to_ipv6_mapped().octets() }
}

fn bytes(gid: ffi::ibv_gid) -> [u8; 16] {
    // SAFETY: every bit pattern is valid for the union's bytes.
    unsafe { gid.raw }
}

fn sockaddr(ip: Ipv4Addr) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from(ip).to_be() },
        sin_zero: [0; 8],
    }
}

fn sockaddr6(ip: Ipv6Addr, scope: u32) -> libc::sockaddr_in6 {
    libc::sockaddr_in6 {
        sin6_family: libc::AF_INET6 as libc::sa_family_t,
        sin6_port: 0,
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr { s6_addr: ip.octets() },
        sin6_scope_id: scope,
    }
}

/// What a call that sets `errno` has returned.
fn result(code: c_int) -> Result<(), c_int> {
    match code {
        0 => Ok(()),
        _ => Err(errno()),
    }
}

/// An identifier, which is destroyed in the end.
struct Id {
    raw: *mut ffi::rdma_cm_id,
    /// Null for an identifier whose calls wait for their events.
    channel: *mut ffi::rdma_event_channel,
}

impl Id {
    #[track_caller]
    fn on(channel: *mut ffi::rdma_event_channel, ps: ffi::rdma_port_space) -> Id {
        let mut raw = null_mut();
        assert_eq!(verb!(rdma_create_id(channel, &mut raw, null_mut(), ps)), 0);
        Id { raw, channel }
    }

    #[track_caller]
    fn new(ps: ffi::rdma_port_space) -> Id {
        Id::on(c::created(verb!(rdma_create_event_channel())), ps)
    }

    /// One that is bound to a device.
    #[track_caller]
    fn bound(bed: &Bed) -> Id {
        Id::new(ffi::RDMA_PS_UDP).bind(bed)
    }

    #[track_caller]
    fn bind(self, bed: &Bed) -> Id {
        let own = Ipv6Addr::from(bytes(bed.gid())).to_ipv4_mapped().unwrap();
        let mut addr = sockaddr(own);
        assert_eq!(verb!(rdma_bind_addr(self.raw, (&raw mut addr).cast())), 0);
        self
    }

    /// One that has a queue pair.
    #[track_caller]
    fn with_qp(bed: &Bed) -> Id {
        let id = Id::bound(bed);
        let cap = ffi::ibv_qp_cap { max_send_wr: 4, max_recv_wr: 4, ..Default::default() };
        let mut attr =
            ffi::ibv_qp_init_attr { cap, qp_type: ffi::IBV_QPT_UD, ..Default::default() };
        assert_eq!(verb!(rdma_create_qp(id.raw, null_mut(), &mut attr)), 0);
        id
    }

    fn fields(&self) -> ffi::rdma_cm_id {
        // SAFETY: the identifier is alive, and nobody writes to it meanwhile.
        unsafe { self.raw.read() }
    }

    fn join_as(&self, group: Ipv4Addr, join_flags: u32, context: usize) -> Result<(), c_int> {
        let mut addr = sockaddr(group);
        let mut attr = ffi::rdma_cm_join_mc_attr_ex {
            comp_mask: ffi::RDMA_CM_JOIN_MC_ATTR_ADDRESS | ffi::RDMA_CM_JOIN_MC_ATTR_JOIN_FLAGS,
            join_flags,
            addr: (&raw mut addr).cast(),
        };
        result(verb!(rdma_join_multicast_ex(self.raw, &mut attr, context as *mut c_void)))
    }

    fn join(&self, group: Ipv4Addr) -> Result<(), c_int> {
        let mut addr = sockaddr(group);
        result(verb!(rdma_join_multicast(self.raw, (&raw mut addr).cast(), null_mut())))
    }

    fn leave(&self, group: Ipv4Addr) -> Result<(), c_int> {
        let mut addr = sockaddr(group);
        result(verb!(rdma_leave_multicast(self.raw, (&raw mut addr).cast())))
    }

    /// Takes the next event.
    #[track_caller]
    fn event(&self) -> *mut ffi::rdma_cm_event {
        let mut event = null_mut();
        assert_eq!(verb!(rdma_get_cm_event(self.channel, &mut event)), 0);
        event
    }

    /// Takes the next event, and acknowledges it: what it is, its status, and what it says.
    #[track_caller]
    fn told(&self) -> (ffi::rdma_cm_event_type, c_int, ffi::rdma_ud_param) {
        let event = self.event();
        // SAFETY: an event that was not acknowledged.
        let ffi::rdma_cm_event { id, event: what, status, param, .. } = unsafe { event.read() };
        assert_eq!(id, self.raw);
        assert_eq!(verb!(rdma_ack_cm_event(event)), 0);
        // SAFETY: all members of the union are numbers and pointers.
        (what, status, unsafe { param.ud })
    }

    #[track_caller]
    fn joined(&self, group: Ipv4Addr) {
        self.join(group).unwrap();
        let (what, status, _) = self.told();
        assert_eq!((what, status), (ffi::RDMA_CM_EVENT_MULTICAST_JOIN, 0));
    }

    /// Whether the queue pair is attached to a group.
    #[track_caller]
    fn is_attached(&self, group: Ipv4Addr) -> bool {
        let qp = self.fields().qp;
        match verb!(ibv_detach_mcast(qp, &gid(group), 0)) {
            0 => {
                assert_eq!(verb!(ibv_attach_mcast(qp, &gid(group), 0)), 0);
                true
            }
            code => {
                assert_eq!(code, libc::EINVAL);
                false
            }
        }
    }
}

impl Drop for Id {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        if !self.fields().qp.is_null() {
            verb!(rdma_destroy_qp(self.raw));
        }
        assert_eq!(verb!(rdma_destroy_id(self.raw)), 0);
        if !self.channel.is_null() {
            verb!(rdma_destroy_event_channel(self.channel));
        }
    }
}

#[test]
fn the_event_says_where_the_group_is() {
    let bed = Bed::new();
    let (id, group) = (Id::bound(&bed), group());
    for flags in [FULL, SEND_ONLY] {
        id.join_as(group, flags, 77).unwrap();
        let (what, status, ud) = id.told();
        assert_eq!((what, status), (ffi::RDMA_CM_EVENT_MULTICAST_JOIN, 0));
        assert_eq!((ud.private_data as usize, ud.private_data_len), (77, 0));
        assert_eq!((ud.qp_num, ud.qkey), (0xff_ffff, ffi::RDMA_UDP_QKEY));
        let ffi::ibv_ah_attr { grh, is_global, port_num, dlid, sl, .. } = ud.ah_attr;
        assert_eq!((is_global, port_num, dlid, sl), (1, PORT, 0, 0));
        assert_eq!((bytes(grh.dgid), grh.sgid_index), (bytes(gid(group)), GID_INDEX));
        assert_eq!((grh.hop_limit, grh.traffic_class, grh.flow_label), (64, 0, 0));
        id.leave(group).unwrap();
    }
}

#[test]
fn the_queue_pair_of_a_member_is_attached_until_it_leaves() {
    let bed = Bed::new();
    let (id, one, other) = (Id::with_qp(&bed), group(), group());
    id.join(one).unwrap();
    assert!(!id.is_attached(one), "the event was not taken");
    let (what, status, _) = id.told();
    assert_eq!((what, status), (ffi::RDMA_CM_EVENT_MULTICAST_JOIN, 0));
    assert!(id.is_attached(one));
    id.joined(other);
    id.leave(one).unwrap();
    assert!(!id.is_attached(one));
    assert!(id.is_attached(other));
    id.leave(other).unwrap();
    // The queue pair can be destroyed then.
    let qp = id.fields().qp;
    assert_eq!(verb!(ibv_attach_mcast(qp, &gid(one), 0)), 0);
    id.join(one).unwrap();
    id.leave(one).unwrap();
    assert!(id.is_attached(one), "by the program, and no event was taken");
    assert_eq!(verb!(ibv_detach_mcast(qp, &gid(one), 0)), 0);
}

#[test]
fn who_only_sends_is_not_attached() {
    let bed = Bed::new();
    let (id, group) = (Id::with_qp(&bed), group());
    id.join_as(group, SEND_ONLY, 0).unwrap();
    assert_eq!(id.told().0, ffi::RDMA_CM_EVENT_MULTICAST_JOIN);
    assert!(!id.is_attached(group));
    assert_eq!(verb!(ibv_attach_mcast(id.fields().qp, &gid(group), 0)), 0);
    id.leave(group).unwrap();
    assert!(id.is_attached(group), "by the program");
    assert_eq!(verb!(ibv_detach_mcast(id.fields().qp, &gid(group), 0)), 0);
}

#[test]
fn what_cannot_be_attached_is_told() {
    let bed = Bed::new();
    let cq = bed.cq(16);
    let (id, group) = (Id::with_qp(&bed), group());
    let members: Vec<Qp<'_>> = (0..bed.device_attr().max_mcast_qp_attach)
        .map(|_| Qp::with(&bed, init_attr(&cq, ffi::IBV_QPT_UD)))
        .collect();
    for member in &members {
        assert_eq!(verb!(ibv_attach_mcast(member.raw, &gid(group), 0)), 0);
    }
    id.join_as(group, FULL, 78).unwrap();
    let (what, status, ud) = id.told();
    assert_eq!((what, status), (ffi::RDMA_CM_EVENT_MULTICAST_ERROR, -libc::ENOMEM));
    assert_eq!(ud.private_data as usize, 78);
    for member in &members {
        assert_eq!(verb!(ibv_detach_mcast(member.raw, &gid(group), 0)), 0);
    }
    id.leave(group).unwrap();
    id.joined(group);
    id.leave(group).unwrap();
}

#[test]
fn what_makes_no_sense_is_refused() {
    let bed = Bed::new();
    let (id, group) = (Id::bound(&bed), group());
    for address in [Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(10, 0, 0, 1)] {
        assert_eq!(id.join(address), Err(libc::EINVAL), "{address}");
    }
    let mut addr = sockaddr6("ff0e::7:1".parse().unwrap(), 0);
    let code = verb!(rdma_join_multicast(id.raw, (&raw mut addr).cast(), null_mut()));
    assert_eq!(result(code), Err(ENOTSUPP));
    assert_eq!(id.join_as(group, ffi::RDMA_MC_JOIN_FLAG_RESERVED, 0), Err(libc::EINVAL));
    let mut addr = sockaddr(group);
    for (comp_mask, error) in [
        (ffi::RDMA_CM_JOIN_MC_ATTR_ADDRESS, libc::EINVAL),
        (ffi::RDMA_CM_JOIN_MC_ATTR_JOIN_FLAGS, libc::EINVAL),
        (ffi::RDMA_CM_JOIN_MC_ATTR_RESERVED, libc::ENOTSUP),
        (ffi::RDMA_CM_JOIN_MC_ATTR_RESERVED | 3, libc::ENOTSUP),
    ] {
        let addr = (&raw mut addr).cast();
        let mut attr = ffi::rdma_cm_join_mc_attr_ex { comp_mask, join_flags: FULL, addr };
        let code = verb!(rdma_join_multicast_ex(id.raw, &mut attr, null_mut()));
        assert_eq!(result(code), Err(error), "{comp_mask}");
    }
    assert_eq!(id.leave(group), Err(libc::EADDRNOTAVAIL));

    // Without a device, for connections, and when the route is there.
    assert_eq!(Id::new(ffi::RDMA_PS_UDP).join(group), Err(libc::EINVAL));
    assert_eq!(Id::new(ffi::RDMA_PS_TCP).bind(&bed).join(group), Err(libc::EINVAL));
    let to = (&raw mut addr).cast();
    assert_eq!(verb!(rdma_resolve_addr(id.raw, null_mut(), to, 1000)), 0);
    assert_eq!(id.told().0, ffi::RDMA_CM_EVENT_ADDR_RESOLVED);
    id.joined(group);
    assert_eq!(verb!(rdma_resolve_route(id.raw, 1000)), 0);
    assert_eq!(id.told().0, ffi::RDMA_CM_EVENT_ROUTE_RESOLVED);
    assert_eq!(id.join(group), Err(libc::EINVAL));
    id.leave(group).unwrap();
}

#[test]
fn a_group_of_ipv4_cannot_be_joined_from_an_address_of_ipv6() {
    let bed = Bed::new();
    let mut entry = ffi::ibv_gid_entry::default();
    assert_eq!(verb!(ibv_query_gid_ex(bed.context, PORT.into(), 0, &mut entry, 0)), 0);
    let id = Id::new(ffi::RDMA_PS_UDP);
    let mut addr = sockaddr6(Ipv6Addr::from(bytes(entry.gid)), entry.ndev_ifindex);
    assert_eq!(verb!(rdma_bind_addr(id.raw, (&raw mut addr).cast())), 0);
    assert_eq!(id.join(group()), Err(libc::EINVAL));
}

#[test]
fn calls_that_wait_for_their_events_join_and_leave() {
    let bed = Bed::new();
    let (id, group) = (Id::on(null_mut(), ffi::RDMA_PS_UDP).bind(&bed), group());
    for _ in 0..2 {
        id.join(group).unwrap();
        // SAFETY: the identifier has its event until the next call.
        let event = unsafe { id.fields().event.read() };
        assert_eq!((event.event, event.status), (ffi::RDMA_CM_EVENT_MULTICAST_JOIN, 0));
        id.leave(group).unwrap();
    }
    id.join(group).unwrap();
}

/// What is given to another thread.
struct Shared<'i>(&'i Id);

// SAFETY: identifiers may be used by any thread.
unsafe impl Send for Shared<'_> {}

#[test]
fn leaving_waits_until_the_event_is_acknowledged() {
    let bed = Bed::new();
    let (id, group) = (Id::bound(&bed), group());
    id.join(group).unwrap();
    let event = id.event();
    let has_left = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let shared = Shared(&id);
        let has_left = &has_left;
        let leaver = scope.spawn(move || {
            let Shared(id) = { shared };
            id.leave(group).unwrap();
            has_left.store(true, Ordering::Release);
        });
        std::thread::sleep(Duration::from_millis(50));
        assert!(!has_left.load(Ordering::Acquire));
        assert_eq!(verb!(rdma_ack_cm_event(event)), 0);
        leaver.join().unwrap();
    });
    assert_eq!(id.leave(group), Err(libc::EADDRNOTAVAIL));
}

#[test]
fn members_have_the_device_in_as_many_groups_as_there_can_be_until_they_are_destroyed() {
    let bed = Bed::open(1);
    let most = bed.device_attr().max_mcast_grp as u8;
    let numbered = |number: u8| {
        let [.., low] = (std::process::id() as u16).to_be_bytes();
        Ipv4Addr::new(238, low, 7, number)
    };
    for _ in 0..2 {
        let ids: Vec<Id> = (0..4).map(|_| Id::bound(&bed)).collect();
        for number in 0..most {
            ids[usize::from(number) % ids.len()].join(numbered(number)).unwrap();
        }
        assert_eq!(ids[0].join(numbered(most)), Err(libc::ENOMEM));
        // One that is there already, and nobody's who only sends.
        ids[1].join(numbered(0)).unwrap();
        ids[0].join_as(numbered(most), SEND_ONLY, 0).unwrap();
        ids[0].leave(numbered(0)).unwrap();
        assert_eq!(ids[0].join(numbered(most)), Err(libc::ENOMEM));
        ids[1].leave(numbered(0)).unwrap();
        ids[0].join(numbered(most)).unwrap();
    }
}
