//! A buffer is one: no other has its bytes.
//~ error[E0599]: no method named `clone` found for struct `Buffer` in the current scope

use ibverbs::Buffer;

fn case(buffer: Buffer) -> Buffer {
    buffer.clone()
}

fn main() {}
