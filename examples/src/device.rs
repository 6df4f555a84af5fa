//! How a device is chosen.

use std::fmt::{self, Display};

use anyhow::{bail, Context as _, Result};
use ibverbs::{
    CompletionQueue, Context, Device, DeviceList, GidEntry, PortState, ProtectionDomain, QueuePair,
    Rc,
};

/// The options that choose a device, a port and an address.
#[derive(clap::Args)]
pub struct Local {
    /// Device to use, such as mlx5_0, rxe0 or soft0 [default: the first one]
    #[arg(short, long)]
    device: Option<String>,

    /// Port of the device, counted from 1
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    port: u8,

    /// Entry of the port's GID table [default: the one that reaches furthest]
    #[arg(short, long)]
    gid_index: Option<u8>,
}

/// What [`Local`] chose.
#[derive(Clone)]
pub struct Opened {
    /// The opened device.
    pub context: Context,
    /// The port, which is active.
    pub port: u8,
    /// Where the port's address stands in its GID table.
    pub gid_index: u8,
    gid: GidEntry,
}

impl Local {
    /// Opens what the options name. What they leave open becomes the first device and the GID that
    /// reaches furthest.
    pub fn open(&self) -> Result<Opened> {
        let devices = devices()?;
        let context = find(&devices, self.device.as_deref())?.open()?;
        let (name, port) = (context.device().name().to_owned(), self.port);
        let state = context.query_port(port)?.state();
        if state != PortState::ACTIVE {
            bail!("port {port} of {name} is {state}: plug in its cable or set its interface up");
        }
        let gid = self.choose_gid(&context)?;
        Ok(Opened { port, gid_index: gid.index().try_into()?, gid, context })
    }

    fn choose_gid(&self, context: &Context) -> Result<GidEntry> {
        let port = self.port;
        let Some(index) = self.gid_index else {
            return context.routable_gid(port)?.with_context(|| {
                format!("port {port} has no GID to send from: give its interface an IP address")
            });
        };
        let mut entries = context.gid_table()?.into_iter();
        entries.find(|entry| entry.port() == port && entry.index() == index.into()).with_context(
            || format!("port {port} has no GID at index {index}: the example devinfo lists them"),
        )
    }
}

/// How many requests fit into each queue of a [`pair`](Opened::pair).
const PLACES: u32 = 64;

impl Opened {
    /// Two queue pairs of this process that are connected to each other, with a completion queue each. 64
    /// requests fit into each queue of theirs.
    pub fn pair(&self, pd: &ProtectionDomain) -> Result<[(QueuePair<Rc>, CompletionQueue); 2]> {
        let prepare = || -> Result<_> {
            let cq = self.context.create_cq(2 * PLACES).build()?;
            let qp = pd
                .create_qp(&cq, &cq, self.port)?
                .set_gid_index(self.gid_index)
                .set_max_send_wr(PLACES)
                .set_max_recv_wr(PLACES)
                .build()?;
            Ok((qp, cq))
        };
        let ((a, cq_a), (b, cq_b)) = (prepare()?, prepare()?);
        let (of_a, of_b) = (a.endpoint()?, b.endpoint()?);
        Ok([(a.handshake(of_b)?, cq_a), (b.handshake(of_a)?, cq_b)])
    }
}

impl Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (device, port, index) = (self.context.device(), self.port, self.gid_index);
        let (gid, gid_type) = (self.gid.gid(), self.gid.gid_type());
        write!(f, "{} port {port}, GID index {index}: {gid} ({gid_type})", device.name())
    }
}

/// The variable that says whose devices these are.
const PROVIDER: &str = "IBVERBS_PROVIDER";

/// Takes the software device if this machine has no other, and nobody has said what to take; and says so.
pub(crate) fn choose_provider() -> Result<()> {
    let is_chosen = std::env::var_os(PROVIDER).is_some_and(|name| !name.is_empty());
    if !is_chosen && !has_rdma_device() {
        ibverbs::soft::install()?;
        eprintln!(
            "this machine has no RDMA device: this is the software device ({PROVIDER}=native keeps it away)"
        );
    }
    Ok(())
}

/// The devices: those of this machine, or without any the software device, which is said then.
pub fn devices() -> Result<DeviceList> {
    choose_provider()?;
    let devices = ibverbs::devices()?;
    if devices.is_empty() {
        bail!(
            "this machine has no RDMA device.\n\n\
             With an RDMA adapter: load its kernel driver, and install its user-space driver, which\n\
             Debian and Ubuntu have in the package ibverbs-providers.\n\n\
             Without one, make a software device of the kernel's (SoftRoCE) of a network interface, here\n\
             eth0:\n\n    \
             sudo modprobe rdma_rxe\n    \
             sudo rdma link add rxe0 type rxe netdev eth0\n\n\
             Or let this process have one of its own, with {PROVIDER}=soft in the environment."
        );
    }
    Ok(devices)
}

/// Whether the kernel has an RDMA device. Verbs cannot be asked: the first one would choose who answers, for good.
fn has_rdma_device() -> bool {
    let devices = std::fs::read_dir("/sys/class/infiniband");
    devices.is_ok_and(|mut devices| devices.next().is_some())
}

/// The device of this name, or without a name the first one.
pub fn find<'l>(devices: &'l DeviceList, name: Option<&str>) -> Result<Device<'l>> {
    let mut all = devices.iter();
    let found = match name {
        None => all.next(),
        Some(name) => all.find(|device| device.name() == name),
    };
    found.with_context(|| {
        let names: Vec<_> = devices.iter().map(|device| device.name()).collect();
        format!("there is no device {}; there are: {}", name.unwrap_or_default(), names.join(", "))
    })
}
