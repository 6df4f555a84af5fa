//! Memory that a peer writes into.

use std::ptr;

use anyhow::Result;
use ibverbs::{AccessFlags, MemoryRegion, ProtectionDomain, RemoteMemorySlice};

/// Bytes that are read at once.
const WORD: usize = size_of::<u64>();

/// Memory that a peer may write into at any time, whatever was agreed on. Its bytes are looked at in copies only.
pub struct Inbox {
    memory: MemoryRegion,
    remote: RemoteMemorySlice,
}

impl Inbox {
    /// Memory of so many bytes, all zero.
    pub fn new(pd: &ProtectionDomain, len: usize) -> Result<Inbox> {
        let memory = pd.allocate(len, AccessFlags::LOCAL_WRITE | AccessFlags::REMOTE_WRITE)?;
        // SAFETY: no reference to the memory is ever made: it is private to this structure, which only reads
        // copies through a pointer.
        let remote = unsafe { memory.remote() }?;
        Ok(Inbox { memory, remote })
    }

    /// What the peer needs to write here.
    pub fn remote(&self) -> RemoteMemorySlice {
        self.remote
    }

    /// Copies out what is there now, from `offset` on: a multiple of 8.
    ///
    /// # Panics
    ///
    /// If the memory ends before that, or `offset` is another number.
    pub fn read(&self, offset: usize, to: &mut [u8]) {
        assert_eq!(offset % WORD, 0, "inboxes are read from multiples of {WORD} on");
        let slice = self.memory.slice(offset..offset + to.len());
        let mut from = slice.addr() as *const u8;
        let mut words = to.chunks_exact_mut(WORD);
        for word in &mut words {
            // SAFETY: the word lies in the slice, whose memory is initialised and stays registered and mapped while
            // self is borrowed. It is aligned: the memory begins with a page, and `offset` is a multiple. Volatile, for
            // the device may write meanwhile: then these are some of the old bytes and some of the new.
            let bytes = unsafe { ptr::read_volatile(from.cast::<u64>()) };
            word.copy_from_slice(&bytes.to_ne_bytes());
            from = from.wrapping_add(WORD);
        }
        for byte in words.into_remainder() {
            // SAFETY: as above, and bytes are always aligned.
            *byte = unsafe { ptr::read_volatile(from) };
            from = from.wrapping_add(1);
        }
    }
}
