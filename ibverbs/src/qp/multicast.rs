//! Multicast groups of datagram queue pairs.

use super::{Datagram, QpInner, QueuePair, State, Transport};
use crate::error::{check, Error, Result};
use crate::ffi;
use crate::gid::Gid;

/// A group that a queue pair is attached to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    gid: Gid,
    lid: u16,
}

impl Group {
    fn to_raw(self) -> ffi::ibv_gid {
        ffi::ibv_gid { raw: self.gid.into() }
    }
}

impl<T: Transport, S: State> QueuePair<T, S> {
    /// Attaches the queue pair to a multicast group: it receives what is sent to it with the right queue key. A
    /// receive begins with the [global route header](crate::Grh), whose destination is the group.
    ///
    /// Datagrams are sent to a group by an address handle of its address, and to the number
    /// [`AddressHandle::MULTICAST_QPN`](crate::AddressHandle::MULTICAST_QPN).
    ///
    /// `gid` is the group's address: on RoCE an IP address, `lid` zero; on InfiniBand the two are those that the
    /// subnet manager gave when the group was joined. This makes the device deliver the packets; that the
    /// network sends them here is a matter of joining the group, which for IP a socket does
    /// (`IP_ADD_MEMBERSHIP`), or the connection manager.
    ///
    /// The queue pair is detached when it is closed or dropped, even if closing it fails then.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidBytes`] if this is not the address of a multicast group.
    /// - [`Error::InvalidArgument`] if the queue pair is attached to the group with another `lid`.
    /// - [`Error::Unsupported`] if the device has no multicast.
    /// - [`Error::Verb`] if the device refuses for another reason.
    ///
    /// # Examples
    ///
    /// On RoCE v2, with the address of the port's network device as `local`:
    ///
    /// ```no_run
    /// # use std::net::{Ipv4Addr, UdpSocket};
    /// # use ibverbs::{AddressHandle, AddressVector, ProtectionDomain, QueuePair, Ud};
    /// # fn join(
    /// #     pd: &ProtectionDomain, qp: &mut QueuePair<Ud>, local: Ipv4Addr, gid_index: u8,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let group = Ipv4Addr::new(239, 1, 2, 3);
    /// // The network sends the group's packets here for as long as this socket is open.
    /// let member = UdpSocket::bind("0.0.0.0:0")?;
    /// member.join_multicast_v4(&group, &local)?;
    /// qp.attach_mcast(group.into(), 0)?;
    ///
    /// // A sender needs neither the socket nor the attachment, only the way to the group.
    /// let ah = pd.create_ah(&AddressVector::to_gid(1, gid_index, group.into()))?;
    /// let mut batch = qp.start_send();
    /// batch.to(&ah, AddressHandle::MULTICAST_QPN, 0x1234_5678).signaled().send(1, b"to all");
    /// // SAFETY: inline data has no conditions, and there is room in the send queue.
    /// unsafe { batch.submit() }?;
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "ibv_attach_mcast")]
    pub fn attach_mcast(&mut self, gid: Gid, lid: u16) -> Result<()>
    where
        T: Datagram,
    {
        if !gid.is_multicast() {
            return Err(Error::InvalidBytes {
                what: "multicast address",
                reason:
                    "it must begin with ff, or be one of IPv4 from 224.0.0.0 to 239.255.255.255",
            });
        }
        let inner = &mut **self.core_mut().inner;
        let group = Group { gid, lid };
        // A group has one. Linux would count a second as another group, and SoftRoCE as the same: the queue
        // pair could not be destroyed any more.
        if inner.groups.iter().any(|other| other.gid == gid && other.lid != lid) {
            return Err(Error::InvalidArgument {
                what: "the multicast group's local identifier",
                value: u64::from(lid),
                expected: "the queue pair is attached to this group with another one",
            });
        }
        // SAFETY: the queue pair is alive, and the address is a whole `ibv_gid`.
        let code = unsafe { ffi::ibv_attach_mcast(inner.raw.as_ptr(), &group.to_raw(), lid) };
        check("ibv_attach_mcast", code)?;
        if !inner.groups.contains(&group) {
            inner.groups.push(group);
        }
        Ok(())
    }

    /// Detaches the queue pair from a multicast group.
    ///
    /// # Errors
    ///
    /// - [`Error::NotAttached`] if it is not attached to this group.
    /// - [`Error::Verb`] if the device refuses.
    #[doc(alias = "ibv_detach_mcast")]
    pub fn detach_mcast(&mut self, gid: Gid, lid: u16) -> Result<()>
    where
        T: Datagram,
    {
        let inner = &mut **self.core_mut().inner;
        let group = Group { gid, lid };
        if !inner.groups.contains(&group) {
            return Err(Error::NotAttached { gid, lid });
        }
        check("ibv_detach_mcast", inner.detach(group))?;
        inner.groups.retain(|&other| other != group);
        Ok(())
    }
}

impl QpInner {
    fn detach(&mut self, group: Group) -> i32 {
        // SAFETY: the queue pair is alive, and the address is a whole `ibv_gid`.
        unsafe { ffi::ibv_detach_mcast(self.raw.as_ptr(), &group.to_raw(), group.lid) }
    }

    /// Detaches the queue pair from its groups: the kernel does not destroy one that is attached.
    pub(super) fn detach_all(&mut self) {
        let mut groups = std::mem::take(&mut self.groups);
        // Should this fail, destroying fails as well, and tells; then it may be tried again.
        groups.retain(|&group| self.detach(group) != 0);
        self.groups = groups;
    }
}
