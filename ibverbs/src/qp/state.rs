//! The states of a queue pair as types.
//!
//! ```text
//! Reset --init--> Init --ready_to_receive--> Rtr --ready_to_send--> Rts
//!   |                \_________________handshake___________________/^
//!   \__________________________handshake___________________________/
//!   \--into_manual--> Manual: `modify` through any states
//! ```
//!
//! The type says what was last asked for. A device may move a queue pair to an error state by itself;
//! then its work requests are flushed, and `query` tells.

use crate::c_enum::c_enum;
use crate::ffi;

mod sealed {
    use super::QpState;

    /// What the crate knows of a state. Only the crate's own markers implement it.
    pub trait Sealed {
        const IS_RESET: bool = false;
        /// Whether `modify` may ask for this state.
        fn may_ask_for(_: QpState) -> bool {
            false
        }
    }
}

/// A state of a queue pair. Sealed.
#[diagnostic::on_unimplemented(message = "`{Self}` is not a state of a queue pair")]
pub trait State: sealed::Sealed + Sized + 'static {}

/// A state from which the one-call bring-up starts: [`Reset`] and [`Init`]. Sealed.
#[diagnostic::on_unimplemented(
    message = "a queue pair in state `{Self}` is past its bring-up",
    note = "`handshake`, `activate` and the connection manager start from `Reset` or `Init`; see `reset`"
)]
pub trait Unconnected: State {}

/// A state in which receives can be posted: [`Init`], [`Rtr`], [`Rts`] and [`Manual`]. Sealed.
#[diagnostic::on_unimplemented(
    message = "a queue pair in state `{Self}` cannot take receives",
    note = "call `init` first, or bring it up"
)]
pub trait CanReceive: State {}

/// A state in which sends can be posted: [`Rts`] and [`Manual`]. Sealed.
#[diagnostic::on_unimplemented(
    message = "a queue pair in state `{Self}` cannot send",
    note = "bring it up first: `handshake` a connected one, `activate` one of datagrams"
)]
pub trait CanSend: State {}

/// A state in which attributes can be changed with `modify`: [`Rts`] and [`Manual`]. Sealed.
#[diagnostic::on_unimplemented(
    message = "a queue pair in state `{Self}` is not modified by hand",
    note = "use its transitions, or `into_manual` right after its creation"
)]
pub trait CanModify: State {}

/// Just created: nothing can be posted.
#[derive(Debug)]
pub enum Reset {}
/// Initialised: receives can be posted, but nothing arrives yet.
#[derive(Debug)]
pub enum Init {}
/// Ready to receive: it answers its peer, but cannot send.
#[derive(Debug)]
pub enum Rtr {}
/// Ready to send: fully usable.
#[derive(Debug)]
pub enum Rts {}
/// The program drives the states itself with `modify`.
#[derive(Debug)]
pub enum Manual {}

impl sealed::Sealed for Reset {
    const IS_RESET: bool = true;
}
impl sealed::Sealed for Init {}
impl sealed::Sealed for Rtr {}
impl sealed::Sealed for Rts {
    fn may_ask_for(state: QpState) -> bool {
        matches!(state, QpState::RTS | QpState::SQD | QpState::ERR)
    }
}
impl sealed::Sealed for Manual {
    fn may_ask_for(_: QpState) -> bool {
        true
    }
}
impl State for Reset {}
impl State for Init {}
impl State for Rtr {}
impl State for Rts {}
impl State for Manual {}
impl Unconnected for Reset {}
impl Unconnected for Init {}
impl CanReceive for Init {}
impl CanReceive for Rtr {}
impl CanReceive for Rts {}
impl CanReceive for Manual {}
impl CanModify for Rts {}
impl CanModify for Manual {}
impl CanSend for Rts {}
impl CanSend for Manual {}

c_enum! {
    /// The state of a queue pair as the device reports it (`enum ibv_qp_state`).
    #[doc(alias = "ibv_qp_state")]
    pub struct QpState: u32 {
        /// Reset.
        RESET = ffi::IBV_QPS_RESET, "RESET";
        /// Initialised.
        INIT = ffi::IBV_QPS_INIT, "INIT";
        /// Ready to receive.
        RTR = ffi::IBV_QPS_RTR, "RTR";
        /// Ready to send.
        RTS = ffi::IBV_QPS_RTS, "RTS";
        /// The send queue is drained, or being drained.
        SQD = ffi::IBV_QPS_SQD, "SQD";
        /// The send queue has failed; receiving goes on. Unreliable transports only.
        SQE = ffi::IBV_QPS_SQE, "SQE";
        /// Failed: everything that is posted is flushed.
        ERR = ffi::IBV_QPS_ERR, "ERR";
    }
}
