//! Devices and contexts.

use std::ffi::{c_char, c_int, c_void};

use ibverbs_sys as ffi;

use crate::controls::{lock, DataPath, State};
use crate::event::Events;
use crate::objects::{Block, Data};
use crate::record::{Kind, Verb};
use crate::{channel, cq, dm, minimal, mr, mw, null, poll, post_send, qp, query, recv};

/// How many devices there are.
pub(crate) const DEVICES: usize = 2;

/// The identifier of the first device; the others follow.
const FIRST_GUID: u64 = 0x0200_00ff_fe00_0001;

/// What `abi_compat` is in a context that lies in a `verbs_context`.
const ABI_IS_EXTENDED: *mut c_void = std::ptr::without_provenance_mut(usize::MAX);

/// The device of this number, with one reference more.
fn hold(state: &mut State, number: usize) -> *mut ffi::ibv_device {
    let (block, references) = state.devices[number].get_or_insert_with(|| {
        let mut device = ffi::ibv_device {
            node_type: ffi::IBV_NODE_CA,
            transport_type: ffi::IBV_TRANSPORT_IB,
            ..Default::default()
        };
        for (to, from) in device.name.iter_mut().zip(format!("null{number}").bytes()) {
            *to = from as c_char;
        }
        let block = Block::new(size_of::<ffi::ibv_device>());
        block.write_prefix(0, &device);
        (block, 0)
    });
    *references += 1;
    block.ptr().cast()
}

pub(crate) fn release(state: &mut State, number: usize) {
    if let Some((_, references)) = &mut state.devices[number] {
        *references -= 1;
        if *references == 0 {
            state.devices[number] = None;
        }
    }
}

/// The number of a device that lives at this address.
fn number_of(state: &mut State, verb: Verb, device: *mut ffi::ibv_device) -> Option<usize> {
    let found = state
        .devices
        .iter()
        .position(|entry| entry.as_ref().is_some_and(|(block, _)| block.ptr() == device.cast()));
    if found.is_none() {
        state.violation(format!("{verb:?}: no device is alive at {device:p}"));
    }
    found
}

pub(crate) unsafe extern "C" fn get_device_list(len: *mut c_int) -> *mut *mut ffi::ibv_device {
    let mut state = lock();
    state.call(Verb::GetDeviceList, 0);
    if let Err(code) = state.failure(Verb::GetDeviceList) {
        return null(code);
    }
    let block = Block::new((DEVICES + 1) * size_of::<*mut ffi::ibv_device>());
    let list = block.ptr().cast::<*mut ffi::ibv_device>();
    for number in 0..DEVICES {
        let device = hold(&mut state, number);
        // SAFETY: the list has one entry for each device, and one for the null at its end.
        unsafe { list.wrapping_add(number).write(device) };
    }
    if !len.is_null() {
        // SAFETY: if it is not null, it points to an int (ibv_get_device_list(3)).
        unsafe { len.write(DEVICES as c_int) };
    }
    state.insert(block, 0, Vec::new(), Data::DeviceList);
    list
}

pub(crate) unsafe extern "C" fn free_device_list(list: *mut *mut ffi::ibv_device) {
    let mut state = lock();
    let address = list as usize;
    if state.may_destroy(Verb::FreeDeviceList, address, Kind::DeviceList).is_ok() {
        state.remove(address);
        (0..DEVICES).for_each(|number| release(&mut state, number));
    }
}

pub(crate) unsafe extern "C" fn get_device_name(device: *mut ffi::ibv_device) -> *const c_char {
    // SAFETY: the device is alive (ibv_get_device_name(3)).
    unsafe { (&raw const (*device).name).cast() }
}

pub(crate) unsafe extern "C" fn get_device_index(device: *mut ffi::ibv_device) -> c_int {
    let mut state = lock();
    number_of(&mut state, Verb::GetDeviceList, device).map_or(-1, |number| number as c_int)
}

pub(crate) unsafe extern "C" fn get_device_guid(device: *mut ffi::ibv_device) -> ffi::__be64 {
    let mut state = lock();
    let number = number_of(&mut state, Verb::GetDeviceList, device);
    number.map_or(0, |number| (FIRST_GUID + number as u64).to_be())
}

pub(crate) unsafe extern "C" fn open_device(device: *mut ffi::ibv_device) -> *mut ffi::ibv_context {
    let mut state = lock();
    state.call(Verb::OpenDevice, device as usize);
    if let Err(code) = state.failure(Verb::OpenDevice) {
        return null(code);
    }
    let Some(number) = number_of(&mut state, Verb::OpenDevice, device) else {
        return null(libc::ENODEV);
    };
    open(&mut state, number).unwrap_or_else(null)
}

/// Opens the device of this number.
pub(crate) fn open(state: &mut State, number: usize) -> Result<*mut ffi::ibv_context, c_int> {
    let mut context = ffi::verbs_context {
        query_port: Some(query::query_port),
        query_device_ex: Some(query::query_device_ex),
        advise_mr: Some(mr::advise_mr),
        alloc_dm: Some(dm::alloc_dm),
        free_dm: Some(dm::free_dm),
        reg_dm_mr: Some(dm::reg_dm_mr),
        create_cq_ex: Some(cq::create_cq_ex),
        modify_cq: Some(cq::modify_cq),
        create_qp_ex: Some(qp::create_qp_ex),
        query_rt_values: Some(query::query_rt_values),
        sz: size_of::<ffi::verbs_context>(),
        ..Default::default()
    };
    let data_path = state.config.data_path;
    context.context.ops.post_recv = Some(match data_path {
        DataPath::Checked => recv::post_recv,
        DataPath::Minimal => minimal::post_recv,
    });
    context.context.ops.post_send = Some(match data_path {
        DataPath::Checked => post_send::post_send,
        DataPath::Minimal => minimal::post_send,
    });
    context.context.ops.post_srq_recv = Some(recv::post_srq_recv);
    context.context.ops.alloc_mw = Some(mw::alloc_mw);
    context.context.ops.bind_mw = Some(mw::bind_mw);
    context.context.ops.dealloc_mw = Some(mw::dealloc_mw);
    context.context.ops.poll_cq = Some(match data_path {
        DataPath::Checked => poll::poll_cq,
        DataPath::Minimal => minimal::poll_cq,
    });
    context.context.ops.req_notify_cq = Some(channel::req_notify_cq);
    context.context.num_comp_vectors = 1;
    let events = Events::new().map_err(|_| libc::EMFILE)?;
    context.context.async_fd = events.fd();
    context.context.abi_compat = ABI_IS_EXTENDED;
    context.context.device = hold(state, number);
    if let Some(edit) = &state.config.edit_context {
        edit(&mut context);
    }
    let block = Block::new(context.sz);
    block.write_suffix(&context);
    let offset = context.sz - size_of::<ffi::ibv_context>();
    let raw = block.ptr().wrapping_add(offset).cast();
    state.insert(block, offset, Vec::new(), Data::Context { device: number, data_path, events });
    Ok(raw)
}

pub(crate) unsafe extern "C" fn close_device(context: *mut ffi::ibv_context) -> c_int {
    let mut state = lock();
    let address = context as usize;
    if let Err(code) = state.may_destroy(Verb::CloseDevice, address, Kind::Context) {
        return code;
    }
    let (number, _) = state.context(address);
    state.remove(address);
    release(&mut state, number);
    0
}

pub(crate) unsafe extern "C" fn fork_init() -> c_int {
    let mut state = lock();
    state.call(Verb::ForkInit, 0);
    state.failure(Verb::ForkInit).err().unwrap_or(0)
}

pub(crate) unsafe extern "C" fn is_fork_initialized() -> ffi::ibv_fork_status {
    let mut state = lock();
    state.call(Verb::IsForkInitialized, 0);
    state.config.fork_status
}
