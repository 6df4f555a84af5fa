//! A completion is read in the thread that polls.

use ibverbs::Completions;

fn send<T: Send>(_: T) {}

fn case(completions: &mut Completions<'_>) {
    if let Some(completion) = completions.next() {
        send(completion.wr_id());
    }
}

fn main() {}
