//! A provider that comes after the first verb: one test, because the choice is the process's.

use ibverbs_sys::provider::{self, Provider};
use ibverbs_sys::{Efa, Rdmacm, Verbs};

static VERBS: Verbs = Verbs::EMPTY;
static RDMACM: Rdmacm = Rdmacm::EMPTY;
static EFA: Efa = Efa::EMPTY;

#[test]
fn after_the_first_verb_it_is_too_late() {
    let native = provider::name();
    // Whether there is a library does not matter: looking for it was the choice.
    let first = provider::verbs().map(std::ptr::from_ref);
    // SAFETY: a provider without functions keeps every contract.
    let result = unsafe {
        provider::install(Provider { name: "late", verbs: &VERBS, rdmacm: &RDMACM, efa: &EFA })
    };
    assert_eq!(result.unwrap_err().in_place, native);
    assert_eq!(provider::name(), native);
    assert!(provider::installed().is_none());
    assert_eq!(provider::verbs().map(std::ptr::from_ref), first);
}

#[test]
fn threads_agree_on_the_tables() {
    let tables = || provider::verbs().map(|verbs| std::ptr::from_ref(verbs) as usize);
    let threads: Vec<_> = (0..8).map(|_| std::thread::spawn(tables)).collect();
    for thread in threads {
        assert_eq!(thread.join().expect("the thread does not panic"), tables());
    }
}
