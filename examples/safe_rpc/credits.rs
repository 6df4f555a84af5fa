//! Flow control: how many messages may be sent, so that each finds a receive.
//!
//! Each side posts some receives before it is connected, and says how many. A message takes one of them, so that its
//! sender has one credit less. The receiver posts the buffer again, and owes a credit: it tells with its next message
//! how many it has posted since the last. One that has nothing to say, and owes half of its receives or more, sends a
//! message that has nothing but credits.
//!
//! That one takes a receive, too. So the last credit is kept for it: other messages need two. Then neither side waits
//! for ever. If A has no more than one credit, B has or will have received all but one, and owes all but one; B can
//! say so, unless it has used its last credit: and that was for telling A of at least half of its receives.
//! As only half of them make somebody speak, two sides that have nothing to say do not thank each other for ever.

use anyhow::{ensure, Result};

/// The credits of one side of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Credits {
    /// How many of the peer's receives are free, as far as it has told.
    left: u16,
    /// How many receives the peer has.
    theirs: u16,
    /// How many receives were posted that the peer was not told of.
    owed: u16,
    /// How many receives there are here.
    ours: u16,
}

impl Credits {
    /// When both sides have posted all of their receives.
    pub(crate) fn new(ours: u16, theirs: u16) -> Credits {
        Credits { left: theirs, theirs, owed: 0, ours }
    }

    /// Takes the credit for a message that has something to say, if there is one.
    #[must_use]
    pub(crate) fn take(&mut self) -> bool {
        let may = self.left > 1;
        self.left -= u16::from(may);
        may
    }

    /// Takes the credit for a message that has credits only, if there should be one.
    #[must_use]
    pub(crate) fn take_last(&mut self) -> bool {
        let must = self.owed >= self.ours.div_ceil(2) && self.left > 0;
        self.left -= u16::from(must);
        must
    }

    /// So many receives were posted again.
    pub(crate) fn posted(&mut self, count: usize) {
        self.owed += count as u16;
        debug_assert!(self.owed <= self.ours, "{self:?}");
    }

    /// What the message that is sent next tells.
    pub(crate) fn tell(&mut self) -> u16 {
        std::mem::take(&mut self.owed)
    }

    /// The peer has told of so many.
    pub(crate) fn told(&mut self, credits: u16) -> Result<()> {
        let most = self.theirs - self.left;
        ensure!(credits <= most, "the peer gives {credits} credits, and owes {most}");
        self.left += credits;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::random;
    use std::collections::VecDeque;

    /// One side; the credits of each message on its way to it; how many messages it has to send, and whether it answers
    /// each that arrives.
    struct Side {
        credits: Credits,
        arriving: VecDeque<(u16, bool)>,
        to_send: u32,
        answers: bool,
        received: u32,
    }

    impl Side {
        fn new(ours: u16, theirs: u16, to_send: u32, answers: bool) -> Side {
            let credits = Credits::new(ours, theirs);
            Side { credits, arriving: VecDeque::new(), to_send, answers, received: 0 }
        }

        /// Takes what has arrived, at most `most`, and posts the receives again.
        fn receive(&mut self, most: u64) {
            let count = (most as usize).min(self.arriving.len());
            for (credits, has_payload) in self.arriving.drain(..count) {
                self.credits.told(credits).unwrap();
                self.received += u32::from(has_payload);
                self.to_send += u32::from(has_payload && self.answers);
            }
            self.credits.posted(count);
        }

        /// Sends at most `most` messages; returns how many.
        fn send(&mut self, peer: &mut Side, most: u64) -> u64 {
            let mut sent = 0;
            while sent < most && self.to_send > 0 && self.credits.take() {
                peer.arriving.push_back((self.credits.tell(), true));
                (self.to_send, sent) = (self.to_send - 1, sent + 1);
            }
            if sent == 0 && self.credits.take_last() {
                peer.arriving.push_back((self.credits.tell(), false));
                sent = 1;
            }
            assert!(peer.arriving.len() <= peer.credits.ours.into(), "there is no receive");
            sent
        }
    }

    /// Lets two sides talk, whichever is faster. All is said at the end, and nobody talks on.
    fn talk(mut sides: [Side; 2], seed: u64) {
        let expected = [0, 1].map(|side: usize| {
            let answers = if sides[1 - side].answers { sides[side].to_send } else { 0 };
            sides[1 - side].to_send + answers
        });
        let (mut state, mut idle) = (seed, 0);
        for step in 0.. {
            assert!(step < 1_000_000, "they talk for ever");
            state = random(state);
            let [a, b] = &mut sides;
            let (this, peer) = if state & 1 == 0 { (a, b) } else { (b, a) };
            this.receive(state >> 1 & 7);
            let sent = this.send(peer, state >> 4 & 7);
            let quiet = sent == 0 && sides.iter().all(|side| side.arriving.is_empty());
            idle = if quiet { idle + 1 } else { 0 };
            if idle == 100 {
                break;
            }
        }
        assert_eq!(sides.map(|side| side.received), expected, "somebody waits for ever");
    }

    #[test]
    fn everything_finds_a_receive_and_nobody_waits_for_ever() {
        for seed in 1..200 {
            let receives = |bits: u64| (4 + (seed >> bits) % 13) as u16;
            let (a, b) = (receives(0), receives(3));
            talk([Side::new(a, b, 1000, false), Side::new(b, a, 0, true)], seed);
            talk([Side::new(a, b, 1000, false), Side::new(b, a, 700, false)], seed);
            talk([Side::new(a, b, 1000, false), Side::new(b, a, 0, false)], seed);
        }
    }

    #[test]
    fn the_last_credit_is_for_credits() {
        let mut credits = Credits::new(4, 4);
        assert!((0..3).all(|_| credits.take()));
        assert!(!credits.take());
        assert!(!credits.take_last(), "nothing is owed");
        credits.posted(2);
        assert!(credits.take_last());
        assert_eq!(credits.tell(), 2);
        credits.posted(2);
        assert!(!credits.take_last(), "there is none left");
        credits.told(4).unwrap();
        assert!(credits.take());
    }

    #[test]
    fn credits_that_cannot_be_are_refused() {
        let mut credits = Credits::new(4, 4);
        assert!(credits.told(1).is_err());
        assert!(credits.take());
        assert!(credits.told(2).is_err());
        credits.told(1).unwrap();
    }
}
