//! Rule 14: bytes that came from elsewhere are not trusted.

use ibverbs::{Error, QueuePairEndpoint, Rc, RemoteMemorySlice};

use crate::common::{null, parts, Parts};
use crate::random::Random;

#[test]
fn bytes_of_a_stranger_are_refused_or_mean_what_they_say() {
    let mut random = Random::new(1);
    for _ in 0..if cfg!(miri) { 200 } else { 100_000 } {
        let mut bytes: Vec<u8> = (0..random.below(40)).map(|_| random.below(256) as u8).collect();
        if random.below(2) == 0 {
            // Closer to something valid: the right length and version, and few flags.
            bytes.resize([QueuePairEndpoint::BYTES, RemoteMemorySlice::BYTES][random.below(2)], 0);
            bytes[0] = 1;
            bytes[1] &= 1;
            bytes[2..9].fill(0);
            let place = random.below(12);
            bytes[place] ^= random.below(3) as u8;
        }
        match QueuePairEndpoint::from_bytes(&bytes) {
            Ok(endpoint) => {
                assert_eq!(endpoint.to_bytes()[..], bytes);
                assert!(endpoint.qp_num() >> 24 == 0 && endpoint.psn() >> 24 == 0);
            }
            Err(error) => assert!(matches!(error, Error::InvalidBytes { .. })),
        }
        match RemoteMemorySlice::from_bytes(&bytes) {
            Ok(slice) => {
                assert_eq!(slice.to_bytes()[..], bytes);
                slice.addr.checked_add(slice.len).unwrap();
            }
            Err(error) => assert!(matches!(error, Error::InvalidBytes { .. })),
        }
    }
}

#[test]
fn a_queue_pair_can_be_connected_to_any_endpoint_that_was_accepted() {
    let _null = null();
    let Parts { pd, cq, .. } = parts();
    let mut bytes = [0xff; QueuePairEndpoint::BYTES];
    (bytes[0], bytes[1], bytes[4], bytes[8]) = (1, 1, 0, 0);
    let endpoint = QueuePairEndpoint::from_bytes(&bytes).unwrap();
    let prepared = pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().build().unwrap();
    drop(prepared.handshake(endpoint).unwrap());
}
