//! Global identifiers: the addresses of ports.

use std::ffi::CStr;
use std::fmt;
use std::net::{AddrParseError, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::c_enum::c_enum;
use crate::context::ContextInner;
use crate::error::{Error, Result};
use crate::ffi;

/// A global identifier: the 128-bit address of a port.
///
/// On RoCE it is an IPv6 address, or an IPv4 address mapped into one. On InfiniBand it is the
/// subnet's prefix and the port's GUID. It converts to and from [`Ipv6Addr`] and its 16 bytes.
///
/// It prints as an IPv6 address, and with `{:#}` as eight full groups, the way `show_gids` and the
/// kernel's files do.
///
/// ```
/// use ibverbs::Gid;
///
/// let gid: Gid = "::ffff:10.7.0.1".parse()?;
/// assert!(gid.is_ipv4_mapped());
/// assert_eq!(gid.to_string(), "::ffff:10.7.0.1");
/// assert_eq!(format!("{gid:#}"), "0000:0000:0000:0000:0000:ffff:0a07:0001");
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[doc(alias = "ibv_gid")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gid([u8; 16]);

impl Gid {
    /// The first half: the subnet's prefix, most significant byte first.
    pub const fn subnet_prefix(self) -> u64 {
        (self.to_bits() >> 64) as u64
    }

    /// The second half: on InfiniBand the port's GUID, most significant byte first.
    pub const fn interface_id(self) -> u64 {
        self.to_bits() as u64
    }

    /// Whether this is an IPv4 address mapped into IPv6, `::ffff:a.b.c.d`: what RoCE uses on IPv4.
    pub const fn is_ipv4_mapped(self) -> bool {
        self.to_bits() >> 32 == 0xffff
    }

    /// The IPv4 address that is mapped into this one, or `None` if none is.
    pub fn to_ipv4_mapped(self) -> Option<Ipv4Addr> {
        Ipv6Addr::from(self).to_ipv4_mapped()
    }

    /// Whether this is a link-local address: `fe80::/10`, or IPv4's `169.254.0.0/16`.
    ///
    /// No router forwards to such an address. On InfiniBand it is the prefix of a subnet that was
    /// given none, and nothing is wrong with it.
    pub fn is_link_local(self) -> bool {
        match self.to_ipv4_mapped() {
            Some(address) => address.is_link_local(),
            None => self.to_bits() >> 118 == 0xfe80 >> 6,
        }
    }

    /// Whether this is a loopback address: `::1`, or IPv4's `127.0.0.0/8`.
    pub fn is_loopback(self) -> bool {
        match self.to_ipv4_mapped() {
            Some(address) => address.is_loopback(),
            None => self.to_bits() == 1,
        }
    }

    /// Whether this is the address of a multicast group: `ff00::/8`, or IPv4's `224.0.0.0/4`.
    pub fn is_multicast(self) -> bool {
        match self.to_ipv4_mapped() {
            Some(address) => address.is_multicast(),
            None => self.0[0] == 0xff,
        }
    }

    /// Whether this is the reserved value zero: a table's entry that holds nothing.
    pub const fn is_reserved(self) -> bool {
        self.to_bits() == 0
    }

    const fn to_bits(self) -> u128 {
        u128::from_be_bytes(self.0)
    }
}

impl From<[u8; 16]> for Gid {
    fn from(bytes: [u8; 16]) -> Gid {
        Gid(bytes)
    }
}

impl From<Gid> for [u8; 16] {
    fn from(gid: Gid) -> [u8; 16] {
        gid.0
    }
}

impl From<Ipv6Addr> for Gid {
    fn from(address: Ipv6Addr) -> Gid {
        Gid(address.octets())
    }
}

impl From<Gid> for Ipv6Addr {
    fn from(gid: Gid) -> Ipv6Addr {
        Ipv6Addr::from(gid.0)
    }
}

/// Maps the address into IPv6, as RoCE does.
impl From<Ipv4Addr> for Gid {
    fn from(address: Ipv4Addr) -> Gid {
        Gid::from(address.to_ipv6_mapped())
    }
}

impl FromStr for Gid {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Gid, AddrParseError> {
        text.parse::<Ipv6Addr>().map(Gid::from)
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = Ipv6Addr::from(*self);
        if !f.alternate() {
            return fmt::Display::fmt(&address, f);
        }
        let groups = address.segments().map(|group| format!("{group:04x}"));
        f.pad(&groups.join(":"))
    }
}

impl fmt::Debug for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gid({self})")
    }
}

c_enum! {
    /// Which protocol a GID belongs to (`enum ibv_gid_type`).
    #[doc(alias = "ibv_gid_type")]
    pub struct GidType: u32 {
        /// InfiniBand; iWARP and EFA report it too.
        IB = ffi::IBV_GID_TYPE_IB, "IB";
        /// RoCE version 1: an Ethernet protocol of its own, which no router forwards.
        ROCE_V1 = ffi::IBV_GID_TYPE_ROCE_V1, "RoCE v1";
        /// RoCE version 2: over UDP.
        ROCE_V2 = ffi::IBV_GID_TYPE_ROCE_V2, "RoCE v2";
    }
}

/// An entry of a port's GID table.
#[doc(alias = "ibv_gid_entry")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GidEntry {
    gid: Gid,
    index: u32,
    port: u8,
    gid_type: GidType,
    netdev_index: Option<u32>,
}

impl GidEntry {
    /// The entry, or `None` if its port's number is beyond what queue pairs can be given.
    fn new(raw: &ffi::ibv_gid_entry) -> Option<GidEntry> {
        Some(GidEntry {
            // SAFETY: every bit pattern is valid for the union's bytes, and C or the zeroes of
            // `EMPTY` have initialised all of them.
            gid: Gid(unsafe { raw.gid.raw }),
            index: raw.gid_index,
            port: u8::try_from(raw.port_num).ok()?,
            gid_type: GidType(raw.gid_type),
            netdev_index: Some(raw.ndev_ifindex).filter(|&index| index != 0),
        })
    }

    /// The identifier.
    pub fn gid(&self) -> Gid {
        self.gid
    }

    /// The entry's place in its port's table.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The entry's place, as a queue pair or an address is given it: there it has 8 bits, and an entry beyond them
    /// cannot be used (`None`).
    pub fn gid_index(&self) -> Option<u8> {
        u8::try_from(self.index).ok()
    }

    /// The port's number, counted from 1.
    #[doc(alias = "port_num")]
    pub fn port(&self) -> u8 {
        self.port
    }

    /// The protocol that the identifier belongs to.
    pub fn gid_type(&self) -> GidType {
        self.gid_type
    }

    /// The kernel's index of the network device behind the identifier; `None` where there is none,
    /// as on InfiniBand.
    #[doc(alias = "ndev_ifindex")]
    pub fn netdev_index(&self) -> Option<u32> {
        self.netdev_index
    }

    /// The name of the network device behind the identifier; `None` where there is none, or where
    /// it is not in this process's network namespace.
    #[doc(alias = "if_indextoname")]
    pub fn netdev_name(&self) -> Option<String> {
        let mut name = [0; libc::IF_NAMESIZE];
        // SAFETY: the second argument has room for IF_NAMESIZE bytes (if_indextoname(3)).
        let found = unsafe { libc::if_indextoname(self.netdev_index?, name.as_mut_ptr()) };
        if found.is_null() {
            return None;
        }
        // SAFETY: the call succeeded, so that it wrote a NUL-terminated name into `name`, which
        // outlives this borrow.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) };
        Some(name.to_string_lossy().into_owned())
    }

    /// Orders entries by what can be reached from them, the furthest first. `None` if the entry
    /// cannot be a sender's address: an address vector has 8 bits for the index.
    fn reach(&self) -> Option<impl Ord> {
        let index = u8::try_from(self.index).ok()?;
        if self.gid.is_reserved() || self.gid.is_multicast() {
            return None;
        }
        let protocol = match self.gid_type {
            GidType::ROCE_V2 => Protocol::RoceV2,
            GidType::IB => Protocol::InfiniBand,
            GidType::ROCE_V1 => Protocol::RoceV1,
            _ => Protocol::Unknown,
        };
        let scope = if self.gid_type == GidType::IB {
            // A prefix that looks link-local is InfiniBand's default.
            Scope::Global
        } else if self.gid.is_loopback() {
            Scope::Loopback
        } else if self.gid.is_link_local() {
            Scope::LinkLocal
        } else {
            Scope::Global
        };
        Some((scope, protocol, !self.gid.is_ipv4_mapped(), index))
    }
}

/// How far an address reaches, the best first. A link-local address often cannot be resolved, but a
/// loopback address always reaches at least this machine.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    Global,
    Loopback,
    LinkLocal,
}

/// How far a protocol reaches, the best first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Protocol {
    RoceV2,
    InfiniBand,
    RoceV1,
    Unknown,
}

/// The entry of this port that reaches furthest.
pub(crate) fn best_of_port(entries: &[GidEntry], port: u8) -> Option<GidEntry> {
    let candidates = entries.iter().filter(|entry| entry.port == port && entry.reach().is_some());
    candidates.min_by_key(|entry| entry.reach()).copied()
}

/// An entry for C to fill.
const EMPTY: ffi::ibv_gid_entry = ffi::ibv_gid_entry {
    gid: ffi::ibv_gid { raw: [0; 16] },
    gid_index: 0,
    port_num: 0,
    gid_type: 0,
    ndev_ifindex: 0,
};

/// How many entries one query can return: rdma-core passes the buffer's size to the kernel in 16
/// bits.
const MAX_ENTRIES: usize = u16::MAX as usize / size_of::<ffi::ibv_gid_entry>();

impl ContextInner {
    /// The entries in use of all ports' tables.
    pub(crate) fn gid_table(&self) -> Result<Vec<GidEntry>> {
        const VERB: &str = "ibv_query_gid_table";
        let slots = self.gid_slots()?.min(MAX_ENTRIES);
        if slots == 0 {
            return Ok(Vec::new());
        }
        let mut entries = vec![EMPTY; slots];
        // SAFETY: the context is open, and the second argument points to as many entries as the
        // third says; there are no flags yet, so that the last is zero (ibv_query_gid_table(3)).
        let count = unsafe {
            ffi::ibv_query_gid_table(self.as_raw(), entries.as_mut_ptr(), entries.len(), 0)
        };
        let Ok(count) = usize::try_from(count) else {
            return Err(Error::from_code(VERB, i32::try_from(-count).unwrap_or(libc::EIO)));
        };
        Ok(entries.iter().take(count).filter_map(GidEntry::new).collect())
    }

    /// How many entries all ports' tables have, used or not.
    fn gid_slots(&self) -> Result<usize> {
        (1..=self.query_device()?.num_ports())
            .map(|port| Ok(self.query_port(port)?.gid_table_len() as usize))
            .sum()
    }

    /// The entry of this port that reaches furthest; `None` if its table is empty.
    pub(crate) fn routable_gid(&self, port: u8) -> Result<Option<GidEntry>> {
        // A port that does not exist is an error, not one without a GID.
        self.query_port(port)?;
        Ok(best_of_port(&self.gid_table()?, port))
    }
}

#[cfg(test)]
mod tests;
