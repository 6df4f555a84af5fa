//! A completion stays on the thread that polls; its buffer need not.

use ibverbs::{Buffer, OwnedCompletion};

fn send<T: Send>(_: T) {}

fn case(_: OwnedCompletion<'_>, buffer: Buffer) {
    send(buffer);
}

fn main() {}
