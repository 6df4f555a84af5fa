//! The program of the README: a queue pair that sends five bytes to itself.

#![allow(clippy::undocumented_unsafe_blocks)] // as short as it can be; loopback.rs says why it is safe

use ibverbs::{AccessFlags, RecvRequest};

#[rustfmt::skip] // the README's layout
fn main() -> ibverbs::Result<()> {
    let ctx = ibverbs::devices()?.iter().next().expect("no device").open()?;
    let cq = ctx.create_cq(16).build()?;
    let pd = ctx.alloc_pd()?;
    let prepared = pd
        .create_qp::<ibverbs::Rc>(&cq, &cq, 1)?     // port 1
        .set_gid_index(1)
        .build()?;
    let endpoint = prepared.endpoint()?;            // endpoint.to_bytes() is the wire format
    let mut qp = prepared.handshake(endpoint)?;     // here with itself
    let mut recv = pd.allocate(4096, AccessFlags::PERMISSIVE)?;
    let mut send = pd.allocate(4096, AccessFlags::PERMISSIVE)?;
    send.bytes_mut()[..5].copy_from_slice(b"hello");
    unsafe { qp.post_recv([RecvRequest::new(1, &[recv.slice(..)])]) }?;
    let mut batch = qp.start_send();
    batch.op().signaled().send(2, &[send.slice(..5)]);
    unsafe { batch.submit() }?;
    let mut pending = 2;
    while pending > 0 {
        if let Some(mut completions) = cq.poll()? {
            while let Some(wc) = completions.next() {
                wc.ok().expect("work request failed");
                pending -= 1;
            }
        }
    }
    assert_eq!(&recv.bytes_mut()[..5], b"hello");
    Ok(())
}
