//! What an engine makes, looked at before it is sent: there is no thread, and nobody sends.

use super::*;
use crate::cm::{Context, Dreq, Message};
use crate::device::{AsyncQueue, CqOwner};
use crate::transport::{
    Attributes, CqId, Payload, RecvRequest, RemoteAccess, SendOperation, SendRequest, State,
};
use crate::wire::{Operation, Psn};

/// An engine whose packets to itself go over the wire, and a reliable connection of it with itself.
fn engine() -> (Engine, u32, CqId) {
    let socket = Socket::bind_anywhere();
    let link_local = "fe80::1".parse().unwrap();
    let mut engine = Engine::new(socket, link_local, Loopback::Wire, Cm::new(0, 1)).unwrap();
    let async_queue = Arc::new(AsyncQueue::new().unwrap());
    let pd = engine.parts.alloc_pd().unwrap();
    let owner = CqOwner { token: 1, channel: None, async_queue: Arc::clone(&async_queue) };
    let cq = engine.parts.create_cq(64, owner).unwrap();
    let config = Config {
        qp_num: 0,
        service: Service::Rc,
        pd,
        send_cq: cq,
        recv_cq: cq,
        srq: None,
        max_send_wr: 64,
        max_recv_wr: 64,
        signal_all: true,
    };
    let qp_num = engine.create_qp(config, Owner { token: 2, async_queue }).unwrap();
    let attributes = Attributes {
        pkey: 0xffff,
        qkey: 0,
        access: RemoteAccess { write: false, read: false, atomic: false },
        path: Some(path_to_itself(&engine)),
        path_mtu: 1024,
        dest_qp: qp_num,
        rq_psn: Psn::new(0),
        sq_psn: Psn::new(0),
        max_dest_rd_atomic: 1,
        max_rd_atomic: 1,
        min_rnr_timer: 1,
        timeout: 14,
        retry_count: 7,
        rnr_retry: 7,
    };
    for state in [State::Init, State::ReadyToReceive, State::ReadyToSend] {
        let now = engine.parts.tick();
        let (qp, parts) = engine.qp_and_parts(qp_num).unwrap();
        qp.modify(now, state, attributes, parts);
    }
    (engine, qp_num, cq)
}

fn path_to_itself(engine: &Engine) -> Path {
    let addr = engine.socket.addr();
    Path { source: addr, dest: addr, traffic_class: 0, hop_limit: 64, flow_label: 0 }
}

/// Posts a send of nothing, and a receive for it.
fn post(engine: &mut Engine, qp_num: u32) {
    let now = engine.parts.tick();
    let (qp, parts) = engine.qp_and_parts(qp_num).unwrap();
    qp.post_recv(RecvRequest { wr_id: 1, sges: Vec::new() }, parts);
    let send = SendRequest {
        wr_id: 2,
        operation: SendOperation::Send { imm: None },
        payload: Payload::Sges(Vec::new()),
        signaled: true,
        solicited: false,
        fenced: false,
    };
    qp.post_send(now, send, parts);
    engine.move_packets_of(qp_num);
}

/// Everything that is to be sent, as who receives it gets it.
fn sent(engine: &mut Engine) -> Vec<(Path, Packet)> {
    let datagrams = std::mem::take(&mut engine.queues.outgoing);
    let packet = |datagram: Datagram| {
        let path = *datagram.path();
        (path, Packet::parse(&datagram.into_bytes()).unwrap())
    };
    datagrams.into_iter().map(packet).collect()
}

/// Whether each of them is an acknowledgement.
fn acknowledgements(packets: &[(Path, Packet)]) -> Vec<bool> {
    let is_ack =
        |(_, packet): &(Path, Packet)| matches!(packet.operation, Operation::Acknowledge(_));
    packets.iter().map(is_ack).collect()
}

fn receive(engine: &mut Engine, packets: Vec<(Path, Packet)>) {
    engine.queues.incoming.extend(packets);
    let now = engine.parts.tick();
    engine.deliver(now);
    engine.note_find();
}

#[test]
fn an_acknowledgement_goes_behind_the_next_request() {
    let (mut engine, qp_num, cq) = engine();
    post(&mut engine, qp_num);
    let first = sent(&mut engine);
    assert_eq!(acknowledgements(&first), [false]);
    receive(&mut engine, first);
    assert_eq!(engine.parts.cq(cq).unwrap().pop().unwrap().unwrap().completion.wr_id, 1);
    // Whoever has received something may be about to answer it.
    assert!(sent(&mut engine).is_empty());
    post(&mut engine, qp_num);
    let second = sent(&mut engine);
    assert_eq!(acknowledgements(&second), [false, true]);
    // Nothing is left that is owed, but for the second.
    receive(&mut engine, second);
    assert_eq!(engine.parts.cq(cq).unwrap().pop().unwrap().unwrap().completion.wr_id, 1);
    assert_eq!(engine.parts.cq(cq).unwrap().pop().unwrap().unwrap().completion.wr_id, 2);
    engine.begin_look();
    assert_eq!(acknowledgements(&sent(&mut engine)), [true]);
}

#[test]
fn an_acknowledgement_goes_alone_with_the_next_look() {
    let (mut engine, qp_num, _) = engine();
    post(&mut engine, qp_num);
    let first = sent(&mut engine);
    receive(&mut engine, first);
    engine.begin_look();
    assert_eq!(acknowledgements(&sent(&mut engine)), [true]);
    engine.begin_look();
    assert!(sent(&mut engine).is_empty());
}

#[test]
fn peers_do_not_make_the_queue_grow_while_the_socket_is_full() {
    let (mut engine, ..) = engine();
    let from_peer = Path { source: [127, 0, 0, 255].into(), ..path_to_itself(&engine) };
    // Each is answered: there is no such connection.
    let mut ask = |local_id| {
        let end = Message::Dreq(Dreq { local_id, remote_id: 2, remote_qpn: 3 });
        let bytes = end.emit(Context::default());
        engine.cm.manager.handle_message(Instant::now(), &from_peer, &*bytes);
        engine.move_packets();
        if engine.queues.outgoing.len() == PACKETS_PER_CALL {
            engine.is_stuck = true;
        }
    };
    let asked = 2 * PACKETS_PER_CALL as u32;
    (0..asked).for_each(&mut ask);
    assert_eq!(engine.queues.outgoing.len(), PACKETS_PER_CALL);
    assert_eq!(engine.dropped().unsendable, PACKETS_PER_CALL as u64);
}
