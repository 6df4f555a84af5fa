//! Any bytes are an endpoint that is written as these bytes, or refused.
#![no_main]

use ibverbs::QueuePairEndpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(endpoint) = QueuePairEndpoint::from_bytes(bytes) else { return };
    assert_eq!(endpoint.to_bytes(), bytes);
    let parts = (endpoint.qp_num(), endpoint.psn(), endpoint.lid(), endpoint.gid());
    let made = QueuePairEndpoint::new(parts.0, parts.1, parts.2, parts.3);
    assert_eq!(made.expect("what was read is valid"), endpoint);
});
