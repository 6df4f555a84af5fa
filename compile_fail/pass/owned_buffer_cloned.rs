//! A buffer is one: no other has its bytes.

use ibverbs::Buffer;

fn case(buffer: Buffer) -> Vec<u8> {
    buffer.to_vec()
}

fn main() {}
