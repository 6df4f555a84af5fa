//! What a process has of the RDMA devices, and dropping it in orders that are the same in each run.

use std::path::Path;
use std::process::Command;

use crate::device::is_soft;

/// A small generator of numbers that are the same in each run.
#[derive(Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// A generator whose numbers depend on the seed.
    pub fn seeded(seed: u64) -> Numbers {
        Numbers(seed)
    }

    /// A number below the limit.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % limit
    }

    /// Drops everything, in some order.
    pub fn drop_all<T>(&mut self, mut objects: Vec<T>) {
        while !objects.is_empty() {
            drop(objects.swap_remove(self.below(objects.len())));
        }
    }
}

/// How much this process has open: files of the RDMA devices and mappings of them; or, of the software device, which has none
/// of its own kind, descriptors of any kind, and threads.
pub fn open_device_files() -> usize {
    let entries = |path: &str| std::fs::read_dir(path).expect("no /proc");
    let files = entries("/proc/self/fd");
    if is_soft() {
        return files.count() + entries("/proc/self/task").count();
    }
    let is_device = |path: &Path| path.starts_with("/dev/infiniband");
    let links = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    let maps = std::fs::read_to_string("/proc/self/maps").expect("no /proc");
    let mappings = maps.lines().filter(|line| line.contains("/dev/infiniband"));
    links.filter(|link| is_device(link)).count() + mappings.count()
}

/// What the kernel's resource tracker has of this thread, without its contexts; `None` if there is no
/// `rdma` program to ask, or the kernel does not know of the device.
pub fn kernel_objects() -> Option<Vec<String>> {
    if is_soft() {
        return None;
    }
    // What the tracker calls a process is a thread.
    let thread = std::fs::read_link("/proc/thread-self").expect("no /proc");
    let id = thread.file_name().and_then(|id| id.to_str()).expect("a number");
    let pid = format!("\"pid\":{id},");
    let mut found = Vec::new();
    for kind in ["qp", "cq", "mr", "pd"] {
        let output = Command::new("rdma").args(["-j", "resource", "show", kind]).output().ok()?;
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("`rdma` writes ASCII");
        let objects = text.split('{').filter(|object| object.contains(&pid));
        found.extend(objects.map(|object| format!("{kind}: {object}")));
    }
    Some(found)
}

/// Sets how much of a resource the process may have, and returns how much that was.
#[track_caller]
pub fn limit_resource(resource: libc::__rlimit_resource_t, limit: libc::rlim_t) -> libc::rlim_t {
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: it points to a whole structure.
    assert_eq!(unsafe { libc::getrlimit(resource, &mut now) }, 0);
    let wanted = libc::rlimit { rlim_cur: limit, ..now };
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setrlimit(resource, &wanted) }, 0);
    now.rlim_cur
}
