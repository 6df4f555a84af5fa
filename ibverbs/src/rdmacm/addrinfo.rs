//! Names of hosts and services.

use std::ffi::{c_char, CStr, CString};
use std::net::SocketAddr;
use std::ptr;

use super::address::from_pointer;
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
    /// The local address: what to listen on, or what the hints had as source.
    pub source: Option<SocketAddr>,
    /// The peer's address, if it is not for listening.
    pub destination: Option<SocketAddr>,
}

/// Looks up where a service of a host is, for identifiers of a port space: the first address that the name service has.
/// A service is a number, or a name in the host's configuration. It waits for the name service, so that a task should not
/// call it.
///
/// InfiniBand's assistant `ibacm` is not asked, whose answers would be for identifiers of InfiniBand addresses.
///
/// # Errors
///
/// - [`Error::ResolveName`] if there is no such host or service, or a peer's host is not named.
/// - [`Error::InvalidBytes`] if a name has a zero byte in it.
/// - Those of [`EventChannel::create`].
///
/// # Examples
///
/// ```no_run
/// # fn main() -> ibverbs::Result<()> {
/// use ibverbs::rdmacm::{getaddrinfo, AddrInfoHints, Tcp};
///
/// let found = getaddrinfo(Tcp, Some("storage.example.com"), Some("7471"), AddrInfoHints::new())?;
/// println!("{:?}", found.destination);
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
) -> Result<AddrInfo> {
    let failed = |reason: String| {
        let (node, service) = (node.unwrap_or("*"), service.unwrap_or("*"));
        let name = format!("host `{node}`, service `{service}`").into();
        Error::ResolveName { name, reason: reason.into() }
    };
    let (c_node, c_service) = (c_string(node)?, c_string(service)?);
    let passive = hints.flags & ffi::RAI_PASSIVE != 0;
    if node.is_none() && (service.is_none() || !passive) {
        return Err(failed("which one is not said".to_owned()));
    }
    // It sets the library up, if this has not been done.
    drop(EventChannel::create()?);
    let raw_hints = ffi::rdma_addrinfo {
        // Otherwise `ibacm` is asked, without a timeout, and its answer believed.
        ai_flags: (hints.flags | ffi::RAI_PASSIVE) as i32,
        ai_port_space: P::RAW as i32,
        ..Default::default()
    };
    let mut list = ptr::null_mut();
    let pointer = |name: &Option<CString>| name.as_deref().map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: the names end with zero or are null, the hints are a whole structure without pointers, and the last
    // argument points to a pointer.
    let code = unsafe {
        ffi::rdma_getaddrinfo(pointer(&c_node), pointer(&c_service), &raw_hints, &mut list)
    };
    if code != 0 {
        return Err(failed(reason(code)));
    }
    // SAFETY: the function has succeeded, so that this is a list.
    let entry = unsafe { &*list };
    // SAFETY: what is found for a listener is a source: null, or an address of this length (rdma_getaddrinfo(3)).
    let found = unsafe { from_pointer(entry.ai_src_addr, entry.ai_src_len) };
    // SAFETY: the list came from `rdma_getaddrinfo`, is freed once, and what it pointed to was copied.
    unsafe { ffi::rdma_freeaddrinfo(list) }
    match found {
        None => Err(failed("it has no IP address".to_owned())),
        found if passive => Ok(AddrInfo { source: found, destination: None }),
        found => Ok(AddrInfo { source: hints.source, destination: found }),
    }
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
