use super::*;
use crate::cm::reason;

fn counted<const N: usize>() -> [u8; N] {
    std::array::from_fn(|n| n as u8)
}

fn req() -> Req {
    Req {
        local_id: 0x0102_0304,
        vendor_id: 0x0a_0b0c,
        service_id: 0x0106_1d2f,
        local_ca_guid: 0x1112_1314_1516_1718,
        local_qpn: 0x21_2223,
        responder_resources: 0x24,
        initiator_depth: 0x25,
        remote_response_timeout: 20,
        local_response_timeout: 19,
        transport: 0,
        flow_control: true,
        starting_psn: 0x31_3233,
        retry_count: 7,
        pkey: 0xffff,
        mtu: 5,
        rnr_retry_count: 6,
        max_cm_retries: 15,
        srq: true,
        path: PathRecord {
            local: [10, 7, 0, 1].into(),
            remote: [10, 7, 0, 2].into(),
            flow_label: 0x1_2345,
            traffic_class: 0x68,
            hop_limit: 64,
            ack_timeout: 17,
        },
        private_data: counted(),
    }
}

fn rep() -> Rep {
    Rep {
        local_id: 0x0102_0304,
        remote_id: 0x0506_0708,
        vendor_id: 0x0a_0b0c,
        local_qpn: 0x21_2223,
        starting_psn: 0x31_3233,
        responder_resources: 0x24,
        initiator_depth: 0x25,
        flow_control: true,
        rnr_retry_count: 6,
        srq: true,
        local_ca_guid: 0x1112_1314_1516_1718,
        private_data: counted(),
    }
}

fn rej() -> Rej {
    Rej {
        local_id: 0x0102_0304,
        remote_id: 0x0506_0708,
        about: About::Rep,
        reason: reason::CONSUMER,
        guid: Some(0x1112_1314_1516_1718),
        private_data: counted(),
    }
}

fn sidr_req() -> SidrReq {
    let service_id = 0x0111_1d2f;
    SidrReq { request_id: 0x0102_0304, pkey: 0xffff, service_id, private_data: counted() }
}

fn sidr_rep() -> SidrRep {
    SidrRep {
        request_id: 0x0102_0304,
        status: 2,
        qpn: 0x21_2223,
        qkey: 0x0123_4567,
        service_id: 0x0111_1d2f,
        private_data: counted(),
    }
}

const CONTEXT: Context = Context { transaction: 0x4142_4344_4546_4748, modifier: 0x8000_0001 };
const IDS: Short = Short { local_id: 0x0102_0304, remote_id: 0x0506_0708 };

fn all() -> [Message; 9] {
    let (local_id, remote_id) = (IDS.local_id, IDS.remote_id);
    [
        Message::Req(Box::new(req())),
        Message::Rep(Box::new(rep())),
        Message::Rtu(IDS),
        Message::Rej(Box::new(rej())),
        Message::Mra(Mra { local_id, remote_id, about: About::Rep, service_timeout: 24 }),
        Message::Dreq(Dreq { local_id, remote_id, remote_qpn: 0x21_2223 }),
        Message::Drep(IDS),
        Message::SidrReq(Box::new(sidr_req())),
        Message::SidrRep(Box::new(sidr_rep())),
    ]
}

#[test]
fn what_is_put_in_is_read_again() {
    for message in all() {
        let bytes = message.emit(CONTEXT);
        assert_eq!(Message::parse(&*bytes), Ok((CONTEXT, message)));
    }
}

#[test]
fn every_message_has_the_header_of_its_kind() {
    let kinds = all().map(|message| {
        let bytes = message.emit(CONTEXT);
        assert_eq!(bytes[..8], [1, 7, 2, 3, 0, 0, 0, 0]);
        assert_eq!(bytes[8..16], CONTEXT.transaction.to_be_bytes());
        assert_eq!(bytes[20..24], CONTEXT.modifier.to_be_bytes());
        u16::from_be_bytes([bytes[16], bytes[17]])
    });
    assert_eq!(kinds, [0x10, 0x13, 0x14, 0x12, 0x11, 0x15, 0x16, 0x17, 0x18]);
}

/// The bytes of a message behind the header.
fn data(message: Message) -> Vec<u8> {
    message.emit(CONTEXT)[24..].to_vec()
}

// The places and widths are those of the tables of the specification.

#[test]
fn a_request_is_laid_out_as_the_specification_says() {
    let bytes = data(Message::Req(Box::new(req())));
    assert_eq!(bytes[..8], [1, 2, 3, 4, 0, 0x0a, 0x0b, 0x0c]);
    assert_eq!(bytes[8..16], [0, 0, 0, 0, 1, 6, 0x1d, 0x2f]);
    assert_eq!(bytes[16..24], [0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]);
    assert_eq!(bytes[24..32], [0; 8]);
    assert_eq!(bytes[32..40], [0x21, 0x22, 0x23, 0x24, 0, 0, 0, 0x25]);
    assert_eq!(bytes[40..48], [0, 0, 0, 20 << 3 | 1, 0x31, 0x32, 0x33, 19 << 3 | 7]);
    assert_eq!(bytes[48..52], [0xff, 0xff, 5 << 4 | 6, 15 << 4 | 1 << 3]);
    assert_eq!(bytes[52..56], [0xff; 4]);
    assert_eq!(bytes[56..72], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 7, 0, 1]);
    assert_eq!(bytes[72..88], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 7, 0, 2]);
    assert_eq!(bytes[88..96], [0x12, 0x34, 0x50, 7, 0x68, 64, 0, 17 << 3]);
    assert_eq!(bytes[96..140], [0; 44]);
    assert_eq!(bytes[140..], counted::<92>());
}

#[test]
fn a_reply_is_laid_out_as_the_specification_says() {
    let bytes = data(Message::Rep(Box::new(rep())));
    assert_eq!(bytes[..12], [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0]);
    assert_eq!(bytes[12..20], [0x21, 0x22, 0x23, 0x0a, 0, 0, 0, 0x0b]);
    assert_eq!(bytes[20..28], [0x31, 0x32, 0x33, 0x0c, 0x24, 0x25, 1, 6 << 5 | 1 << 4]);
    assert_eq!(bytes[28..36], [0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]);
    assert_eq!(bytes[36..], counted::<196>());
}

#[test]
fn other_messages_are_laid_out_as_the_specification_says() {
    let bytes = data(Message::Rej(Box::new(rej())));
    assert_eq!(bytes[8..12], [1 << 6, 8 << 1, 0, 28]);
    assert_eq!(bytes[12..20], [0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]);
    assert_eq!(bytes[20..84], [0; 64]);
    assert_eq!(bytes[84..], counted::<148>());
    let [.., mra, dreq, _, _, _] = all();
    assert_eq!(data(mra)[8..11], [1 << 6, 24 << 3, 0]);
    assert_eq!(data(dreq)[8..13], [0x21, 0x22, 0x23, 0, 0]);

    let bytes = data(Message::SidrReq(Box::new(sidr_req())));
    assert_eq!(bytes[..16], [1, 2, 3, 4, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 1, 0x11, 0x1d, 0x2f]);
    assert_eq!(bytes[16..], counted::<216>());
    let bytes = data(Message::SidrRep(Box::new(sidr_rep())));
    assert_eq!(bytes[..12], [1, 2, 3, 4, 2, 0, 0, 0, 0x21, 0x22, 0x23, 0]);
    assert_eq!(bytes[12..24], [0, 0, 0, 0, 1, 0x11, 0x1d, 0x2f, 1, 0x23, 0x45, 0x67]);
    assert_eq!(bytes[24..96], [0; 72]);
    assert_eq!(bytes[96..], counted::<136>());
}

#[test]
fn what_is_no_message_is_told_so() {
    let bytes = Message::Rtu(IDS).emit(CONTEXT);
    for len in [0, 23, 24, 255] {
        assert_eq!(Message::parse(&bytes[..len]), Err(ParseError::Len(len)));
    }
    assert_eq!(Message::parse(&[0; 257]), Err(ParseError::Len(257)));
    for place in 0..4 {
        let mut bytes = bytes.clone();
        bytes[place] ^= 0x10;
        assert!(matches!(Message::parse(&*bytes), Err(ParseError::Class { .. })), "{place}");
    }
    for attribute in [0x0f, 0x19, 0x1a, 0x1010] {
        let mut bytes = bytes.clone();
        bytes[16..18].copy_from_slice(&u16::to_be_bytes(attribute));
        assert_eq!(Message::parse(&*bytes), Err(ParseError::Attribute(attribute)));
    }
}
