//! The server's memory that survives it: a file of entries, each with its length and checksum.
//!
//! Entries are added at the end, with one write for all requests that have arrived together, and before any of them is
//! answered. A process that is killed leaves the beginning of what it wrote: entries that are whole, and perhaps one
//! that is cut off, which nobody was told of. It is taken away. Nothing is waited for that the kernel does by itself,
//! so that this holds for a process that dies, and not for a machine that does.
//!
//! When the file has grown long, what is still needed is written to another one, which takes its place by renaming.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context as _, Result};

use crate::service::Account;
use crate::wire::Reader;

const HEAD: [u8; 16] = *b"rpc journal\0\0\0\0\x01";

/// Length and checksum.
const PREFIX: usize = 8;

/// What is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry<'a> {
    /// A request was executed.
    Executed { client: u64, acked: u64, id: u64, digest: u64, account: Account, reply: &'a [u8] },
    /// A session was like this when the file was begun.
    Session { client: u64, acked: u64, executed: u64, account: Account },
    /// It had this reply.
    Kept { client: u64, id: u64, digest: u64, reply: &'a [u8] },
}

impl<'a> Entry<'a> {
    /// Adds the entry to some bytes.
    fn write(&self, to: &mut Vec<u8>) {
        let begin = to.len();
        to.extend([0; PREFIX]);
        let mut add = |kind: u8, numbers: &[u64], account: Option<Account>, reply: &[u8]| {
            to.push(kind);
            to.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
            to.extend(account.iter().flat_map(|account| account.to_bytes()));
            to.extend(reply);
        };
        match *self {
            Entry::Executed { client, acked, id, digest, account, reply } => {
                add(1, &[client, acked, id, digest], Some(account), reply);
            }
            Entry::Session { client, acked, executed, account } => {
                add(2, &[client, acked, executed], Some(account), &[]);
            }
            Entry::Kept { client, id, digest, reply } => {
                add(3, &[client, id, digest], None, reply);
            }
        }
        let (prefix, body) = to[begin..].split_at_mut(PREFIX);
        prefix[..4].copy_from_slice(&(body.len() as u32).to_be_bytes());
        prefix[4..].copy_from_slice(&crc32fast::hash(body).to_be_bytes());
    }

    fn read(body: &'a [u8]) -> Result<Entry<'a>> {
        let mut reader = Reader(body);
        let (kind, client) = (reader.u8()?, reader.u64()?);
        Ok(match kind {
            1 => Entry::Executed {
                client,
                acked: reader.u64()?,
                id: reader.u64()?,
                digest: reader.u64()?,
                account: Account::read(&mut reader)?,
                reply: reader.0,
            },
            2 => Entry::Session {
                client,
                acked: reader.u64()?,
                executed: reader.u64()?,
                account: Account::read(&mut reader)?,
            },
            3 => Entry::Kept { client, id: reader.u64()?, digest: reader.u64()?, reply: reader.0 },
            _ => bail!("there is no entry of kind {kind}"),
        })
    }
}

/// The file, to which entries are added.
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    /// How long the file is.
    len: u64,
    /// How long it was when it was begun.
    begun: u64,
    /// The length beyond which it is to be begun anew.
    limit: u64,
    /// Entries that are not written yet.
    pending: Vec<u8>,
    /// Keeps other servers away.
    _lock: File,
}

impl Journal {
    /// Opens the journal, and hands each of its entries to `each`. Makes one if there is none.
    pub(crate) fn open(
        path: &Path,
        limit: u64,
        mut each: impl FnMut(Entry<'_>) -> Result<()>,
    ) -> Result<Journal> {
        let say = || format!("cannot open the journal {}", path.display());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        // Not the journal itself, which is another file when it was begun anew.
        let lock = options.open(with_suffix(path, ".lock")).with_context(say)?;
        lock.try_lock().context("another server has it").with_context(say)?;
        let mut file = options.append(true).open(path).with_context(say)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).with_context(say)?;
        let len = match read_all(&bytes, &mut each).with_context(say)? {
            0 => {
                file.set_len(0).and_then(|()| file.write_all(&HEAD)).with_context(say)?;
                HEAD.len()
            }
            len => {
                file.set_len(len as u64).with_context(say)?;
                len
            }
        };
        let (path, len) = (path.to_owned(), len as u64);
        Ok(Journal { path, file, len, begun: len, limit, pending: Vec::new(), _lock: lock })
    }

    /// Adds an entry, which is not written before [`commit`](Self::commit).
    pub(crate) fn add(&mut self, entry: &Entry<'_>) {
        entry.write(&mut self.pending);
    }

    /// Writes what was added. After an error nothing may be added any more.
    pub(crate) fn commit(&mut self) -> Result<()> {
        self.file.write_all(&self.pending).context("cannot write to the journal")?;
        self.len += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    /// Whether it should be begun anew.
    pub(crate) fn is_long(&self) -> bool {
        self.len > self.limit.max(2 * self.begun)
    }

    /// Begins the file anew, with these entries. If that fails, or the process is killed meanwhile, it is as it was.
    pub(crate) fn begin<'a>(&mut self, entries: impl Iterator<Item = Entry<'a>>) -> Result<()> {
        let mut bytes = HEAD.to_vec();
        entries.for_each(|entry| entry.write(&mut bytes));
        let new = with_suffix(&self.path, ".new");
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        let mut file = options.open(&new).context("cannot begin the journal anew")?;
        file.set_len(0)
            .and_then(|()| file.write_all(&bytes))
            .and_then(|()| std::fs::rename(&new, &self.path))
            .context("cannot begin the journal anew")?;
        self.file = file;
        self.len = bytes.len() as u64;
        self.begun = self.len;
        Ok(())
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Hands out the entries; returns how many bytes they and the head are, without what is cut off at the end. No bytes if
/// the head is.
fn read_all(bytes: &[u8], each: &mut impl FnMut(Entry<'_>) -> Result<()>) -> Result<usize> {
    if bytes.len() < HEAD.len() && HEAD.starts_with(bytes) {
        return Ok(0);
    }
    let mut rest = bytes.strip_prefix(&HEAD).context("it is another kind of file")?;
    loop {
        let at = bytes.len() - rest.len();
        let mut reader = Reader(rest);
        let (Ok(len), Ok(checksum)) = (reader.u32(), reader.u32()) else { return Ok(at) };
        let Some((body, behind)) = reader.0.split_at_checked(len as usize) else { return Ok(at) };
        ensure!(crc32fast::hash(body) == checksum, "it is damaged at byte {at}");
        Entry::read(body).and_then(&mut *each).with_context(|| format!("at byte {at}"))?;
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: Account = Account { calls: 3, chain: 1 << 60 };
    const ENTRIES: [Entry<'_>; 4] = [
        Entry::Session { client: 1, acked: 2, executed: 3, account: ACCOUNT },
        Entry::Kept { client: 1, id: 3, digest: 4, reply: b"reply" },
        Entry::Executed {
            client: 1,
            acked: 2,
            id: 4,
            digest: 5,
            account: ACCOUNT,
            reply: b"another reply",
        },
        Entry::Kept { client: u64::MAX, id: u64::MAX, digest: 0, reply: b"" },
    ];

    /// The journal, and what it has in it, in words.
    fn open(path: &Path) -> Result<(Journal, Vec<String>)> {
        let mut found = Vec::new();
        let journal = Journal::open(path, 1000, |entry| {
            found.push(format!("{entry:?}"));
            Ok(())
        })?;
        Ok((journal, found))
    }

    fn words(entries: &[Entry<'_>]) -> Vec<String> {
        entries.iter().map(|entry| format!("{entry:?}")).collect()
    }

    /// A folder with a journal of these entries.
    fn written(entries: &[Entry<'_>]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (mut journal, found) = open(&path).unwrap();
        assert!(found.is_empty());
        entries.iter().for_each(|entry| journal.add(entry));
        journal.commit().unwrap();
        (folder, path)
    }

    #[test]
    fn entries_are_there_when_it_is_opened_again() {
        let (_folder, path) = written(&ENTRIES);
        for count in 4..7 {
            let (mut journal, found) = open(&path).unwrap();
            assert_eq!(found[..4], words(&ENTRIES));
            assert_eq!(found.len(), count);
            journal.add(&ENTRIES[0]);
            journal.commit().unwrap();
        }
    }

    #[test]
    fn what_was_not_committed_is_not_there() {
        let (_folder, path) = written(&ENTRIES[..1]);
        open(&path).unwrap().0.add(&ENTRIES[1]);
        assert_eq!(open(&path).unwrap().1, words(&ENTRIES[..1]));
    }

    #[test]
    fn wherever_it_is_cut_off_whole_entries_remain_and_more_can_be_added() {
        let (_folder, path) = written(&ENTRIES);
        let bytes = std::fs::read(&path).unwrap();
        let mut ends = vec![HEAD.len()];
        for entry in &ENTRIES {
            let mut bytes = Vec::new();
            entry.write(&mut bytes);
            ends.push(ends.last().unwrap() + bytes.len());
        }
        assert_eq!(ends[4], bytes.len());
        for len in 0..=bytes.len() {
            std::fs::write(&path, &bytes[..len]).unwrap();
            let whole = ends[1..].iter().filter(|&&end| end <= len).count();
            let (mut journal, found) = open(&path).unwrap();
            assert_eq!(found, words(&ENTRIES[..whole]), "{len} bytes");
            journal.add(&ENTRIES[1]);
            journal.commit().unwrap();
            drop(journal);
            let mut expected = words(&ENTRIES[..whole]);
            expected.extend(words(&ENTRIES[1..2]));
            assert_eq!(open(&path).unwrap().1, expected, "{len} bytes");
        }
    }

    #[test]
    fn damage_is_not_taken_for_an_end() {
        let (_folder, path) = written(&ENTRIES);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[HEAD.len() + PREFIX + 3] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let error = format!("{:#}", open(&path).err().unwrap());
        assert!(error.ends_with("it is damaged at byte 16"), "{error}");
        std::fs::write(&path, "the file of somebody else").unwrap();
        assert!(open(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"the file of somebody else");
    }

    #[test]
    fn begun_anew_it_has_what_it_was_given_and_goes_on() {
        let (_folder, path) = written(&ENTRIES);
        // As if a server had been killed before.
        std::fs::write(with_suffix(&path, ".new"), "something").unwrap();
        let (mut journal, _) = open(&path).unwrap();
        assert!(!journal.is_long());
        while !journal.is_long() {
            journal.add(&ENTRIES[2]);
            journal.commit().unwrap();
        }
        journal.begin(ENTRIES[..2].iter().copied()).unwrap();
        assert!(!journal.is_long());
        journal.add(&ENTRIES[3]);
        journal.commit().unwrap();
        drop(journal);
        let (_, found) = open(&path).unwrap();
        assert_eq!(found, words(&[ENTRIES[0], ENTRIES[1], ENTRIES[3]]));
    }

    #[test]
    fn one_server_has_it() {
        let (_folder, path) = written(&ENTRIES);
        let (journal, _) = open(&path).unwrap();
        assert!(format!("{:#}", open(&path).err().unwrap()).contains("another server has it"));
        drop(journal);
        open(&path).unwrap();
    }
}
