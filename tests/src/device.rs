//! The device that the tests run on.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use ibverbs::soft::SoftDevices;
use ibverbs::{ffi, AccessFlags, Context, GidEntry, ProtectionDomain};

use crate::ability::Ability;
use crate::memory::Mem;

/// The port that the tests use.
pub const PORT: u8 = 1;

const VARIABLE: &str = "IBVERBS_TEST_DEVICE";

/// The name of the device that the tests must run on, if somebody promised one.
pub(crate) fn promised() -> Option<String> {
    let name = std::env::var_os(VARIABLE).filter(|name| !name.is_empty())?;
    Some(name.into_string().expect("IBVERBS_TEST_DEVICE is not UTF-8"))
}

/// Whether the software devices of this process are to be like those of EFA.
static WANTS_EFA: AtomicBool = AtomicBool::new(false);

/// Makes the software device the provider of this process, unless another device was promised. What opens a device does this
/// first; a test that calls another verb before has to.
pub fn choose_provider() {
    if promised().is_some() {
        return;
    }
    let mut devices = SoftDevices::new();
    if WANTS_EFA.load(Ordering::Relaxed) {
        devices = devices.set_efa(true);
    }
    if std::env::var_os("IBVERBS_SOFT_DEVICES").is_none() {
        // Some tests are about two devices.
        devices = devices.set_devices(2);
    }
    devices.install().expect("the software device cannot be had");
}

/// The bed of one of 16 software devices, so that each test can have one of its own; `None`, with a line that says so, if the tests
/// run on another device. It is for programs whose tests all begin with this.
#[track_caller]
pub fn soft_bed(number: usize) -> Option<Bed> {
    if promised().is_some() {
        say_skipped("this is about the software device");
        return None;
    }
    SoftDevices::new().set_devices(16).install().expect("the software devices cannot be had");
    let devices = ibverbs::devices().expect("the devices cannot be listed");
    let device = devices.get(number).expect("there are 16");
    Some(Bed::on(device.open().expect("the device cannot be opened")))
}

/// Opens the device that the tests run on.
#[track_caller]
pub fn test_context() -> Context {
    choose_provider();
    let devices = ibverbs::devices().expect("the devices cannot be listed");
    let device = match promised() {
        Some(name) => {
            let found = devices.iter().find(|device| device.name() == name);
            found.unwrap_or_else(|| panic!("{VARIABLE} is {name}, but the devices are {devices:?}"))
        }
        None => devices.get(0).expect("there is always a software device"),
    };
    device.open().expect("the test device cannot be opened")
}

/// Opens the device that the tests run on; `None`, with a line that says so, if it lacks one of these abilities.
#[track_caller]
pub fn test_context_with(abilities: impl IntoIterator<Item = Ability>) -> Option<Context> {
    let ctx = test_context();
    abilities.into_iter().all(|ability| ability.is_needed_of(&ctx)).then_some(ctx)
}

/// Says that tests are skipped, for a reason other than an [`Ability`]. The standard error is written directly: the test harness would keep what `eprintln!` prints
/// in a test that passes.
pub fn say_skipped(reason: &str) {
    // A closed standard error is no reason to fail.
    let _ = std::io::stderr().write_all(format!("SKIPPED: {reason}\n").as_bytes());
}

/// Whether there is another device beside that of the context.
pub(crate) fn has_second_device(context: &Context) -> bool {
    let devices = ibverbs::devices().expect("the devices were listed before");
    let is_another = |name: &str| name != context.device().name();
    (0..devices.len())
        .filter_map(|index| devices.get(index))
        .any(|device| is_another(device.name()))
}

/// A context whose objects must not be mixed with those of `context`: of another device if there is
/// one, or else a second one of the same.
pub fn other_context(context: &Context) -> Context {
    let devices = ibverbs::devices().expect("the devices were listed before");
    let name = context.device().name();
    let other = devices.iter().find(|device| device.name() != name);
    let device = other.or_else(|| devices.iter().find(|device| device.name() == name));
    device.expect("the test device is gone").open().expect("a second context cannot be opened")
}

/// Whether the devices are this package's, in the process.
pub fn is_soft() -> bool {
    ffi::provider::name() == "soft"
}

/// Whether this is the kernel's software device.
pub(crate) fn is_softroce(ctx: &Context) -> bool {
    const VENDOR: u32 = 0xff_ffff;
    !is_soft() && ctx.query_device().expect("the device does not answer").vendor_id() == VENDOR
}

/// An opened test device with a protection domain, and the memory that was registered through it.
///
/// Cloning gives a second handle. The memory stays registered until the last handle is gone, and every
/// [`Side`](crate::Side) has one.
#[derive(Clone, Debug)]
pub struct Bed {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    regions: Mutex<Vec<Mem>>,
    pd: ProtectionDomain,
    ctx: Context,
    gid: GidEntry,
}

impl Bed {
    /// Opens the test device.
    #[track_caller]
    #[allow(clippy::new_without_default)] // a device is not opened by default
    pub fn new() -> Bed {
        Bed::on(test_context())
    }

    /// Opens the test device; `None`, with a line that says so, if it lacks one of these abilities.
    #[track_caller]
    pub fn with(abilities: impl IntoIterator<Item = Ability>) -> Option<Bed> {
        test_context_with(abilities).map(Bed::on)
    }

    /// Opens the test device; `None`, with a line that says so, if it has this ability: for tests of what a device says that
    /// lacks it.
    #[track_caller]
    pub fn without(ability: Ability) -> Option<Bed> {
        let bed = Bed::new();
        ability.is_lacked_by(bed.ctx()).then_some(bed)
    }

    /// Opens the test device; `None`, with a line that says so, if connections cannot be made through librdmacm.
    #[track_caller]
    pub fn with_cm() -> Option<Bed> {
        Bed::with([Ability::ConnectionManager])
    }

    /// Opens the test device, which is like one of EFA if it is the software device; `None`, with a line that says so, if it has no scalable
    /// reliable datagrams. All tests of a process begin with this, or none does.
    #[track_caller]
    pub fn of_efa() -> Option<Bed> {
        WANTS_EFA.store(true, Ordering::Relaxed);
        Bed::with([Ability::Srd])
    }

    /// Starts with a context that is open already.
    pub fn on(ctx: Context) -> Bed {
        let pd = ctx.alloc_pd().expect("no protection domain");
        let gid = ctx.routable_gid(PORT).expect("the GIDs cannot be listed");
        let gid = gid.expect("the port has no GID to send from");
        Bed { inner: Arc::new(Inner { regions: Mutex::default(), pd, ctx, gid }) }
    }

    /// The context.
    pub fn ctx(&self) -> &Context {
        &self.inner.ctx
    }

    /// The protection domain.
    pub fn pd(&self) -> &ProtectionDomain {
        &self.inner.pd
    }

    /// The entry of the GID table that the tests send from.
    pub fn gid(&self) -> GidEntry {
        self.inner.gid
    }

    /// Its index.
    pub fn gid_index(&self) -> u8 {
        u8::try_from(self.inner.gid.index()).expect("a routable GID has a small index")
    }

    /// Whether the device can do this. A test that can do nothing without begins with [`Bed::with`].
    pub fn can(&self, ability: Ability) -> bool {
        ability.is_of(self.ctx())
    }

    /// Whether this is the kernel's software device, of which some tests know what it does not do as it should. What it
    /// does not do at all is an [`Ability`].
    pub fn is_softroce(&self) -> bool {
        is_softroce(self.ctx())
    }

    /// Memory with every right.
    pub fn mem(&self, len: usize) -> Mem {
        self.mem_with(len, AccessFlags::PERMISSIVE)
    }

    /// Memory with these rights.
    pub fn mem_with(&self, len: usize, access: AccessFlags) -> Mem {
        self.mem_of(self.pd(), len, access)
    }

    /// Memory of another protection domain of the same context.
    pub fn mem_of(&self, pd: &ProtectionDomain, len: usize, access: AccessFlags) -> Mem {
        let mem = Mem::new(pd.allocate(len, access).expect("memory cannot be registered"));
        self.inner.regions.lock().expect("no test panics with the lock").push(mem.clone());
        mem
    }
}
