//! The owned posting level: buffers are moved to the device, and handed back when it is done with them.
//!
//! What is posted is in a [`Table`](table::Table), which the queue keeps until it is destroyed or reset; completions find
//! it through a [`Registry`](registry::Registry). Nothing else knows where a buffer is.

mod batch;
mod buffer;
mod cq;
mod qp;
mod recv;
mod registry;
mod sends;
mod srq;
mod table;

use std::sync::Arc;

pub use batch::{OwnedBatch, OwnedOp};
pub use buffer::{Buffer, BufferPool};
pub use cq::{OwnedCompletion, OwnedCompletionQueue, OwnedCompletions};
pub use qp::OwnedQueuePair;
pub use srq::OwnedSharedReceiveQueue;
use table::Table;

/// The owned level: buffers are moved to the device and back. Queue pairs of it are built with
/// [`create_owned_qp`](crate::ProtectionDomain::create_owned_qp).
#[derive(Clone, Copy, Debug)]
pub enum Owned {}

/// What a queue keeps until it is destroyed: the tables of what was posted to it.
#[derive(Default)]
pub(crate) struct KeptTables(Vec<Arc<Table>>);

impl FromIterator<Arc<Table>> for KeptTables {
    fn from_iter<I: IntoIterator<Item = Arc<Table>>>(tables: I) -> Self {
        KeptTables(tables.into_iter().collect())
    }
}

impl Drop for KeptTables {
    fn drop(&mut self) {
        self.0.iter().for_each(Table::close);
    }
}
