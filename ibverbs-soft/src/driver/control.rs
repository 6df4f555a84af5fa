//! Control messages: the fields of an IP header that are said beside a datagram.

use std::net::IpAddr;

use zerocopy::IntoBytes;

use crate::transport::Path;

/// The hop limit of packets that do not ask for one.
pub(super) const HOP_LIMIT: u8 = 64;

/// Fields of an IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) traffic_class: u8,
    pub(super) hop_limit: u8,
}

/// Control messages of one datagram, as the kernel has them: length, level and kind, then the data, aligned to words.
#[derive(Clone, Copy)]
pub(super) struct Control {
    words: [usize; Control::WORDS],
    len: usize,
}

const WORD: usize = size_of::<usize>();
/// What stands in front of the data.
const HEADER: usize = WORD + 2 * size_of::<libc::c_int>();

impl Control {
    const WORDS: usize = 16;
    /// Room for more than the two fields.
    pub(super) const SIZE: usize = Control::WORDS * WORD;

    pub(super) const fn new() -> Control {
        Control { words: [0; Control::WORDS], len: 0 }
    }

    /// What is to be said about a datagram that goes this way: nothing, if it is as all.
    pub(super) fn for_path(path: &Path) -> Control {
        let mut control = Control::new();
        let (level, traffic_class, hop_limit) = match path.dest {
            IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS, libc::IP_TTL),
            IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, libc::IPV6_HOPLIMIT),
        };
        if path.traffic_class != 0 {
            control.put_number(level, traffic_class, path.traffic_class);
        }
        if path.hop_limit != HOP_LIMIT && path.hop_limit != 0 {
            control.put_number(level, hop_limit, path.hop_limit);
        }
        control
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut libc::c_void {
        self.words.as_mut_ptr().cast()
    }

    /// Adds that the kernel is to cut what is sent into datagrams of so many bytes, but for the last.
    pub(super) fn cut(&mut self, size: u16) {
        self.put(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
    }

    fn put_number(&mut self, level: libc::c_int, kind: libc::c_int, value: u8) {
        self.put(level, kind, &libc::c_int::from(value).to_ne_bytes());
    }

    fn put(&mut self, level: libc::c_int, kind: libc::c_int, value: &[u8]) {
        let len = HEADER + value.len();
        let place = self.words.as_mut_bytes().get_mut(self.len..).and_then(|it| it.get_mut(..len));
        if let Some(place) = place {
            place[..WORD].copy_from_slice(&len.to_ne_bytes());
            place[WORD..][..4].copy_from_slice(&level.to_ne_bytes());
            place[WORD + 4..][..4].copy_from_slice(&kind.to_ne_bytes());
            place[HEADER..].copy_from_slice(value);
            self.len += len.next_multiple_of(WORD);
        }
    }

    /// The messages in the first `len` bytes: level, kind and data.
    fn messages(&self, len: usize) -> impl Iterator<Item = (libc::c_int, libc::c_int, &[u8])> {
        let mut rest = self.words.as_bytes().get(..len).unwrap_or(&[]);
        std::iter::from_fn(move || {
            let (level, kind, data, after) = split(rest)?;
            rest = after;
            Some((level, kind, data))
        })
    }

    /// The error number that the network has reported, in the first `len` bytes.
    pub(super) fn error(&self, len: usize) -> Option<libc::c_int> {
        let is_error = |level, kind| {
            matches!(
                (level, kind),
                (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
            )
        };
        let (_, _, data) = self.messages(len).find(|(level, kind, _)| is_error(*level, *kind))?;
        // A structure that begins with the number.
        data.first_chunk().copied().map(libc::c_int::from_ne_bytes)
    }

    /// What the kernel has said about a datagram, in the first `len` bytes. A field that is not there is as by default.
    pub(super) fn fields(&self, len: usize) -> Fields {
        let mut fields = Fields { traffic_class: 0, hop_limit: HOP_LIMIT };
        for (level, kind, data) in self.messages(len) {
            // A byte, or a number.
            let value = match *data {
                [byte] => byte,
                [a, b, c, d] => libc::c_int::from_ne_bytes([a, b, c, d]) as u8,
                _ => continue,
            };
            match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    fields.traffic_class = value;
                }
                (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                    fields.hop_limit = value;
                }
                _ => {}
            }
        }
        fields
    }
}

/// The first message: level, kind and data; and what comes after it.
fn split(bytes: &[u8]) -> Option<(libc::c_int, libc::c_int, &[u8], &[u8])> {
    let (header, _) = bytes.split_at_checked(HEADER)?;
    let (len, ids) = header.split_at_checked(WORD)?;
    let len = usize::from_ne_bytes(len.try_into().ok()?);
    let (level, kind) = ids.split_at_checked(4)?;
    let data = bytes.get(HEADER..len)?;
    let after = bytes.get(len.next_multiple_of(WORD)..).unwrap_or(&[]);
    let number = |bytes: &[u8]| bytes.try_into().ok().map(libc::c_int::from_ne_bytes);
    Some((number(level)?, number(kind)?, data, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(dest: &str, traffic_class: u8, hop_limit: u8) -> Path {
        let dest = dest.parse().unwrap();
        Path { source: dest, dest, traffic_class, hop_limit, flow_label: 0 }
    }

    #[test]
    fn what_is_put_in_is_read_again() {
        for dest in ["127.0.0.1", "::1"] {
            for (traffic_class, hop_limit) in [(0, 64), (0xb8, 64), (0, 1), (0xff, 255)] {
                let control = Control::for_path(&path(dest, traffic_class, hop_limit));
                assert_eq!(control.fields(control.len()), Fields { traffic_class, hop_limit });
            }
        }
    }

    #[test]
    fn it_is_laid_out_as_the_c_library_says() {
        let mut control = Control::for_path(&path("127.0.0.1", 7, 8));
        // SAFETY: it computes.
        let one = unsafe { libc::CMSG_LEN(4) } as usize;
        // SAFETY: as above.
        let space = unsafe { libc::CMSG_SPACE(4) } as usize;
        assert_eq!((HEADER + 4, control.len()), (one, 2 * space));
        // SAFETY: all members may be zero.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_control = control.as_mut_ptr();
        message.msg_controllen = control.len() as _;
        // SAFETY: the message has control data, of the length that it says.
        let first = unsafe { libc::CMSG_FIRSTHDR(&message) };
        // SAFETY: as above; there are two.
        let second = unsafe { libc::CMSG_NXTHDR(&message, first) };
        // SAFETY: a header within the control data.
        let second = unsafe { second.read() };
        assert_eq!((second.cmsg_level, second.cmsg_type), (libc::IPPROTO_IP, libc::IP_TTL));
        assert_eq!(second.cmsg_len as usize, one);
    }

    #[test]
    fn what_is_usual_is_not_said() {
        for hop_limit in [0, HOP_LIMIT] {
            assert_eq!(Control::for_path(&path("127.0.0.1", 0, hop_limit)).len(), 0);
        }
    }

    #[test]
    fn nonsense_is_passed_over() {
        let mut control = Control::for_path(&path("127.0.0.1", 7, 8));
        let default = Fields { traffic_class: 0, hop_limit: HOP_LIMIT };
        for len in 0..HEADER + 4 {
            assert_eq!(control.fields(len), default);
        }
        assert_eq!(control.error(control.len()), None);
        for len in [0, HEADER - 1, 1000, usize::MAX] {
            control.words[0] = len;
            assert_eq!(control.fields(2 * Control::SIZE), default);
            assert_eq!(control.fields(control.len()), default, "{len}");
        }
    }
}
