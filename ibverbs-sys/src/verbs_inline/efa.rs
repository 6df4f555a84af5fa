//! The inline functions of `efadv.h`.

use core::ffi::c_int;

use super::object_calls;
use crate::bindings::*;

object_calls! {
    /// Sets processing hints for the work request that was begun last.
    fn efadv_wr_set_processing_hints(efadv_qp: *mut efadv_qp, hints: u32) {
        calls wr_set_processing_hints
    }
    /// Reads the GID of the sender, which needs no address handle.
    fn efadv_wc_read_sgid(efadv_cq: *mut efadv_cq, sgid: *mut ibv_gid) -> c_int {
        calls wc_read_sgid
    }
    /// Whether the completion is that of a write that consumed no receive.
    fn efadv_wc_is_unsolicited(efadv_cq: *mut efadv_cq) -> bool {
        calls wc_is_unsolicited
    }
}
