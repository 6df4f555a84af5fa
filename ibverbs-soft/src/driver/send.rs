//! Sending: many datagrams with one system call, and where the kernel can cut, several of them from one piece.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

use rustix::io::Errno;

use super::control::Control;
use super::message::message;
use super::socket::{last_errno, Socket, SocketAddr, BATCH};
use super::{Datagram, Report};
use crate::wire::{Trailer, UDP_PORT};

/// How long a piece is at most from which the kernel cuts datagrams: what fits into one, with its headers.
const MAX_PIECE: usize = 65_507;

/// How long datagrams are at least that are cut from one piece: to send short ones one by one costs less.
const MIN_CUT: usize = 512;

/// How often a datagram is tried that fails: errors of others may be in front of it.
const TRIES: u32 = 4;

/// What a system call has sent.
struct Sent {
    /// How many datagrams.
    count: usize,
    /// Whether these are all that it was given.
    is_all: bool,
}

impl Socket {
    /// Sends datagrams, and takes them out of the queue. What cannot get to where it is to go is dropped, as the network would.
    ///
    /// # Errors
    ///
    /// If the socket's buffer is full; the rest is still in the queue.
    pub(super) fn send(
        &self,
        queue: &mut VecDeque<Datagram>,
        report: &mut Report,
    ) -> Result<(), Errno> {
        // So many go by themselves, since together they did not go.
        let mut single = 0;
        // How often the first has failed.
        let mut tries = 0;
        while !queue.is_empty() {
            let cuts = single == 0 && self.cuts();
            let sent = match queue.len() {
                1 => self.send_batch::<1>(queue, false),
                _ => self.send_batch::<BATCH>(queue, cuts),
            };
            let done = match sent {
                Ok(Sent { count, is_all }) => {
                    tries = 0;
                    // What stopped it may be an error of before, of which nothing else would tell.
                    if !is_all {
                        self.take_errors(&mut report.gone);
                    }
                    count
                }
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => return Err(Errno::AGAIN),
                Err(Errno::INTR) => 0,
                // What is reported is mostly about datagrams that were sent before: this one has not been sent.
                Err(_) if tries < TRIES => {
                    self.take_errors(&mut report.gone);
                    tries += 1;
                    0
                }
                Err(errno) if cuts && run(queue.iter().take(BATCH)) > 1 => {
                    single = run(queue.iter().take(BATCH));
                    tries = 0;
                    // The interface cannot, whatever is sent.
                    if matches!(errno, Errno::IO | Errno::OPNOTSUPP) {
                        self.set_uncut();
                    }
                    continue;
                }
                Err(_) => {
                    report.dropped.unsendable += 1;
                    tries = 0;
                    1
                }
            };
            queue.drain(..done);
            single = single.saturating_sub(done);
        }
        Ok(())
    }

    /// Sends the first `N` datagrams, or as many as there are. It fails if the first one does, or the first that are cut from one
    /// piece.
    fn send_batch<const N: usize>(
        &self,
        queue: &VecDeque<Datagram>,
        cuts: bool,
    ) -> Result<Sent, Errno> {
        const NOTHING: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let mut names = [const { MaybeUninit::<SocketAddr>::uninit() }; N];
        let mut trailers = [const { MaybeUninit::<Trailer>::uninit() }; N];
        let mut controls = [const { MaybeUninit::<Control>::uninit() }; N];
        let mut messages = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; N];
        let mut pieces = [[NOTHING; 3]; N];
        let mut free = &mut pieces[..];
        // Where the datagrams of each message end.
        let mut ends = [0; N];
        let (mut count, mut end) = (0, 0);
        while let Some(first) = queue.get(end).filter(|_| end < N) {
            let begin = end;
            let len = if cuts { run(queue.range(begin..).take(N - begin)) } else { 1 };
            let (pieces, rest) = std::mem::take(&mut free).split_at_mut(len);
            free = rest;
            for (i, piece) in pieces.iter_mut().enumerate() {
                let datagram = &queue[begin + i];
                let trailer = trailers[begin + i].write(datagram.trailer(i as u16));
                *piece = datagram.parts(trailer).map(|part| libc::iovec {
                    iov_base: part.as_ptr().cast_mut().cast(),
                    iov_len: part.len(),
                });
            }
            let name = SocketAddr::new(first.path().dest, UDP_PORT, self.interface().index);
            let name = names[count].write(name);
            let control = controls[count].write(Control::for_path(first.path()));
            if len > 1 {
                // No longer than a packet.
                control.cut(first.len() as u16);
            }
            let control_len = control.len();
            messages[count].write(message(name, pieces.as_flattened_mut(), control, control_len));
            end = begin + len;
            ends[count] = end;
            count += 1;
        }
        // SAFETY: the first `count` messages were written above. Their addresses, pieces and control data are in the arrays, which
        // outlive the call, and in the datagrams, which are borrowed; the kernel reads them, and writes the messages' lengths.
        let sent = unsafe {
            libc::sendmmsg(
                self.fd().as_raw_fd(),
                messages.as_mut_ptr().cast(),
                count as libc::c_uint,
                libc::MSG_NOSIGNAL,
            )
        };
        let sent = usize::try_from(sent).map_err(|_| last_errno())?;
        let is_all = sent == count;
        Ok(Sent { count: sent.checked_sub(1).map_or(0, |last| ends[last]), is_all })
    }
}

/// How many of the first datagrams can be cut from one piece: they go the same way, and are equally long, but for the last, which
/// may be shorter. None if cutting is not worth it. The kernel numbers them.
fn run<'d>(mut datagrams: impl Iterator<Item = &'d Datagram>) -> usize {
    let Some(first) = datagrams.next() else { return 0 };
    let (mut count, mut total, mut is_last) =
        (1, first.len(), !first.is_free() || first.len() < MIN_CUT);
    for datagram in datagrams {
        let (len, fits) = (datagram.len(), total + datagram.len() <= MAX_PIECE);
        let belongs = datagram.is_free() && datagram.path() == first.path() && len <= first.len();
        if is_last || !fits || !belongs {
            break;
        }
        (count, total, is_last) = (count + 1, total + len, len < first.len());
    }
    count
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use super::super::receive::Receiver;
    use super::*;
    use crate::transport::Transmit;
    use crate::wire::test_packets::{all, path};
    use crate::wire::Packet;

    fn datagram(dest: &str, payload: usize) -> Datagram {
        let packet = all().into_iter().find(|packet| packet.payload.len() > 1).unwrap();
        let path = path("10.0.0.1", dest);
        Datagram::new(Transmit { path, packet: Packet { payload: vec![7; payload], ..packet } })
            .unwrap()
    }

    fn run_of(datagrams: &[(&str, usize)]) -> usize {
        let datagrams: Vec<_> = datagrams.iter().map(|(dest, len)| datagram(dest, *len)).collect();
        run(datagrams.iter())
    }

    #[test]
    fn what_goes_the_same_way_and_is_as_long_is_cut_from_one_piece() {
        let (here, there) = ("10.0.0.2", "10.0.0.3");
        assert_eq!(run_of(&[]), 0);
        assert_eq!(run_of(&[(here, 640), (here, 640), (here, 640)]), 3);
        // The last may be shorter, and none may come after it.
        assert_eq!(run_of(&[(here, 640), (here, 32), (here, 32)]), 2);
        assert_eq!(run_of(&[(here, 640), (here, 1024)]), 1);
        assert_eq!(run_of(&[(here, 640), (there, 640)]), 1);
        // It must be worth it.
        assert_eq!(run_of(&[(here, 64), (here, 64)]), 1);
        // As long as one datagram can be.
        let len = datagram(here, 4096).len();
        assert_eq!(run_of(&[(here, 4096); 32]), MAX_PIECE / len);
        // Bytes that are as they are have a checksum for the first place.
        let bytes = || Datagram::of_bytes(path("10.0.0.1", here), vec![0; 640]);
        assert_eq!(run([bytes(), bytes()].iter()), 1);
        assert_eq!(run([datagram(here, 640), bytes()].iter()), 1);
    }

    #[test]
    fn each_place_in_a_piece_has_a_checksum_of_its_own() {
        let datagram = datagram("10.0.0.2", 64);
        let path = *datagram.path();
        for identification in [0, 1, 31] {
            let bytes = datagram.parts(&datagram.trailer(identification)).concat();
            assert_eq!(bytes.len(), datagram.len());
            let encapsulation =
                crate::wire::Encapsulation { path, source_port: UDP_PORT, identification };
            assert_eq!(encapsulation.check(&bytes), Ok(identification));
        }
    }

    #[test]
    fn what_is_too_long_is_dropped_and_counted_and_the_rest_is_sent() {
        /// Longer than anything takes, unless it never happens.
        const LONG: Duration = Duration::from_secs(20);
        let [sender, receiver] = [(); 2].map(|()| Socket::bind_anywhere());
        let path = path(&sender.addr().to_string(), &receiver.addr().to_string());
        // Of the first that is too long the kernel tells on the socket as well, each time that it is tried.
        let lengths = [64, MAX_PIECE + 1, 64, 1 << 17, 64];
        let mut queue = lengths.map(|len| Datagram::of_bytes(path, vec![0; len])).into();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let mut report = Report::default();
            let result = sender.send(&mut queue, &mut report);
            tell.send((result, queue.len(), report.dropped.unsendable))
        });
        let sent = told.recv_timeout(LONG).expect("it is not tried for ever");
        assert_eq!(sent, (Ok(()), 0, 2));
        let mut reader = Receiver::new().unwrap();
        let (mut arrived, end) = (0, Instant::now() + LONG);
        while arrived < 3 && Instant::now() < end {
            arrived += reader.receive(&receiver, &[], true);
        }
        assert_eq!(arrived, 3);
    }
}
