//! Any bytes are a message of the connection manager or refused, and a message is the bytes that it came from.
#![no_main]

use std::ops::Range;

use ibverbs_soft::cm::{Message, MESSAGE_LEN};
use libfuzzer_sys::fuzz_target;

/// Where the header ends, which all messages have.
const HEADER_LEN: usize = 24;
const HEADER: &[(Range<usize>, u8)] = &[(4..8, 0xff), (18..20, 0xff)];

/// What of a message is not read: bytes behind the header, and which of their bits.
fn unread(message: &Message) -> &'static [(Range<usize>, u8)] {
    match message {
        Message::Req(_) => &[
            (4..5, 0xff),
            (24..32, 0xff),
            (36..39, 0xff),
            (40..43, 0xff),
            (50..51, 0x08),
            (51..52, 0x07),
            (52..56, 0xff),
            (90..91, 0x0f),
            (91..92, 0xff),
            (94..95, 0xff),
            (95..96, 0x07),
            (96..140, 0xff),
        ],
        Message::Rep(_) => &[(8..12, 0xff), (16..19, 0xff), (26..27, 0xfe), (27..28, 0x0f)],
        Message::Rtu(_) | Message::Drep(_) => &[(8..232, 0xff)],
        Message::Rej(rej) if rej.guid.is_some() => &[(8..9, 0x3f), (9..10, 0x01), (20..84, 0xff)],
        Message::Rej(_) => &[(8..9, 0x3f), (9..10, 0xff), (12..84, 0xff)],
        Message::Mra(_) => &[(8..9, 0x3f), (9..10, 0x07), (10..232, 0xff)],
        Message::Dreq(_) => &[(11..232, 0xff)],
        Message::SidrReq(_) => &[(6..8, 0xff)],
        Message::SidrRep(_) => &[(5..8, 0xff), (11..12, 0xff), (24..96, 0xff)],
    }
}

/// The bytes without what is not read.
fn normal(bytes: &[u8], message: &Message) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let (header, data) = bytes.split_at_mut(HEADER_LEN);
    for (bytes, unread) in [(header, HEADER), (data, unread(message))] {
        for (places, bits) in unread {
            for byte in &mut bytes[places.clone()] {
                *byte &= !bits;
            }
        }
    }
    // Of the four messages that these can be about, two are none that is known.
    let about_other = 0b10 << 6;
    if matches!(message, Message::Rej(_) | Message::Mra(_)) && bytes[HEADER_LEN + 8] >= about_other
    {
        bytes[HEADER_LEN + 8] = about_other;
    }
    bytes
}

/// Bytes that are read as a message are what this message is written as.
fn check(bytes: &[u8]) {
    let Ok((context, message)) = Message::parse(bytes) else { return };
    assert_eq!(bytes.len(), MESSAGE_LEN);
    let again = message.emit(context);
    assert_eq!(Message::parse(&*again), Ok((context, message.clone())));
    assert_eq!(normal(&*again, &message), normal(bytes, &message));
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    // As long as a message, and with what all messages begin with, which is hardly ever found.
    let mut message = [0; MESSAGE_LEN];
    let len = bytes.len().min(MESSAGE_LEN);
    message[..len].copy_from_slice(&bytes[..len]);
    message[..4].copy_from_slice(&[1, 7, 2, 3]);
    message[16] = 0;
    check(&message);
});
