//! What the server does for its clients, and how a client knows that it was done.
//!
//! Each session has an account. A call counts itself there, and mixes its request into a number that depends on all
//! calls before. The reply is the account after the call, and the request in a form that depends on it. Whoever knows
//! the requests knows what every reply must be, if each was executed once and in order; if one was lost, or executed
//! twice, all replies from there on are others. An account knows nothing of the numbers of requests, which are for
//! telling apart a new request from one that is sent again.

use anyhow::{ensure, Result};

use crate::wire::Reader;

/// What a session has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// How many calls were executed.
    pub(crate) calls: u64,
    /// A number that depends on each of them, and on their order.
    pub(crate) chain: u64,
}

impl Account {
    pub(crate) const BYTES: usize = 16;

    /// Executes a call; adds its reply to what is in `reply`.
    pub(crate) fn call(&mut self, request: &[u8], reply: &mut Vec<u8>) {
        self.calls += 1;
        self.chain = random(self.chain ^ digest(request));
        reply.extend(self.to_bytes());
        reply.extend(request.iter().rev().map(|byte| byte ^ self.chain as u8));
    }

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.calls.to_be_bytes());
        bytes[8..].copy_from_slice(&self.chain.to_be_bytes());
        bytes
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Account> {
        Ok(Account { calls: reader.u64()?, chain: reader.u64()? })
    }
}

/// A number by which a request is known: its length and its checksum.
pub(crate) fn digest(request: &[u8]) -> u64 {
    (request.len() as u64) << 32 | u64::from(crc32fast::hash(request))
}

/// Checks the reply to the request `id` against the one that is due.
pub(crate) fn check(id: u64, reply: &[u8], due: &[u8]) -> Result<()> {
    let theirs = Account::read(&mut Reader(reply))?;
    let ours = Account::read(&mut Reader(due))?;
    ensure!(
        theirs.calls == ours.calls,
        "request {id} is call {} of its session, and not {}: one was lost or executed twice",
        theirs.calls,
        ours.calls
    );
    ensure!(theirs == ours, "request {id} was executed after others than those before it");
    ensure!(reply == due, "the reply to request {id} is wrong");
    Ok(())
}

/// The requests of a client: the same ones whenever it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Requests {
    /// Whose they are.
    pub(crate) client: u64,
    /// The length of the longest.
    pub(crate) size: u32,
}

impl Requests {
    /// Writes request number `id` to the beginning of `to`; returns its length, which is 0 to the longest.
    pub(crate) fn write(self, id: u64, to: &mut [u8]) -> usize {
        let mut state = random(self.client ^ random(id));
        let len = (state % (u64::from(self.size) + 1)) as usize;
        for word in to[..len].chunks_mut(8) {
            state = random(state);
            word.copy_from_slice(&state.to_ne_bytes()[..word.len()]);
        }
        len
    }
}

/// A number that looks like any, and depends on `state` alone.
pub(crate) fn random(state: u64) -> u64 {
    // Multiplying by odd numbers and shifting right onto itself lose nothing, so that different states stay different.
    let mut x = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    x = (x ^ x >> 29).wrapping_mul(0xa076_1d64_78bd_642f);
    x ^ x >> 32
}

/// A number that nobody else has.
pub(crate) fn unique() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUESTS: Requests = Requests { client: 7, size: 100 };

    /// The replies, if these requests are executed in this order.
    fn replies(ids: &[u64]) -> Vec<Vec<u8>> {
        let (mut account, mut bytes) = (Account::default(), [0; 100]);
        let call = |&id| {
            let (len, mut reply) = (REQUESTS.write(id, &mut bytes), Vec::new());
            account.call(&bytes[..len], &mut reply);
            reply
        };
        ids.iter().map(call).collect()
    }

    #[test]
    fn the_right_replies_pass() {
        for (reply, due) in replies(&[1, 2, 3]).iter().zip(replies(&[1, 2, 3])) {
            check(1, reply, &due).unwrap();
        }
    }

    #[test]
    fn a_call_that_is_lost_or_repeated_is_seen_in_all_that_follow() {
        let due = replies(&[1, 2, 3, 4]);
        let lost = replies(&[1, 3, 4]);
        assert!(check(3, &lost[1], &due[2]).unwrap_err().to_string().contains("is call 2 of its"));
        assert!(check(4, &lost[2], &due[3]).is_err());
        let twice = replies(&[1, 2, 2, 3, 4]);
        assert!(check(3, &twice[3], &due[2]).unwrap_err().to_string().contains("is call 4 of its"));
        assert!(check(4, &twice[4], &due[3]).is_err());
        let swapped = replies(&[2, 1, 3, 4]);
        for id in 1..=4 {
            let wrong = check(id as u64, &swapped[id - 1], &due[id - 1]);
            assert!(wrong.unwrap_err().to_string().contains("after others"), "{id}");
        }
    }

    #[test]
    fn a_wrong_byte_is_seen() {
        let due = replies(&[5]).remove(0);
        let mut reply = due.clone();
        *reply.last_mut().unwrap() ^= 1;
        assert_eq!(
            check(5, &reply, &due).unwrap_err().to_string(),
            "the reply to request 5 is wrong"
        );
        assert!(check(5, &due[..15], &due).is_err());
    }

    #[test]
    fn requests_are_the_same_again_and_of_all_lengths() {
        let write = |requests: Requests, id| {
            let mut bytes = [0; 100];
            let len = requests.write(id, &mut bytes);
            bytes[..len].to_vec()
        };
        let mut lengths = [false; 101];
        for id in 1..5000 {
            let request = write(REQUESTS, id);
            assert_eq!(request, write(REQUESTS, id));
            lengths[request.len()] = true;
        }
        assert!(lengths.iter().all(|&there| there));
        assert_ne!(write(REQUESTS, 1), write(Requests { client: 8, ..REQUESTS }, 1));
    }

    #[test]
    fn accounts_are_read_as_they_were_written() {
        let account = Account { calls: 1 << 40, chain: u64::MAX - 7 };
        assert_eq!(Account::read(&mut Reader(&account.to_bytes())).unwrap(), account);
    }
}
