//! The soundness rules of `ibverbs`, one module each, on a provider that shows what no device at hand
//! does. Each test fails when its rule is broken: by an assertion of its own, by a violation that the
//! provider recorded, by an object that is still alive at the end, or under a sanitizer. A leak
//! detector must `--skip leaking`, which leaks on purpose.

mod batches;
mod bytes;
mod chains;
mod clock;
mod cm_bring_up;
mod cm_common;
mod cm_devices;
mod cm_dropping;
mod cm_events;
mod cm_failing;
mod cm_groups;
mod cm_task;
mod cm_turns;
mod common;
mod comp_events;
mod comp_events_task;
mod completions;
mod datagrams;
mod destroying;
mod device_memory;
mod efa;
mod events;
mod events_task;
mod groups;
mod leaking;
mod limits;
mod memory;
mod minimal;
mod missing;
mod narrow;
mod one_device;
mod one_poller;
mod optional_ops;
mod owned;
mod owned_queues;
mod owned_random;
mod owned_runs;
mod random;
mod reasons;
mod receives;
mod replies;
mod resize;
mod shared;
mod shared_queues;
mod srd;
mod values;
mod windows;
