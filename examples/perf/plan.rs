//! What is measured: the client's command line makes a plan, and the server follows it.

use std::fmt::{self, Display};
use std::time::Duration;

use anyhow::{bail, ensure, Context as _, Result};
use clap::ValueEnum;

/// What is of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// How long one operation takes, with no other under way.
    Latency,
    /// How much can be done with many under way.
    Bandwidth(Flow),
}

/// How many operations are under way, on each queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) window: u32,
    /// How many are posted with one doorbell.
    pub(crate) batch: u32,
    /// Of so many one is signaled.
    pub(crate) signal_every: u32,
    pub(crate) queue_pairs: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Operation {
    /// A message into a receive of the peer's
    Send,
    /// RDMA write
    Write,
    /// RDMA read
    Read,
    /// Atomic fetch and add, of 8 bytes
    FetchAdd,
    /// Atomic compare and swap, of 8 bytes
    CompareSwap,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    /// Reliable connection
    Rc,
    /// Unreliable connection: sends and writes
    Uc,
    /// Unreliable datagrams: sends of one packet
    Ud,
}

/// Message sizes: one, or the powers of two from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    first: u32,
    last: u32,
}

/// When a measurement ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// After so many operations on each queue pair.
    Iterations(u64),
    /// After this time.
    Time(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) operation: Operation,
    pub(crate) transport: Transport,
    pub(crate) sizes: Sizes,
    /// Messages of up to so many bytes are sent inline.
    pub(crate) inline: u32,
    /// How many operations come before those that are measured, on each queue pair.
    pub(crate) warmup: u64,
}

/// The memory of all queue pairs together: more is taken for a mistake.
const MAX_MEMORY: u64 = 4 << 30;
/// Completions tell the queue pair in 16 bits.
const MAX_QUEUE_PAIRS: u32 = 1 << 16;

impl Sizes {
    pub(crate) fn one(size: u32) -> Sizes {
        Sizes { first: size, last: size }
    }

    pub(crate) fn last(self) -> u32 {
        self.last
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = u32> {
        let next = |size: &u32| size.checked_mul(2);
        std::iter::successors(Some(self.first), next).take_while(move |&size| size <= self.last)
    }

    /// Of `2..65536` or `1K..1M`.
    pub(crate) fn parse(text: &str) -> Result<Sizes> {
        let (first, last) = text.split_once("..").context("two sizes are due: 2..65536")?;
        let sizes = Sizes { first: parse_size(first)?, last: parse_size(last)? };
        sizes.check()?;
        Ok(sizes)
    }

    fn check(self) -> Result<()> {
        let Sizes { first, last } = self;
        ensure!(first > 0 && first <= last, "no message has {first} to {last} bytes");
        let is_sweep = first.is_power_of_two() && last.is_power_of_two();
        ensure!(first == last || is_sweep, "a sweep begins and ends with powers of two");
        Ok(())
    }
}

/// A size in bytes, or with a K or M behind it in units of 1024 or of 1024 times 1024 bytes.
pub(crate) fn parse_size(text: &str) -> Result<u32> {
    let (number, shift) = match text.as_bytes() {
        [.., b'k' | b'K'] => (&text[..text.len() - 1], 10),
        [.., b'm' | b'M'] => (&text[..text.len() - 1], 20),
        _ => (text, 0),
    };
    let number: u64 = number.parse().with_context(|| format!("{text} is no size"))?;
    let size = number.checked_mul(1 << shift).and_then(|size| u32::try_from(size).ok());
    size.filter(|&size| size > 0).with_context(|| format!("no message has {text} bytes"))
}

impl Operation {
    pub(crate) fn is_atomic(self) -> bool {
        matches!(self, Operation::FetchAdd | Operation::CompareSwap)
    }

    /// Whether the peer answers each operation, and both do the same in turns.
    pub(crate) fn is_ping_pong(self) -> bool {
        matches!(self, Operation::Send | Operation::Write)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Operation::Send => "send",
            Operation::Write => "write",
            Operation::Read => "read",
            Operation::FetchAdd => "fetch-add",
            Operation::CompareSwap => "compare-swap",
        }
    }
}

impl Transport {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Transport::Rc => "rc",
            Transport::Uc => "uc",
            Transport::Ud => "ud",
        }
    }
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Latency => "latency",
            Kind::Bandwidth(_) => "bandwidth",
        }
    }
}

impl Flow {
    fn check(self) -> Result<()> {
        let Flow { window, batch, signal_every, queue_pairs } = self;
        for (option, value) in [
            ("--window", window),
            ("--batch", batch),
            ("--signal-every", signal_every),
            ("--qps", queue_pairs),
        ] {
            ensure!(value > 0, "{option} 0: nothing would happen");
        }
        ensure!(batch <= window, "--batch {batch} does not fit into --window {window}");
        // Else it might be full, but for less than a batch, of operations of which none completes: after whole batches
        // so many at most come behind the last one that was signaled.
        let behind = signal_every - greatest_common_divisor(signal_every, batch);
        let needed = u64::from(behind) + u64::from(batch);
        ensure!(
            u64::from(window) >= needed,
            "--signal-every {signal_every} with --batch {batch} needs a --window of {needed} or more, not {window}: \
             it would fill up and wait for a completion that nothing was asked for"
        );
        ensure!(
            queue_pairs <= MAX_QUEUE_PAIRS,
            "--qps {queue_pairs} is more than {MAX_QUEUE_PAIRS}"
        );
        Ok(())
    }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

impl Plan {
    pub(crate) fn queue_pairs(&self) -> u32 {
        match self.kind {
            Kind::Latency => 1,
            Kind::Bandwidth(flow) => flow.queue_pairs,
        }
    }

    /// That the plan makes sense, whatever the devices are.
    pub(crate) fn check(&self) -> Result<()> {
        let Plan { operation, transport, sizes, .. } = *self;
        match (transport, operation) {
            (Transport::Rc, _)
            | (Transport::Uc, Operation::Send | Operation::Write)
            | (Transport::Ud, Operation::Send) => {}
            (Transport::Uc, _) => {
                bail!("an unreliable connection has no {}: it can send and write", operation.name())
            }
            (Transport::Ud, _) => {
                bail!("datagrams have no {}: they can be sent", operation.name())
            }
        }
        sizes.check()?;
        if operation.is_atomic() {
            ensure!(sizes == Sizes::one(8), "an atomic operation has 8 bytes");
        }
        if let Kind::Bandwidth(flow) = self.kind {
            flow.check()?;
        }
        let memory = u64::from(sizes.last) * u64::from(self.queue_pairs());
        ensure!(
            memory <= MAX_MEMORY,
            "{} queue pairs with {} bytes each are more than {MAX_MEMORY} bytes",
            self.queue_pairs(),
            sizes.last,
        );
        Ok(())
    }

    pub(crate) const BYTES: usize = 40;

    /// What is told to the server, which need not know when a measurement ends.
    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let (kind, flow) = match self.kind {
            Kind::Latency => (0, [0; 4]),
            Kind::Bandwidth(flow) => {
                (1, [flow.window, flow.batch, flow.signal_every, flow.queue_pairs])
            }
        };
        let mut bytes = [0; Self::BYTES];
        bytes[..3].copy_from_slice(&[kind, self.operation as u8, self.transport as u8]);
        let numbers = [self.sizes.first, self.sizes.last, self.inline].into_iter().chain(flow);
        for (place, number) in bytes[4..32].chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        bytes[32..].copy_from_slice(&self.warmup.to_be_bytes());
        bytes
    }

    /// What the client wants, if that makes sense.
    pub(crate) fn from_bytes(bytes: &[u8; Self::BYTES]) -> Result<Plan> {
        let [kind, operation, transport, _, rest @ ..] = bytes;
        let number = |place: usize| {
            let place = 4 * place;
            rest[place..place + 4].iter().fold(0, |value, &byte| value << 8 | u32::from(byte))
        };
        let kind = match kind {
            0 => Kind::Latency,
            1 => Kind::Bandwidth(Flow {
                window: number(3),
                batch: number(4),
                signal_every: number(5),
                queue_pairs: number(6),
            }),
            other => bail!("the client wants to measure {other}, which is nothing"),
        };
        let operation = Operation::value_variants().get(usize::from(*operation));
        let transport = Transport::value_variants().get(usize::from(*transport));
        let plan = Plan {
            kind,
            operation: *operation.context("the client wants an unknown operation")?,
            transport: *transport.context("the client wants an unknown transport")?,
            sizes: Sizes { first: number(0), last: number(1) },
            inline: number(2),
            warmup: u64::from(number(7)) << 32 | u64::from(number(8)),
        };
        plan.check()?;
        Ok(plan)
    }
}

impl Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { kind, operation, transport, .. } = self;
        write!(f, "{} of {} over {}", kind.name(), operation.name(), transport.name())?;
        if let Kind::Bandwidth(Flow { window, batch, signal_every, queue_pairs }) = kind {
            let plural = if *queue_pairs == 1 { "" } else { "s" };
            write!(
                f,
                ", {queue_pairs} queue pair{plural}, window {window}, {batch} per doorbell, one of {signal_every} signaled"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const FLOW: Flow = Flow { window: 128, batch: 16, signal_every: 16, queue_pairs: 2 };

    pub(crate) const PLAN: Plan = Plan {
        kind: Kind::Bandwidth(FLOW),
        operation: Operation::Write,
        transport: Transport::Uc,
        sizes: Sizes { first: 2, last: 65536 },
        inline: 64,
        warmup: 1 << 33,
    };

    fn sizes(text: &str) -> Vec<u32> {
        Sizes::parse(text).unwrap().iter().collect()
    }

    #[test]
    fn a_sweep_has_the_powers_of_two() {
        assert_eq!(sizes("2..16"), [2, 4, 8, 16]);
        assert_eq!(sizes("512..1K"), [512, 1024]);
        assert_eq!(sizes("1024M..2048M"), [1 << 30, 1 << 31]);
        assert_eq!(sizes("4..4"), [4]);
        for text in ["", "..", "2", "2..", "0..8", "8..2", "3..8", "2..9", "2..1000000M", "-2..4"] {
            assert!(Sizes::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("7").unwrap(), 7);
        assert_eq!(parse_size("64k").unwrap(), 65536);
        assert_eq!(parse_size("1M").unwrap(), 1 << 20);
        for text in ["0", "4096M", "K", "", "1G", "é"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_plan_arrives_as_it_was() {
        for plan in [
            PLAN,
            Plan { kind: Kind::Latency, transport: Transport::Rc, ..PLAN },
            Plan { operation: Operation::Send, transport: Transport::Ud, ..PLAN },
        ] {
            assert_eq!(Plan::from_bytes(&plan.to_bytes()).unwrap(), plan);
        }
    }

    #[test]
    fn plans_that_make_no_sense_are_refused_wherever_they_come_from() {
        let refused = |plan: Plan| {
            let error = plan.check().unwrap_err().to_string();
            assert_eq!(Plan::from_bytes(&plan.to_bytes()).unwrap_err().to_string(), error);
            error
        };
        let flow = |flow| refused(Plan { kind: Kind::Bandwidth(flow), ..PLAN });
        assert!(flow(Flow { window: 0, ..FLOW }).contains("--window 0"));
        assert!(flow(Flow { batch: 0, ..FLOW }).contains("--batch 0"));
        assert!(flow(Flow { signal_every: 0, ..FLOW }).contains("--signal-every 0"));
        assert!(flow(Flow { queue_pairs: 0, ..FLOW }).contains("--qps 0"));
        assert!(flow(Flow { batch: 129, ..FLOW }).contains("does not fit"));
        assert!(flow(Flow { signal_every: 115, ..FLOW }).contains("130 or more, not 128"));
        assert!(flow(Flow { signal_every: u32::MAX, ..FLOW }).contains("needs a --window"));
        assert!(flow(Flow { queue_pairs: 65537, ..FLOW }).contains("more than 65536"));
        let memory = Plan { sizes: Sizes::one(1 << 31), ..PLAN };
        let memory = Plan { kind: Kind::Bandwidth(Flow { queue_pairs: 3, ..FLOW }), ..memory };
        assert!(refused(memory).contains("3 queue pairs with 2147483648 bytes each"));
        let read = refused(Plan { operation: Operation::Read, ..PLAN });
        assert_eq!(read, "an unreliable connection has no read: it can send and write");
        let write = refused(Plan { transport: Transport::Ud, ..PLAN });
        assert_eq!(write, "datagrams have no write: they can be sent");
        let atomic = Plan { operation: Operation::FetchAdd, transport: Transport::Rc, ..PLAN };
        assert_eq!(refused(atomic), "an atomic operation has 8 bytes");
        refused(Plan { sizes: Sizes { first: 0, last: 0 }, ..PLAN });
        refused(Plan { sizes: Sizes { first: 3, last: 8 }, ..PLAN });
    }

    #[test]
    fn unknown_numbers_are_refused() {
        for place in 0..3 {
            let mut bytes = PLAN.to_bytes();
            bytes[place] = 9;
            assert!(Plan::from_bytes(&bytes).is_err());
        }
    }

    /// Posts as the client does, as far as the window lets it, while nothing completes that is not signaled.
    #[test]
    fn a_flow_is_accepted_if_it_does_not_stop() {
        for window in 1..20 {
            for batch in 1..20 {
                for signal_every in 1..20 {
                    let flow = Flow { window, batch, signal_every, queue_pairs: 1 };
                    let (mut posted, mut completed) = (0, 0);
                    let mut goes_on = true;
                    while goes_on && posted < 1000 {
                        let before = (posted, completed);
                        if window - (posted - completed) >= batch {
                            posted += batch;
                        }
                        completed = posted / signal_every * signal_every;
                        goes_on = before != (posted, completed);
                    }
                    let is_accepted = flow.check().is_ok();
                    assert_eq!(is_accepted, goes_on, "{flow:?}");
                }
            }
        }
    }
}
