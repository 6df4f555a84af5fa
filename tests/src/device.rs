//! The device that the tests run on.

use std::io::Write;
use std::sync::{Arc, Mutex, Once};

use ibverbs::{AccessFlags, Context, GidEntry, ProtectionDomain};

use crate::memory::Mem;

/// The port that the tests use.
pub const PORT: u8 = 1;

const VARIABLE: &str = "IBVERBS_TEST_DEVICE";

/// The name of the device that the tests must run on, if somebody promised one.
pub(crate) fn promised() -> Option<String> {
    let name = std::env::var_os(VARIABLE).filter(|name| !name.is_empty())?;
    Some(name.into_string().expect("IBVERBS_TEST_DEVICE is not UTF-8"))
}

/// Opens the device that the tests run on; `None` if there is none and none was promised.
pub fn test_context() -> Option<Context> {
    let devices = match ibverbs::devices() {
        Ok(devices) => devices,
        Err(error) if promised().is_none() => return skip(&error.to_string()),
        Err(error) => panic!("{VARIABLE} is set, but the devices cannot be listed: {error}"),
    };
    let device = match promised() {
        Some(name) => {
            let found = devices.iter().find(|device| device.name() == name);
            found.unwrap_or_else(|| panic!("{VARIABLE} is {name}, but the devices are {devices:?}"))
        }
        None => match devices.get(0) {
            Some(device) => device,
            None => return skip("there is no RDMA device"),
        },
    };
    Some(device.open().expect("the test device cannot be opened"))
}

fn skip(reason: &str) -> Option<Context> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        say_skipped(&format!(
            "{reason}: `cargo xtask test` runs these tests under a kernel with SoftRoCE"
        ));
    });
    None
}

/// Says that tests are skipped. The standard error is written directly: the test harness would keep what `eprintln!` prints
/// in a test that passes.
pub(crate) fn say_skipped(reason: &str) {
    // A closed standard error is no reason to fail.
    let _ = std::io::stderr().write_all(format!("SKIPPED: {reason}\n").as_bytes());
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
    /// Opens the test device; `None` if there is none and none was promised.
    pub fn new() -> Option<Bed> {
        test_context().map(Bed::on)
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

    /// Whether this is the kernel's software device, of which some tests know what it does not do as it should.
    pub fn is_softroce(&self) -> bool {
        const VENDOR: u32 = 0xff_ffff;
        self.ctx().query_device().expect("the device does not answer").vendor_id() == VENDOR
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
