//! The messages, and where chunks go.

use anyhow::{bail, ensure, Context as _, Result};
use ibverbs::RemoteMemorySlice;

/// What the connection request begins with: a name, and the version of all this.
pub(super) const GREETING: [u8; 5] = *b"copy\x01";

/// How many chunks there is room for in the ring.
pub const SLOTS: u32 = 16;

/// The most bytes per chunk.
pub const MAX_CHUNK: u32 = 16 << 20;

/// The ring, of which the answer to the connection request tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Bytes per chunk; the last one of a file may be shorter.
    pub chunk: u32,
    /// Where they are written.
    pub memory: RemoteMemorySlice,
}

impl Ring {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        [&GREETING[..], &self.chunk.to_be_bytes(), &self.memory.to_bytes()].concat()
    }

    /// Reads what a peer has sent along, which may be anything.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Ring> {
        let ring = bytes.strip_prefix(&GREETING).context("the server is another program")?;
        let (chunk, memory) = ring.split_first_chunk().context("the answer is cut off")?;
        // Private data is filled up with zeros.
        let memory = memory.get(..RemoteMemorySlice::BYTES).context("the answer is cut off")?;
        let (chunk, memory) = (u32::from_be_bytes(*chunk), RemoteMemorySlice::from_bytes(memory)?);
        ensure!((1..=MAX_CHUNK).contains(&chunk), "chunks of {chunk} bytes are offered");
        let len = u64::from(SLOTS) * u64::from(chunk);
        ensure!(memory.len == len, "{} bytes are offered and not {len}", memory.len);
        Ok(Ring { chunk, memory })
    }
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The sender has a file.
    Offer {
        /// Its length in bytes.
        len: u64,
        /// What it is to be called. One that arrives is a plain name.
        name: String,
    },
    /// The receiver wants the file.
    Accept,
    /// The sender has written all of the file, whose CRC-32 is this.
    End(u32),
    /// The receiver has stored the file.
    Done,
    /// Something is wrong, in words.
    Failed(String),
}

impl Message {
    /// The longest one. A text is cut off.
    pub(super) const BYTES: usize = 1024;

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = match self {
            Message::Offer { len, name } => {
                [&[1], &len.to_be_bytes()[..], name.as_bytes()].concat()
            }
            Message::Accept => vec![2],
            Message::End(checksum) => [&[3], &checksum.to_be_bytes()[..]].concat(),
            Message::Done => vec![4],
            Message::Failed(text) => [&[5], text.as_bytes()].concat(),
        };
        bytes.truncate(Self::BYTES);
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Message> {
        let (tag, rest) = bytes.split_first().context("a message is empty")?;
        let message = match (tag, rest) {
            (1, rest) => {
                let (len, name) = rest.split_first_chunk().context("an offer is cut off")?;
                let name = plain_name(name)?;
                Message::Offer { len: u64::from_be_bytes(*len), name }
            }
            (2, []) => Message::Accept,
            (3, &[a, b, c, d]) => Message::End(u32::from_be_bytes([a, b, c, d])),
            (4, []) => Message::Done,
            (5, text) => Message::Failed(String::from_utf8_lossy(text).into_owned()),
            _ => bail!("a message of {} bytes begins with {tag}, which is none", bytes.len()),
        };
        Ok(message)
    }
}

/// Takes a name from a peer. It must not choose a folder with it, nor hide the file, nor write what cannot be seen.
fn plain_name(bytes: &[u8]) -> Result<String> {
    let name = String::from_utf8(bytes.to_vec()).context("the name is no text")?;
    let is_plain = !name.starts_with('.') && !name.contains(|c: char| c == '/' || c.is_control());
    ensure!((1..=255).contains(&name.len()) && is_plain, "{name:?} is no plain name");
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive() {
        for message in [
            Message::Offer { len: u64::MAX, name: "name".into() },
            Message::Accept,
            Message::End(0x1234_5678),
            Message::Done,
            Message::Failed("disk full".into()),
        ] {
            assert_eq!(Message::from_bytes(&message.to_bytes()).unwrap(), message);
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for bytes in [&[][..], &[0], &[6], &[1, 2, 3], &[2, 0], &[3, 1, 2, 3], &[4, 4]] {
            assert!(Message::from_bytes(bytes).is_err(), "{bytes:?}");
        }
        assert!(Message::from_bytes(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0xff]).is_err(), "no UTF-8");
    }

    #[test]
    fn long_messages_are_cut_off() {
        let bytes = Message::Failed("x".repeat(5000)).to_bytes();
        assert_eq!(bytes.len(), Message::BYTES);
        assert!(matches!(Message::from_bytes(&bytes), Ok(Message::Failed(_))));
    }

    #[test]
    fn the_ring_arrives_and_must_have_its_length() {
        let memory = RemoteMemorySlice { addr: 4096, len: 16 * 1000, rkey: 1 };
        let mut ring = Ring { chunk: 1000, memory };
        let mut private_data = ring.to_bytes();
        private_data.resize(196, 0);
        assert_eq!(Ring::from_bytes(&private_data).unwrap(), ring);
        assert!(Ring::from_bytes(&private_data[..20]).is_err());
        assert!(Ring::from_bytes(&[0; 196]).is_err());
        ring.chunk = 1001;
        assert!(Ring::from_bytes(&ring.to_bytes()).is_err());
        ring.chunk = u32::MAX;
        assert!(Ring::from_bytes(&ring.to_bytes()).is_err());
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let arrives = |name: &str| {
            let offer = Message::Offer { len: 0, name: name.into() };
            Message::from_bytes(&offer.to_bytes()).is_ok()
        };
        for name in ["a", "disk.img", "a b", "größe", "a..b"] {
            assert!(arrives(name), "{name}");
        }
        let long = "x".repeat(256);
        let hidden = ["", ".", "..", ".bashrc", "a\nb", "a\0", "\x1b[2J", &long];
        for name in hidden.into_iter().chain(["../a", "a/b", "/etc/passwd"]) {
            assert!(!arrives(name), "{name:?}");
        }
    }
}
