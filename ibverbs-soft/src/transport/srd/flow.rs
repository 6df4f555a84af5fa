//! A flow: the pieces that are under way to one queue pair, and their numbers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::SPAN;
use crate::wire::Psn;

/// How many pieces are under way at a time.
const WINDOW: usize = 32;

/// How long an answer is waited for at first; twice as long each time, for some times.
const FIRST_TIMEOUT: Duration = Duration::from_millis(8);
const DOUBLINGS: u32 = 5;

/// How often a piece is sent: for a second and a half in all.
const TRIES: u32 = 10;

/// After so many acknowledgements of later pieces, one was lost.
const PASSED: u32 = 3;

/// A piece of a request: what one packet asks for.
#[derive(Debug)]
pub(super) struct Piece {
    /// Which send, and which piece of it.
    pub(super) send: u64,
    pub(super) index: u64,
    /// Until when an answer is waited for, or a receive.
    due: Instant,
    /// How often it was sent since the peer last said anything about it.
    tries: u32,
    /// How often the peer had no receive for it.
    not_ready: u32,
    /// Whether it waits for a receive of the peer.
    waits: bool,
    /// How many acknowledgements of later pieces have come.
    passed: u32,
    /// Whether it is to be sent again now.
    again: bool,
}

/// What has become of a piece when its time is up.
pub(super) enum Due {
    /// It is sent again.
    Again,
    /// It was sent often enough.
    GivenUp(u64),
}

/// A flow.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) id: u32,
    /// The number of the first piece that is not done with.
    floor: Psn,
    /// From there on; those that are done with are `None`.
    pieces: VecDeque<Option<Piece>>,
    /// Whether the peer has ever answered.
    pub(super) is_answered: bool,
    /// The send whose pieces have numbers that follow on each other, and of which more are to come.
    pub(super) current: Option<u64>,
}

impl Flow {
    pub(super) fn new(id: u32, first: Psn) -> Flow {
        Flow { id, floor: first, pieces: VecDeque::new(), is_answered: false, current: None }
    }

    pub(super) fn floor(&self) -> Psn {
        self.floor
    }

    /// Whether nothing is under way, and no message is in the middle, whose pieces all go through one flow.
    pub(super) fn is_idle(&self) -> bool {
        self.pieces.is_empty() && self.current.is_none()
    }

    /// Whether there is room for another piece.
    pub(super) fn has_room(&self) -> bool {
        self.pieces.len() < SPAN && self.pieces.iter().flatten().count() < WINDOW
    }

    /// The number of the piece that is begun next.
    pub(super) fn next_psn(&self) -> Psn {
        self.floor.add(self.pieces.len() as u32)
    }

    /// Takes in a piece that is sent now; returns until when an answer is waited for.
    pub(super) fn begin(&mut self, now: Instant, send: u64, index: u64) -> Instant {
        let due = now + FIRST_TIMEOUT;
        let piece = Piece {
            send,
            index,
            due,
            tries: 1,
            not_ready: 0,
            waits: false,
            passed: 0,
            again: false,
        };
        self.pieces.push_back(Some(piece));
        due
    }

    fn piece_mut(&mut self, psn: Psn) -> Option<&mut Piece> {
        let place = usize::try_from(psn.since(self.floor)).ok()?;
        self.pieces.get_mut(place)?.as_mut()
    }

    /// The piece with this number, if it is under way.
    pub(super) fn piece(&self, psn: Psn) -> Option<&Piece> {
        let place = usize::try_from(psn.since(self.floor)).ok()?;
        self.pieces.get(place)?.as_ref()
    }

    /// Takes out a piece that is done with.
    pub(super) fn finish(&mut self, psn: Psn) -> Option<Piece> {
        let place = usize::try_from(psn.since(self.floor)).ok()?;
        let piece = self.pieces.get_mut(place)?.take()?;
        self.settle();
        Some(piece)
    }

    /// Takes out all pieces of a send.
    pub(super) fn abandon(&mut self, send: u64) {
        for place in &mut self.pieces {
            if place.as_ref().is_some_and(|piece| piece.send == send) {
                *place = None;
            }
        }
        if self.current == Some(send) {
            self.current = None;
        }
        self.settle();
    }

    /// Moves the floor up.
    fn settle(&mut self) {
        while let Some(None) = self.pieces.front() {
            self.pieces.pop_front();
            self.floor = self.floor.add(1);
        }
    }

    /// Notes that a piece was acknowledged: those before it that were sent once, earlier, may be lost. Returns whether any is sent again.
    pub(super) fn note_passed(&mut self, psn: Psn) -> bool {
        let count = usize::try_from(psn.since(self.floor)).unwrap_or(0);
        let mut any = false;
        for piece in self.pieces.iter_mut().take(count).flatten() {
            if piece.tries == 1 && !piece.waits && !piece.again {
                piece.passed += 1;
                piece.again = piece.passed >= PASSED;
                any |= piece.again;
            }
        }
        any
    }

    /// Lets a piece wait for a receive of the peer. Returns until when; or nothing if it has waited as often as it may.
    pub(super) fn postpone(
        &mut self,
        now: Instant,
        psn: Psn,
        delay: Duration,
        retries: Option<u32>,
    ) -> Result<Option<Instant>, u64> {
        let Some(piece) = self.piece_mut(psn).filter(|piece| !piece.waits) else {
            return Ok(None);
        };
        if retries.is_some_and(|retries| piece.not_ready >= retries) {
            return Err(piece.send);
        }
        piece.not_ready = piece.not_ready.saturating_add(1);
        piece.waits = true;
        piece.again = false;
        piece.due = now + delay;
        Ok(Some(piece.due))
    }

    /// The next piece that is to be sent again: its number, send and index, and until when an answer is waited for.
    pub(super) fn take_again(&mut self, now: Instant) -> Option<(Psn, u64, u64, Instant)> {
        let place =
            self.pieces.iter().position(|place| place.as_ref().is_some_and(|piece| piece.again))?;
        let psn = self.floor.add(place as u32);
        let piece = self.pieces[place].as_mut()?;
        piece.again = false;
        piece.tries = if piece.waits { 1 } else { piece.tries + 1 };
        piece.waits = false;
        piece.passed = 0;
        piece.due = now + FIRST_TIMEOUT * (1 << (piece.tries - 1).min(DOUBLINGS));
        Some((psn, piece.send, piece.index, piece.due))
    }

    /// Looks for a piece whose time is up.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Due> {
        let mut pieces = self.pieces.iter_mut().flatten();
        let piece = pieces.find(|piece| !piece.again && piece.due <= now)?;
        if !piece.waits && piece.tries >= TRIES {
            return Some(Due::GivenUp(piece.send));
        }
        piece.again = true;
        Some(Due::Again)
    }

    /// When the next piece's time is up.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.pieces.iter().flatten().filter(|piece| !piece.again).map(|piece| piece.due).min()
    }
}
