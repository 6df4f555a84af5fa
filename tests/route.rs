//! What is said when the way to a peer cannot be resolved, and what is left of the queue pair.

use ibverbs::{
    AddressVector, Error, Failed, Gid, GidEntry, GidType, Mtu, QpState, QueuePair, QueuePairAttr,
    QueuePairAttrMask as Mask, QueuePairEndpoint, Rc, RecvRequest, RnrTimer, RouteFailure, State,
};
use ibverbs_tests::{post_recv, prepare, submit, wait_one, Ability, Bed, PORT};

fn endpoint(gid: &str) -> QueuePairEndpoint {
    let gid = gid.parse().expect("an IPv6 address");
    QueuePairEndpoint::new(17, 1, 0, Some(gid)).unwrap()
}

#[track_caller]
fn state<S: State>(qp: &mut QueuePair<Rc, S>) -> Option<QpState> {
    qp.query(Mask::STATE).unwrap().state()
}

/// The diagnosis of a route that must fail, and the queue pair.
#[track_caller]
fn failure<R, S>(result: Result<R, Failed<S>>) -> (Box<RouteFailure>, S) {
    let failed = result.err().expect("there is no way, but it was found");
    let Error::Route(failure) = failed.error else { panic!("{}", failed.error) };
    (failure, failed.resource)
}

/// Fails to connect from this entry of the GID table to this address, and checks what is said.
#[track_caller]
fn assert_no_way(bed: &Bed, entry: &GidEntry, remote: &str, reason: &str) {
    let index = u8::try_from(entry.index()).expect("a small index");
    let prepared = prepare::<Rc>(bed, |builder| builder.set_gid_index(index));
    let (failure, mut qp) = failure(prepared.qp.handshake(endpoint(remote)));
    assert!(failure.reason().contains(reason), "{failure}");
    assert_eq!((failure.port(), failure.gid_index()), (PORT, Some(index)));
    assert_eq!(failure.local_gid(), Some(entry.gid()));
    assert_eq!(failure.remote_gid(), endpoint(remote).gid());
    let text = Error::Route(failure).to_string();
    let numbers = [entry.gid().to_string(), remote.to_owned(), format!("index {index}")];
    assert!(numbers.iter().all(|number| text.contains(number)), "{text}");
    assert_eq!(state(&mut qp), Some(QpState::RESET));
}

/// A bed, and an entry of the GID table, if the device has such an address.
fn bed_and_entry(ability: Ability, fits: impl Fn(Gid) -> bool) -> Option<(Bed, GidEntry)> {
    let bed = Bed::with([ability])?;
    let table = bed.ctx().gid_table().unwrap();
    let fits = |entry: &GidEntry| {
        entry.port() == PORT && entry.gid_type() == GidType::ROCE_V2 && fits(entry.gid())
    };
    let entry = table.into_iter().find(fits).expect("the device said that it has one");
    Some((bed, entry))
}

fn ipv4() -> Option<(Bed, GidEntry)> {
    bed_and_entry(Ability::Ipv4, Gid::is_ipv4_mapped)
}

#[test]
fn an_ipv4_gid_does_not_reach_an_ipv6_one() {
    let Some((bed, v4)) = ipv4() else { return };
    for remote in ["2001:db8::1", "fe80::1", "::1"] {
        assert_no_way(&bed, &v4, remote, "of an IPv4 address");
    }
}

#[test]
fn an_ipv6_gid_does_not_reach_an_ipv4_one() {
    let Some((bed, v6)) = bed_and_entry(Ability::LinkLocal, |gid| !gid.is_ipv4_mapped()) else {
        return;
    };
    assert_no_way(&bed, &v6, "::ffff:192.0.2.1", "of an IPv4 address");
}

#[test]
fn a_link_local_gid_does_not_reach_a_global_one() {
    let link_local = |gid: Gid| gid.is_link_local() && !gid.is_ipv4_mapped();
    let Some((bed, local)) = bed_and_entry(Ability::LinkLocal, link_local) else { return };
    assert_no_way(&bed, &local, "2001:db8::1", "link-local");
}

#[test]
fn an_address_that_no_route_leads_to_is_told() {
    // Not for IPv4: Linux takes an unknown address to be on the link of the GID's network device.
    let global = |gid: Gid| !gid.is_link_local() && !gid.is_loopback() && !gid.is_ipv4_mapped();
    let Some((bed, local)) = bed_and_entry(Ability::GlobalIpv6, global) else { return };
    assert_no_way(&bed, &local, "2001:db8::1", "no route");
}

#[test]
fn an_unspecified_remote_address_is_not_blamed_on_the_local_device() {
    let Some((bed, v4)) = ipv4() else { return };
    assert_no_way(&bed, &v4, "::ffff:0.0.0.0", "the remote");
}

#[test]
fn a_peer_without_a_gid_is_refused_before_the_device_is_asked() {
    let bed = Bed::new();
    let index = u64::from(bed.gid_index());
    for gid in [None, Some(Gid::from([0; 16]))] {
        let prepared = prepare::<Rc>(&bed, |builder| builder);
        let remote = QueuePairEndpoint::new(17, 1, 1, gid).unwrap();
        let Failed { mut resource, error } = prepared.qp.handshake(remote).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { value, .. } if value == index), "{error}");
        assert_eq!(state(&mut resource), Some(QpState::RESET));
    }
}

/// An address of the other kind than the bed's own: there is no way to it.
fn nowhere(bed: &Bed) -> QueuePairEndpoint {
    let v4 = bed.gid().gid().is_ipv4_mapped();
    endpoint(if v4 { "2001:db8::1" } else { "::ffff:192.0.2.1" })
}

#[test]
fn a_queue_pair_that_could_not_connect_connects_to_another_peer() {
    let bed = Bed::new();
    if bed.gid().gid_type() == GidType::IB {
        return;
    }
    let mem = bed.mem(64);
    let (a, b) = (prepare::<Rc>(&bed, |builder| builder), prepare::<Rc>(&bed, |builder| builder));
    let (of_a, of_b) = (a.qp.endpoint().unwrap(), b.qp.endpoint().unwrap());

    let (_, a_qp) = failure(a.qp.handshake(nowhere(&bed)));
    let mut a_qp = a_qp.handshake(of_b).unwrap();

    // From `Init` it comes back in `Init`, with the receives that were posted.
    let mut init = b.qp.init().unwrap();
    post_recv(&mut init, [RecvRequest::new(1, &[mem.slice(..)])]).unwrap();
    let (_, mut init) = failure(init.handshake(nowhere(&bed)));
    assert_eq!(state(&mut init), Some(QpState::INIT));
    let (_, mut init) = failure(init.ready_to_receive(nowhere(&bed)));
    assert_eq!(state(&mut init), Some(QpState::INIT));
    let _b_qp = init.handshake(of_a).unwrap();
    submit(&mut a_qp, |batch| batch.op().signaled().send(2, &[mem.slice(..0)])).unwrap();
    assert_eq!(wait_one(&a.send_cq, 2).ok, Ok(()));
    assert_eq!(wait_one(&b.recv_cq, 1).ok, Ok(()));
}

#[test]
fn a_manual_transition_tells_of_its_route_too() {
    let bed = Bed::new();
    if bed.gid().gid_type() == GidType::IB {
        return;
    }
    let mut qp = prepare::<Rc>(&bed, |builder| builder).qp.into_manual();
    let access = ibverbs::AccessFlags::REMOTE_READ;
    let to = |state| QueuePairAttr::new().set_state(state);
    qp.modify(&to(QpState::INIT).set_pkey_index(0).set_port(PORT).set_access(access)).unwrap();
    let remote = nowhere(&bed);
    let address = AddressVector::to_gid(PORT, bed.gid_index(), remote.gid().expect("a GID"));
    let attr = to(QpState::RTR)
        .set_address(address)
        .set_path_mtu(Mtu::B1024)
        .set_dest_qp_num(17)
        .set_rq_psn(1)
        .set_max_dest_rd_atomic(1)
        .set_min_rnr_timer(RnrTimer::DEFAULT);
    let error = qp.modify(&attr).unwrap_err();
    let Error::Route(failure) = error else { panic!("{error}") };
    assert_eq!(failure.remote_gid(), remote.gid());
    assert!(failure.reason().contains("IPv4"), "{failure}");
    assert_eq!(state(&mut qp), Some(QpState::INIT));
}
