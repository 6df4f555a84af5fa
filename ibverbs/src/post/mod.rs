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
mod verb;

pub use batch::SendBatch;
pub(crate) use chain::post_chain;
pub use chain::RecvChain;
pub use level::{Level, Raw, Shared};
pub use op::{Imm, NoImm, SendOp, WithoutImm};
pub use optional::{FlushLevel, FlushPlacement};
pub use payload::Payload;
pub(crate) use recv::post_requests;
pub use recv::RecvRequest;
pub(crate) use recv_shared::post_shared;
pub(crate) use refusal::Refusal;
pub(crate) use requests::Requests;
pub use shared::SharedBatch;
