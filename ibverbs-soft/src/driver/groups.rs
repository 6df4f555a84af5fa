//! Multicast groups: who is attached or has joined, and the sockets that hear what is sent to them.

use std::collections::btree_map::Entry;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::epoll;
use rustix::io::Errno;

use super::socket::{Listener, Socket};
use crate::device::{limits, Result};

/// The number of the queue pair that stands for all that are attached to a group.
pub(crate) const MULTICAST_QPN: u32 = 0xff_ffff;

/// The groups of a device.
#[derive(Debug)]
pub(super) struct Groups {
    groups: BTreeMap<IpAddr, Group>,
    /// Readable when a listener is.
    readable: Arc<OwnedFd>,
}

#[derive(Debug)]
struct Group {
    /// What is attached to it.
    members: Vec<u32>,
    /// How many have joined it besides: what is sent to it gets to the device for their sake, whoever is attached.
    joined: usize,
    /// None if nobody else can send to the group: the device has no address of its kind.
    listener: Option<Arc<Listener>>,
}

impl Groups {
    pub(super) fn new() -> io::Result<Groups> {
        let readable = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        Ok(Groups { groups: BTreeMap::new(), readable })
    }

    /// A descriptor that can be read when a packet for a group is there.
    pub(super) fn readable(&self) -> &Arc<OwnedFd> {
        &self.readable
    }

    /// Attaches a queue pair; once more is as once.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there are as many as there can be, `EINVAL` for a group of IPv4 if the device has an address of IPv6, and what
    /// the kernel says to a socket that is to listen.
    pub(super) fn attach(&mut self, qp_num: u32, group: IpAddr, socket: &Socket) -> Result<()> {
        let members = &mut self.open(group, socket)?.members;
        if members.contains(&qp_num) {
            return Ok(());
        }
        if members.len() >= limits::MAX_MCAST_QP_ATTACH as usize {
            return Err(Errno::NOMEM);
        }
        members.push(qp_num);
        Ok(())
    }

    /// Has the device in a group until [`leave`](Groups::leave), as often as it joins.
    ///
    /// # Errors
    ///
    /// As [`attach`](Groups::attach).
    pub(super) fn join(&mut self, group: IpAddr, socket: &Socket) -> Result<()> {
        self.open(group, socket)?.joined += 1;
        Ok(())
    }

    /// The group, which is a new one if the device is not in it: the caller puts somebody there.
    fn open(&mut self, group: IpAddr, socket: &Socket) -> Result<&mut Group> {
        if !self.groups.contains_key(&group) && self.groups.len() >= limits::MAX_MCAST_GRP as usize
        {
            return Err(Errno::NOMEM);
        }
        match self.groups.entry(group) {
            Entry::Occupied(there) => Ok(there.into_mut()),
            Entry::Vacant(vacant) => {
                let listener = listen(group, socket, &self.readable)?;
                Ok(vacant.insert(Group { members: Vec::new(), joined: 0, listener }))
            }
        }
    }

    /// Detaches a queue pair.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is not attached.
    pub(super) fn detach(&mut self, qp_num: u32, group: IpAddr) -> Result<()> {
        let it = self.groups.get_mut(&group).ok_or(Errno::INVAL)?;
        let place = it.members.iter().position(|member| *member == qp_num).ok_or(Errno::INVAL)?;
        it.members.remove(place);
        self.close_unused(group)
    }

    /// Undoes one [`join`](Groups::join).
    ///
    /// # Errors
    ///
    /// `EINVAL` if nobody has joined.
    pub(super) fn leave(&mut self, group: IpAddr) -> Result<()> {
        let it = self.groups.get_mut(&group).ok_or(Errno::INVAL)?;
        it.joined = it.joined.checked_sub(1).ok_or(Errno::INVAL)?;
        self.close_unused(group)
    }

    /// Takes the device out of a group that nobody is in any more.
    fn close_unused(&mut self, group: IpAddr) -> Result<()> {
        let is_used = |it: &Group| it.joined > 0 || !it.members.is_empty();
        if self.groups.get(&group).is_none_or(is_used) {
            return Ok(());
        }
        if let Some(Group { listener: Some(listener), .. }) = self.groups.remove(&group) {
            // Closing it would not do while a child of the process has a copy.
            epoll::delete(&self.readable, listener.as_fd())?;
        }
        Ok(())
    }

    /// Detaches a queue pair from all groups.
    pub(super) fn detach_from_all(&mut self, qp_num: u32) -> Result<()> {
        let is_its = |(_, group): &(&IpAddr, &Group)| group.members.contains(&qp_num);
        let groups: Vec<IpAddr> =
            self.groups.iter().filter(is_its).map(|(addr, _)| *addr).collect();
        groups.into_iter().try_for_each(|group| self.detach(qp_num, group))
    }

    /// Whether a queue pair is attached to any group.
    pub(super) fn has(&self, qp_num: u32) -> bool {
        self.groups.values().any(|group| group.members.contains(&qp_num))
    }

    /// How many are attached to a group.
    pub(super) fn size(&self, group: IpAddr) -> usize {
        self.groups.get(&group).map_or(0, |group| group.members.len())
    }

    /// What is attached to a group, by its place.
    pub(super) fn member(&self, group: IpAddr, place: usize) -> Option<u32> {
        self.groups.get(&group)?.members.get(place).copied()
    }

    /// The sockets that hear what is sent to the groups.
    pub(super) fn listeners(&self) -> Vec<Arc<Listener>> {
        self.groups.values().filter_map(|group| group.listener.clone()).collect()
    }
}

/// The socket that hears what is sent to a group, which `readable` tells of then; none if only the device itself can send to it.
fn listen(group: IpAddr, socket: &Socket, readable: &OwnedFd) -> Result<Option<Arc<Listener>>> {
    match (group.is_ipv4(), socket.addr().is_ipv4()) {
        (true, false) => return Err(Errno::INVAL),
        // The device's only address of IPv6 is one that nobody else reaches.
        (false, true) => return Ok(None),
        _ => {}
    }
    let errno = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let listener = Listener::join(group, socket.interface()).map_err(errno)?;
    let data = epoll::EventData::new_u64(0);
    epoll::add(readable, listener.as_fd(), data, epoll::EventFlags::IN)?;
    Ok(Some(Arc::new(listener)))
}
