//! One measurement, on either side: queue pairs are connected, and used for all sizes.

use anyhow::{ensure, Result};
use hdrhistogram::Histogram;
use ibverbs_examples::{Opened, Peer};

use crate::bandwidth::{Amount, Drain, Pump};
use crate::exchange::{agree, exchange_count, Agreed, Limits};
use crate::latency::Line;
use crate::plan::{Extent, Kind, Operation, Plan, Transport};
use crate::queues::Queues;
use crate::verbs::{CompareSwap, FetchAdd, Notice, Read, Send, Verb, Way, Write};
use crate::watch::sleep_until_waiting;

/// The step at which both sides begin.
const BEGIN: u8 = 1;

/// What was measured with messages of one size.
pub(crate) struct Measured {
    pub(crate) size: u32,
    pub(crate) result: Outcome,
}

pub(crate) enum Outcome {
    /// How long operations took in nanoseconds, and how many were lost.
    Latency { times: Histogram<u64>, lost: u64 },
    /// What was done, and how many messages of that arrived, as far as anybody knows.
    Bandwidth { amount: Amount, arrived: Option<u64> },
}

/// The side of the client, which knows the plan.
pub(crate) struct Client<'a> {
    pub(crate) plan: Plan,
    pub(crate) extent: Extent,
    /// Is told what was measured, as soon as it was.
    pub(crate) report: &'a mut dyn FnMut(&Agreed, Measured) -> Result<()>,
}

/// Either side. The server is told what is to be measured, before it is.
pub(crate) enum Role<'a> {
    Client(Client<'a>),
    Server(&'a mut dyn FnMut(&Agreed)),
}

/// Carries out a measurement with the peer.
pub(crate) fn run(peer: &mut Peer, opened: &Opened, mut role: Role<'_>) -> Result<()> {
    let limits = Limits::of(opened)?;
    let plan = match &role {
        Role::Client(client) => Some(client.plan),
        Role::Server(_) => None,
    };
    let agreed = agree(peer, &limits, plan)?;
    if let Role::Server(tell) = &mut role {
        tell(&agreed);
    }
    let session = Session { peer, opened, agreed: &agreed, role: &mut role };
    use {Operation as O, Transport as T};
    match (agreed.plan.transport, agreed.plan.operation) {
        (T::Rc, O::Send) => session.run::<ibverbs::Rc, Send>(),
        (T::Rc, O::Write) => session.run::<ibverbs::Rc, Write>(),
        (T::Rc, O::Read) => session.run::<ibverbs::Rc, Read>(),
        (T::Rc, O::FetchAdd) => session.run::<ibverbs::Rc, FetchAdd>(),
        (T::Rc, O::CompareSwap) => session.run::<ibverbs::Rc, CompareSwap>(),
        (T::Uc, O::Send) => session.run::<ibverbs::Uc, Send>(),
        (T::Uc, O::Write) => session.run::<ibverbs::Uc, Write>(),
        (T::Ud, O::Send) => session.run::<ibverbs::Ud, Send>(),
        // The compiler would refuse these; the plan was checked.
        (T::Uc | T::Ud, _) => agreed.plan.check(),
    }
}

struct Session<'a, 'r> {
    peer: &'a mut Peer,
    opened: &'a Opened,
    agreed: &'a Agreed,
    role: &'a mut Role<'r>,
}

impl Session<'_, '_> {
    fn run<T: Way, V: Verb<T>>(mut self) -> Result<()> {
        let plan = self.agreed.plan;
        let mut queues = Queues::<T>::connect::<V>(self.peer, self.opened, self.agreed)?;
        match (plan.kind, &self.role) {
            (Kind::Latency, _) => {
                let mut line = Line::<T, V>::new(&mut queues)?;
                for size in plan.sizes.iter() {
                    line.set_size(size, plan.inline);
                    let result = self.latency(&mut line)?;
                    self.report(size, result)?;
                }
            }
            (Kind::Bandwidth(flow), Role::Client(_)) => {
                let mut pump = Pump::<T, V>::new(&mut queues, flow);
                for size in plan.sizes.iter() {
                    pump.set_size(size, plan.inline);
                    let result = self.pump(&mut pump)?;
                    self.report(size, result)?;
                }
            }
            (Kind::Bandwidth(_), Role::Server(_)) => {
                let mut drain = Drain::new(&mut queues);
                for _ in plan.sizes.iter() {
                    self.drain(&mut drain, V::NOTICE)?;
                }
            }
        }
        Ok(())
    }

    /// Tells what was measured, on the side that knows.
    fn report(&mut self, size: u32, result: Option<Outcome>) -> Result<()> {
        match (&mut *self.role, result) {
            (Role::Client(client), Some(result)) => {
                (client.report)(self.agreed, Measured { size, result })
            }
            _ => Ok(()),
        }
    }

    /// How many times both sides meet for each size: for operations to warm up with, if there are such, and for those
    /// that are measured.
    fn phases(&self) -> u32 {
        if self.agreed.plan.warmup > 0 {
            2
        } else {
            1
        }
    }

    /// Of the phases of the client, those that last so long; the last of them counts.
    fn extents(&self) -> impl Iterator<Item = Extent> {
        let extent = match &*self.role {
            Role::Client(client) => client.extent,
            Role::Server(_) => Extent::Iterations(0),
        };
        let warmup = Extent::Iterations(self.agreed.plan.warmup);
        [warmup, extent].into_iter().skip(2 - self.phases() as usize)
    }

    fn latency<T: Way, V: Verb<T>>(
        &mut self,
        line: &mut Line<'_, T, V>,
    ) -> Result<Option<Outcome>> {
        let (mut outcome, mut total) = (None, 0);
        for extent in self.extents() {
            self.peer.meet(BEGIN)?;
            match self.role {
                Role::Client(_) => {
                    let times = line.measure(self.peer, extent)?;
                    let count = times.done;
                    let answered = exchange_count(self.peer, count)?;
                    ensure!(
                        V::NOTICE == Notice::Completion || answered == count,
                        "{count} operations were answered {answered} times"
                    );
                    outcome = Some(Outcome::Latency { times: times.histogram, lost: times.lost });
                }
                Role::Server(_) => {
                    let answered = match V::NOTICE {
                        Notice::Receive | Notice::Memory => line.answer(self.peer)?,
                        Notice::Completion => {
                            sleep_until_waiting(self.peer)?;
                            0
                        }
                    };
                    total += exchange_count(self.peer, answered)?;
                    self.check_atomics(total, line.counted())?;
                }
            }
        }
        Ok(outcome)
    }

    /// That each of the atomic operations has counted. The memory of others is not looked at.
    fn check_atomics(&self, done: u64, counted: u64) -> Result<()> {
        ensure!(
            !self.agreed.plan.operation.is_atomic() || counted == done,
            "{done} atomic operations have counted to {counted}"
        );
        Ok(())
    }

    fn pump<T: Way, V: Verb<T>>(&mut self, pump: &mut Pump<'_, T, V>) -> Result<Option<Outcome>> {
        let mut outcome = None;
        for extent in self.extents() {
            self.peer.meet(BEGIN)?;
            let amount = pump.measure(self.peer, extent)?;
            exchange_count(self.peer, amount.operations)?;
            let received = exchange_count(self.peer, amount.operations)?;
            let arrived = match V::NOTICE {
                Notice::Receive => Some(received),
                // What has completed was done; but for writes on an unreliable connection.
                _ if T::IS_RELIABLE => Some(amount.operations),
                _ => None,
            };
            outcome = Some(Outcome::Bandwidth { amount, arrived });
        }
        Ok(outcome)
    }

    fn drain<T: Way>(&mut self, drain: &mut Drain<'_, T>, notice: Notice) -> Result<()> {
        let mut total = 0;
        for _ in 0..self.phases() {
            self.peer.meet(BEGIN)?;
            let mut received = 0;
            if notice == Notice::Receive {
                received = drain.receive(self.peer)?;
            } else {
                sleep_until_waiting(self.peer)?;
            }
            let sent = exchange_count(self.peer, 0)?;
            if notice == Notice::Receive {
                received += drain.receive_rest(sent.saturating_sub(received))?;
            }
            exchange_count(self.peer, received)?;
            total += sent;
            self.check_atomics(total, drain.counted())?;
        }
        Ok(())
    }
}
