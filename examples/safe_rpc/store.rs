//! All sessions of the server, and the journal that they are in.

use std::collections::hash_map::{Entry as Place, HashMap};
use std::path::Path;
use std::sync::Arc;

use anyhow::{anyhow, ensure, Context as _, Result};

use crate::journal::{Entry, Journal};
use crate::service::Account;
use crate::session::{Call, Kept, Session};
use crate::trouble::Trouble;

/// The sessions. What they have executed is in the journal before anybody hears of it.
pub(crate) struct Store {
    sessions: HashMap<u64, Session>,
    /// Which connection a session belongs to: the last one, by its number.
    leases: HashMap<u64, u64>,
    connections: u64,
    journal: Journal,
}

/// The right of a connection to go on with a session, until another one does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    client: u64,
    connection: u64,
    in_flight: u16,
}

/// A reply to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) id: u64,
    pub(crate) bytes: Arc<[u8]>,
}

impl Store {
    /// Opens the journal, and has the sessions that are in it.
    pub(crate) fn open(path: &Path, limit: u64) -> Result<Store> {
        let mut sessions = HashMap::new();
        let journal = Journal::open(path, limit, |entry| restore(&mut sessions, entry))?;
        Ok(Store { sessions, leases: HashMap::new(), connections: 0, journal })
    }

    /// Gives the session of a client, a new one if it has none, to a connection. Returns how many requests it has
    /// executed as well.
    pub(crate) fn lease(
        &mut self,
        client: u64,
        acked: u64,
        in_flight: u16,
    ) -> Result<(Lease, u64)> {
        let executed = match self.sessions.entry(client) {
            Place::Occupied(mut session) => {
                let session = session.get_mut();
                session.forget(acked)?;
                session.executed
            }
            Place::Vacant(place) => {
                ensure!(
                    acked == 0,
                    "this server knows nothing of the client: is it the same journal?"
                );
                place.insert(Session::default());
                0
            }
        };
        self.connections += 1;
        self.leases.insert(client, self.connections);
        Ok((Lease { client, connection: self.connections, in_flight }, executed))
    }

    /// The session of a lease, and the journal.
    fn session(&mut self, lease: Lease) -> Result<(&mut Session, &mut Journal), Trouble> {
        if self.leases.get(&lease.client) != Some(&lease.connection) {
            return Err(Trouble::Lost(anyhow!("the client has another connection")));
        }
        let session = self.sessions.get_mut(&lease.client).context("there is no such session");
        Ok((session.map_err(Trouble::Fatal)?, &mut self.journal))
    }

    /// Executes requests, those that are new, and adds all replies to `replies`. There may be none: an error tells then
    /// that the lease is over.
    pub(crate) fn execute<'a>(
        &mut self,
        lease: Lease,
        calls: impl Iterator<Item = Call<'a>>,
        replies: &mut impl Extend<Reply>,
    ) -> Result<(), Trouble> {
        let (session, journal) = self.session(lease)?;
        let mut result = Ok(());
        for call in calls {
            let acked = call.acked;
            let (kept, is_new) = match session.take(call, lease.in_flight) {
                Ok((kept, is_new)) => (kept.clone(), is_new),
                Err(error) => {
                    result = Err(Trouble::Wrong(error));
                    break;
                }
            };
            let Kept { id, digest, reply } = kept;
            if is_new {
                let (client, account) = (lease.client, session.account);
                let reply = &*reply;
                journal.add(&Entry::Executed { client, acked, id, digest, account, reply });
            }
            replies.extend([Reply { id, bytes: reply }]);
        }
        // Also if one was wrong: those before it were executed.
        self.commit().map_err(Trouble::Fatal)?;
        result
    }

    fn commit(&mut self) -> Result<()> {
        self.journal.commit()?;
        if self.journal.is_long() {
            self.journal.begin(self.sessions.iter().flat_map(entries))?;
        }
        Ok(())
    }

    /// How many requests of a session were executed, and its account.
    pub(crate) fn report(&mut self, lease: Lease, acked: u64) -> Result<(u64, Account), Trouble> {
        let (session, _) = self.session(lease)?;
        session.forget(acked).map_err(Trouble::Wrong)?;
        Ok((session.executed, session.account))
    }

    /// The sessions, with their clients.
    pub(crate) fn sessions(&self) -> &HashMap<u64, Session> {
        &self.sessions
    }
}

/// What a journal that is begun anew has of a session.
fn entries<'s>((&client, session): (&u64, &'s Session)) -> impl Iterator<Item = Entry<'s>> {
    let Session { account, executed, acked, .. } = *session;
    let kept = session.kept.iter().map(move |kept| {
        let Kept { id, digest, ref reply } = *kept;
        Entry::Kept { client, id, digest, reply }
    });
    [Entry::Session { client, acked, executed, account }].into_iter().chain(kept)
}

/// Does again what an entry tells of. It must fit what was before.
fn restore(sessions: &mut HashMap<u64, Session>, entry: Entry<'_>) -> Result<()> {
    match entry {
        Entry::Session { client, acked, executed, account } => {
            let session = Session { account, executed, acked, ..Session::default() };
            ensure!(sessions.insert(client, session).is_none(), "a session begins twice");
        }
        Entry::Kept { client, id, digest, reply } => {
            let session = sessions.get_mut(&client).context("a reply is of no session")?;
            let due = session.kept.back().map_or(session.acked, |last| last.id) + 1;
            ensure!(id == due && id <= session.executed, "reply {id} is there, and {due} is due");
            session.kept.push_back(Kept { id, digest, reply: reply.into() });
        }
        Entry::Executed { client, acked, id, digest, account, reply } => {
            let session = sessions.entry(client).or_default();
            let due = session.executed + 1;
            ensure!(id == due, "request {id} was executed, and {due} was due");
            let calls = session.account.calls + 1;
            ensure!(account.calls == calls, "request {id} is call {}, not {calls}", account.calls);
            session.account = account;
            session.push(Kept { id, digest, reply: reply.into() });
            session.forget(acked)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{check, random, Requests};

    const IN_FLIGHT: u16 = 5;
    const LIMIT: u64 = 4000;

    /// A client, which knows what every reply must be.
    struct Client {
        requests: Requests,
        acked: u64,
        account: Account,
    }

    impl Client {
        fn new(client: u64) -> Client {
            Client {
                requests: Requests { client, size: 50 },
                acked: 0,
                account: Account::default(),
            }
        }

        /// Sends the next requests, and records the replies to the first ones. Returns how many are recorded.
        fn go_on(&mut self, store: &mut Store, send: u64, record: u64) -> u64 {
            let (lease, executed) =
                store.lease(self.requests.client, self.acked, IN_FLIGHT).unwrap();
            assert!(executed >= self.acked);
            let ids = self.acked + 1..=self.acked + send;
            let sent: Vec<_> = ids.map(|id| (id, request(self.requests, id))).collect();
            let acked = self.acked;
            let calls = sent.iter().map(|(id, request)| Call { id: *id, acked, request });
            let mut replies = Vec::new();
            store.execute(lease, calls, &mut replies).unwrap();
            assert_eq!(replies.len() as u64, send);
            for (Reply { id, bytes }, (sent, request)) in
                replies.iter().zip(&sent).take(record as usize)
            {
                let mut due = Vec::new();
                self.account.call(request, &mut due);
                assert_eq!(id, sent);
                check(*id, bytes, &due).unwrap();
                self.acked = *id;
            }
            self.acked
        }
    }

    fn request(requests: Requests, id: u64) -> Vec<u8> {
        let mut bytes = vec![0; 50];
        let len = requests.write(id, &mut bytes);
        bytes.truncate(len);
        bytes
    }

    fn open(folder: &tempfile::TempDir) -> Store {
        Store::open(&folder.path().join("journal"), LIMIT).unwrap()
    }

    #[test]
    fn clients_and_servers_die_and_all_is_executed_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut clients = [1, 2, 3].map(Client::new);
        let (mut store, mut state) = (open(&folder), 1);
        for _ in 0..600 {
            state = random(state);
            let send = state >> 8 & 7;
            let send = send.min(IN_FLIGHT.into());
            // The replies that it does not record are lost, as if one of the two had been killed.
            let record = (state >> 16 & 7).min(send);
            clients[(state % 3) as usize].go_on(&mut store, send, record);
            if state >> 24 & 7 == 0 {
                drop(store);
                store = open(&folder);
            }
        }
        for client in &mut clients {
            let send = store.sessions()[&client.requests.client].executed - client.acked;
            client.go_on(&mut store, send, send);
            let session = &store.sessions()[&client.requests.client];
            assert_eq!((session.executed, session.account), (client.acked, client.account));
            assert!(client.acked > 150, "{}", client.acked);
        }
    }

    #[test]
    fn wherever_the_journal_is_cut_off_a_client_that_was_not_told_more_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        // How long the file was when the client had recorded so many replies, before it sent more.
        let mut store = open(&folder);
        let mut client = Client::new(9);
        client.go_on(&mut store, 3, 3);
        let len = std::fs::metadata(&path).unwrap().len() as usize;
        let before = (client.acked, client.account);
        client.go_on(&mut store, 5, 0);
        drop(store);
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes.len() > len);
        for cut in len..=bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let mut store = open(&folder);
            (client.acked, client.account) = before;
            client.go_on(&mut store, 5, 5);
            let session = &store.sessions()[&9];
            assert_eq!((session.executed, session.account.calls), (8, 8), "{cut} bytes");
        }
    }

    #[test]
    fn a_server_with_another_journal_is_refused() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut client = Client::new(9);
        client.go_on(&mut open(&folder), 3, 3);
        let mut store = open(&other);
        assert!(store.lease(9, client.acked, 1).unwrap_err().to_string().contains("journal"));
        Client::new(9).go_on(&mut store, 1, 1);
        assert!(store.lease(9, client.acked, 1).unwrap_err().to_string().contains("journal"));
    }

    #[test]
    fn a_connection_that_was_left_executes_nothing_more() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(&folder);
        let (old, _) = store.lease(9, 0, 1).unwrap();
        let (new, _) = store.lease(9, 0, 1).unwrap();
        let call = [Call { id: 1, acked: 0, request: b"" }];
        let mut replies = Vec::new();
        let ended = store.execute(old, call.into_iter(), &mut replies);
        assert!(matches!(ended, Err(Trouble::Lost(_))));
        let ended = store.execute(old, [].into_iter(), &mut replies);
        assert!(matches!(ended, Err(Trouble::Lost(_))));
        assert!(matches!(store.report(old, 0), Err(Trouble::Lost(_))));
        assert_eq!(store.sessions()[&9], Session::default());
        store.execute(new, call.into_iter(), &mut replies).unwrap();
        assert_eq!(replies.len(), 1);
    }

    #[test]
    fn what_came_before_a_wrong_request_is_in_the_journal() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(&folder);
        let (lease, _) = store.lease(9, 0, 4).unwrap();
        let calls = [1, 2, 4].map(|id| Call { id, acked: 0, request: b"request" });
        let ended = store.execute(lease, calls.into_iter(), &mut Vec::new());
        assert!(matches!(ended, Err(Trouble::Wrong(_))));
        let session = store.sessions()[&9].clone();
        assert_eq!(session.executed, 2);
        drop(store);
        assert_eq!(open(&folder).sessions()[&9], session);
    }
}
