//! What is called. Objects are named by their place among those that there are.

use libfuzzer_sys::arbitrary::{self, Arbitrary};

/// One of the objects of a kind.
pub type Place = u8;

#[derive(Debug, Arbitrary)]
pub struct Input {
    pub start: Start,
    pub calls: Vec<Call>,
}

/// What there is at the beginning.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Start {
    /// Two queue pairs of a service that are connected, with memory, and a queue that can be polled either way.
    Connected {
        service: u8,
        signal_all: bool,
        times: [u8; 4],
    },
    Nothing,
}

impl Start {
    pub fn calls(self) -> Vec<Call> {
        let Start::Connected { service, signal_all, times } = self else { return Vec::new() };
        let qp = || NewQp {
            send_cq: Some(0),
            recv_cq: Some(0),
            srq: None,
            depths: [16; 2],
            entries: [4; 2],
            inline: 64,
            service,
            signal_all,
            odd: None,
            extended: true,
            operations: 0,
        };
        let (fields, odd) = (0x7f, None);
        let way = Way::Here { context: 0, numbers: [0, 64], flow_label: 0 };
        vec![
            Call::Open { device: false },
            Call::AllocPd { context: 0 },
            Call::RegMr {
                pd: 0,
                range: Range::Memory { start: 0, len: u16::MAX },
                iova: None,
                access: Access(None),
            },
            Call::CreateChannel { context: 0 },
            Call::CreateCqEx {
                context: 0,
                entries: Size::Middle(100),
                channel: Some(0),
                fields,
                odd,
            },
            Call::CreateQp { pd: 0, qp: qp() },
            Call::CreateQp { pd: 0, qp: qp() },
            Call::CreateAh { pd: 0, way },
            Call::Connect { qp: 0, peer: 1, access: 0, times, drained: false },
            Call::Connect { qp: 1, peer: 0, access: 0, times, drained: false },
        ]
    }
}

#[derive(Debug, Arbitrary)]
pub enum Call {
    Open {
        device: bool,
    },
    AllocPd {
        context: Place,
    },
    RegMr {
        pd: Place,
        range: Range,
        iova: Option<u32>,
        access: Access,
    },
    AllocMw {
        pd: Place,
        two: bool,
    },
    BindMw {
        qp: Place,
        bind: NewBind,
        flags: u8,
    },
    CreateChannel {
        context: Place,
    },
    CreateCq {
        context: Place,
        entries: Size,
        channel: Option<Place>,
        vector: i8,
    },
    CreateCqEx {
        context: Place,
        entries: Size,
        channel: Option<Place>,
        fields: u16,
        odd: Option<[u32; 2]>,
    },
    ResizeCq {
        cq: Place,
        entries: Size,
    },
    CreateSrq {
        pd: Place,
        depth: Size,
        entries: Size,
        limit: u8,
    },
    ModifySrq {
        srq: Place,
        depth: Size,
        limit: u8,
        mask: u8,
    },
    CreateQp {
        pd: Place,
        qp: NewQp,
    },
    CreateAh {
        pd: Place,
        way: Way,
    },
    Connect {
        qp: Place,
        peer: Place,
        access: u8,
        times: [u8; 4],
        drained: bool,
    },
    Modify {
        qp: Place,
        state: u8,
        mask: u32,
        values: Values,
    },
    Fail {
        qp: Place,
    },
    Reset {
        qp: Place,
    },
    Query {
        kind: u8,
        place: Place,
        number: u32,
    },
    PostSend {
        qp: Place,
        requests: Vec<Send>,
    },
    Batch {
        qp: Place,
        steps: Vec<Step>,
        abort: bool,
    },
    PostRecv {
        qp: Place,
        requests: Vec<Vec<Entry>>,
    },
    PostSrqRecv {
        srq: Place,
        requests: Vec<Vec<Entry>>,
    },
    Poll {
        cq: Place,
        count: u8,
    },
    PollEx {
        cq: Place,
        count: u8,
    },
    Arm {
        cq: Place,
        solicited: bool,
    },
    TakeCqEvent {
        channel: Place,
    },
    TakeAsyncEvent {
        context: Place,
    },
    Destroy {
        kind: Kind,
        place: Place,
    },
    Pause,
}

#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Kind {
    Qp,
    Srq,
    Cq,
    Channel,
    Ah,
    Mw,
    Mr,
    Pd,
    Context,
}

/// A number, most of them small.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Size {
    Small(u8),
    Middle(u16),
    Any(u32),
}

impl Size {
    pub fn get(self) -> u32 {
        match self {
            Size::Small(number) => u32::from(number) % 40,
            Size::Middle(number) => number.into(),
            Size::Any(number) => number,
        }
    }
}

/// A piece of the memory that may be registered, or what is not memory.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Range {
    Memory {
        start: u16,
        len: u16,
    },
    /// Into the unmapped page in front, or behind.
    Beyond {
        front: bool,
        len: u16,
    },
    Wraps {
        len: u16,
    },
}

/// Most regions allow everything.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub struct Access(Option<u32>);

impl Access {
    pub fn get(self) -> u32 {
        // Those of `ibv_reg_mr` that it does not refuse, and that windows may be bound.
        self.0.unwrap_or(0x1f)
    }
}

#[derive(Debug, Arbitrary)]
pub struct NewQp {
    pub send_cq: Option<Place>,
    pub recv_cq: Option<Place>,
    pub srq: Option<Place>,
    pub depths: [u8; 2],
    pub entries: [u8; 2],
    pub inline: u8,
    /// RC, UC, UD, or any other number.
    pub service: u8,
    pub signal_all: bool,
    pub odd: Option<Odd>,
    pub extended: bool,
    pub operations: u16,
}

/// What no queue pair can be made with.
#[derive(Debug, Arbitrary)]
pub struct Odd {
    pub mask: u32,
    pub flags: u32,
    pub sizes: [u32; 5],
}

#[derive(Debug, Arbitrary)]
pub enum Way {
    /// To the device itself.
    Here { context: Place, numbers: [u8; 2], flow_label: u32 },
    /// To anywhere.
    Any { gid: [u8; 16], index: u8, global: u8, port: u8, lid: u16 },
    /// To where a completion came from, so it is said.
    Back { header: [[u8; 20]; 2], flags: u8, port: u8 },
}

/// Attributes of a queue pair, right or wrong.
#[derive(Debug, Arbitrary)]
pub struct Values {
    pub current: u8,
    pub mtu: u8,
    pub migration: u8,
    pub numbers: [u32; 4],
    pub access: u32,
    pub way: Way,
    pub bytes: [u8; 8],
    pub pkey_index: u16,
}

/// A scatter entry in the memory, with the key of a region or another one.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub struct Entry {
    pub key: Key,
    pub offset: u16,
    pub len: Size,
}

#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Key {
    /// The address is meant from the region's beginning.
    Of(Place),
    /// The key of a window; the address is meant from the beginning of the memory.
    OfWindow(Place),
    Any(u32),
}

#[derive(Debug, Arbitrary)]
pub struct Send {
    pub opcode: u8,
    pub flags: u8,
    pub imm: u32,
    pub entries: Vec<Entry>,
    pub target: Target,
    /// A count of entries that cannot be.
    pub negative: bool,
}

/// What a request is about at the peer.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub struct Target {
    pub memory: Entry,
    pub values: [u64; 2],
    pub bind: Option<NewBind>,
    pub ah: Place,
    pub qp: Place,
    pub qkey: Option<u32>,
}

/// What is called between `ibv_wr_start` and `ibv_wr_complete`, in any order.
#[derive(Debug, Arbitrary)]
pub enum Step {
    Begin { operation: u8, flags: u8, imm: u32, target: Target },
    Address(Target),
    Entry(Entry),
    Entries(Vec<Entry>),
    Inline { offset: u16, len: u16 },
    Inlines(Vec<(u16, u16)>),
    BindMw { bind: NewBind, flags: u8 },
}

/// What a window is bound to.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub struct NewBind {
    pub window: Place,
    /// Of which region, if of one.
    pub region: Option<Place>,
    pub offset: u16,
    pub len: u16,
    pub access: Option<u32>,
}
