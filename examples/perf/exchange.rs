//! What client and server tell each other over TCP before they connect queue pairs: who they are, what is to be
//! measured, what their ports can do, and whether all of that goes together.

use anyhow::{anyhow, bail, ensure, Context as _, Result};
use ibverbs::{AtomicCap, Mtu, QueuePairEndpoint, RemoteMemorySlice};
use ibverbs_examples::{Opened, Peer};

use crate::plan::{Plan, Transport};

/// What both sides say first. It has this length in every version.
const HELLO: [u8; 8] = *b"ibvperf\x01";

/// What a device and its port can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) device: String,
    pub(crate) mtu: Mtu,
    max_message: u32,
    max_queue_pairs: u32,
    has_atomics: bool,
}

/// The longest name of a device.
const NAME: usize = 64;
const LIMITS: usize = 13 + NAME;
const OFFER: usize = Plan::BYTES + LIMITS;
/// The longest reason for which something is refused.
const REASON: usize = 250;

impl Limits {
    pub(crate) fn of(opened: &Opened) -> Result<Limits> {
        let (device, port) =
            (opened.context.query_device()?, opened.context.query_port(opened.port)?);
        Ok(Limits {
            device: opened.context.device().name().to_owned(),
            mtu: port.active_mtu(),
            max_message: port.max_msg_size(),
            max_queue_pairs: device.max_qp(),
            has_atomics: device.atomic_cap() != AtomicCap::NONE,
        })
    }

    /// That a device can do what is planned, with packets of at most `mtu`.
    pub(crate) fn check(&self, plan: &Plan, mtu: Mtu) -> Result<()> {
        let (size, device) = (plan.sizes.last(), &self.device);
        if plan.transport == Transport::Ud {
            ensure!(
                Some(size) <= mtu.bytes(),
                "a datagram fits into one packet: {size} bytes are more than the MTU of {mtu}"
            );
        }
        ensure!(
            size <= self.max_message,
            "{size} bytes are more than {device} can send at once: {}",
            self.max_message
        );
        let queue_pairs = plan.queue_pairs();
        ensure!(
            queue_pairs <= self.max_queue_pairs,
            "--qps {queue_pairs} is more than {device} has: {}",
            self.max_queue_pairs
        );
        ensure!(self.has_atomics || !plan.operation.is_atomic(), "{device} has no atomics");
        Ok(())
    }

    fn to_bytes(&self) -> [u8; LIMITS] {
        let mut bytes = [0; LIMITS];
        let mtu = self.mtu.bytes().unwrap_or_default();
        let numbers = [mtu, self.max_message, self.max_queue_pairs];
        for (place, number) in bytes.chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        bytes[12] = self.has_atomics.into();
        put_text(&mut bytes[13..], &self.device);
        bytes
    }

    fn from_bytes(bytes: &[u8; LIMITS]) -> Result<Limits> {
        let mut numbers = bytes
            .chunks_exact(4)
            .map(|number| number.iter().fold(0, |value, &byte| value << 8 | u32::from(byte)));
        let mut number = || numbers.next().unwrap_or_default();
        let (mtu, max_message, max_queue_pairs) = (number(), number(), number());
        Ok(Limits {
            device: text(&bytes[13..]),
            mtu: Mtu::from_bytes(mtu).with_context(|| format!("the peer has an MTU of {mtu}"))?,
            max_message,
            max_queue_pairs,
            has_atomics: bytes[12] != 0,
        })
    }
}

/// What both sides have agreed on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) plan: Plan,
    /// The longest packet: that of the side whose port can do less.
    pub(crate) mtu: Mtu,
    /// The name of the peer's device.
    pub(crate) peer: String,
}

/// Agrees on a plan: the client has one, and the server learns it. It is an error on both sides if one of them
/// cannot do it.
pub(crate) fn agree(peer: &mut Peer, mine: &Limits, plan: Option<Plan>) -> Result<Agreed> {
    let [theirs @ .., version] = peer.exchange(&HELLO)?;
    let [ours @ .., our_version] = HELLO;
    ensure!(theirs == ours, "the peer is another program");
    ensure!(version == our_version, "the peer speaks version {version}, and this is {our_version}");

    let mut offer = [0; OFFER];
    if let Some(plan) = plan {
        offer[..Plan::BYTES].copy_from_slice(&plan.to_bytes());
    }
    offer[Plan::BYTES..].copy_from_slice(&mine.to_bytes());
    let offer = peer.exchange(&offer)?;
    let (their_plan, their_limits) = offer.split_at(Plan::BYTES);
    let agreed = (|| {
        let theirs = Limits::from_bytes(their_limits.try_into()?)?;
        let plan = match plan {
            Some(plan) => plan,
            None => Plan::from_bytes(their_plan.try_into()?)?,
        };
        let mtu = mine.mtu.min(theirs.mtu);
        mine.check(&plan, mtu)?;
        theirs.check(&plan, mtu)?;
        Ok(Agreed { plan, mtu, peer: theirs.device })
    })();
    both(peer, agreed)
}

/// Tells the peer what came of a step, and hears what came of its own: both must have succeeded.
pub(crate) fn both<R>(peer: &mut Peer, result: Result<R>) -> Result<R> {
    let mut message = [0; 1 + REASON];
    if let Err(error) = &result {
        message[0] = 1;
        put_text(&mut message[1..], &format!("{error:#}"));
    }
    // If this side has failed, that is what is to be told here, whatever became of the peer.
    let answer = peer.exchange(&message);
    let result = result?;
    match answer? {
        [0, ..] => Ok(result),
        [_, reason @ ..] => bail!("the peer says: {}", text(&reason)),
    }
}

const END: usize = QueuePairEndpoint::BYTES + RemoteMemorySlice::BYTES;

/// Exchanges what the peer needs to connect to a queue pair and to use its memory.
pub(crate) fn exchange_ends(
    peer: &mut Peer,
    endpoint: &QueuePairEndpoint,
    memory: &RemoteMemorySlice,
) -> Result<(QueuePairEndpoint, RemoteMemorySlice)> {
    let mut message = [0; END];
    let (first, second) = message.split_at_mut(QueuePairEndpoint::BYTES);
    first.copy_from_slice(&endpoint.to_bytes());
    second.copy_from_slice(&memory.to_bytes());
    let answer = peer.exchange(&message)?;
    let (endpoint, memory) = answer.split_at(QueuePairEndpoint::BYTES);
    Ok((QueuePairEndpoint::from_bytes(endpoint)?, RemoteMemorySlice::from_bytes(memory)?))
}

/// Exchanges a number: how many operations there were.
pub(crate) fn exchange_count(peer: &mut Peer, count: u64) -> Result<u64> {
    Ok(u64::from_be_bytes(peer.exchange(&count.to_be_bytes())?))
}

/// As much of a text as there is room for, with zeros behind it.
fn put_text(place: &mut [u8], text: &str) {
    let mut end = text.len().min(place.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    place[..end].copy_from_slice(&text.as_bytes()[..end]);
}

/// The text that [`put_text`] put there, without what would do something to a terminal.
fn text(bytes: &[u8]) -> String {
    ibverbs_examples::text(bytes)
}

/// The error of an operation that does not go on: the peer is at the end already.
pub(crate) fn too_early() -> anyhow::Error {
    anyhow!("the peer has stopped before this side has")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{FLOW, PLAN};
    use crate::plan::{Flow, Kind, Operation, Sizes};

    fn limits() -> Limits {
        Limits {
            device: "soft0".into(),
            mtu: Mtu::B1024,
            max_message: 1 << 20,
            max_queue_pairs: 100,
            has_atomics: true,
        }
    }

    /// What the client and the server say, with these limits each.
    fn negotiate(client: Limits, server: Limits, plan: Plan) -> [Result<Agreed>; 2] {
        let (mut here, mut there) = Peer::pair().unwrap();
        let server = std::thread::spawn(move || agree(&mut there, &server, None));
        let client = agree(&mut here, &client, Some(plan));
        [client, server.join().unwrap()]
    }

    #[test]
    fn the_server_follows_and_the_shorter_packet_is_taken() {
        let server = Limits { mtu: Mtu::B512, device: "rxe0".into(), ..limits() };
        let [client, server] = negotiate(limits(), server, PLAN).map(Result::unwrap);
        assert_eq!(client, Agreed { plan: PLAN, mtu: Mtu::B512, peer: "rxe0".into() });
        assert_eq!(server, Agreed { peer: "soft0".into(), ..client });
    }

    #[test]
    fn both_sides_say_what_one_of_them_cannot_do() {
        let refused = |server: Limits, plan: Plan, reason: &str| {
            for (client, server) in [(limits(), server.clone()), (server, limits())] {
                for result in negotiate(client, server, plan) {
                    let error = result.unwrap_err().to_string();
                    assert!(error.contains(reason), "{error}");
                }
            }
        };
        let short = Limits { max_message: 65535, ..limits() };
        refused(short, PLAN, "65536 bytes are more than soft0 can send at once: 65535");
        let many = Plan { kind: Kind::Bandwidth(Flow { queue_pairs: 100, ..FLOW }), ..PLAN };
        let few = Limits { max_queue_pairs: 99, ..limits() };
        refused(few, many, "--qps 100 is more than soft0 has: 99");
        let sizes = Sizes::one(1024);
        let datagram = Plan { operation: Operation::Send, transport: Transport::Ud, sizes, ..PLAN };
        let packets = Limits { mtu: Mtu::B512, ..limits() };
        refused(packets, datagram, "a datagram fits into one packet");
        let (operation, sizes) = (Operation::FetchAdd, Sizes::one(8));
        let atomic = Plan { operation, transport: Transport::Rc, sizes, ..PLAN };
        refused(Limits { has_atomics: false, ..limits() }, atomic, "soft0 has no atomics");
    }

    #[test]
    fn a_failure_of_either_side_is_told_to_both() {
        let (mut here, mut there) = Peer::pair().unwrap();
        let other = std::thread::spawn(move || {
            let failed: Result<()> = Err(anyhow!("{}", "no\x1bmemory é".repeat(100)));
            (both(&mut there, failed).unwrap_err(), both(&mut there, Ok(1)).unwrap())
        });
        let told = both(&mut here, Ok(())).unwrap_err().to_string();
        assert!(told.starts_with("the peer says: no\u{fffd}memory"), "{told}");
        assert_eq!(both(&mut here, Ok(2)).unwrap(), 2);
        let (failure, succeeded) = other.join().unwrap();
        assert!(failure.to_string().starts_with("no\x1bmemory"));
        assert_eq!(succeeded, 1);
    }

    /// What this side says to a peer that says `hello` first.
    fn greeted_with(hello: &[u8; 8]) -> String {
        let (mut here, mut there) = Peer::pair().unwrap();
        let hello = *hello;
        let other = std::thread::spawn(move || there.exchange(&hello));
        let error = agree(&mut here, &limits(), Some(PLAN)).unwrap_err().to_string();
        other.join().unwrap().unwrap();
        error
    }

    #[test]
    fn other_programs_and_versions_are_refused() {
        assert_eq!(greeted_with(b"ibvperf\x02"), "the peer speaks version 2, and this is 1");
        assert_eq!(greeted_with(b"GET / HT"), "the peer is another program");
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        let mut bytes = limits().to_bytes();
        assert_eq!(Limits::from_bytes(&bytes).unwrap(), limits());
        bytes[3] = 1;
        assert_eq!(
            Limits::from_bytes(&bytes).unwrap_err().to_string(),
            "the peer has an MTU of 1025"
        );
    }
}
