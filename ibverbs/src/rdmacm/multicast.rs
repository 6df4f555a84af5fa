//! Multicast groups that an identifier is a member of.

use std::net::SocketAddr;
use std::ptr;

use super::address::RawAddress;
use super::id::CmId;
use crate::error::{Error, Result};
use crate::ffi;

/// What a member of a multicast group does there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Membership {
    /// It sends and receives.
    #[default]
    Full,
    /// It only sends: nothing of the group is sent to this port for its sake.
    SendOnly,
}

impl CmId {
    /// Begins to join a multicast group, in a datagram port space. Ends with `MULTICAST_JOIN`, which
    /// [tells](super::CmEvent::datagram) the group's address and queue key, or with `MULTICAST_ERROR`.
    ///
    /// To receive what is sent to the group, the queue pair is
    /// [attached](crate::QueuePair::attach_mcast) to the group's address then. The membership lasts until the identifier is
    /// dropped, or [leaves](Self::leave_multicast).
    ///
    /// # Errors
    ///
    /// - [`Error::NotBound`] if the identifier has no device yet.
    /// - [`Error::Unsupported`] for a group of IPv6 on RoCE, and for a member that only sends if the network has none.
    /// - [`Error::Verb`] if the kernel refuses; with `EINVAL` in a connected port space.
    #[doc(alias = "rdma_join_multicast")]
    #[doc(alias = "rdma_join_multicast_ex")]
    pub fn join_multicast(&mut self, group: SocketAddr, membership: Membership) -> Result<()> {
        self.check_device()?;
        let mut raw = RawAddress::new(group);
        let mut attr = ffi::rdma_cm_join_mc_attr_ex {
            comp_mask: ffi::RDMA_CM_JOIN_MC_ATTR_ADDRESS | ffi::RDMA_CM_JOIN_MC_ATTR_JOIN_FLAGS,
            join_flags: match membership {
                Membership::Full => ffi::RDMA_MC_JOIN_FLAG_FULLMEMBER,
                Membership::SendOnly => ffi::RDMA_MC_JOIN_FLAG_SENDONLY_FULLMEMBER,
            },
            addr: raw.as_mut_ptr(),
        };
        self.verb("rdma_join_multicast_ex", |id| {
            // SAFETY: the identifier is alive, the attributes are a whole structure, and the address that they
            // point to is a whole one of its family. Nothing is done with the context, which is null.
            unsafe { ffi::rdma_join_multicast_ex(id, &mut attr, ptr::null_mut()) }
        })?;
        self.groups_mut().push(group);
        Ok(())
    }

    /// Leaves a multicast group: as often as it was joined.
    ///
    /// # Errors
    ///
    /// - [`Error::NotJoined`] if the identifier has not joined this group.
    /// - [`Error::Verb`] if the kernel refuses, because the device was removed. Then the identifier is given up: whatever it is
    ///   asked for fails with `ENODEV` or [`Error::NotBound`].
    #[doc(alias = "rdma_leave_multicast")]
    pub fn leave_multicast(&mut self, group: SocketAddr) -> Result<()> {
        let groups = self.groups_mut();
        let place = groups.iter().position(|&joined| joined == group);
        groups.swap_remove(place.ok_or(Error::NotJoined { group })?);
        self.leave_group(group).map_err(|code| Error::from_code("rdma_leave_multicast", code))
    }
}
