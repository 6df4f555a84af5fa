//! Device memory: what it does on a device that has some, and that one without it says so.

use ibverbs::{AccessFlags, Context, DeviceMemory, Error};
use ibverbs_tests::{pair, submit, test_context, test_context_with, wait_one, Ability, Bed};

const LEN: usize = 64;

fn memory_of(ctx: &Context) -> DeviceMemory {
    ctx.alloc_dm(LEN, 3).unwrap()
}

#[test]
fn a_device_without_it_says_so() {
    let ctx = test_context();
    if Ability::DeviceMemory.is_of(&ctx) {
        memory_of(&ctx).close().unwrap();
    } else {
        let error = ctx.alloc_dm(LEN, 3).unwrap_err();
        let expected = matches!(error, Error::Unsupported { operation: "ibv_alloc_dm" });
        assert!(expected, "{error}");
        assert!(error.to_string().contains("ibv_alloc_dm is not supported"), "{error}");
    }
}

#[test]
fn no_memory_is_refused() {
    let ctx = test_context();
    let error = ctx.alloc_dm(0, 0).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { value: 0, .. }), "{error}");
}

#[test]
fn more_memory_than_there_is_is_refused() {
    let Some(ctx) = test_context_with([Ability::DeviceMemory]) else { return };
    let available = ctx.query_device_ex().unwrap().max_dm_size();
    let error = ctx.alloc_dm(available as usize + 1, 0).unwrap_err();
    let Error::Capacity { requested, available: told, .. } = error else { panic!("{error}") };
    assert_eq!((requested, told), (available + 1, available));
}

#[test]
fn what_is_written_is_read_again() {
    let Some(ctx) = test_context_with([Ability::DeviceMemory]) else { return };
    let memory = memory_of(&ctx);
    memory.write_at(0, &[1; LEN]).unwrap();
    memory.write_at(8, &[2; 4]).unwrap();
    let mut bytes = [0; 16];
    memory.read_at(4, &mut bytes).unwrap();
    assert_eq!((&bytes[..4], &bytes[4..8], &bytes[8..]), (&[1; 4][..], &[2; 4][..], &[1; 8][..]));
    memory.write_at(LEN, &[0; 4]).unwrap_err();
    memory.close().unwrap();
}

#[test]
fn a_peer_writes_into_it() {
    let Some(bed) = Bed::with([Ability::DeviceMemory]) else { return };
    let memory = memory_of(bed.ctx());
    memory.write_at(0, &[0; LEN]).unwrap();
    let region = bed.pd().register_dm(&memory, 16..48, AccessFlags::PERMISSIVE).unwrap();
    // SAFETY: there are no references to memory on the device.
    let remote = unsafe { region.remote() }.unwrap();
    let from = bed.mem(8);
    from.write(0, b"on board");
    let (mut a, _b) = pair(&bed);
    let write = |batch: &mut ibverbs::SendBatch<'_, _>| {
        batch.op().signaled().write(1, &[from.slice(..)], remote.slice(8..));
    };
    submit(&mut a.qp, write).unwrap();
    assert_eq!(wait_one(&a.send_cq, 1).ok, Ok(()));
    let mut bytes = [0; 16];
    memory.read_at(20, &mut bytes).unwrap();
    assert_eq!(&bytes, b"\0\0\0\0on board\0\0\0\0");
}
