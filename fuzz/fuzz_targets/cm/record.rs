//! What a program knows of one connection, from what it has done and was told: where it must be, and what may happen to it.

use ibverbs_soft::cm::{Event, State};

use crate::input::Call;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Asks for a connection.
    Client,
    /// Is asked for one.
    Server,
    /// Asks for a queue pair of datagrams.
    Asker,
    /// Is asked for one.
    Answerer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Begun,
    /// The server has accepted.
    Offered,
    Standing,
    Ended,
    /// No packets are on their way any more.
    Over,
}

#[derive(Debug)]
pub struct Record {
    /// Who is told.
    pub owner: u32,
    role: Role,
    stage: Stage,
    /// Whether its time to wait for packets comes or is there.
    waits: bool,
    /// Whether the program has ended it.
    disconnected: bool,
    pub destroyed: bool,
    /// The owner of the listener where the request has not been read.
    pub unread_at: Option<u32>,
}

impl Record {
    pub fn new(owner: u32, role: Role) -> Record {
        Record {
            owner,
            role,
            stage: Stage::Begun,
            waits: false,
            disconnected: false,
            destroyed: false,
            unread_at: None,
        }
    }

    /// Takes note of what happens, which must be something that can.
    pub fn hear(&mut self, event: &Event) {
        use {Role::*, Stage::*};
        assert!(!self.destroyed, "{event:?} for nobody");
        let next = match (event, self.role, self.stage) {
            (Event::Responded(_), Client, Begun) => Offered,
            (Event::Established, Server, Offered) => Standing,
            (Event::Rejected { .. }, Client | Server, Begun | Offered) => Ended,
            (Event::Rejected { .. }, Client | Server, Standing) => {
                self.waits = true;
                Ended
            }
            (Event::Unreachable, Client | Server, Begun | Offered) => Ended,
            (Event::Unreachable | Event::Answered { .. }, Asker, Begun) => Ended,
            (Event::Disconnected { is_known }, Client | Server, Standing)
            | (Event::Disconnected { is_known }, Server, Offered) => {
                assert!(*is_known || self.disconnected);
                self.waits = true;
                Ended
            }
            (Event::TimeWaitOver, Client | Server, Ended) if self.waits => Over,
            _ => panic!("{event:?} for {self:?}"),
        };
        self.stage = next;
    }

    /// Takes note of what the program does with it, which must succeed if it makes sense, and fail if not.
    pub fn call(&mut self, call: Call, before: Option<State>, succeeded: bool) {
        use {Role::*, Stage::*};
        let next = match (call, self.role, self.stage) {
            (Call::Accept(_), Server, Begun) => Some(Offered),
            (Call::Confirm, Client, Offered) => Some(Standing),
            (Call::Reject { .. }, Server, Begun | Offered) => Some(Ended),
            (Call::Reject { .. }, Client, Offered) => Some(Ended),
            (Call::Answer { .. }, Answerer, Begun) => Some(Ended),
            // That it stands is an event.
            (Call::NoticeData, Server, Offered) => Some(Offered),
            _ => None,
        };
        match call {
            Call::Disconnect => self.disconnected |= before == Some(State::Established),
            Call::MarkRead => self.unread_at = None,
            Call::Destroy => self.destroy(),
            _ => {
                let next = next.filter(|_| !self.destroyed);
                assert_eq!(succeeded, next.is_some(), "{call:?} of {self:?}, {before:?}");
                self.stage = next.unwrap_or(self.stage);
            }
        }
    }

    pub fn destroy(&mut self) {
        self.destroyed = true;
        self.unread_at = None;
    }

    /// It is where it must be.
    pub fn check(&self, state: Option<State>) {
        use {Role::*, Stage::*};
        let Some(state) = state else {
            assert!(self.destroyed, "it is forgotten: {self:?}");
            return;
        };
        let is_there = match (self.role, self.stage) {
            // Only what has to do with the peer goes on.
            _ if self.destroyed => matches!(state, State::DreqSent | State::TimeWait),
            (Client, Begun) => state == State::ReqSent,
            (Client, Offered) => state == State::RepReceived,
            (Server, Begun) => state == State::ReqReceived,
            (Server, Offered) => state == State::RepSent,
            (_, Standing) if self.disconnected => state == State::DreqSent,
            (_, Standing) => state == State::Established,
            (Asker, Begun) => state == State::SidrSent,
            (Answerer, Begun) => state == State::SidrReceived,
            (_, Ended) if self.waits => {
                matches!(state, State::DreqReceived | State::TimeWait | State::Closed)
            }
            (_, Ended | Over) => state == State::Closed,
            (Asker | Answerer, Offered) => false,
        };
        assert!(is_there, "{state:?}: {self:?}");
    }

    /// It waits for nothing but its program: all times have passed.
    pub fn check_at_rest(&self, state: Option<State>) {
        let waits = matches!(
            state,
            Some(
                State::ReqSent
                    | State::RepSent
                    | State::DreqSent
                    | State::TimeWait
                    | State::SidrSent
            )
        );
        assert!(!waits, "{state:?} for ever: {self:?}");
        assert!(!self.destroyed || state.is_none(), "{state:?} stays: {self:?}");
    }
}
