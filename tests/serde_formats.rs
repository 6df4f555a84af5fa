//! What peers exchange, in a format that people read (JSON) and in a compact one (postcard); and what is
//! made of bytes that nobody should have sent. No device is needed.

use std::fmt::Debug;

use ibverbs::{Gid, Guid, QueuePairEndpoint, RemoteMemorySlice};
use ibverbs_tests::pattern;
use serde::de::DeserializeOwned;
use serde::Serialize;

const MAX_24: u32 = 0x00ff_ffff;

fn gid(text: &str) -> Gid {
    text.parse().unwrap()
}

fn endpoints() -> Vec<QueuePairEndpoint> {
    let endpoint = |qp_num, psn, lid, gid| QueuePairEndpoint::new(qp_num, psn, lid, gid).unwrap();
    vec![
        endpoint(17, 0x0012_3456, 0, Some(gid("::ffff:10.7.0.1"))),
        endpoint(0, 0, 0, None),
        endpoint(MAX_24, MAX_24, u16::MAX, Some(Gid::from([0xff; 16]))),
        endpoint(1, 2, 3, Some(Gid::from([0; 16]))),
    ]
}

fn slices() -> Vec<RemoteMemorySlice> {
    vec![
        RemoteMemorySlice { addr: 0x7f00_0000_1000, len: 4096, rkey: 0x0123_4567 },
        RemoteMemorySlice { addr: 0, len: 0, rkey: 0 },
        RemoteMemorySlice { addr: u64::MAX, len: 0, rkey: u32::MAX },
        RemoteMemorySlice { addr: 1, len: u64::MAX - 1, rkey: 1 },
    ]
}

#[track_caller]
fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
    let text = json(&value);
    assert_eq!(serde_json::from_str::<T>(&text).unwrap(), value, "{text}");
    // Through a tree of values as well, whose text is not borrowed.
    let tree = serde_json::to_value(&value).unwrap();
    assert_eq!(serde_json::from_value::<T>(tree).unwrap(), value, "{text}");
    let bytes = postcard::to_allocvec(&value).unwrap();
    assert_eq!(postcard::from_bytes::<T>(&bytes).unwrap(), value, "{bytes:?}");
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap()
}

/// The error of JSON that must be refused.
#[track_caller]
fn refused<T: DeserializeOwned + Debug>(json: &str) -> String {
    serde_json::from_str::<T>(json).expect_err(json).to_string()
}

#[test]
fn everything_comes_back_as_it_was() {
    endpoints().into_iter().for_each(round_trip);
    slices().into_iter().for_each(round_trip);
    for text in ["::", "::1", "fe80::5054:ff:fe12:3456", "::ffff:255.255.255.255"] {
        round_trip(gid(text));
    }
    for value in [0, 1, 0x5054_00ff_fe12_3456, u64::MAX] {
        round_trip(Guid::new(value));
    }
    round_trip((endpoints(), slices(), Some(gid("::1"))));
}

#[test]
fn people_can_read_it() {
    assert_eq!(
        json(&endpoints()[0]),
        r#"{"qp_num":17,"psn":1193046,"lid":0,"gid":"::ffff:10.7.0.1"}"#
    );
    assert_eq!(json(&endpoints()[1]), r#"{"qp_num":0,"psn":0,"lid":0,"gid":null}"#);
    assert_eq!(json(&slices()[0]), r#"{"addr":139637976731648,"len":4096,"rkey":19088743}"#);
    assert_eq!(json(&gid("fe80::1")), r#""fe80::1""#);
    assert_eq!(json(&Guid::new(0x5054_00ff_fe12_3456)), r#""5054:00ff:fe12:3456""#);
}

#[test]
fn the_compact_form_is_that_of_to_bytes() {
    for endpoint in endpoints() {
        assert_eq!(postcard::to_allocvec(&endpoint).unwrap(), endpoint.to_bytes());
    }
    for slice in slices() {
        assert_eq!(postcard::to_allocvec(&slice).unwrap(), slice.to_bytes());
    }
    let gid = gid("fe80::1");
    assert_eq!(postcard::to_allocvec(&gid).unwrap(), <[u8; 16]>::from(gid));
}

#[test]
fn an_endpoint_that_cannot_be_is_refused() {
    let json = |qp_num: &str, psn: &str, lid: &str, gid: &str| {
        format!(r#"{{"qp_num":{qp_num},"psn":{psn},"lid":{lid},"gid":{gid}}}"#)
    };
    let good = json("1", "2", "3", r#""::1""#);
    serde_json::from_str::<QueuePairEndpoint>(&good).unwrap();
    for (qp_num, psn, lid, gid) in [
        ("16777216", "2", "3", "null"),
        ("4294967295", "2", "3", "null"),
        ("4294967296", "2", "3", "null"),
        ("-1", "2", "3", "null"),
        ("1.5", "2", "3", "null"),
        ("1", "16777216", "3", "null"),
        ("1", "2", "65536", "null"),
        ("1", "2", "3", r#""10.7.0.1""#),
        ("1", "2", "3", r#""::1::""#),
        ("1", "2", "3", "[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1]"),
    ] {
        refused::<QueuePairEndpoint>(&json(qp_num, psn, lid, gid));
    }
    let error = refused::<QueuePairEndpoint>(&json("16777216", "2", "3", "null"));
    assert!(error.contains("the queue pair number is 16777216, but it has 24 bits"), "{error}");
}

#[test]
fn memory_that_cannot_be_is_refused() {
    let json = |addr: u64, len: u64| format!(r#"{{"addr":{addr},"len":{len},"rkey":1}}"#);
    serde_json::from_str::<RemoteMemorySlice>(&json(u64::MAX, 0)).unwrap();
    for (addr, len) in [(u64::MAX, 1), (1, u64::MAX), (1 << 63, 1 << 63)] {
        let error = refused::<RemoteMemorySlice>(&json(addr, len));
        assert!(error.contains("beyond the address space"), "{error}");
        let bytes = RemoteMemorySlice { addr, len, rkey: 1 }.to_bytes();
        postcard::from_bytes::<RemoteMemorySlice>(&bytes).unwrap_err();
    }
}

#[test]
fn fields_are_all_there_and_no_others() {
    for json in [
        "{}",
        "null",
        "[]",
        "[1,2]",
        "[1,2,3,4]",
        "\"\"",
        r#"{"addr":1,"len":2}"#,
        r#"{"addr":1,"len":2,"rkey":3,"lkey":4}"#,
        r#"{"addr":1,"len":2,"rkey":3,"rkey":4}"#,
        r#"{"addr":"1","len":2,"rkey":3}"#,
    ] {
        refused::<RemoteMemorySlice>(json);
    }
    for json in [
        r#"{"qp_num":1,"psn":2,"gid":null}"#,
        r#"{"qp_num":1,"psn":2,"lid":3,"gid":null,"mtu":4}"#,
        r#"{"qp_num":1,"qp_num":1,"psn":2,"lid":3,"gid":null}"#,
    ] {
        refused::<QueuePairEndpoint>(json);
    }
}

#[test]
fn an_identifier_is_text_in_one_form() {
    assert_eq!(
        serde_json::from_str::<Guid>(r#""5054:00FF:fe12:3456""#).unwrap(),
        Guid::new(0x5054_00ff_fe12_3456)
    );
    for text in [
        "",
        "5054:00ff:fe12",
        "5054:00ff:fe12:3456:0000",
        "5054:00ff:fe12:3456:",
        ":5054:00ff:fe12:3456",
        "5054:ff:fe12:3456",
        "05054:00ff:fe12:3456",
        "+054:00ff:fe12:3456",
        "5054:00ff:fe12:345g",
        "5054:00ff:fe12:34é",
        "505400fffe123456",
    ] {
        let error = refused::<Guid>(&json(&text));
        assert!(error.contains("four groups of four hexadecimal digits"), "{error}");
    }
    refused::<Guid>("1");
    refused::<Gid>("1");
    refused::<Gid>("\"\"");
}

#[test]
fn compact_bytes_are_checked_like_any_other() {
    let good = endpoints()[0].to_bytes();
    for len in 0..good.len() {
        postcard::from_bytes::<QueuePairEndpoint>(&good[..len]).unwrap_err();
    }
    let good = slices()[0].to_bytes();
    for len in 0..good.len() {
        postcard::from_bytes::<RemoteMemorySlice>(&good[..len]).unwrap_err();
    }
    // Whatever is read is what `from_bytes` reads.
    for seed in 0..20_000u64 {
        let mut bytes = endpoints()[seed as usize % 4].to_bytes();
        let noise = pattern(2, seed);
        bytes[usize::from(noise[0]) % QueuePairEndpoint::BYTES] = noise[1];
        let read = postcard::from_bytes::<QueuePairEndpoint>(&bytes).ok();
        assert_eq!(read, QueuePairEndpoint::from_bytes(&bytes).ok());
        let mut bytes = slices()[seed as usize % 4].to_bytes();
        bytes[usize::from(noise[0]) % RemoteMemorySlice::BYTES] = noise[1];
        let read = postcard::from_bytes::<RemoteMemorySlice>(&bytes).ok();
        assert_eq!(read, RemoteMemorySlice::from_bytes(&bytes).ok());
    }
}

#[test]
fn noise_is_no_value_and_no_panic() {
    for seed in 0..2_000 {
        let noise = pattern(64, seed);
        let _ = serde_json::from_slice::<QueuePairEndpoint>(&noise);
        let _ = serde_json::from_slice::<RemoteMemorySlice>(&noise);
        let _ = postcard::from_bytes::<(QueuePairEndpoint, RemoteMemorySlice)>(&noise);
        // A text that is cut off or changed in one place.
        let text = serde_json::to_vec(&endpoints()[seed as usize % 4]).unwrap();
        let mut text = text[..text.len() - usize::from(noise[0] % 2)].to_vec();
        let place = usize::from(noise[1]) % text.len();
        text[place] = noise[2];
        if let Ok(endpoint) = serde_json::from_slice::<QueuePairEndpoint>(&text) {
            assert!(endpoint.qp_num() <= MAX_24 && endpoint.psn() <= MAX_24);
        }
    }
}
