//! Addresses as C has them.

use std::mem::size_of;
use std::net::SocketAddr;
use std::ptr;

use socket2::{SockAddr, SockAddrStorage};

/// An address for a call, in a place of its own: librdmacm's functions take pointers that are not `const`.
pub(super) struct RawAddress(SockAddr);

impl RawAddress {
    pub(super) fn new(address: SocketAddr) -> RawAddress {
        RawAddress(address.into())
    }

    /// A pointer to a whole address of its family, valid while self is borrowed and does not move. librdmacm only
    /// reads what it points to.
    pub(super) fn as_mut_ptr(&mut self) -> *mut libc::sockaddr {
        self.0.as_ptr().cast_mut().cast()
    }
}

/// The address that librdmacm has stored; `None` if it is none of IP.
pub(super) fn from_storage(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: the reference points to as many bytes.
    unsafe { from_pointer(std::ptr::from_ref(storage).cast(), length) }
}

/// The address at `address`, which has `length` bytes; `None` if it is null, cut off, or none of IP.
///
/// # Safety
///
/// `address` is null, or points to `length` initialised bytes.
pub(super) unsafe fn from_pointer(
    address: *const libc::sockaddr,
    length: libc::socklen_t,
) -> Option<SocketAddr> {
    let mut storage = SockAddrStorage::zeroed();
    if address.is_null() || length > storage.size_of() {
        return None;
    }
    // SAFETY: the storage may be seen as bytes, of which there are as many as this type has.
    let bytes = unsafe { storage.view_as::<[u8; size_of::<libc::sockaddr_storage>()]>() };
    // SAFETY: there are `length` bytes at `address` by the caller's promise, and at least as many in the storage,
    // as was checked; the storage is on this function's stack.
    unsafe { ptr::copy_nonoverlapping(address.cast(), bytes.as_mut_ptr(), length as usize) };
    // SAFETY: the storage holds an address of this length, or zeros. Those of IP are numbers only.
    let address = unsafe { SockAddr::new(storage, length) };
    let needed = match i32::from(address.family()) {
        libc::AF_INET => size_of::<libc::sockaddr_in>(),
        _ => size_of::<libc::sockaddr_in6>(),
    };
    address.as_socket().filter(|_| length as usize >= needed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(address: SocketAddr) -> Option<SocketAddr> {
        let mut raw = RawAddress::new(address);
        let length = raw.0.len();
        // SAFETY: the address has this length.
        unsafe { from_pointer(raw.as_mut_ptr(), length) }
    }

    #[test]
    fn addresses_come_back() {
        for address in ["10.7.0.1:7471", "[fd07::1]:1", "[::]:0", "[fe80::1%3]:65535"] {
            let address = address.parse().unwrap();
            assert_eq!(round_trip(address), Some(address));
        }
    }

    #[test]
    fn what_is_no_address_of_ip_is_none() {
        let mut storage = SockAddrStorage::zeroed();
        // SAFETY: the storage may be seen as what it is for.
        let raw = unsafe { storage.view_as::<libc::sockaddr_storage>() };
        assert_eq!(from_storage(raw), None, "no family");
        raw.ss_family = 27;
        assert_eq!(from_storage(raw), None, "AF_IB");
        raw.ss_family = libc::AF_INET6 as libc::sa_family_t;
        assert!(from_storage(raw).is_some());
        for length in 0..28 {
            let raw = std::ptr::from_ref(raw).cast();
            // SAFETY: the storage has more bytes.
            assert_eq!(unsafe { from_pointer(raw, length) }, None, "{length} bytes are too few");
        }
        // SAFETY: null is allowed.
        assert_eq!(unsafe { from_pointer(std::ptr::null(), 16) }, None);
    }
}
