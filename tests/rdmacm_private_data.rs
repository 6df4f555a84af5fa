//! Private data: what each message of the connection manager carries, and what it does not.

use std::time::Duration;

use ibverbs::rdmacm::{
    ConnectionFailure, ConnectionParams, DatagramRefusal, Incoming, PrivateDataLimit, RejectReason,
    Resolved, Tcp, Udp,
};
use ibverbs::{Error, Rc, Ud};
use ibverbs_tests::{
    accept, assert_connected, both, connected_as, dial, listen, next_request, pattern, resolve,
    unconnected, Bed, Plan, DEADLINE,
};

#[track_caller]
fn failure(error: Error) -> Box<ConnectionFailure> {
    match error {
        Error::Connection(failure) => failure,
        error => panic!("{error}"),
    }
}

/// Checks that there was one byte too many.
#[track_caller]
fn assert_too_long(error: &Error, limit: PrivateDataLimit) {
    match *error {
        Error::PrivateDataTooLong { bytes, available, .. } => {
            assert_eq!((bytes, available), (limit.bytes() + 1, limit.bytes()));
        }
        ref error => panic!("{error}"),
    }
    let text = error.to_string();
    assert!(text.contains(&format!("{} bytes", limit.bytes() + 1)), "{text}");
    assert!(text.contains(&format!("at most {}", limit.bytes())), "{text}");
}

#[test]
fn the_limits_are_those_of_the_protocol() {
    let limits = [
        (PrivateDataLimit::CONNECT, 56),
        (PrivateDataLimit::ACCEPT, 196),
        (PrivateDataLimit::REJECT, 148),
        (PrivateDataLimit::CONNECT_DATAGRAM, 180),
        (PrivateDataLimit::ACCEPT_DATAGRAM, 136),
    ];
    for (limit, bytes) in limits {
        assert_eq!(limit.bytes(), bytes, "{limit:?}");
    }
}

fn too_long(limit: PrivateDataLimit) -> ConnectionParams {
    ConnectionParams::new().set_private_data(vec![1; limit.bytes() + 1])
}

#[test]
fn requests_and_answers_carry_as_much_as_they_say() {
    let Some(bed) = Bed::with_cm() else { return };
    let (asked, answered) = (pattern(56, 1), pattern(196, 2));
    let saying = |data: &[u8]| ConnectionParams::new().set_private_data(data);
    let (mut client, mut server) = connected_as(
        &bed,
        Plan::plain().with(saying(&asked)),
        Plan::plain().with(saying(&answered)),
    );
    assert_eq!(server.connection.peer_private_data(), asked);
    assert_eq!(client.connection.peer_private_data(), answered);
    assert_connected(&mut client, &mut server);
}

#[test]
fn any_bytes_arrive_as_they_are() {
    let Some(bed) = Bed::with_cm() else { return };
    let (mut acceptor, to) = listen(Tcp, &bed);
    for data in [vec![0xff; 56], vec![0; 56], vec![0xff; 1], vec![], pattern(56, 3)] {
        let params = ConnectionParams::new().set_private_data(data.clone());
        let (mut server, mut client) = both(
            || {
                let incoming = next_request(&mut acceptor);
                assert_filled_up(incoming.peer_private_data(), &data, 56);
                Plan::plain().with(params.clone()).accept(incoming)
            },
            || Plan::plain().with(params.clone()).dial(resolve(Tcp, to)),
        );
        assert_filled_up(client.connection.peer_private_data(), &data, 196);
        assert_filled_up(server.connection.peer_private_data(), &data, 56);
        assert_connected(&mut client, &mut server);
    }
}

/// Checks that it is this data, and zeros as far as the message goes.
#[track_caller]
fn assert_filled_up(arrived: &[u8], sent: &[u8], len: usize) {
    let mut expected = sent.to_vec();
    expected.resize(len, 0);
    assert_eq!(arrived, expected);
}

#[test]
fn a_request_with_too_much_is_not_sent() {
    let Some(bed) = Bed::with_cm() else { return };
    let (mut acceptor, to) = listen(Tcp, &bed);
    let prepared = unconnected::<Rc>(&bed, |builder| builder);
    let too_long = too_long(PrivateDataLimit::CONNECT);
    let failed = resolve(Tcp, to).connect(prepared.qp, &too_long, DEADLINE).unwrap_err();
    assert_too_long(&failed.error, PrivateDataLimit::CONNECT);
    assert!(acceptor.accept(Some(Duration::from_millis(200))).unwrap().is_none());
    // The queue pair can still be connected.
    let prepared = ibverbs_tests::Prepared { qp: failed.resource, ..prepared };
    let (mut server, mut client) = both(
        || Plan::plain().accept(next_request(&mut acceptor)),
        || dial(resolve(Tcp, to), prepared, &ConnectionParams::new()),
    );
    assert_connected(&mut client, &mut server);
}

/// Asks for a connection, and has it refused by `server`; returns what the client sees.
#[track_caller]
fn refused(bed: &Bed, server: impl FnOnce(Incoming<Tcp>) + Send) -> Box<ConnectionFailure> {
    let (mut acceptor, to) = listen(Tcp, bed);
    let ((), error) = both(
        move || server(next_request(&mut acceptor)),
        || {
            let qp = unconnected::<Rc>(bed, |builder| builder).qp;
            resolve(Tcp, to).connect(qp, &ConnectionParams::new(), DEADLINE).unwrap_err().error
        },
    );
    let failure = failure(error);
    assert_eq!(failure.reject_reason(), Some(RejectReason::CONSUMER_DEFINED));
    failure
}

#[test]
fn an_answer_with_too_much_rejects_the_request() {
    let Some(bed) = Bed::with_cm() else { return };
    let prepared = unconnected::<Rc>(&bed, |builder| builder);
    let mut failed = None;
    let failure = refused(&bed, |incoming| {
        let too_long = too_long(PrivateDataLimit::ACCEPT);
        failed = Some(incoming.accept(prepared.qp, &too_long, DEADLINE).unwrap_err());
    });
    assert_filled_up(failure.private_data(), &[], 148);
    let failed = failed.unwrap();
    assert_too_long(&failed.error, PrivateDataLimit::ACCEPT);
    // The queue pair can still accept another.
    let prepared = ibverbs_tests::Prepared { qp: failed.resource, ..prepared };
    let (mut acceptor, to) = listen(Tcp, &bed);
    let (mut server, mut client) = both(
        || accept(next_request(&mut acceptor), prepared, &ConnectionParams::new()),
        || Plan::plain().dial(resolve(Tcp, to)),
    );
    assert_connected(&mut client, &mut server);
}

#[test]
fn a_refusal_carries_as_much_as_it_says() {
    let Some(bed) = Bed::with_cm() else { return };
    for data in [pattern(148, 4), vec![0xff; 148], b"not today".to_vec(), vec![]] {
        let failure = refused(&bed, |incoming| incoming.reject(&data).unwrap());
        assert_filled_up(failure.private_data(), &data, 148);
    }
    let failure = refused(&bed, |incoming| {
        let error = incoming.reject(&[1; 149]).unwrap_err();
        assert_too_long(&error, PrivateDataLimit::REJECT);
    });
    assert_filled_up(failure.private_data(), &[], 148);
}

/// Asks for the peer's queue pair of datagrams, and returns what comes of it.
fn ask<S: Send>(
    bed: &Bed,
    asked: &[u8],
    server: impl FnOnce(Incoming<Udp>) -> S + Send,
) -> (S, ibverbs::Result<ibverbs::rdmacm::FoundPeer>) {
    let (mut acceptor, to) = listen(Udp, bed);
    both(
        move || server(next_request(&mut acceptor)),
        || resolve(Udp, to).find_peer(asked, DEADLINE),
    )
}

#[test]
fn requests_and_answers_for_datagrams_carry_as_much_as_they_say() {
    let Some(bed) = Bed::with_cm() else { return };
    for (asked, answered) in [
        (pattern(180, 5), pattern(136, 6)),
        (vec![0xff; 180], vec![0xff; 136]),
        (b"who".to_vec(), b"me".to_vec()),
        (vec![], vec![]),
    ] {
        let (qp, found) = ask(&bed, &asked, |mut incoming| {
            assert_filled_up(incoming.peer_private_data(), &asked, 180);
            let qp = incoming.activate(unconnected::<Ud>(&bed, |builder| builder).qp).unwrap();
            incoming.answer(&qp, &answered).unwrap();
            qp
        });
        let found = found.unwrap();
        assert_eq!(found.peer.qp_num, qp.qp_num());
        assert_filled_up(&found.private_data, &answered, 136);
    }
}

#[test]
fn too_much_for_datagrams_is_refused() {
    let Some(bed) = Bed::with_cm() else { return };
    let (mut acceptor, to) = listen(Udp, &bed);
    let resolved: Resolved<Udp> = resolve(Udp, to);
    let error = resolved.find_peer(&[1; 181], DEADLINE).unwrap_err();
    assert_too_long(&error, PrivateDataLimit::CONNECT_DATAGRAM);
    assert!(acceptor.accept(Some(Duration::from_millis(200))).unwrap().is_none());

    let ((), found) = ask(&bed, b"", |mut incoming| {
        let qp = incoming.activate(unconnected::<Ud>(&bed, |builder| builder).qp).unwrap();
        let error = incoming.answer(&qp, &[1; 137]).unwrap_err();
        assert_too_long(&error, PrivateDataLimit::ACCEPT_DATAGRAM);
    });
    let failure = failure(found.unwrap_err());
    assert_eq!(failure.datagram_refusal(), Some(DatagramRefusal::REJECTED));

    let ((), found) = ask(&bed, b"", |incoming| {
        let error = incoming.reject(&[1; 137]).unwrap_err();
        assert_too_long(&error, PrivateDataLimit::ACCEPT_DATAGRAM);
    });
    let failure = self::failure(found.unwrap_err());
    assert_eq!(failure.datagram_refusal(), Some(DatagramRefusal::REJECTED));
}

#[test]
fn a_refusal_of_datagrams_carries_as_much_as_it_says() {
    let Some(bed) = Bed::with_cm() else { return };
    for data in [pattern(136, 7), b"not today".to_vec(), vec![]] {
        let ((), found) = ask(&bed, b"", |incoming| incoming.reject(&data).unwrap());
        let failure = failure(found.unwrap_err());
        assert_eq!(failure.datagram_refusal(), Some(DatagramRefusal::REJECTED));
        assert_eq!(failure.reject_reason(), None);
        assert_filled_up(failure.private_data(), &data, 136);
    }
}
