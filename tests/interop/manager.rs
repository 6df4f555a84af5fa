//! What the connection managers of both ends do with each other: the end that is active asks, and the other one listens.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ibverbs::rdmacm::{
    Acceptor, ConnectionFailure, ConnectionParams, DatagramRefusal, FoundPeer, Incoming, PortSpace,
    PrivateDataLimit, RejectReason, Tcp, Udp,
};
use ibverbs::{Error, QueuePair, Rc, RecvRequest, Reset, Ud};
use ibverbs_tests::{
    listen, next_request, pattern, post_recv, resolve, submit, unconnected, wait_one, Bed, Plan,
    Prepared, Side, DEADLINE, GRH,
};

use super::{arrived, End, SOME};

/// How often whoever takes requests looks whether the other end is through.
const ROUND: Duration = Duration::from_millis(50);

/// As much private data as there can be.
fn full(limit: PrivateDataLimit) -> Vec<u8> {
    pattern(limit.bytes(), limit.bytes() as u64)
}

fn saying(limit: PrivateDataLimit) -> ConnectionParams {
    ConnectionParams::new().set_private_data(full(limit))
}

#[track_caller]
fn failure(error: Error) -> Box<ConnectionFailure> {
    match error {
        Error::Connection(failure) => failure,
        error => panic!("{error}"),
    }
}

impl End {
    /// The listener, on the end that is not active, and where it is.
    fn meeting_point<P: PortSpace>(&mut self, port_space: P) -> (Option<Acceptor<P>>, SocketAddr) {
        let listening = (!self.is_active).then(|| listen(port_space, &self.bed));
        let mut mine = [0; 6];
        if let Some((_, SocketAddr::V4(address))) = listening {
            mine[..4].copy_from_slice(&address.ip().octets());
            mine[4..].copy_from_slice(&address.port().to_be_bytes());
        }
        let theirs = self.talk.exchange(&mine);
        match listening {
            Some((acceptor, address)) => (Some(acceptor), address),
            None => {
                let [a, b, c, d, port @ ..] = theirs;
                let ip = IpAddr::from(Ipv4Addr::new(a, b, c, d));
                (None, SocketAddr::new(ip, u16::from_be_bytes(port)))
            }
        }
    }

    /// Takes requests until the other end is through. Where packets are lost, one that was answered may come again.
    fn take_requests<P: PortSpace + Send>(
        &mut self,
        acceptor: &mut Acceptor<P>,
        mut each: impl FnMut(Incoming<P>) + Send,
    ) {
        let is_through = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_through.load(Ordering::Relaxed) {
                    if let Some(incoming) = acceptor.accept(Some(ROUND)).unwrap() {
                        each(incoming);
                    }
                }
            });
            self.talk.meet("answered");
            is_through.store(true, Ordering::Relaxed);
        });
    }
}

pub(crate) fn connections(end: &mut End) {
    for asker_ends_it in [true, false] {
        let (acceptor, to) = end.meeting_point(Tcp);
        let plan = Plan::plain();
        let mut side = match acceptor {
            None => plan.with(saying(PrivateDataLimit::CONNECT)).dial(resolve(Tcp, to)),
            Some(mut acceptor) => {
                plan.with(saying(PrivateDataLimit::ACCEPT)).accept(next_request(&mut acceptor))
            }
        };
        let said = if end.is_active { PrivateDataLimit::ACCEPT } else { PrivateDataLimit::CONNECT };
        assert_eq!(side.connection.peer_private_data(), full(said));
        for sends in [end.is_active, !end.is_active] {
            pass_message(end, &mut side, sends);
        }
        if asker_ends_it == end.is_active {
            side.connection.disconnect().unwrap();
        }
        assert!(side.connection.wait_disconnected(Some(DEADLINE)).unwrap(), "it still stands");
        end.talk.meet("disconnected");
    }
}

fn pass_message(end: &mut End, side: &mut ibverbs_tests::End, sends: bool) {
    const LEN: usize = 3000;
    let mem = side.bed.mem(LEN);
    let slice = [mem.slice(..)];
    if sends {
        mem.write(0, &pattern(LEN, 1));
        end.talk.meet("posted");
        submit(side.qp(), |batch| batch.op().signaled().send(1, &slice)).unwrap();
        assert_eq!(wait_one(&side.send_cq, 1).ok, Ok(()));
    } else {
        post_recv(side.qp(), [RecvRequest::new(1, &slice)]).unwrap();
        end.talk.meet("posted");
        assert_eq!(wait_one(&side.recv_cq, 1).ok, Ok(()));
        assert!(mem.read(..) == pattern(LEN, 1));
    }
    end.talk.meet("passed");
}

/// Asks for a connection that must be rejected.
#[track_caller]
fn rejected(end: &End, to: SocketAddr) -> Box<ConnectionFailure> {
    let qp = unconnected::<Rc>(&end.bed, |builder| builder).qp;
    let connected = resolve(Tcp, to).connect(qp, &ConnectionParams::new(), DEADLINE);
    failure(connected.unwrap_err().error)
}

/// The program that is asked says no; then nobody listens any more.
pub(crate) fn rejections(end: &mut End) {
    let (acceptor, to) = end.meeting_point(Tcp);
    if let Some(mut acceptor) = acceptor {
        let why = full(PrivateDataLimit::REJECT);
        end.take_requests(&mut acceptor, |incoming| incoming.reject(&why).unwrap());
        drop(acceptor);
        end.talk.meet("closed");
    } else {
        let failure = rejected(end, to);
        assert_eq!(failure.reject_reason(), Some(RejectReason::CONSUMER_DEFINED));
        assert_eq!(failure.private_data(), full(PrivateDataLimit::REJECT));
        end.talk.meet("answered");
        end.talk.meet("closed");
        let failure = rejected(end, to);
        assert_eq!(failure.reject_reason(), Some(RejectReason::INVALID_SERVICE_ID));
    }
    end.talk.meet("rejected");
}

/// A queue pair of datagrams that `activate` has made ready.
fn ready(bed: &Bed, activate: impl FnOnce(QueuePair<Ud, Reset>) -> QueuePair<Ud>) -> Side<Ud> {
    let Prepared { qp, send_cq, recv_cq, bed } = unconnected::<Ud>(bed, |builder| builder);
    Side { qp: activate(qp), send_cq, recv_cq, bed }
}

/// A queue pair is found, and takes datagrams; another one is asked for, and refused.
pub(crate) fn found_datagrams(end: &mut End) {
    const ASKED: PrivateDataLimit = PrivateDataLimit::CONNECT_DATAGRAM;
    const ANSWERED: PrivateDataLimit = PrivateDataLimit::ACCEPT_DATAGRAM;
    let (acceptor, to) = end.meeting_point(Udp);
    if let Some(mut acceptor) = acceptor {
        let (bed, mut side) = (end.bed.clone(), None);
        end.take_requests(&mut acceptor, |mut incoming| {
            assert_eq!(incoming.peer_private_data(), full(ASKED));
            let side = side.get_or_insert_with(|| ready(&bed, |qp| incoming.activate(qp).unwrap()));
            incoming.answer(&side.qp, &full(ANSWERED)).unwrap();
        });
        receive_datagrams(end, &mut side.expect("somebody has asked"));
        end.take_requests(&mut acceptor, |incoming| incoming.reject(&full(ANSWERED)).unwrap());
    } else {
        let mut resolved = resolve(Udp, to);
        let mut side = ready(&end.bed, |qp| resolved.activate(qp).unwrap());
        let found = resolved.find_peer(&full(ASKED), DEADLINE).unwrap();
        assert_eq!(found.private_data, full(ANSWERED));
        end.talk.meet("answered");
        send_datagrams(end, &mut side, &found);
        let refused = resolve(Udp, to).find_peer(&full(ASKED), DEADLINE);
        let failure = failure(refused.unwrap_err());
        assert_eq!(failure.datagram_refusal(), Some(DatagramRefusal::REJECTED));
        assert_eq!(failure.private_data(), full(ANSWERED));
        end.talk.meet("answered");
    }
    end.talk.meet("refused");
}

/// How long the datagrams are.
const DATAGRAM: usize = 500;

fn receive_datagrams(end: &mut End, side: &mut Side<Ud>) {
    const ROOM: usize = GRH + DATAGRAM;
    let mem = side.bed.mem(ROOM * SOME);
    for i in 0..SOME {
        let slice = [mem.slice(ROOM * i..ROOM * (i + 1))];
        post_recv(&mut side.qp, [RecvRequest::new(i as u64, &slice)]).unwrap();
    }
    end.talk.meet("posted");
    end.talk.meet("sent");
    end.check(&arrived(&side.recv_cq), &mem, ROOM, GRH, DATAGRAM);
}

fn send_datagrams(end: &mut End, side: &mut Side<Ud>, found: &FoundPeer) {
    let mem = side.bed.mem(DATAGRAM);
    let ah = found.peer.create_ah(side.bed.pd()).unwrap();
    end.talk.meet("posted");
    for i in 0..SOME {
        mem.write(0, &pattern(DATAGRAM, i as u64));
        let slice = [mem.slice(..)];
        submit(&mut side.qp, |batch| {
            let to = batch.to(&ah, found.peer.qp_num, found.peer.qkey);
            to.imm(i as u32).signaled().send(1, &slice);
        })
        .unwrap();
        assert_eq!(wait_one(&side.send_cq, 1).ok, Ok(()));
    }
    end.talk.meet("sent");
}
