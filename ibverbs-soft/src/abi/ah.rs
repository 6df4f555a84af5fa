//! Address handles.

use std::cell::UnsafeCell;
use std::collections::HashMap;
use std::ffi::c_int;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

use ibverbs_sys as ffi;
use rustix::io::Errno;
use slab::Slab;

use super::context::{shared, Shared};
use super::object::{locked, object, reclaim, Object, Place};
use super::pd::{context_of, domain, Domain};
use super::route::resolve;
use super::{minus_one, pointer};
use crate::device::{limits, Result};
use crate::transport::Path;

/// An address handle.
#[repr(C)]
struct Ah {
    raw: UnsafeCell<ffi::ibv_ah>,
    path: Path,
    domain: Arc<Domain>,
}

/// What EFA says in the place of a handle's number if there is none.
pub(super) const NO_HANDLE: u16 = u16::MAX;

/// The address handles of a context. Those for one address have one number, as on EFA.
#[derive(Default)]
pub(super) struct Handles(Mutex<HandleTable>);

#[derive(Default)]
struct HandleTable {
    count: u32,
    /// How many handles there are for an address.
    by_number: Slab<u32>,
    numbers: HashMap<IpAddr, usize>,
}

impl Handles {
    /// Takes note of a new handle.
    fn add(&self, dest: IpAddr) -> Result<()> {
        let HandleTable { count, by_number, numbers } = &mut *locked(&self.0);
        if *count >= limits::MAX_AH {
            return Err(Errno::NOMEM);
        }
        *count += 1;
        let number = *numbers.entry(dest).or_insert_with(|| by_number.insert(0));
        by_number[number] += 1;
        Ok(())
    }

    fn remove(&self, dest: IpAddr) {
        let HandleTable { count, by_number, numbers } = &mut *locked(&self.0);
        let Some(&number) = numbers.get(&dest) else { return };
        *count -= 1;
        by_number[number] -= 1;
        if by_number[number] == 0 {
            by_number.remove(number);
            numbers.remove(&dest);
        }
    }

    /// The number of the handles for an address, if there are any.
    pub(super) fn number_of(&self, dest: IpAddr) -> Option<u16> {
        let number = *locked(&self.0).numbers.get(&dest)?;
        // The last of as many as there can be has none.
        u16::try_from(number).ok().filter(|number| *number != NO_HANDLE)
    }
}

// SAFETY: `repr(C)`, and the structure for C comes first, in an `UnsafeCell`. The rest is `Sync` and never written.
unsafe impl Object for Ah {
    type Raw = ffi::ibv_ah;
}

/// The path of a handle.
///
/// # Safety
///
/// It is alive.
pub(super) unsafe fn path_of(ah: *mut ffi::ibv_ah) -> Path {
    // SAFETY: by the caller's promise.
    unsafe { object::<Ah>(ah) }.path
}

/// The number of a handle, as EFA has it.
///
/// # Safety
///
/// It is alive.
pub(super) unsafe fn number_of(ah: *mut ffi::ibv_ah) -> u16 {
    // SAFETY: by the caller's promise.
    let Ah { path, domain, .. } = unsafe { object::<Ah>(ah) };
    domain.shared.handles.number_of(path.dest).unwrap_or(NO_HANDLE)
}

pub(super) unsafe extern "C" fn create_ah(
    pd: *mut ffi::ibv_pd,
    attr: *mut ffi::ibv_ah_attr,
) -> *mut ffi::ibv_ah {
    // SAFETY: it points to a whole structure (ibv_create_ah(3)).
    let attr = unsafe { attr.read() };
    // SAFETY: the domain is alive (ibv_create_ah(3)).
    pointer(unsafe { create(pd, &attr) })
}

/// # Safety
///
/// The domain is alive.
unsafe fn create(pd: *mut ffi::ibv_pd, attr: &ffi::ibv_ah_attr) -> Result<*mut ffi::ibv_ah> {
    // SAFETY: by the caller's promise.
    let domain = unsafe { domain(pd) };
    // SAFETY: by the caller's promise.
    let context = unsafe { context_of(pd) };
    let path = resolve(&domain.shared, attr)?;
    domain.shared.handles.add(path.dest)?;
    let raw = UnsafeCell::new(ffi::ibv_ah { context, pd, handle: 0 });
    Ok(Place::new().fill(Ah { raw, path, domain: domain.clone() }))
}

pub(super) unsafe extern "C" fn destroy_ah(ah: *mut ffi::ibv_ah) -> c_int {
    // SAFETY: the handle is alive, and not used any more (ibv_destroy_ah(3)).
    let ah = unsafe { reclaim::<Ah>(ah) };
    ah.domain.shared.handles.remove(ah.path.dest);
    0
}

pub(super) unsafe extern "C" fn init_ah_from_wc(
    context: *mut ffi::ibv_context,
    port: u8,
    wc: *mut ffi::ibv_wc,
    grh: *mut ffi::ibv_grh,
    to: *mut ffi::ibv_ah_attr,
) -> c_int {
    // SAFETY: the device is open (ibv_init_ah_from_wc(3)).
    let shared = unsafe { shared(context) };
    // SAFETY: as ibv_init_ah_from_wc(3) demands.
    let attr = unsafe { way_back(shared, port, wc, grh) };
    // SAFETY: there is room for a structure (ibv_init_ah_from_wc(3)).
    minus_one(attr.map(|attr| unsafe { to.write(attr) }))
}

pub(super) unsafe extern "C" fn create_ah_from_wc(
    pd: *mut ffi::ibv_pd,
    wc: *mut ffi::ibv_wc,
    grh: *mut ffi::ibv_grh,
    port: u8,
) -> *mut ffi::ibv_ah {
    // SAFETY: the domain is alive (ibv_create_ah_from_wc(3)).
    let domain = unsafe { domain(pd) };
    // SAFETY: as ibv_create_ah_from_wc(3) demands.
    let attr = unsafe { way_back(&domain.shared, port, wc, grh) };
    // SAFETY: the domain is alive.
    pointer(attr.and_then(|attr| unsafe { create(pd, &attr) }))
}

/// The address of whoever sent a datagram.
///
/// # Safety
///
/// `wc` points to a completion; and if that says that there is a header, `grh` points to one.
unsafe fn way_back(
    shared: &Shared,
    port: u8,
    wc: *mut ffi::ibv_wc,
    grh: *mut ffi::ibv_grh,
) -> Result<ffi::ibv_ah_attr> {
    // SAFETY: by the caller's promise.
    let wc = unsafe { wc.read() };
    let mut attr = ffi::ibv_ah_attr {
        dlid: wc.slid,
        sl: wc.sl,
        src_path_bits: wc.dlid_path_bits,
        port_num: port,
        ..Default::default()
    };
    if wc.wc_flags & ffi::IBV_WC_GRH != 0 {
        // SAFETY: the completion says so, and then it is there by the caller's promise; a header is 40 bytes.
        let header = Header::parse(&unsafe { grh.cast::<[u8; 40]>().read() })?;
        let gids = shared.device.gids();
        let index = gids.iter().position(|gid| *gid == header.dgid).ok_or(Errno::NOENT)?;
        attr.is_global = 1;
        attr.grh = ffi::ibv_global_route {
            dgid: ffi::ibv_gid { raw: header.sgid },
            flow_label: header.flow_label,
            sgid_index: index as u8,
            hop_limit: header.hop_limit,
            traffic_class: header.traffic_class,
        };
    }
    Ok(attr)
}

/// The IP header in the first 40 bytes of a receive: that of IPv4 in the last 20 of them.
struct Header {
    sgid: [u8; 16],
    dgid: [u8; 16],
    flow_label: u32,
    traffic_class: u8,
    hop_limit: u8,
}

impl Header {
    fn parse(bytes: &[u8; 40]) -> Result<Header> {
        let v4 = &bytes[20..];
        match (bytes[0] >> 4, v4[0]) {
            // The first half is undefined before a header of IPv4, whose checksum then tells.
            (6, 0x45) if checksum(v4) == 0xffff => Ok(Header::parse_v4(v4)),
            (6, _) => Ok(Header::parse_v6(bytes)),
            (_, 0x45) => Ok(Header::parse_v4(v4)),
            _ => Err(Errno::PROTONOSUPPORT),
        }
    }

    fn parse_v4(bytes: &[u8]) -> Header {
        let gid = |at: usize| {
            let octets = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
            Ipv4Addr::from(octets).to_ipv6_mapped().octets()
        };
        Header {
            sgid: gid(12),
            dgid: gid(16),
            flow_label: 0,
            traffic_class: bytes[1],
            hop_limit: bytes[8],
        }
    }

    fn parse_v6(bytes: &[u8; 40]) -> Header {
        let word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let gid = |at: usize| std::array::from_fn(|index| bytes[at + index]);
        Header {
            sgid: gid(8),
            dgid: gid(24),
            flow_label: word & 0xf_ffff,
            traffic_class: (word >> 20) as u8,
            hop_limit: bytes[7],
        }
    }
}

/// The sum of IPv4 over a header: all ones if the one that it contains is right.
fn checksum(header: &[u8]) -> u32 {
    let words = header.chunks_exact(2);
    let sum: u32 = words.map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) + (sum >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From 10.7.0.1 to 10.7.0.2, behind 20 bytes of `fill`.
    fn v4(fill: u8) -> [u8; 40] {
        let mut bytes = [fill; 40];
        bytes[20..].copy_from_slice(&[
            0x45, 0x20, 0, 60, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 7, 0, 1, 10, 7, 0, 2,
        ]);
        let sum = !(checksum(&bytes[20..]) as u16);
        bytes[30..32].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    #[test]
    fn a_header_of_ipv4_is_read_whatever_is_before_it() {
        for fill in [0, 0x66, 0xff] {
            let header = Header::parse(&v4(fill)).unwrap();
            assert_eq!(header.sgid[10..], [0xff, 0xff, 10, 7, 0, 1]);
            assert_eq!(header.dgid[10..], [0xff, 0xff, 10, 7, 0, 2]);
            assert_eq!((header.traffic_class, header.hop_limit), (0x20, 64));
        }
    }

    #[test]
    fn a_header_of_ipv6_is_read() {
        let mut bytes = [0; 40];
        bytes[..8].copy_from_slice(&[0x6a, 0xb1, 0x23, 0x45, 0, 40, 17, 61]);
        bytes[8..24].fill(1);
        bytes[24..].fill(2);
        let header = Header::parse(&bytes).unwrap();
        assert_eq!((header.sgid, header.dgid), ([1; 16], [2; 16]));
        assert_eq!(
            (header.flow_label, header.traffic_class, header.hop_limit),
            (0x1_2345, 0xab, 61)
        );
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for bytes in [[0; 40], [0xff; 40]] {
            assert_eq!(Header::parse(&bytes).err(), Some(Errno::PROTONOSUPPORT));
        }
    }
}
