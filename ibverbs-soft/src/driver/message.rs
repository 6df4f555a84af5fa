//! Messages of `sendmmsg` and `recvmmsg`.

use super::control::Control;
use super::socket::SocketAddr;

/// A message whose pieces and other parts are elsewhere.
pub(super) fn message(
    name: &mut SocketAddr,
    pieces: &mut [libc::iovec],
    control: &mut Control,
    control_len: usize,
) -> libc::mmsghdr {
    // SAFETY: all members may be zero: numbers, and pointers that may be null. (There is no other way to make one: on some
    // platforms it has padding by name.)
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_namelen = name.len();
    message.msg_hdr.msg_name = name.as_mut_ptr().cast();
    message.msg_hdr.msg_iov = pieces.as_mut_ptr();
    message.msg_hdr.msg_iovlen = pieces.len() as _;
    message.msg_hdr.msg_control = control.as_mut_ptr();
    message.msg_hdr.msg_controllen = control_len as _;
    message
}
