//! Relaying one stream of the guest's command, live, from the socket that QEMU connects to.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};

/// Where a stream goes.
pub(crate) type Sink = Box<dyn Write + Send>;

/// A thread that copies what the guest writes.
pub(crate) struct Relay {
    socket: PathBuf,
    received: Arc<AtomicU64>,
    thread: JoinHandle<Vec<u8>>,
}

impl Relay {
    /// Listens on a new socket; `keep` keeps a copy of everything for [`Relay::finish`].
    pub(crate) fn start(socket: PathBuf, sink: Sink, keep: bool) -> Result<Self> {
        let listener = UnixListener::bind(&socket)
            .with_context(|| format!("cannot make the socket {}", socket.display()))?;
        let received = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&received);
        let thread = thread::spawn(move || match listener.accept() {
            Ok((stream, _)) => copy(stream, sink, keep, &counter),
            Err(_) => Vec::new(),
        });
        Ok(Self { socket, received, thread })
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// How many bytes have been relayed so far.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Acquire)
    }

    /// Ends the thread, once QEMU is gone, and returns what was kept.
    pub(crate) fn finish(self) -> Vec<u8> {
        // If QEMU never connected, the thread still waits for somebody; a failure means that nobody does.
        drop(UnixStream::connect(&self.socket));
        self.thread.join().unwrap_or_default()
    }
}

fn copy(mut stream: impl Read, mut sink: Sink, keep: bool, received: &AtomicU64) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(0) => return kept,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return kept,
        };
        let bytes = &buffer[..count];
        // A reader of ours that went away must not stop the guest's command.
        let _ = sink.write_all(bytes).and_then(|()| sink.flush());
        if keep {
            kept.extend_from_slice(bytes);
        }
        received.fetch_add(count as u64, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_copied_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let relay = Relay::start(folder.path().join("socket"), Box::new(io::sink()), true).unwrap();
        let mut guest = UnixStream::connect(relay.socket()).unwrap();
        guest.write_all(b"hello").unwrap();
        while relay.received() < 5 {
            thread::yield_now();
        }
        drop(guest);
        assert_eq!(relay.finish(), b"hello");
    }

    #[test]
    fn a_relay_nobody_connected_to_ends() {
        let folder = tempfile::tempdir().unwrap();
        let relay = Relay::start(folder.path().join("socket"), Box::new(io::sink()), true).unwrap();
        assert_eq!(relay.finish(), b"");
    }
}
