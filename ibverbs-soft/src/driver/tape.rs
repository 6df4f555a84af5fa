//! Captures: packets are written to memory under the device's lock, and from there to a file by a thread of the capture.

use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{flock, FlockOperation};
use rustix::io::Errno;

use super::thread;
use crate::device::Generation;
use crate::wire::{Encapsulation, PcapWriter};

/// How many bytes can wait to be written; packets beyond that are left out of the capture.
const ROOM: usize = 64 << 20;

/// How long it may take to write what waits when the capture ends.
const PATIENCE: Duration = Duration::from_secs(5);

/// A capture that is being written.
#[derive(Debug)]
pub(crate) struct Tape {
    state: Mutex<State>,
    /// Something waits to be written, or does not wait any more.
    changed: Condvar,
    generation: Generation,
}

#[derive(Debug)]
struct State {
    /// What waits to be written.
    waiting: PcapWriter<Vec<u8>>,
    packets: u64,
    /// Packets that were left out.
    missed: u64,
    is_closed: bool,
    /// Whether the thread does nothing more, and the file is closed.
    is_done: bool,
    error: Option<io::Error>,
}

impl Tape {
    /// Begins a capture in this file, which is made, or made empty.
    ///
    /// # Errors
    ///
    /// If the file cannot be written, or another capture is being written to it.
    pub(crate) fn begin(path: &Path) -> io::Result<Arc<Tape>> {
        let mut options = File::options();
        options.write(true).create(true).truncate(false);
        // A pipe that nobody reads is not waited for. No pipe is taken: it cannot be emptied.
        let file = options.custom_flags(libc::O_NONBLOCK).open(path)?;
        // Held until the file is closed.
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            let message = "another capture is being written to this file";
            io::Error::other(message)
        })?;
        file.set_len(0)?;
        let state = State {
            waiting: PcapWriter::new(Vec::new())?,
            packets: 0,
            missed: 0,
            is_closed: false,
            is_done: false,
            error: None,
        };
        let generation = Generation::current();
        let tape = Arc::new(Tape { state: Mutex::new(state), changed: Condvar::new(), generation });
        let writer = Arc::clone(&tape);
        thread::spawn("ibverbs-pcap".to_owned(), move || writer.run(file))?;
        Ok(tape)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, file: File) {
        let written = self.write_all(file);
        let mut state = self.lock();
        state.error = written.err();
        state.is_closed = true;
        state.is_done = true;
        self.changed.notify_all();
    }

    /// Writes what waits, until the capture is closed and nothing does.
    fn write_all(&self, mut file: File) -> io::Result<()> {
        let mut state = self.lock();
        loop {
            let waiting = mem::take(state.waiting.get_mut());
            if waiting.is_empty() {
                if state.is_closed {
                    return Ok(());
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(state);
            file.write_all(&waiting)?;
            state = self.lock();
        }
    }

    /// Adds a packet, the payload of a UDP datagram. Returns whether the capture goes on.
    pub(crate) fn write(&self, encapsulation: &Encapsulation, packet: &[u8]) -> bool {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut state = self.lock();
        if state.is_closed {
            return false;
        }
        let waiting = state.waiting.get_mut().len();
        if waiting + packet.len() > ROOM {
            state.missed += 1;
            return true;
        }
        // There is no error in memory.
        if state.waiting.write(time, encapsulation, packet).is_ok() {
            state.packets += 1;
        }
        drop(state);
        if waiting == 0 {
            self.changed.notify_all();
        }
        true
    }

    /// Ends the capture when everything is written. Returns how many packets are in it.
    ///
    /// # Errors
    ///
    /// If not everything could be written, and `EIO` in a child of the process, where nobody writes.
    pub(crate) fn close(&self) -> io::Result<u64> {
        if self.generation.is_over() {
            return Err(Errno::IO.into());
        }
        self.lock().is_closed = true;
        self.changed.notify_all();
        let is_busy = |state: &mut State| !state.is_done;
        let (mut state, _) = self
            .changed
            .wait_timeout_while(self.lock(), PATIENCE, is_busy)
            .unwrap_or_else(PoisonError::into_inner);
        match (state.error.take(), state.missed) {
            (Some(error), _) => Err(error),
            _ if !state.is_done => Err(io::ErrorKind::TimedOut.into()),
            (None, 0) => Ok(state.packets),
            (None, missed) => Err(io::Error::other(format!(
                "{missed} packets are not in the capture, since the file was not written as fast as they came"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_pipe_that_nobody_reads_is_refused_at_once() {
        /// Longer than anything takes, unless it never happens.
        const LONG: Duration = Duration::from_secs(20);
        let name = format!("ibverbs-soft-{}.pipe", std::process::id());
        let path = std::env::temp_dir().join(name);
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let (tell, told) = mpsc::channel();
        let pipe = path.clone();
        std::thread::spawn(move || tell.send(Tape::begin(&pipe).map(drop)));
        let begun = told.recv_timeout(LONG);
        std::fs::remove_file(&path).unwrap();
        assert!(begun.expect("it waits for a reader").is_err());
    }
}
