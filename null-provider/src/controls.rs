//! How tests and benchmarks tell the provider what to do, and ask it what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_int;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use ibverbs_sys as ffi;

use crate::cm::{Cm, CmConfig};
use crate::device::DEVICES;
use crate::event::Element;
use crate::objects::{Block, Object};
use crate::record::{
    Advised, Call, Completion, Kind, Path, PostLimit, Registration, Request, Verb,
};

/// A change of a structure before the caller of a verb gets to see it.
pub type Edit<T> = Option<Box<dyn Fn(&mut T) + Send>>;

/// Which functions the data path consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DataPath {
    /// Every call is checked and recorded, under locks that report what would be a dead-lock.
    #[default]
    Checked,
    /// As few instructions as possible, for measuring. Nothing is checked or recorded, and only one
    /// thread may use a completion queue and the queue pairs that complete to it.
    Minimal,
}

/// What the provider does out of the ordinary.
///
/// The changes of structures run under the lock of the provider: they must not use the [`Controls`].
#[derive(Default)]
pub struct Config {
    /// Which functions the objects of contexts have that are opened from now on.
    pub data_path: DataPath,
    /// Whether signaled sends of queue pairs that are created from now on complete, successfully, when
    /// their batch is submitted.
    pub complete_sends: bool,
    /// Whether receives of queue pairs that are created from now on complete, successfully, when they
    /// are posted.
    pub complete_receives: bool,
    /// How many receives a call takes. All, if `None`.
    pub recv_limit: Option<PostLimit>,
    /// Whether nobody says that work is done: what is posted to a queue pair or a shared receive queue is in flight until
    /// that is destroyed or reset, and to deregister memory of it is a violation.
    pub keeps_work: bool,
    /// How many sends a call of `ibv_post_send` takes. All, if `None`.
    pub send_limit: Option<PostLimit>,
    /// What `ibv_is_fork_initialized` says.
    pub fork_status: ffi::ibv_fork_status,
    /// Whether the devices are EFA's, and fail where those do.
    pub is_efa: bool,
    /// Whether queue pairs have no extended interface: `ibv_qp_to_qp_ex` returns null.
    pub plain_queue_pairs: bool,
    /// How many bytes of `ibv_cq_ex` exist, as in an older library. All, if `None`.
    pub cq_ex_len: Option<usize>,
    /// How many bytes of `ibv_qp_ex` exist, as in an older library. All, if `None`.
    pub qp_ex_len: Option<usize>,
    /// Something that completes at the last moment before a completion queue is armed.
    pub completes_before_arming: Option<Completion>,
    /// Whether it takes time to take an event from a completion channel.
    pub slow_events: bool,
    /// After how long a wait in vain is a violation: three seconds, if `None`.
    pub patience: Option<Duration>,
    /// Whether resizing a completion queue or a shared receive queue fails when its memory is gone already.
    pub resize_loses: bool,
    /// Changes the context of a device that is opened. Only the last `sz` bytes of it will exist.
    pub edit_context: Edit<ffi::verbs_context>,
    /// Changes what `ibv_query_device` answers.
    pub edit_device_attr: Edit<ffi::ibv_device_attr>,
    /// Changes the extended attributes that `ibv_query_device_ex` answers.
    pub edit_device_attr_ex: Edit<ffi::ibv_device_attr_ex>,
    /// Changes what `ibv_query_port` answers.
    pub edit_port_attr: Edit<ffi::ibv_port_attr>,
    /// Changes the entries that `ibv_query_gid_table` answers.
    pub edit_gid_entry: Edit<ffi::ibv_gid_entry>,
    /// Changes what `efadv_query_device` answers, and creating queue pairs of SRD goes by.
    pub edit_efa_attr: Edit<ffi::efadv_device_attr>,
    /// Changes what a completion queue that is created has of EFA.
    pub edit_efa_cq: Edit<ffi::efadv_cq>,
    /// Changes what `efadv_query_mr` answers.
    pub edit_efa_mr: Edit<ffi::efadv_mr_attr>,
    /// Changes device memory that is allocated.
    pub edit_dm: Edit<ffi::ibv_dm>,
    /// Changes a completion queue that is created.
    pub edit_cq: Edit<ffi::ibv_cq_ex>,
    /// Changes what creating and querying a shared receive queue answers.
    pub edit_srq_attr: Edit<ffi::ibv_srq_attr>,
    /// Changes a queue pair that is created.
    pub edit_qp: Edit<ffi::ibv_qp_ex>,
    /// Changes the capacities that creating a queue pair answers.
    pub edit_qp_cap: Edit<ffi::ibv_qp_cap>,
    /// What `ibv_query_rt_values_ex` answers: nothing, if `None`.
    pub edit_rt_values: Edit<ffi::ibv_values_ex>,
    /// Runs when an asynchronous event was acknowledged.
    pub edit_acknowledged: Edit<ffi::ibv_async_event>,
    /// Changes what `ibv_query_qp` answers.
    pub edit_qp_attr: Edit<ffi::ibv_qp_attr>,
    /// How librdmacm departs from the ordinary.
    pub cm: CmConfig,
    /// The verbs that fail.
    failures: BTreeMap<Verb, Failure>,
}

/// How a verb fails.
struct Failure {
    /// After how many calls.
    successes: usize,
    /// With which `errno` value.
    code: c_int,
    /// Whether it works again after that.
    once: bool,
}

/// Everything that the provider knows, under one lock.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) objects: BTreeMap<usize, Object>,
    /// The devices that lists or contexts refer to, with the number of references.
    pub(crate) devices: [Option<(Block, usize)>; DEVICES],
    pub(crate) registrations: Vec<Registration>,
    pub(crate) advised: Vec<Advised>,
    pub(crate) paths: Vec<Path>,
    pub(crate) requests: Vec<Request>,
    /// The work that is kept: a queue, and the local key of memory that was posted to it.
    pub(crate) in_flight: Vec<(usize, u32)>,
    /// What could not be destroyed, and is still there.
    pub(crate) refused: BTreeSet<usize>,
    pub(crate) srd: Vec<ffi::efadv_qp_init_attr>,
    /// What queue pairs were modified with: mask and attributes.
    pub(crate) modified: Vec<(u32, ffi::ibv_qp_attr)>,
    /// The addresses that events which were read and not acknowledged are about.
    pub(crate) unacknowledged: Vec<usize>,
    /// How events of completion queues were moderated: count and period.
    pub(crate) moderations: Vec<(u16, u16)>,
    pub(crate) cm: Cm,
    /// Objects that a test left alive on purpose, and that nobody may use any more.
    abandoned: Vec<Object>,
    calls: Vec<Call>,
    violations: Vec<String>,
    last_number: u32,
}

impl State {
    pub(crate) fn call(&mut self, verb: Verb, object: usize) {
        self.calls.push(Call { verb, object });
    }

    pub(crate) fn violation(&mut self, message: String) {
        self.violations.push(message);
    }

    /// Fails if this verb is to fail. To be asked once for each call.
    pub(crate) fn failure(&mut self, verb: Verb) -> Result<(), c_int> {
        match self.config.failures.get_mut(&verb) {
            None => Ok(()),
            Some(&mut Failure { successes: 0, code, once }) => {
                if once {
                    self.config.failures.remove(&verb);
                }
                Err(code)
            }
            Some(failure) => {
                failure.successes -= 1;
                Ok(())
            }
        }
    }

    /// A number that no other object has had.
    pub(crate) fn next_number(&mut self) -> u32 {
        self.last_number += 1;
        self.last_number
    }
}

static STATE: LazyLock<Mutex<State>> = LazyLock::new(Mutex::default);

/// Signaled whenever the lock of a completion queue is released, or an event is acknowledged.
static RELEASED: Condvar = Condvar::new();

/// After how long a wait in vain is a violation, unless the test says otherwise.
const PATIENCE: Duration = Duration::from_secs(3);

pub(crate) type Guard = MutexGuard<'static, State>;

pub(crate) fn lock() -> Guard {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until the condition holds, and returns whether it does: not if that takes very long.
pub(crate) fn wait_until(state: Guard, holds: impl Fn(&State) -> bool) -> (Guard, bool) {
    let patience = state.config.patience.unwrap_or(PATIENCE);
    let wait = RELEASED.wait_timeout_while(state, patience, |state| !holds(state));
    let (state, timeout) = wait.unwrap_or_else(PoisonError::into_inner);
    (state, !timeout.timed_out())
}

/// Wakes those who wait.
pub(crate) fn notify() {
    RELEASED.notify_all();
}

/// Waits until no other thread holds the lock of the completion queue, and returns whether it is free.
///
/// It is not free if this thread holds it, which in a real provider would be a dead-lock and here is a
/// violation; or if the other thread holds it for very long, which is one as well.
pub(crate) fn wait_for_cq(mut state: Guard, verb: Verb, address: usize) -> (Guard, bool) {
    loop {
        match state.cq(address).and_then(|cq| cq.owner) {
            None => return (state, true),
            Some(owner) if owner == thread::current().id() => {
                state.violation(format!(
                    "{verb:?}: dead-lock, this thread holds the lock of the completion queue"
                ));
                return (state, false);
            }
            Some(_) => {
                let patience = state.config.patience.unwrap_or(PATIENCE);
                let wait = RELEASED.wait_timeout(state, patience);
                let (guard, timeout) = wait.unwrap_or_else(PoisonError::into_inner);
                state = guard;
                if timeout.timed_out() {
                    state.violation(format!(
                        "{verb:?}: another thread does not release the lock of the completion queue"
                    ));
                    return (state, false);
                }
            }
        }
    }
}

/// Releases the lock of a completion queue; returns whether it was held.
pub(crate) fn release_cq(state: &mut State, address: usize) -> bool {
    let held = state.cq(address).is_some_and(|cq| cq.owner.take().is_some());
    notify();
    held
}

/// Tells the provider what to do, and asks it what happened. There is one per process, and its state
/// is global: tests that use it run one after the other.
#[derive(Debug)]
pub struct Controls(());

impl Controls {
    pub(crate) fn get() -> &'static Controls {
        &Controls(())
    }

    /// Back to the ordinary, with an empty record. Objects that are still alive are given up: whoever
    /// uses one after this commits a violation.
    pub fn reset(&self) {
        let mut state = lock();
        let objects = std::mem::take(&mut state.objects);
        state.abandoned.extend(objects.into_values());
        state.config = Config::default();
        state.registrations.clear();
        state.advised.clear();
        state.paths.clear();
        state.requests.clear();
        state.in_flight.clear();
        state.refused.clear();
        state.srd.clear();
        state.modified.clear();
        state.unacknowledged.clear();
        state.moderations.clear();
        state.cm = Cm::default();
        state.calls.clear();
        state.violations.clear();
    }

    /// Changes what the provider does.
    pub fn configure(&self, change: impl FnOnce(&mut Config)) {
        change(&mut lock().config);
    }

    /// Makes a verb fail with this `errno` value, until it is told otherwise.
    pub fn fail(&self, verb: Verb, code: c_int) {
        self.fail_after(verb, 0, code);
    }

    /// The same, after so many more calls that succeed.
    pub fn fail_after(&self, verb: Verb, successes: usize, code: c_int) {
        let failure = Failure { successes, code, once: false };
        lock().config.failures.insert(verb, failure);
    }

    /// Makes the next call of a verb fail with this `errno` value.
    pub fn fail_once(&self, verb: Verb, code: c_int) {
        self.fail_once_after(verb, 0, code);
    }

    /// The same, after so many more calls that succeed.
    pub fn fail_once_after(&self, verb: Verb, successes: usize, code: c_int) {
        let failure = Failure { successes, code, once: true };
        lock().config.failures.insert(verb, failure);
    }

    /// Makes a verb work again.
    pub fn succeed(&self, verb: Verb) {
        lock().config.failures.remove(&verb);
    }

    /// How many objects of this kind are alive.
    pub fn live(&self, kind: Kind) -> usize {
        self.all_live().into_iter().filter(|&found| found == kind).count()
    }

    /// The kinds of all objects that are alive, without those that librdmacm has created for itself.
    pub fn all_live(&self) -> Vec<Kind> {
        let state = lock();
        let objects = state.objects.iter();
        let objects = objects.filter(|(&address, _)| !state.is_of_librdmacm(address));
        objects.map(|(_, object)| object.data.kind()).collect()
    }

    /// The kinds of the objects that are alive without a reason, if the program has none any more: neither could they not be
    /// destroyed, nor does an object that could not refer to them. A region has a reason if its domain has one: it may
    /// be memory that the objects of that domain reach.
    pub fn leaked_without_reason(&self) -> Vec<Kind> {
        let state = lock();
        let mut reasons = state.refused.clone();
        let mut open: Vec<usize> = reasons.iter().copied().collect();
        while let Some(address) = open.pop() {
            let Some(object) = state.objects.get(&address) else { continue };
            open.extend(object.refers_to.iter().filter(|&&other| reasons.insert(other)));
        }
        let has_reason = |(address, object): &(&usize, &Object)| {
            reasons.contains(*address)
                || object.data.kind() == Kind::Mr
                    && object.refers_to.iter().any(|other| reasons.contains(other))
        };
        let without = state.objects.iter().filter(|object| !has_reason(object));
        without.map(|(_, object)| object.data.kind()).collect()
    }

    /// The calls that reached the provider since the last [`reset`](Self::reset) or `take_calls`.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut lock().calls)
    }

    /// How often a verb was called since the last [`reset`](Self::reset) or
    /// [`take_calls`](Self::take_calls).
    pub fn count(&self, verb: Verb) -> usize {
        lock().calls.iter().filter(|call| call.verb == verb).count()
    }

    /// What was done that a real provider would have answered with a dead-lock, with undefined
    /// behaviour or with a corrupted queue.
    pub fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut lock().violations)
    }

    /// The memory registrations since the last [`reset`](Self::reset).
    pub fn registrations(&self) -> Vec<Registration> {
        lock().registrations.clone()
    }

    /// The advice about memory that was given since the last [`reset`](Self::reset).
    pub fn advised(&self) -> Vec<Advised> {
        lock().advised.clone()
    }

    /// The paths that address handles were created for since the last [`reset`](Self::reset).
    pub fn paths(&self) -> Vec<Path> {
        lock().paths.clone()
    }

    /// The work requests that were posted since the last [`reset`](Self::reset) or `take_requests`.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut lock().requests)
    }

    /// What queue pairs were modified with since the last [`reset`](Self::reset): mask and attributes.
    pub fn modified(&self) -> Vec<(u32, ffi::ibv_qp_attr)> {
        lock().modified.clone()
    }

    /// What queue pairs of SRD were created with since the last [`reset`](Self::reset).
    pub fn srd(&self) -> Vec<ffi::efadv_qp_init_attr> {
        lock().srd.clone()
    }

    /// How completion queues were moderated since the last [`reset`](Self::reset): count and period.
    pub fn moderations(&self) -> Vec<(u16, u16)> {
        lock().moderations.clone()
    }

    /// Puts a completion into a completion queue of the checked data path.
    ///
    /// # Panics
    ///
    /// If there is no such queue.
    pub fn complete(&self, cq: *mut ffi::ibv_cq_ex, completion: Completion) {
        let mut state = lock();
        let address = cq as usize;
        assert!(state.cq(address).is_some(), "a completion queue that is alive");
        state.complete(address, completion);
    }

    /// Raises an asynchronous event in a context.
    ///
    /// # Panics
    ///
    /// If there is no such context, or its device was removed.
    pub fn raise(
        &self,
        context: *mut ffi::ibv_context,
        event_type: ffi::ibv_event_type,
        element: Element,
    ) {
        let mut state = lock();
        let events = state.events(context as usize).expect("a context that is open");
        events.raise(event_type, element);
    }

    /// Ends the asynchronous events of a context, as pulling out the device does. Those that were raised
    /// before can still be read.
    ///
    /// # Panics
    ///
    /// If there is no such context.
    pub fn end_events(&self, context: *mut ffi::ibv_context) {
        lock().events(context as usize).expect("a context that is open").end();
    }
}
