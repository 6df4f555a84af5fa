//! The devices that librdmacm opens for itself: one context for each, shared by all identifiers.

use std::ffi::c_int;

use ibverbs_sys as ffi;

use super::values::CmArgs;
use crate::controls::{lock, State};
use crate::device::DEVICES;
use crate::objects::{Block, Data};
use crate::record::{Kind, Verb};
use crate::{device, null, query};

/// What is known of a device.
#[derive(Default)]
pub(crate) struct CmDevice {
    /// The address of the context, once it was opened.
    context: Option<usize>,
    /// The address of the protection domain that identifiers get, as long as there are references.
    pd: Option<usize>,
    /// How many identifiers and lists use it.
    references: usize,
    /// Whether it was pulled out.
    removed: bool,
    pub(super) max_responder_resources: u8,
    pub(super) max_initiator_depth: u8,
}

impl State {
    /// Whether this object was created by librdmacm for itself.
    pub(crate) fn is_of_librdmacm(&self, address: usize) -> bool {
        let mut devices = self.cm.devices.iter();
        devices.any(|device| device.context == Some(address) || device.pd == Some(address))
    }

    /// Opens a device, unless it is open.
    fn init_cm_device(&mut self, number: usize) -> Result<(), c_int> {
        if self.cm.devices[number].removed {
            return Err(libc::ENODEV);
        }
        if self.cm.devices[number].context.is_some() {
            return Ok(());
        }
        self.failure(Verb::OpenDevice).map_err(|_| libc::ENODEV)?;
        let context = device::open(self, number).map_err(|_| libc::ENODEV)?;
        let limits = query::attr_of_devices(self);
        let device = &mut self.cm.devices[number];
        device.context = Some(context as usize);
        // librdmacm has one byte for each.
        device.max_responder_resources = limits.max_qp_rd_atom as u8;
        device.max_initiator_depth = limits.max_qp_init_rd_atom as u8;
        Ok(())
    }

    /// A reference to a device, for an identifier.
    pub(super) fn get_cm_device(
        &mut self,
        number: usize,
    ) -> Result<(*mut ffi::ibv_context, *mut ffi::ibv_pd), c_int> {
        self.init_cm_device(number)?;
        let context = self.cm.devices[number].context.unwrap_or_default();
        let pd = match self.cm.devices[number].pd {
            Some(pd) => pd,
            None => {
                let raw =
                    ffi::ibv_pd { context: self.pointer(context), handle: self.next_number() };
                let block = Block::new(size_of_val(&raw));
                block.write_prefix(0, &raw);
                let pd = block.ptr() as usize;
                self.insert(block, 0, vec![context], Data::Pd);
                self.cm.devices[number].pd = Some(pd);
                pd
            }
        };
        self.cm.devices[number].references += 1;
        Ok((self.pointer(context), self.pointer(pd)))
    }

    /// Gives a reference back that an identifier had.
    pub(super) fn put_cm_device(&mut self, number: usize) {
        self.cm.devices[number].references -= 1;
        if self.cm.devices[number].references > 0 {
            return;
        }
        if let Some(pd) = self.cm.devices[number].pd {
            if self.expect_unused(Verb::DestroyCmId, pd) {
                self.cm.devices[number].pd = None;
                self.remove(pd);
            }
        }
        self.close_if_removed(number, Verb::DestroyCmId);
    }

    /// Pulls a device out: librdmacm closes it when nobody refers to it any more.
    pub(super) fn remove_cm_device(&mut self, number: usize) {
        self.cm.devices[number].removed = true;
        self.close_if_removed(number, Verb::GetCmDevices);
    }

    fn close_if_removed(&mut self, number: usize, verb: Verb) {
        let device = &self.cm.devices[number];
        if !device.removed || device.references > 0 {
            return;
        }
        if let Some(pd) = device.pd {
            if !self.expect_unused(verb, pd) {
                return;
            }
            self.cm.devices[number].pd = None;
            self.remove(pd);
        }
        let Some(context) = self.cm.devices[number].context else { return };
        if !self.expect_unused(verb, context) {
            return;
        }
        self.cm.devices[number].context = None;
        self.remove(context);
        device::release(self, number);
    }
}

pub(super) unsafe extern "C" fn get_devices(len: *mut c_int) -> *mut *mut ffi::ibv_context {
    let mut state = lock();
    state.cm_call(Verb::GetCmDevices, 0, CmArgs::None);
    let failed = state.failure(Verb::GetCmDevices);
    let mut numbers = Vec::new();
    if failed.is_ok() {
        numbers.extend((0..DEVICES).filter(|&number| state.init_cm_device(number).is_ok()));
    }
    if !len.is_null() {
        // SAFETY: if it is not null, it points to an int (rdma_get_devices(3)).
        unsafe { len.write(numbers.len() as c_int) };
    }
    if let Err(code) = failed {
        return null(code);
    }
    let block = Block::new((numbers.len() + 1) * size_of::<*mut ffi::ibv_context>());
    let list = block.ptr().cast::<*mut ffi::ibv_context>();
    for (place, &number) in numbers.iter().enumerate() {
        state.cm.devices[number].references += 1;
        let context = state.pointer(state.cm.devices[number].context.unwrap_or_default());
        // SAFETY: the list has one entry for each device, and one for the null at its end.
        unsafe { list.wrapping_add(place).write(context) };
    }
    state.insert(block, 0, Vec::new(), Data::CmDevices(numbers));
    list
}

pub(super) unsafe extern "C" fn free_devices(list: *mut *mut ffi::ibv_context) {
    let mut state = lock();
    let address = list as usize;
    state.cm_call(Verb::FreeCmDevices, address, CmArgs::None);
    if !state.expect_live(Verb::FreeCmDevices, address, Kind::CmDevices) {
        return;
    }
    let numbers = match state.objects.remove(&address).map(|object| object.data) {
        Some(Data::CmDevices(numbers)) => numbers,
        _ => Vec::new(),
    };
    for number in numbers {
        state.cm.devices[number].references -= 1;
        // The protection domain stays, other than when an identifier goes.
        state.close_if_removed(number, Verb::FreeCmDevices);
    }
}
