//! The guest's first file system: kernel modules, busybox, and a script that mounts the host's files.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// What the guest runs first. Mounts the host's root, read-only, below a scratch overlay, and hands over to the script
/// of the run (see `guest.rs`) in there.
const INIT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
options=trans=virtio,version=9p2000.L,msize=512000
$b mount -t devtmpfs devtmpfs /dev
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
while read module; do $b insmod /modules/$module || echo "cannot load $module"; done < /modules.order
$b mount -t 9p -o ro,$options,cache=loose root /host
$b mount -t tmpfs -o mode=755 tmpfs /scratch
$b mkdir /scratch/upper /scratch/work
$b mount -t overlay -o lowerdir=/host,upperdir=/scratch/upper,workdir=/scratch/work overlay /new
for d in dev proc sys; do $b mount --move /$d /new/$d; done
$b mount -t tmpfs -o mode=755 tmpfs /new/run
$b mkdir /new/run/ibverbs-vm
$b mount -t 9p -o $options,cache=none control /new/run/ibverbs-vm
exec $b switch_root /new /bin/bash /run/ibverbs-vm/guest
"#;

/// A module that the guest loads at boot, in this order.
pub(crate) struct Module {
    /// Its file name, with the extension `.ko`.
    pub(crate) name: String,
    /// Its bytes, unpacked.
    pub(crate) bytes: Vec<u8>,
}

/// Writes the archive.
pub(crate) fn write(to: &Path, busybox: &Path, modules: &[Module]) -> Result<()> {
    let mut archive = Archive::default();
    for folder in ["bin", "proc", "sys", "dev", "host", "scratch", "new", "modules"] {
        archive.folder(folder);
    }
    let busybox =
        fs::read(busybox).with_context(|| format!("cannot read {}", busybox.display()))?;
    archive.file("bin/busybox", 0o755, &busybox);
    archive.file("init", 0o755, INIT.as_bytes());
    let order: String = modules.iter().map(|module| format!("{}\n", module.name)).collect();
    archive.file("modules.order", 0o644, order.as_bytes());
    for module in modules {
        archive.file(&format!("modules/{}", module.name), 0o644, &module.bytes);
    }
    fs::write(to, archive.finish()).with_context(|| format!("cannot write {}", to.display()))
}

/// A cpio archive in the `newc` format, the one that the kernel unpacks
/// (`Documentation/driver-api/early-userspace/buffer-format.rst`).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: usize,
}

impl Archive {
    fn folder(&mut self, name: &str) {
        self.entry(name, 0o040_755, &[]);
    }

    fn file(&mut self, name: &str, mode: usize, content: &[u8]) {
        self.entry(name, 0o100_000 | mode, content);
    }

    fn entry(&mut self, name: &str, mode: usize, content: &[u8]) {
        self.entries += 1;
        let links = 1;
        // inode, mode, uid, gid, links, time, size, device and its minor, special device and its minor, name, checksum
        let fields =
            [self.entries, mode, 0, 0, links, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_laid_out_as_the_format_says() {
        let mut archive = Archive::default();
        archive.folder("bin");
        archive.file("bin/x", 0o755, b"hello");
        let bytes = archive.finish();
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.starts_with("07070100000001000041ED"), "{text:?}");
        // 110 bytes of header, a name with its 0, and padding to 4.
        let second = 110 + 4 + 2;
        assert_eq!(&text[second..second + 6], "070701");
        assert_eq!(&text[second + 14..second + 22], "000081ED");
        assert_eq!(&text[second + 54..second + 62], "00000005");
        assert_eq!(&text[second + 110..second + 116], "bin/x\0");
        assert_eq!(&text[second + 116..second + 124], "hello\0\0\0");
        assert!(text.contains("TRAILER!!!"));
        assert_eq!(bytes.len() % 4, 0);
    }
}
