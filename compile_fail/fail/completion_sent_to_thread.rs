//! A completion is read in the thread that polls.
//~ error[E0277]: `NonNull<ibv_cq_ex>` cannot be sent between threads safely

use ibverbs::Completions;

fn send<T: Send>(_: T) {}

fn case(completions: &mut Completions<'_>) {
    if let Some(completion) = completions.next() {
        send(completion);
    }
}

fn main() {}
