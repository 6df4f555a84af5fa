//! Posting work requests.

mod batch;
mod chain;
mod level;
mod op;
mod optional;
mod payload;
mod recv;
mod recv_shared;
mod refusal;
mod requests;
mod shared;
pub(crate) mod verb;

pub use batch::SendBatch;
pub(crate) use chain::post_chain;
pub use chain::RecvChain;
pub use level::{Level, Raw, Shared};
pub use op::{Imm, NoImm, SendOp, WithoutImm};
pub use optional::{FlushLevel, FlushPlacement};
pub use payload::Payload;
pub use recv::RecvRequest;
pub(crate) use recv::{call_and_explain, post_requests, PostCall};
pub(crate) use recv_shared::post_shared;
pub(crate) use refusal::Refusal;
pub(crate) use requests::{Array, Places, Requests};
pub use shared::SharedBatch;
pub(crate) use verb::Classic;
