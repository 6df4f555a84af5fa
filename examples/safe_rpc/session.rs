//! What the server knows of a client: how far it has come, and its last replies.
//!
//! The requests of a session are numbered from 1, and executed in this order, once each. A number that was executed
//! before comes from a client that has not heard the reply: it is answered with the reply that was kept. Replies are
//! kept until the client says that it has recorded them, which it does with each request.

use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::{ensure, Context as _, Result};

use crate::service::{digest, Account};

/// A request that has arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) id: u64,
    /// The client has recorded the replies up to this one.
    pub(crate) acked: u64,
    pub(crate) request: &'a [u8],
}

/// A reply that may be asked for again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) id: u64,
    /// By which its request is known.
    pub(crate) digest: u64,
    pub(crate) reply: Arc<[u8]>,
}

/// The state of a client's session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) account: Account,
    /// The number of the last request that was executed.
    pub(crate) executed: u64,
    /// The client has recorded the replies up to this one.
    pub(crate) acked: u64,
    /// The replies behind that one, in order.
    pub(crate) kept: VecDeque<Kept>,
}

impl Session {
    /// Executes a request if it is a new one. Returns its reply, and whether it was new.
    pub(crate) fn take(&mut self, call: Call<'_>, in_flight: u16) -> Result<(&Kept, bool)> {
        let Call { id, acked, request } = call;
        self.forget(acked)?;
        ensure!(
            id > self.acked && id - self.acked <= in_flight.into(),
            "request {id} is sent when replies up to {} are recorded, and {in_flight} are in flight",
            self.acked
        );
        let digest = digest(request);
        if id <= self.executed {
            let kept = self.kept.iter().find(|kept| kept.id == id);
            let kept = kept.with_context(|| format!("the reply to request {id} is gone"))?;
            ensure!(kept.digest == digest, "request {id} is sent again, and is another one");
            return Ok((kept, false));
        }
        ensure!(id == self.executed + 1, "request {id} comes after request {}", self.executed);
        let mut reply = Vec::with_capacity(Account::BYTES + request.len());
        self.account.call(request, &mut reply);
        self.push(Kept { id, digest, reply: reply.into() });
        Ok((self.kept.back().context("it was kept just now")?, true))
    }

    /// Takes note of a request that was executed, and its reply.
    pub(crate) fn push(&mut self, kept: Kept) {
        self.executed = kept.id;
        self.kept.push_back(kept);
    }

    /// Takes note that the client has recorded the replies up to this one.
    pub(crate) fn forget(&mut self, acked: u64) -> Result<()> {
        ensure!(
            acked <= self.executed,
            "the client has recorded {acked} replies, and {} requests were executed here: \
             is it the same journal?",
            self.executed
        );
        self.acked = self.acked.max(acked);
        while self.kept.front().is_some_and(|kept| kept.id <= self.acked) {
            self.kept.pop_front();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN_FLIGHT: u16 = 4;

    fn take(session: &mut Session, id: u64, acked: u64, request: &[u8]) -> Result<(Kept, bool)> {
        let call = Call { id, acked, request };
        session.take(call, IN_FLIGHT).map(|(kept, is_new)| (kept.clone(), is_new))
    }

    fn with_executed(count: u64) -> Session {
        let mut session = Session::default();
        for id in 1..=count {
            assert!(take(&mut session, id, id.saturating_sub(2), b"request").unwrap().1);
        }
        session
    }

    #[test]
    fn what_is_sent_again_is_answered_again_and_not_executed() {
        let mut session = Session::default();
        let (first, is_new) = take(&mut session, 1, 0, b"one").unwrap();
        assert!(is_new);
        let (second, _) = take(&mut session, 2, 0, b"two").unwrap();
        let before = session.clone();
        assert_eq!(take(&mut session, 1, 0, b"one").unwrap(), (first, false));
        assert_eq!(take(&mut session, 2, 0, b"two").unwrap(), (second, false));
        assert_eq!(session, before);
        assert_eq!(session.account.calls, 2);
    }

    #[test]
    fn replies_are_kept_until_they_are_recorded() {
        let mut session = with_executed(3);
        assert_eq!(session.kept.iter().map(|kept| kept.id).collect::<Vec<_>>(), [2, 3]);
        session.forget(3).unwrap();
        assert!(session.kept.is_empty());
        // What is said later than it was meant changes nothing.
        session.forget(1).unwrap();
        assert_eq!((session.acked, session.executed), (3, 3));
    }

    #[test]
    fn what_breaks_the_rules_is_refused_and_changes_nothing() {
        let mut session = with_executed(6);
        let before = session.clone();
        let mut refusal = |id, acked, request| {
            let refusal = take(&mut session, id, acked, request).unwrap_err().to_string();
            assert_eq!(session, before);
            refusal
        };
        assert!(refusal(8, 4, b"request").contains("comes after request 6"));
        assert!(refusal(9, 4, b"request").contains("4 are in flight"));
        assert!(refusal(u64::MAX, 4, b"request").contains("4 are in flight"));
        assert!(refusal(4, 4, b"request").contains("up to 4 are recorded"));
        assert!(refusal(0, 0, b"request").contains("up to 4 are recorded"));
        assert!(refusal(7, 7, b"request").contains("is it the same journal?"));
        assert!(refusal(6, 4, b"requesT").contains("is another one"));
    }
}
