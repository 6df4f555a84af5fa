//! Flow steering, and the counters that are attached to flows.

use core::ffi::c_int;

use super::context_operations;
use crate::bindings::*;

context_operations! {
    /// Steers a flow to a queue pair.
    fn ibv_create_flow(qp: *mut ibv_qp, flow: *mut ibv_flow_attr) -> *mut ibv_flow {
        calls ibv_create_flow of qp.context else null
    }
    /// Removes a flow.
    fn ibv_destroy_flow(flow_id: *mut ibv_flow) -> c_int {
        calls ibv_destroy_flow of flow_id.context else errno
    }
    /// Creates an action that encrypts or decrypts.
    fn ibv_create_flow_action_esp(
        context: *mut ibv_context,
        esp: *mut ibv_flow_action_esp_attr
    ) -> *mut ibv_flow_action {
        calls create_flow_action_esp of context else null
    }
    /// Modifies an action that encrypts or decrypts.
    fn ibv_modify_flow_action_esp(action: *mut ibv_flow_action, esp: *mut ibv_flow_action_esp_attr) -> c_int {
        calls modify_flow_action_esp of action.context else errno
    }
    /// Destroys an action.
    fn ibv_destroy_flow_action(action: *mut ibv_flow_action) -> c_int {
        calls destroy_flow_action of action.context else errno
    }
    /// Creates a set of counters.
    fn ibv_create_counters(
        context: *mut ibv_context,
        init_attr: *mut ibv_counters_init_attr
    ) -> *mut ibv_counters {
        calls create_counters of context else null
    }
    /// Destroys a set of counters.
    fn ibv_destroy_counters(counters: *mut ibv_counters) -> c_int {
        calls destroy_counters of counters.context else errno
    }
    /// Attaches a counter to a flow.
    fn ibv_attach_counters_point_flow(
        counters: *mut ibv_counters,
        attr: *mut ibv_counter_attach_attr,
        flow: *mut ibv_flow
    ) -> c_int {
        calls attach_counters_point_flow of counters.context else errno
    }
    /// Reads a set of counters.
    fn ibv_read_counters(
        counters: *mut ibv_counters,
        counters_value: *mut u64,
        ncounters: u32,
        flags: u32
    ) -> c_int {
        calls read_counters of counters.context else errno
    }
}
