//! Posting work requests.

mod batch;
mod chain;
mod op;
mod optional;
mod payload;
mod recv;
mod refusal;

pub use batch::SendBatch;
pub(crate) use chain::post_chain;
pub use chain::RecvChain;
pub use op::{Imm, NoImm, SendOp, WithoutImm};
pub use optional::{FlushLevel, FlushPlacement};
pub use payload::Payload;
pub(crate) use recv::post_requests;
pub use recv::RecvRequest;
pub(crate) use refusal::Refusal;
