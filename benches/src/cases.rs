//! Which cases there are, and the functions that carry them out.

use crate::rig::{Raw, Rig};
use crate::{in_crate, in_ffi};

/// Something that programs do again and again.
pub(crate) struct Case {
    /// What the list of allowances calls it.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) implementations: Vec<Implementation>,
}

/// One way to do it.
pub(crate) struct Implementation {
    pub(crate) kind: &'static str,
    /// The name of the function in the program, by which callgrind knows it.
    pub(crate) symbol: &'static str,
    run: Run,
}

/// A function that does it as often as its second argument says.
enum Run {
    Raw(unsafe extern "C" fn(&Raw, u64)),
    Crate(fn(&mut Rig, u64)),
}

impl Implementation {
    /// Does it `n` times.
    #[inline]
    pub(crate) fn run(&self, rig: &mut Rig, raw: &Raw, n: u64) {
        match self.run {
            // SAFETY: `raw` is what `Rig::raw` made of this rig, which is borrowed exclusively, and thereby in nobody
            // else's use.
            Run::Raw(run) => unsafe { run(raw, n) },
            Run::Crate(run) => run(rig, n),
        }
    }
}

/// The cases: name, title, the functions in C and on raw FFI, and the one on the crate with what it is lent.
macro_rules! cases {
    ($(
        $name:literal, $title:literal:
        $c:ident, $ffi:ident, $ours:ident(|$rig:ident| $($part:expr),*);
    )*) => {
        /// All cases, in the order of the table.
        pub(crate) fn all() -> Vec<Case> {
            vec![$(Case {
                name: $name,
                title: $title,
                implementations: vec![
                    #[cfg(has_c)]
                    Implementation {
                        kind: "c",
                        symbol: stringify!($c),
                        run: {
                            extern "C" {
                                fn $c(rig: &Raw, n: u64);
                            }
                            Run::Raw($c)
                        },
                    },
                    Implementation {
                        kind: "ffi",
                        symbol: stringify!($ffi),
                        run: Run::Raw(in_ffi::$ffi),
                    },
                    Implementation {
                        kind: "crate",
                        symbol: stringify!($ours),
                        run: Run::Crate(|$rig, n| in_crate::$ours($($part,)* n)),
                    },
                ],
            }),*]
        }
    };
}

cases! {
    "send", "one signaled send and its completion":
        cost_c_send, cost_ffi_send,
        cost_crate_send(|rig| &mut rig.qp, &rig.queues.cq, &rig.slices[0]);
    "writes", "32 writes, one signaled, one doorbell":
        cost_c_writes, cost_ffi_writes,
        cost_crate_writes(|rig| &mut rig.quiet, &rig.slices[0], rig.remotes[0]);
    "pieces", "the same, each of another piece to another place":
        cost_c_pieces, cost_ffi_pieces,
        cost_crate_pieces(|rig| &mut rig.quiet, &rig.slices, &rig.remotes);
    "receives", "32 receives":
        cost_c_receives, cost_ffi_receives,
        cost_crate_receives(|rig| &mut rig.quiet, &rig.slices);
    "chain", "32 receives posted again":
        cost_c_chain, cost_ffi_chain,
        cost_crate_chain(|rig| &mut rig.quiet, &mut rig.chain);
    "poll", "16 completions: id, status, opcode, length":
        cost_c_poll, cost_ffi_poll,
        cost_crate_poll(|rig| &rig.queues.full);
    "inline", "64 bytes inline and their completion":
        cost_c_inline, cost_ffi_inline,
        cost_crate_inline(|rig| &mut rig.qp, &rig.queues.cq, &rig.bytes);
    "slice", "a send that slices its region, and its completion":
        cost_c_slice, cost_ffi_slice,
        cost_crate_slice(|rig| &mut rig.qp, &rig.queues.cq, &rig.region);
    "empty", "a poll that finds nothing":
        cost_c_empty, cost_ffi_empty,
        cost_crate_empty(|rig| &rig.queues.empty);
    "datagram", "one datagram and its completion":
        cost_c_datagram, cost_ffi_datagram,
        cost_crate_datagram(|rig| &mut rig.ud, &rig.queues.cq, &rig.ah, &rig.slices[0]);
    "send_shared", "one signaled send and its completion, shared level":
        cost_c_send, cost_ffi_send,
        cost_crate_shared_send(|rig| &mut rig.qp, &rig.queues.cq, &rig.shared);
    "writes_shared", "32 writes, one signaled, one doorbell, shared level":
        cost_c_writes, cost_ffi_writes,
        cost_crate_shared_writes(|rig| &mut rig.quiet, &rig.shared, rig.remotes[0]);
    "receives_shared", "32 receives, shared level":
        cost_c_receives, cost_ffi_receives,
        cost_crate_shared_receives(|rig| &mut rig.quiet, &rig.shared);
    "send_owned", "one signaled send and its completion, owned level":
        cost_c_send, cost_ffi_send,
        cost_crate_owned_send(|rig| &mut rig.owned);
    "writes_owned", "32 writes and the completion of the last, owned level":
        cost_c_writes_done, cost_ffi_writes_done,
        cost_crate_owned_writes(|rig| &mut rig.owned, rig.remotes[0]);
    "receives_owned", "32 receives and their completions, owned level":
        cost_c_receives_done, cost_ffi_receives_done,
        cost_crate_owned_receives(|rig| &mut rig.owned);
}
