//! Waiting for something to come, without waiting for ever.
//!
//! Whoever waits polls, and does not yield its processor meanwhile: the scheduler may take a thread that yields for one that
//! has had its turn, and let it wait for a whole slice of time. Under SoftRoCE, whose work needs the same processors, that
//! doubled the latency.

use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use ibverbs_examples::Peer;

/// After how many polls that found nothing is looked at the clock, which may take longer than a poll.
const SPINS: u32 = 256;
/// How often whoever waits looks after its peer.
const ROUND: Duration = Duration::from_millis(10);
/// How often whoever has much to do looks after its peer.
const BUSY_ROUND: Duration = Duration::from_millis(500);
/// When what may be lost is taken for lost.
const LOST: Duration = Duration::from_millis(500);
/// When it is clear that nothing more comes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Looks after the peer while nothing comes.
pub(crate) struct Watch<'p> {
    peer: &'p Peer,
    spins: u32,
    looked: Instant,
    began: Instant,
    lost: Duration,
}

/// What is known after nothing has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quiet {
    /// It may come yet.
    Still,
    /// Nothing has come for so long that it may have been lost. This is said now and then.
    Lost,
    /// The peer has done its part, and waits.
    PeerWaits,
}

impl<'p> Watch<'p> {
    pub(crate) fn new(peer: &'p Peer) -> Watch<'p> {
        let now = Instant::now();
        Watch { peer, spins: 0, looked: now, began: now, lost: LOST }
    }

    /// Something has come.
    #[inline]
    pub(crate) fn reset(&mut self) {
        self.spins = 0;
    }

    /// Nothing has come, once more.
    ///
    /// It is an error if the peer is gone, or nothing has come for 30 seconds.
    #[inline]
    pub(crate) fn quiet(&mut self) -> Result<Quiet> {
        // It begins again at twice as many, for only the first ones are different.
        self.spins = self.spins.checked_add(1).unwrap_or(2 * SPINS);
        if !self.spins.is_multiple_of(SPINS) {
            return Ok(Quiet::Still);
        }
        self.look()
    }

    /// Looks after the peer now and then while things do come, which goes on without it where they may be lost.
    #[cold]
    pub(crate) fn busy(&mut self) -> Result<Quiet> {
        let now = Instant::now();
        if now.duration_since(self.looked) < BUSY_ROUND {
            return Ok(Quiet::Still);
        }
        self.looked = now;
        Ok(if self.peer.is_waiting()? { Quiet::PeerWaits } else { Quiet::Still })
    }

    #[cold]
    fn look(&mut self) -> Result<Quiet> {
        let now = Instant::now();
        if self.spins == SPINS {
            (self.began, self.lost) = (now, LOST);
        }
        if now.duration_since(self.looked) < ROUND {
            return Ok(Quiet::Still);
        }
        self.looked = now;
        if self.peer.is_waiting()? {
            return Ok(Quiet::PeerWaits);
        }
        let quiet = now.duration_since(self.began);
        ensure!(quiet < PATIENCE, "nothing has come for {PATIENCE:?}");
        if quiet < self.lost {
            return Ok(Quiet::Still);
        }
        self.lost = quiet + LOST;
        Ok(Quiet::Lost)
    }
}

/// Waits until the peer has done its part, for which nothing is to be done here. It is an error if it ends instead.
pub(crate) fn sleep_until_waiting(peer: &Peer) -> Result<()> {
    while !peer.is_waiting()? {
        std::thread::sleep(ROUND);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a watch says until it says something.
    fn until_it_speaks(watch: &mut Watch<'_>) -> Result<Quiet> {
        loop {
            let quiet = watch.quiet()?;
            if quiet != Quiet::Still {
                return Ok(quiet);
            }
        }
    }

    #[test]
    fn what_does_not_come_is_lost_again_and_again() {
        let (here, _there) = Peer::pair().unwrap();
        let mut watch = Watch::new(&here);
        for _ in 0..2 {
            let start = Instant::now();
            assert_eq!(until_it_speaks(&mut watch).unwrap(), Quiet::Lost);
            assert!(start.elapsed() >= LOST);
        }
        watch.reset();
        assert_eq!(watch.quiet().unwrap(), Quiet::Still);
    }

    #[test]
    fn a_peer_that_waits_or_ends_is_noticed() {
        let (here, mut there) = Peer::pair().unwrap();
        let other = std::thread::spawn(move || there.meet(1).map(|()| there));
        let mut watch = Watch::new(&here);
        assert_eq!(until_it_speaks(&mut watch).unwrap(), Quiet::PeerWaits);
        sleep_until_waiting(&here).unwrap();
        let mut here = here;
        here.meet(1).unwrap();
        drop(other.join().unwrap().unwrap());
        let mut watch = Watch::new(&here);
        assert!(until_it_speaks(&mut watch).is_err());
        assert_eq!(watch.busy().unwrap(), Quiet::Still);
        std::thread::sleep(BUSY_ROUND);
        assert!(watch.busy().is_err());
        assert!(sleep_until_waiting(&here).is_err());
    }
}
