//! Addresses: who sent a datagram, the way back to him, ways that cannot be, and handles that go or are of
//! somebody else.

use ibverbs::{
    AddressVector, DatagramSender, Error, Failed, Gid, GidEntry, GidType, GlobalRoute, Grh,
    QueuePairEndpoint, RecvRequest, Ud,
};
use ibverbs_tests::{
    activated, activated_with, assert_silent, other_context, post_recv, prepare, submit, wait,
    wait_one, way, Bed, Side, GRH, PORT, QKEY,
};

/// The entries of the GID table that can be sent from.
fn entries(bed: &Bed) -> Vec<GidEntry> {
    let table = bed.ctx().gid_table().unwrap();
    let fits = |entry: &GidEntry| entry.port() == PORT && entry.gid_type() == bed.gid().gid_type();
    table.into_iter().filter(fits).collect()
}

fn index_of(entry: &GidEntry) -> u8 {
    u8::try_from(entry.index()).expect("a small index")
}

/// A datagram queue pair that sends from this entry of the GID table.
fn activated_on(bed: &Bed, entry: &GidEntry) -> Side<Ud> {
    activated_with(bed, QKEY, |builder| {
        let builder = builder.set_gid_index(index_of(entry)).set_traffic_class(0x20);
        builder.set_max_inline_data(32)
    })
}

#[test]
fn the_sender_is_told_and_answered_over_every_address() {
    let bed = Bed::new();
    let mem = bed.mem(8192);
    let entries = entries(&bed);
    assert!(!entries.is_empty());
    for entry in &entries {
        let (mut a, mut b) = (activated_on(&bed, entry), activated_on(&bed, entry));
        let there = way(&a, &b);
        post_recv(&mut b.qp, [RecvRequest::new(1, &[mem.slice(..4096)])]).unwrap();
        submit(&mut a.qp, |batch| {
            batch.to(&there, b.qp.qp_num(), QKEY).signaled().send(2, b"question");
        })
        .unwrap();
        assert_eq!(wait_one(&a.send_cq, 2).ok, Ok(()));
        let received = wait_one(&b.recv_cq, 1);
        assert!(received.sender.has_grh, "{received:?}");
        assert_eq!(received.sender.src_qp, a.qp.qp_num());
        let bytes = mem.read(..received.len as usize);
        let grh = Grh::from_bytes(&bytes[..GRH]).unwrap();
        assert_eq!((grh.sgid(), grh.dgid()), (entry.gid(), entry.gid()));
        assert_eq!(grh.is_roce_v2(), entry.gid_type() == GidType::ROCE_V2);
        assert_eq!(grh.traffic_class(), 0x20);
        assert_ne!(grh.hop_limit(), 0);
        assert_eq!(bytes[GRH..], *b"question");

        let back = bed.pd().create_ah_from_wc(PORT, &received.sender, &bytes).unwrap();
        post_recv(&mut a.qp, [RecvRequest::new(3, &[mem.slice(4096..)])]).unwrap();
        submit(&mut b.qp, |batch| {
            batch.to(&back, received.sender.src_qp, QKEY).signaled().send(4, b"answer");
        })
        .unwrap();
        assert_eq!(wait_one(&b.send_cq, 4).ok, Ok(()));
        let answer = wait_one(&a.recv_cq, 3);
        assert_eq!((answer.ok, answer.sender.src_qp), (Ok(()), b.qp.qp_num()));
        let grh = Grh::from_bytes(&mem.read(4096..4096 + GRH)).unwrap();
        assert_eq!((grh.sgid(), grh.dgid()), (entry.gid(), entry.gid()));
        assert_eq!(mem.read(4096 + GRH..4096 + GRH + 6), b"answer");
    }
}

#[test]
fn the_way_to_an_endpoint_is_what_the_builder_says() {
    let bed = Bed::new();
    let prepared = prepare::<Ud>(&bed, |builder| {
        let builder = builder.set_service_level(3).set_traffic_class(0x40);
        builder.set_flow_label(0xabcde).set_hop_limit(9)
    });
    let dgid: Gid = "::ffff:192.0.2.1".parse().unwrap();
    let remote = QueuePairEndpoint::new(17, 0, 5, Some(dgid)).unwrap();
    let (flow_label, gid_index) = (0xabcde, bed.gid_index());
    let grh = GlobalRoute { dgid, flow_label, gid_index, hop_limit: 9, traffic_class: 0x40 };
    let (port, dlid, service_level) = (PORT, 5, 3);
    let expected = AddressVector {
        port,
        dlid,
        service_level,
        src_path_bits: 0,
        static_rate: 0,
        grh: Some(grh),
    };
    assert_eq!(prepared.qp.address_of(&remote).unwrap(), expected);
    let without = QueuePairEndpoint::new(17, 0, 5, None).unwrap();
    let error = prepared.qp.address_of(&without).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
}

/// The address of the bed's own port.
fn own(bed: &Bed) -> AddressVector {
    let side = prepare::<Ud>(bed, |builder| builder);
    side.qp.address_of(&side.qp.endpoint().unwrap()).unwrap()
}

/// That address with another global route.
fn rerouted(address: AddressVector, change: impl FnOnce(&mut GlobalRoute)) -> AddressVector {
    let mut grh = address.grh.expect("a global route");
    change(&mut grh);
    AddressVector { grh: Some(grh), ..address }
}

#[test]
fn what_does_not_fit_into_a_header_is_refused() {
    let bed = Bed::new();
    let own = own(&bed);
    let refused = |address: AddressVector, wrong: u64| {
        let error = bed.pd().create_ah(&address).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { value, .. } if value == wrong), "{error}");
    };
    refused(AddressVector { service_level: 16, ..own }, 16);
    bed.pd().create_ah(&AddressVector { service_level: 7, ..own }).unwrap();
    if own.grh.is_some() {
        refused(rerouted(own, |grh| grh.flow_label = 1 << 20), 1 << 20);
        bed.pd().create_ah(&rerouted(own, |grh| grh.flow_label = (1 << 20) - 1)).unwrap();
    }
}

#[test]
fn a_port_or_an_index_that_is_not_there_is_told() {
    let bed = Bed::new();
    let own = own(&bed);
    let refused = |address: AddressVector| bed.pd().create_ah(&address).unwrap_err();
    for wrong in [0, 100, 255] {
        match refused(AddressVector { port: wrong, ..own }) {
            Error::InvalidPort { port, .. } => assert_eq!(port, wrong),
            other => panic!("{other}"),
        }
    }
    if own.grh.is_none() {
        return;
    }
    let length = bed.ctx().query_port(PORT).unwrap().gid_table_len();
    let empty = (0..length.min(256))
        .find(|&index| bed.ctx().query_gid(PORT, index).unwrap() == Gid::from([0; 16]));
    for wrong in empty.into_iter().chain((length < 256).then_some(length)) {
        let gid_index = u8::try_from(wrong).unwrap();
        match refused(rerouted(own, |grh| grh.gid_index = gid_index)) {
            Error::InvalidIndex { table: "GID", port: PORT, index, entries } => {
                assert_eq!((index, entries), (wrong, length));
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_way_that_cannot_be_is_told() {
    let bed = Bed::new();
    let own = own(&bed);
    let Some(local) = own.grh.map(|_| bed.gid()) else { return };
    if local.gid_type() == GidType::IB {
        return;
    }
    let v4 = local.gid().is_ipv4_mapped();
    let other_kind = if v4 { "2001:db8::1" } else { "::ffff:192.0.2.1" };
    let unspecified = if v4 { "::ffff:0.0.0.0" } else { "::" };
    for (gid, reason) in [(other_kind, "of an IPv4 address"), (unspecified, "the remote")] {
        let dgid: Gid = gid.parse().unwrap();
        let error = bed.pd().create_ah(&rerouted(own, |grh| grh.dgid = dgid)).unwrap_err();
        let Error::Route(failure) = &error else { panic!("{error}") };
        assert!(failure.reason().contains(reason), "{error}");
        assert_eq!((failure.local_gid(), failure.remote_gid()), (Some(local.gid()), Some(dgid)));
        assert!(error.to_string().contains("ibv_create_ah"), "{error}");
    }
}

#[test]
fn an_address_without_a_global_route_is_refused_where_one_is_needed() {
    let bed = Bed::new();
    let own = own(&bed);
    if own.grh.is_some() && bed.gid().gid_type() != GidType::IB {
        let error = bed.pd().create_ah(&AddressVector { grh: None, ..own }).unwrap_err();
        assert!(matches!(error, Error::Route(_)), "{error}");
        assert!(error.to_string().contains("needs a global route"), "{error}");
        // So is the way back to one who is said to have come without.
        let sender = DatagramSender { has_grh: false, ..SENDER };
        let error = bed.pd().create_ah_from_wc(PORT, &sender, &[]).unwrap_err();
        assert!(matches!(error, Error::Route(_)), "{error}");
    }
}

const SENDER: DatagramSender =
    DatagramSender { src_qp: 17, slid: 0, service_level: 0, dlid_path_bits: 0, has_grh: true };

#[test]
fn a_header_that_is_none_leads_nowhere() {
    let bed = Bed::new();
    let back = |port, bytes: &[u8]| bed.pd().create_ah_from_wc(port, &SENDER, bytes).unwrap_err();
    for bytes in [&[][..], &[0x60; 39], &[0; 40], &[0xff; 100]] {
        let error = back(PORT, bytes);
        assert!(matches!(error, Error::InvalidBytes { .. }), "{error}");
    }
    // A header of IPv6 to an address that is not this port's.
    let mut header = [0; 40];
    header[0] = 0x60;
    header[6] = 17;
    header[39] = 1;
    let error = back(PORT, &header);
    assert!(matches!(error, Error::NoGid { port: PORT }), "{error}");
    let error = back(99, &header);
    assert!(matches!(error, Error::InvalidPort { port: 99, .. }), "{error}");
}

/// Posts batches that use a handle which is not of the queue pair's domain, and checks that nothing of them
/// is posted, nor anything left behind.
fn assert_refused_as_a_whole(bed: &Bed, foreign: &ibverbs::AddressHandle) {
    let (mut a, mut b) = (activated(bed, QKEY), activated(bed, QKEY));
    let (number, to_b) = (b.qp.qp_num(), way(&a, &b));
    let mem = bed.mem(4096);
    let slices = [mem.slice(..)];
    post_recv(&mut b.qp, (1..=3).map(|n| RecvRequest::new(n, &slices)).collect::<Vec<_>>())
        .unwrap();
    for order in [&[foreign][..], &[foreign, &to_b], &[&to_b, foreign], &[&to_b, foreign, &to_b]] {
        let error = submit(&mut a.qp, |batch| {
            for ah in order {
                batch.to(ah, number, QKEY).signaled().send(4, b"never");
                batch.to(ah, number, QKEY).imm(1).signaled().send(5, &[mem.slice(..0)]);
            }
        })
        .unwrap_err();
        let what = matches!(error, Error::ProtectionDomainMismatch { what: "address handle" });
        assert!(what, "{error}");
    }
    assert_silent(&a.send_cq);
    assert_silent(&b.recv_cq);
    submit(&mut a.qp, |batch| batch.to(&to_b, number, QKEY).signaled().send(6, b"now")).unwrap();
    assert_eq!(wait_one(&a.send_cq, 6).ok, Ok(()));
    assert_eq!(wait_one(&b.recv_cq, 1).ok, Ok(()));
    assert_eq!(mem.read(GRH..GRH + 3), b"now");
}

#[test]
fn a_handle_of_another_domain_is_refused_and_nothing_is_posted() {
    let bed = Bed::new();
    let other = bed.ctx().alloc_pd().unwrap();
    assert_refused_as_a_whole(&bed, &other.create_ah(&own(&bed)).unwrap());
}

#[test]
fn a_handle_of_another_context_is_refused_and_nothing_is_posted() {
    let bed = Bed::new();
    let other = Bed::on(other_context(bed.ctx()));
    assert_refused_as_a_whole(&bed, &other.pd().create_ah(&own(&other)).unwrap());
}

#[test]
fn a_handle_keeps_its_domain_and_is_closed() {
    let bed = Bed::new();
    let own = own(&bed);
    let pd = bed.ctx().alloc_pd().unwrap();
    let ah = pd.create_ah(&own).unwrap();
    let Failed { resource: pd, error } = pd.close().unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    drop(pd);
    ah.close().unwrap();
    let pd = bed.ctx().alloc_pd().unwrap();
    for _ in 0..1000 {
        drop(pd.create_ah(&own).unwrap());
    }
    pd.close().unwrap();
}

/// When a handle goes.
#[derive(Debug, PartialEq)]
enum Goes {
    BeforeTheBatchIsSubmitted,
    Afterwards,
}

#[test]
fn a_handle_may_go_while_its_datagrams_are_under_way() {
    let bed = Bed::new();
    let mem = bed.mem(4096);
    let slots: Vec<_> = (0..8).map(|n| [mem.slice(n * 128..n * 128 + 128)]).collect();
    for goes in [Goes::BeforeTheBatchIsSubmitted, Goes::Afterwards] {
        let (mut a, mut b) = (activated(&bed, QKEY), activated(&bed, QKEY));
        let requests = slots.iter().zip(0..).map(|(slot, n)| RecvRequest::new(n, slot));
        post_recv(&mut b.qp, requests.collect::<Vec<_>>()).unwrap();
        let (number, mut ah) = (b.qp.qp_num(), Some(way(&a, &b)));
        submit(&mut a.qp, |batch| {
            for n in 0..8 {
                let op = batch.to(ah.as_ref().expect("alive"), number, QKEY).signaled();
                op.send(n, &[n as u8; 50]);
            }
            if goes == Goes::BeforeTheBatchIsSubmitted {
                ah = None;
            }
        })
        .unwrap();
        drop(ah);
        // Every request completes. What the device could not address any more fails, and those after it
        // are flushed; what succeeded has arrived whole.
        let sent = wait(&a.send_cq, 8);
        let good = sent.iter().filter(|wc| wc.ok.is_ok()).count();
        for wc in wait(&b.recv_cq, good) {
            assert_eq!((wc.ok, wc.len as usize), (Ok(()), GRH + 50));
            let at = wc.wr_id as usize * 128 + GRH;
            assert_eq!(mem.read(at..at + 50), [wc.wr_id as u8; 50]);
        }
        assert_silent(&b.recv_cq);
        // After a reset all is as before.
        a.qp = a.qp.reset().unwrap().activate(QKEY).unwrap();
        let ah = way(&a, &b);
        post_recv(&mut b.qp, [RecvRequest::new(20, &slots[0])]).unwrap();
        submit(&mut a.qp, |batch| batch.to(&ah, number, QKEY).signaled().send(21, b"again"))
            .unwrap();
        assert_eq!(wait_one(&a.send_cq, 21).ok, Ok(()));
        assert_eq!(wait(&b.recv_cq, 1)[0].ok, Ok(()));
    }
}

#[test]
fn threads_share_a_handle() {
    let bed = Bed::new();
    let side = activated(&bed, QKEY);
    let ah = way(&side, &side);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut side = activated(&bed, QKEY);
                let (mem, number) = (bed.mem(4096), side.qp.qp_num());
                for n in 0..20 {
                    post_recv(&mut side.qp, [RecvRequest::new(n, &[mem.slice(..)])]).unwrap();
                    let text = number.to_be_bytes();
                    submit(&mut side.qp, |batch| {
                        batch.to(&ah, number, QKEY).signaled().send(n, &text);
                    })
                    .unwrap();
                    assert_eq!(wait_one(&side.send_cq, n).ok, Ok(()));
                    assert_eq!(wait_one(&side.recv_cq, n).sender.src_qp, number);
                    assert_eq!(mem.read(GRH..GRH + 4), text);
                }
            });
        }
    });
}
