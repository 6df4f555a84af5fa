//! A connection to a peer in a process of its own, which has memory for this side.

use ibverbs::{QueuePairEndpoint, Rc, RemoteMemorySlice};

use crate::device::Bed;
use crate::memory::Mem;
use crate::pair::{prepare, Prepared, Side};
use crate::process::{hear, tell, PeerProcess};

fn print(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse<const N: usize>(text: &str) -> [u8; N] {
    assert_eq!(text.len(), 2 * N, "{text}");
    std::array::from_fn(|n| {
        u8::from_str_radix(&text[2 * n..2 * n + 2], 16).expect("hexadecimal digits")
    })
}

/// In the peer's process: connects to the other one, whose memory is told as well, and gives it memory of this length.
#[track_caller]
pub fn be_peer(bed: &Bed, len: usize) -> (Side, Mem, RemoteMemorySlice) {
    let mem = bed.mem(len);
    let prepared = prepare::<Rc>(bed, |builder| builder);
    tell(&print(&prepared.qp.endpoint().expect("endpoint").to_bytes()));
    tell(&print(&mem.remote().to_bytes()));
    let endpoint: [u8; QueuePairEndpoint::BYTES] = parse(&hear());
    let remote: [u8; RemoteMemorySlice::BYTES] = parse(&hear());
    let side = connect(prepared, &endpoint);
    tell("up");
    (side, mem, RemoteMemorySlice::from_bytes(&remote).expect("the other side's memory"))
}

/// Starts the peer of the test of this name and connects to it. Returns its memory as well.
#[track_caller]
pub fn connect_to(
    test: &str,
    prepared: Prepared,
    mem: &Mem,
) -> (PeerProcess, Side, RemoteMemorySlice) {
    let mut peer = PeerProcess::start(test, "peer");
    let endpoint: [u8; QueuePairEndpoint::BYTES] = parse(&peer.hear());
    let remote: [u8; RemoteMemorySlice::BYTES] = parse(&peer.hear());
    peer.tell(&print(&prepared.qp.endpoint().expect("endpoint").to_bytes()));
    peer.tell(&print(&mem.remote().to_bytes()));
    let side = connect(prepared, &endpoint);
    assert_eq!(peer.hear(), "up");
    (peer, side, RemoteMemorySlice::from_bytes(&remote).expect("the peer's memory"))
}

#[track_caller]
fn connect(prepared: Prepared, remote: &[u8; QueuePairEndpoint::BYTES]) -> Side {
    let endpoint = QueuePairEndpoint::from_bytes(remote).expect("an endpoint");
    let Prepared { qp, send_cq, recv_cq, bed } = prepared;
    Side { qp: qp.handshake(endpoint).expect("cannot connect"), send_cq, recv_cq, bed }
}
