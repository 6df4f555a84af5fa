//! A provider that the program brings along: one per process, hence a test binary with one test.

use std::ffi::{c_char, c_int, CStr};
use std::ptr::null_mut;

use ibverbs_sys::provider::{self, Provider};
use ibverbs_sys::*;

unsafe extern "C" fn node_type_str(_: ibv_node_type) -> *const c_char {
    c"a node of the null provider".as_ptr()
}

static VERBS: Verbs = Verbs { ibv_node_type_str: Some(node_type_str), ..Verbs::EMPTY };
static RDMACM: Rdmacm = Rdmacm::EMPTY;
static EFA: Efa = Efa::EMPTY;

fn null_provider(name: &'static str) -> Provider {
    Provider { name, verbs: &VERBS, rdmacm: &RDMACM, efa: &EFA }
}

fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().expect("errno is a number")
}

#[test]
fn the_first_provider_stays() {
    assert!(provider::installed().is_none());
    // SAFETY: its only function keeps to its manual page.
    unsafe { provider::install(null_provider("null")) }.expect("nobody was faster");
    assert_eq!(provider::name(), "null");
    assert_eq!(provider::installed().map(|provider| provider.name), Some("null"));

    // SAFETY: as above.
    let error = unsafe { provider::install(null_provider("second")) }.unwrap_err();
    assert_eq!((error.in_place, error.rejected), ("null", "second"));
    let message = error.to_string();
    assert!(message.contains("`second`") && message.contains("`null`"), "{message}");

    // SAFETY: any number is a node type.
    let text = unsafe { ibv_node_type_str(IBV_NODE_CA) };
    // SAFETY: the string above.
    assert_eq!(unsafe { CStr::from_ptr(text) }, c"a node of the null provider");

    what_it_does_not_have_is_not_supported();
}

fn what_it_does_not_have_is_not_supported() {
    let mut count = 0;
    // SAFETY: a place for a number.
    assert!(unsafe { ibv_get_device_list(&mut count) }.is_null());
    assert_eq!(errno(), libc::EOPNOTSUPP);
    // SAFETY: the function is not there, so the pointers are not looked at; likewise below.
    assert_eq!(unsafe { ibv_close_device(null_mut()) }, libc::EOPNOTSUPP);
    // SAFETY: as above.
    assert_eq!(unsafe { ibv_query_gid(null_mut(), 1, 0, null_mut()) }, -1);
    // SAFETY: as above.
    let entries = unsafe { ibv_query_gid_table(null_mut(), null_mut(), 0, 0) };
    assert_eq!(entries, -(libc::EOPNOTSUPP as isize));
    // SAFETY: as above. Anything but 0 would be a promise about the order of data.
    assert_eq!(unsafe { ibv_query_qp_data_in_order(null_mut(), IBV_WR_SEND, 0) }, 0);
    // SAFETY: as above.
    let result = unsafe { ibv_rereg_mr(null_mut(), 0, null_mut(), null_mut(), 0, 0) };
    assert_eq!(result, IBV_REREG_MR_ERR_INPUT);
    // SAFETY: as above.
    assert!(unsafe { rdma_create_event_channel() }.is_null());
    // SAFETY: as above.
    assert_eq!(unsafe { rdma_listen(null_mut(), 1) }, -1);
    assert_eq!(errno(), libc::EOPNOTSUPP);
    // SAFETY: as above.
    assert_eq!(unsafe { efadv_query_device(null_mut(), null_mut(), 0) }, libc::EOPNOTSUPP);
    // SAFETY: as above.
    assert_eq!(unsafe { efadv_get_max_sq_depth(null_mut(), null_mut(), 0) }, -libc::EOPNOTSUPP);
    // SAFETY: as above.
    unsafe { ibv_free_device_list(null_mut()) };
}
