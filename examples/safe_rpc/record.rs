//! The client's memory that survives it: how far it has come.
//!
//! A reply counts as acknowledged when it is recorded here; the server is told only then, and keeps it until then. The
//! file has two places, which are written in turn, each with a checksum: a client that is killed while it writes one
//! has the other.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{ensure, Context as _, Result};

use crate::service::{unique, Account, Requests};
use crate::wire::Reader;

const HEAD: [u8; 12] = *b"rpc record\0\x01";

/// How many bytes a place has.
const PLACE: usize = 128;

/// How far a client has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) requests: Requests,
    /// The replies of all requests up to this one were received, checked and recorded.
    pub(crate) acked: u64,
    /// What the account of the session was then.
    pub(crate) account: Account,
    /// How often it has connected to a server.
    pub(crate) connections: u64,
    /// How many requests it has sent again, because their replies were lost.
    pub(crate) repeated: u64,
}

impl Progress {
    /// Of a new client.
    pub(crate) fn new(size: u32) -> Progress {
        let requests = Requests { client: unique(), size };
        Progress { requests, acked: 0, account: Account::default(), connections: 0, repeated: 0 }
    }

    fn to_bytes(self, serial: u64) -> [u8; PLACE] {
        let Progress { requests, acked, account, connections, repeated } = self;
        let numbers = [serial, requests.client, requests.size.into(), acked];
        let others = [account.calls, account.chain, connections, repeated];
        let numbers = numbers.iter().chain(&others).flat_map(|number| number.to_be_bytes());
        let mut bytes = [0; PLACE];
        let content = HEAD.into_iter().chain(numbers);
        bytes.iter_mut().zip(content).for_each(|(to, from)| *to = from);
        let checksum = crc32fast::hash(&bytes[..PLACE - 4]);
        bytes[PLACE - 4..].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// What is in a place, and its number; `None` if nothing is that is whole.
    fn from_bytes(bytes: &[u8]) -> Option<(u64, Progress)> {
        let (content, checksum) = bytes.split_last_chunk()?;
        if crc32fast::hash(content).to_be_bytes() != *checksum {
            return None;
        }
        let mut reader = Reader(content.strip_prefix(&HEAD)?);
        let mut number = || reader.u64().ok();
        let (serial, client, size, acked) = (number()?, number()?, number()?, number()?);
        let (calls, chain, connections, repeated) = (number()?, number()?, number()?, number()?);
        let requests = Requests { client, size: size.try_into().ok()? };
        let account = Account { calls, chain };
        Some((serial, Progress { requests, acked, account, connections, repeated }))
    }

    /// What the file has, which may be written meanwhile; `None` if nothing.
    pub(crate) fn look(path: &Path) -> Option<Progress> {
        let bytes = std::fs::read(path).ok()?;
        latest(&bytes).map(|(_, progress)| progress)
    }
}

fn latest(bytes: &[u8]) -> Option<(u64, Progress)> {
    bytes.chunks(PLACE).filter_map(Progress::from_bytes).max_by_key(|(serial, _)| *serial)
}

/// Where progress is recorded.
pub(crate) struct Record {
    /// `None` if it is to end with the process.
    file: Option<File>,
    /// Of what is written next, and by that its place.
    serial: u64,
    pub(crate) progress: Progress,
}

impl Record {
    /// Opens the record, or makes one of a new client if there is none. Requests have at most `size` bytes.
    pub(crate) fn open(path: Option<&Path>, size: u32) -> Result<Record> {
        let Some(path) = path else {
            return Ok(Record { file: None, serial: 0, progress: Progress::new(size) });
        };
        Self::open_file(path, size)
            .with_context(|| format!("cannot use the record {}", path.display()))
    }

    fn open_file(path: &Path, size: u32) -> Result<Record> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        file.try_lock().context("another client has it")?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (serial, progress) = match latest(&bytes) {
            Some((serial, progress)) => (serial + 1, progress),
            // A client that was killed before it had written anything.
            None => {
                let is_begun = bytes.len() < PLACE && HEAD.iter().zip(&bytes).all(|(a, b)| a == b);
                ensure!(is_begun, "it is another kind of file, or damaged");
                (0, Progress::new(size))
            }
        };
        let recorded = progress.requests.size;
        ensure!(size == recorded, "its requests have --size {recorded}, and not {size}");
        let mut record = Record { file: Some(file), serial, progress };
        record.write()?;
        Ok(record)
    }

    /// Records the progress.
    pub(crate) fn write(&mut self) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let place = self.serial % 2 * PLACE as u64;
        file.write_all_at(&self.progress.to_bytes(self.serial), place)
            .context("cannot write to the record")?;
        self.serial += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(folder: &tempfile::TempDir) -> std::path::PathBuf {
        folder.path().join("record")
    }

    fn step(record: &mut Record) {
        record.progress.acked += 1;
        record.progress.account.calls += 1;
        record.progress.account.chain = u64::MAX - record.progress.acked;
        record.progress.connections += 2;
        record.progress.repeated += 3;
        record.write().unwrap();
    }

    #[test]
    fn progress_is_there_when_it_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut before = Record::open(Some(&path(&folder)), 100).unwrap().progress;
        for _ in 0..5 {
            let mut record = Record::open(Some(&path(&folder)), 100).unwrap();
            assert_eq!(record.progress, before);
            step(&mut record);
            before = record.progress;
            assert_eq!(Progress::look(&path(&folder)), Some(before));
        }
    }

    #[test]
    fn a_write_that_was_cut_off_leaves_what_was_before() {
        let folder = tempfile::tempdir().unwrap();
        let mut record = Record::open(Some(&path(&folder)), 100).unwrap();
        step(&mut record);
        let (before, old) = (std::fs::read(path(&folder)).unwrap(), record.progress);
        step(&mut record);
        let (after, new) = (std::fs::read(path(&folder)).unwrap(), record.progress);
        drop(record);
        for cut in 0..=PLACE {
            let mut bytes = before.clone();
            let place = if before[..PLACE] == after[..PLACE] { PLACE } else { 0 };
            bytes[place..place + cut].copy_from_slice(&after[place..place + cut]);
            std::fs::write(path(&folder), &bytes).unwrap();
            let expected = if bytes == after { new } else { old };
            let record = Record::open(Some(&path(&folder)), 100).unwrap();
            assert_eq!(record.progress, expected, "{cut} bytes");
        }
    }

    #[test]
    fn a_client_that_was_killed_at_once_is_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        for len in [0, 5, HEAD.len()] {
            std::fs::write(path(&folder), &HEAD[..len]).unwrap();
            assert_eq!(Record::open(Some(&path(&folder)), 100).unwrap().progress.acked, 0);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let refusal = |size| {
            let error = Record::open(Some(&path(&folder)), size).err().unwrap();
            format!("{error:#}")
        };
        let record = Record::open(Some(&path(&folder)), 100).unwrap();
        assert!(refusal(100).contains("another client has it"));
        drop(record);
        assert!(refusal(101).contains("its requests have --size 100"));
        std::fs::write(path(&folder), [7; 300]).unwrap();
        assert!(refusal(100).contains("another kind of file"));
    }
}
