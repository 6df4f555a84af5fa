//! Names of hosts and services.

use std::ffi::{c_char, CStr, CString};
use std::net::SocketAddr;
use std::ptr::{self, NonNull};

use super::address::{from_pointer, RawAddress};
use super::channel::EventChannel;
use super::port_space::PortSpace;
use crate::error::{last_errno, Error, Result};
use crate::ffi;

/// What an address is looked for: hints for [`getaddrinfo`].
#[doc(alias = "rdma_addrinfo")]
#[derive(Clone, Copy, Debug, Default)]
pub struct AddrInfoHints {
    flags: u32,
    source: Option<SocketAddr>,
}

impl AddrInfoHints {
    /// For connecting to whatever there is.
    pub fn new() -> AddrInfoHints {
        AddrInfoHints::default()
    }

    /// For listening: without a host, the wildcard address is found.
    pub fn set_passive(mut self) -> Self {
        self.flags |= ffi::RAI_PASSIVE;
        self
    }

    /// The host is an address, and no name that is to be looked up.
    pub fn set_numeric_host(mut self) -> Self {
        self.flags |= ffi::RAI_NUMERICHOST;
        self
    }

    /// The local address to connect from. It comes back with the result.
    pub fn set_source(mut self, source: SocketAddr) -> Self {
        self.source = Some(source);
        self
    }
}

/// Where to listen, or what to connect to, from where: from [`getaddrinfo`].
#[doc(alias = "rdma_addrinfo")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddrInfo {
    /// The local address, if it matters: what to listen on.
    pub source: Option<SocketAddr>,
    /// The peer's address, if it is not for listening.
    pub destination: Option<SocketAddr>,
}

/// Looks up where a service of a host is, for identifiers of a port space. A service is a number, or a name in the host's
/// configuration. It waits for the name service; a task should not call it, but `tokio::net::lookup_host`, which finds
/// the same.
///
/// Addresses that are not of IP, which a resolver of InfiniBand may find (`ibacm`), are left out.
///
/// # Errors
///
/// - [`Error::ResolveName`] if there is no such host or service.
/// - [`Error::InvalidBytes`] if a name has a zero byte in it.
/// - Those of [`EventChannel::create`].
///
/// # Examples
///
/// ```no_run
/// # fn main() -> ibverbs::Result<()> {
/// use ibverbs::rdmacm::{getaddrinfo, AddrInfoHints, Tcp};
///
/// for found in getaddrinfo(Tcp, Some("storage.example.com"), Some("7471"), AddrInfoHints::new())? {
///     println!("{:?}", found.destination);
/// }
/// # Ok(())
/// # }
/// ```
#[doc(alias = "rdma_getaddrinfo")]
#[doc(alias = "rdma_freeaddrinfo")]
pub fn getaddrinfo<P: PortSpace>(
    _: P,
    node: Option<&str>,
    service: Option<&str>,
    hints: AddrInfoHints,
) -> Result<Vec<AddrInfo>> {
    // It sets the library up, if this has not been done.
    drop(EventChannel::create()?);
    let (c_node, c_service) = (c_string(node)?, c_string(service)?);
    let mut source = hints.source.map(RawAddress::new);
    let raw_hints = ffi::rdma_addrinfo {
        ai_flags: hints.flags as i32,
        ai_port_space: P::RAW as i32,
        ai_src_len: source.as_ref().map_or(0, RawAddress::len),
        ai_src_addr: source.as_mut().map_or(ptr::null_mut(), RawAddress::as_mut_ptr),
        ..Default::default()
    };
    let mut list = ptr::null_mut();
    let pointer = |name: &Option<CString>| name.as_deref().map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: the names end with zero or are null, the hints are a whole structure whose pointers are null or to an
    // address of the length given, and the last argument points to a pointer.
    let code = unsafe {
        ffi::rdma_getaddrinfo(pointer(&c_node), pointer(&c_service), &raw_hints, &mut list)
    };
    if code != 0 {
        let reason = reason(code).into();
        let (node, service) = (node.unwrap_or("*"), service.unwrap_or("*"));
        let name = format!("host `{node}`, service `{service}`").into();
        return Err(Error::ResolveName { name, reason });
    }
    // SAFETY: the function has succeeded, so that this is a list, or null.
    let found = unsafe { copy(list) };
    if let Some(list) = NonNull::new(list) {
        // SAFETY: the list came from `rdma_getaddrinfo`, is freed once, and what it pointed to was copied.
        unsafe { ffi::rdma_freeaddrinfo(list.as_ptr()) }
    }
    Ok(found)
}

/// # Safety
///
/// `list` came from `rdma_getaddrinfo`, or is null.
unsafe fn copy(mut list: *mut ffi::rdma_addrinfo) -> Vec<AddrInfo> {
    let mut found = Vec::new();
    // SAFETY: null, or an entry of the list, which nobody writes to.
    while let Some(entry) = unsafe { list.as_ref() } {
        // SAFETY: an entry has null or an address of this length (rdma_getaddrinfo(3)).
        let source = unsafe { from_pointer(entry.ai_src_addr, entry.ai_src_len) };
        // SAFETY: as above.
        let destination = unsafe { from_pointer(entry.ai_dst_addr, entry.ai_dst_len) };
        if source.is_some() || destination.is_some() {
            found.push(AddrInfo { source, destination });
        }
        list = entry.ai_next;
    }
    found
}

fn c_string(name: Option<&str>) -> Result<Option<CString>> {
    name.map(CString::new).transpose().map_err(|_| Error::InvalidBytes {
        what: "name of a host or a service",
        reason: "there is a zero byte in it",
    })
}

/// librdmacm returns what `getaddrinfo` of the C library does, or -1 and sets `errno`.
fn reason(code: i32) -> String {
    if code == -1 {
        return std::io::Error::from_raw_os_error(last_errno()).to_string();
    }
    // SAFETY: gai_strerror(3) takes any number.
    let text: *const c_char = unsafe { libc::gai_strerror(code) };
    // SAFETY: it returned a text that is never freed.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
