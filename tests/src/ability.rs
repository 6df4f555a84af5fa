//! What a device can do, asked of the device itself. `abilities.md` lists what each one must be able to do.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use ibverbs::rdmacm::{CmId, EventChannel, Membership, Udp};
use ibverbs::{
    AccessFlags, AtomicCap, Context, DeviceCaps, Error, Gid, GidType, OdpGeneralCaps,
    ProtectionDomain, Rc, Transport, Uc, Ud, WcFields,
};

use crate::device::{has_second_device, is_soft, is_softroce, say_skipped, PORT};
use crate::link::Link;

/// The enumeration, the list of its values, and what the table calls them.
macro_rules! abilities {
    ($($(#[$doc:meta])* $ability:ident = $name:literal,)*) => {
        /// Something that one device can do and another cannot.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Ability {
            $($(#[$doc])* $ability,)*
        }

        impl Ability {
            /// All of them, in the order of the table.
            pub const ALL: &'static [Ability] = &[$(Ability::$ability),*];

            /// What the table calls it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Ability::$ability => $name,)*
                }
            }
        }
    };
}

abilities! {
    /// The kernel has it: there are files of it in `/sys` and `/dev`, and its objects are tracked.
    Kernel = "known to the kernel",
    /// Reliable connections.
    ReliableConnections = "reliable connections",
    /// Unreliable connections.
    UnreliableConnections = "unreliable connections",
    /// Datagrams.
    Datagrams = "datagrams",
    /// Multicast groups.
    Multicast = "multicast",
    /// Compare and swap, fetch and add.
    Atomics = "atomics",
    /// Writes of eight bytes at once.
    AtomicWrites = "atomic writes",
    /// Flushes to where everybody sees it.
    Flushes = "flushes",
    /// Shared receive queues.
    SharedReceiveQueues = "shared receive queues",
    /// Shared receive queues that change their size.
    SharedQueueResizing = "shared receive queues, resized",
    /// Memory windows of type 1.
    WindowsOfType1 = "memory windows of type 1",
    /// Memory windows of type 2.
    WindowsOfType2 = "memory windows of type 2",
    /// Memory whose pages come when they are needed.
    OnDemandPaging = "on-demand paging",
    /// Memory of other devices.
    DmaBufs = "dma-bufs",
    /// Memory on the device.
    DeviceMemory = "device memory",
    /// Completion queues that change their size.
    QueueResizing = "completion queues, resized",
    /// Events for several completions at once.
    Moderation = "moderation of completions",
    /// When a request has completed, by the device's clock.
    Timestamps = "timestamps of completions",
    /// When a request has completed, by the clock on the wall.
    WallClock = "wall-clock times of completions",
    /// A clock that can be read.
    DeviceClock = "a clock of the device",
    /// The port's speed, as it is in effect.
    PortSpeed = "the port's speed in effect",
    /// An address of IPv4.
    Ipv4 = "an address of IPv4",
    /// An address of IPv6 that is valid everywhere.
    GlobalIpv6 = "a global address of IPv6",
    /// An address of IPv6 that is valid on its link.
    LinkLocal = "a link-local address of IPv6",
    /// Another device beside it.
    TwoDevices = "a second device beside it",
    /// Another device beside it, whose port can be taken down.
    PortDown = "a second device whose port can be taken down",
    /// Connections through librdmacm.
    ConnectionManager = "the connection manager",
    /// Multicast groups that librdmacm joins.
    JoinedGroups = "multicast groups by the connection manager",
    /// Scalable reliable datagrams.
    Srd = "scalable reliable datagrams",
}

use Ability::*;

impl Ability {
    /// Asks a device whether it can do this.
    pub fn is_of(self, ctx: &Context) -> bool {
        let (attr, ex) = (|| ctx.query_device(), || ctx.query_device_ex());
        let caps = || ex().map(|ex| ex.capabilities());
        let answer = match self {
            Kernel => Ok(Path::new("/sys/class/infiniband").join(ctx.device().name()).exists()),
            ReliableConnections => builds::<Rc>(ctx),
            UnreliableConnections => builds::<Uc>(ctx),
            Datagrams => builds::<Ud>(ctx),
            Multicast => attr().map(|attr| attr.max_mcast_grp() > 0),
            Atomics => attr().map(|attr| attr.atomic_cap() != AtomicCap::NONE),
            AtomicWrites => caps().map(|caps| caps.contains(DeviceCaps::ATOMIC_WRITE)),
            Flushes => caps().map(|caps| caps.contains(DeviceCaps::FLUSH_GLOBAL)),
            SharedReceiveQueues => attr().map(|attr| attr.max_srq() > 0),
            SharedQueueResizing => is_supported(resize_srq(ctx)),
            WindowsOfType1 => caps().map(|caps| caps.contains(DeviceCaps::MEM_WINDOW)),
            WindowsOfType2 => caps().map(|caps| {
                let type_2 = DeviceCaps::MEM_WINDOW_TYPE_2A | DeviceCaps::MEM_WINDOW_TYPE_2B;
                caps.intersects(type_2)
            }),
            OnDemandPaging => {
                ex().map(|ex| ex.odp_caps().general.contains(OdpGeneralCaps::SUPPORT))
            }
            DmaBufs => takes_dmabufs(ctx),
            DeviceMemory => ex().map(|ex| ex.max_dm_size() > 0),
            QueueResizing => is_supported(resize_cq(ctx)),
            Moderation => ex().map(|ex| ex.cq_moderation_caps().is_some()),
            Timestamps => tells(ctx, WcFields::COMPLETION_TIMESTAMP),
            WallClock => tells(ctx, WcFields::COMPLETION_WALLCLOCK_NS),
            DeviceClock => is_supported(ctx.query_rt_values_ex()),
            PortSpeed => is_supported(ctx.query_port_speed(PORT)),
            Ipv4 => has_gid(ctx, Gid::is_ipv4_mapped),
            GlobalIpv6 => has_gid(ctx, |gid| {
                !gid.is_link_local() && !gid.is_loopback() && !gid.is_ipv4_mapped()
            }),
            LinkLocal => has_gid(ctx, |gid| gid.is_link_local() && !gid.is_ipv4_mapped()),
            TwoDevices => Ok(has_second_device(ctx)),
            PortDown => Ok(Link::is_beside(ctx)),
            ConnectionManager => Ok(EventChannel::create().is_ok()),
            JoinedGroups => is_supported(join(ctx)),
            Srd => is_supported(ctx.query_efa_device()),
        };
        answer.unwrap_or_else(|error| panic!("cannot ask the device about {self}: {error}"))
    }

    /// Whether the device can do this; if not, the test is skipped, with a line that says so.
    pub(crate) fn is_needed_of(self, ctx: &Context) -> bool {
        self.is_of(ctx) || self.skip(ctx, "does not have")
    }

    /// Whether the device cannot do this; if it can, the test is skipped, with a line that says so.
    pub(crate) fn is_lacked_by(self, ctx: &Context) -> bool {
        !self.is_of(ctx) || self.skip(ctx, "has")
    }

    /// Says once that tests are skipped.
    fn skip(self, ctx: &Context, has: &str) -> bool {
        static SAID: Mutex<BTreeSet<Ability>> = Mutex::new(BTreeSet::new());
        if SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(self) {
            let other = match is_soft() {
                true => ". `cargo xtask test` runs the tests under a kernel with SoftRoCE",
                false => "",
            };
            say_skipped(&format!("{} {has}: {self}{other}", ctx.device().name()));
        }
        false
    }
}

impl fmt::Display for Ability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What the table calls a device.
pub fn column(ctx: &Context) -> String {
    if is_soft() {
        return "soft".to_owned();
    }
    if is_softroce(ctx) {
        let (major, minor) = kernel_version();
        return format!("SoftRoCE, Linux {major}.{minor}");
    }
    let attr = ctx.query_device().expect("the device does not answer");
    format!("vendor {:#x}, part {:#x}", attr.vendor_id(), attr.vendor_part_id())
}

/// The kernel's version: its first two numbers.
pub fn kernel_version() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("no /proc");
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Whether what was tried is supported, if it is not known to have failed otherwise.
fn is_supported<T>(result: ibverbs::Result<T>) -> ibverbs::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(Error::Unsupported { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn builds<T: Transport>(ctx: &Context) -> ibverbs::Result<bool> {
    let cq = ctx.create_cq(1).build()?;
    let pd = ctx.alloc_pd()?;
    is_supported(pd.create_qp::<T>(&cq, &cq, PORT)?.build())
}

fn resize_srq(ctx: &Context) -> ibverbs::Result<()> {
    let mut srq = ctx.alloc_pd()?.create_srq(4).build()?;
    srq.resize(8)
}

fn resize_cq(ctx: &Context) -> ibverbs::Result<()> {
    let mut cq = ctx.create_cq(1).build()?;
    cq.resize(100)
}

fn tells(ctx: &Context, fields: WcFields) -> ibverbs::Result<bool> {
    is_supported(ctx.create_cq(1).set_wc_fields(fields).build())
}

/// Gives it a file that is none: whoever knows what a dma-buf is says so.
fn takes_dmabufs(ctx: &Context) -> ibverbs::Result<bool> {
    let file = File::open("/dev/zero").expect("every system has that");
    let pd: ProtectionDomain = ctx.alloc_pd()?;
    match pd.register_dmabuf(&file, 0, 4096, 0, AccessFlags::LOCAL_WRITE) {
        Err(Error::Register { .. }) => Ok(true),
        result => is_supported(result),
    }
}

/// Joins a group, and leaves it.
fn join(ctx: &Context) -> ibverbs::Result<()> {
    let table = ctx.gid_table()?;
    let mut addresses = table.iter().filter_map(|entry| entry.gid().to_ipv4_mapped());
    let mut id = CmId::create(Udp)?;
    let address = addresses.next().expect("an address of IPv4");
    id.bind_addr((address, 0).into())?;
    id.join_multicast("239.7.1.9:0".parse().expect("an address"), Membership::Full)
}

fn has_gid(ctx: &Context, fits: impl Fn(Gid) -> bool) -> ibverbs::Result<bool> {
    let table = ctx.gid_table()?;
    let here = table.iter().filter(|entry| entry.port() == PORT);
    Ok(here.filter(|entry| entry.gid_type() == GidType::ROCE_V2).any(|entry| fits(entry.gid())))
}
