//! Posting work requests.

mod batch;
mod op;
mod payload;
mod recv;
mod refusal;

pub use batch::SendBatch;
pub use op::{Imm, NoImm, SendOp, WithoutImm};
pub use payload::Payload;
pub use recv::RecvRequest;
pub(crate) use refusal::Refusal;
