//! Kernels for the guest: which one, from which archive, and everything that QEMU needs of it, in the cache.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};

use super::archive::Distribution;
use super::initrd::{self, Module};
use super::release::{newest, Release};
use super::vmlinux;
use crate::apt::PrivateApt;
use crate::cache::Cache;
use crate::host::{self, Need};
use crate::process;
use crate::progress::{say, step};

/// Changes with what a prepared kernel consists of, so that an older cache is not taken for a current one.
const FORMAT: &str = "kernels-1";

/// What preparing a kernel takes.
const NEEDS: [Need; 4] = [
    Need::executable("dpkg-deb", "dpkg"),
    Need::executable("depmod", "kmod"),
    Need::executable("xz", "xz-utils"),
    Need::executable("zstd", "zstd"),
];

/// Modules that the guest cannot do without; what they depend on comes with them.
const MODULES: [&str; 7] =
    ["virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay", "dummy", "rdma_rxe"];
/// Modules that are nice to have, or that only some kernels have: the connection manager's device, and the checksum that
/// older SoftRoCE asks the crypto layer for without depending on its module.
const OPTIONAL_MODULES: [&str; 2] = ["rdma_ucm", "crc32_generic"];

/// Drivers that are kept for the guest to load by itself; hardware it cannot have is dropped.
const KEPT_DRIVERS: [&str; 15] = [
    "infiniband/core",
    "infiniband/sw",
    "net/bonding",
    "net/dummy",
    "net/ifb",
    "net/macvlan",
    "net/net_failover",
    "net/tun",
    "net/veth",
    "net/virtio_net",
    "net/vrf",
    "net/vxlan",
    "virtio",
    "char/virtio_console",
    "block/loop",
];

/// A kernel in the cache, ready to boot.
pub(crate) struct Kernel {
    pub(crate) release: Release,
    folder: PathBuf,
}

impl Kernel {
    fn in_folder(folder: PathBuf) -> Option<Self> {
        let release = Release::new(folder.file_name()?.to_str()?);
        Some(Self { release, folder })
    }

    /// The uncompressed kernel.
    pub(crate) fn image(&self) -> PathBuf {
        self.folder.join("vmlinux")
    }

    pub(crate) fn initrd(&self) -> PathBuf {
        self.folder.join("initrd")
    }

    /// What `/lib/modules/RELEASE` should lead to.
    pub(crate) fn modules(&self) -> PathBuf {
        modules_folder(&self.folder, &self.release)
    }
}

fn modules_folder(below: &Path, release: &Release) -> PathBuf {
    below.join("usr/lib/modules").join(release.name())
}

/// Takes a kernel that matches from the cache, or downloads and prepares one.
pub(crate) fn prepare(wanted: Option<&str>) -> Result<Kernel> {
    let distribution = Distribution::of_this_machine()?;
    let wanted = wanted.or(distribution.default_kernel());
    let cache = Cache::open()?;
    let kernels = cache.folder().join(FORMAT);
    let _guard = cache.lock()?;
    if let Some(kernel) = cached(&kernels, wanted) {
        return Ok(kernel);
    }
    host::need(&NEEDS)?;
    fs::create_dir_all(&kernels).with_context(|| format!("cannot create {}", kernels.display()))?;
    let apt = PrivateApt::new(&cache.folder().join("apt"), &distribution.sources())?;
    let (release, packages) = choose(&apt, &distribution, wanted)?;
    let scratch = tempfile::Builder::new().prefix(".scratch-").tempdir_in(&kernels)?;
    let unpacked = scratch.path().join("unpacked");
    step(&format!("downloading Linux {}", release.name()), || {
        download(&apt, &packages, scratch.path(), &unpacked)
    })?;
    let ready = scratch.path().join("ready");
    step(&format!("preparing Linux {} for the guest", release.name()), || {
        assemble(&unpacked, &release, &ready)
    })?;
    let folder = kernels.join(release.name());
    fs::rename(&ready, &folder)
        .with_context(|| format!("cannot rename {} into the cache", ready.display()))?;
    Ok(Kernel { release, folder })
}

/// The newest prepared kernel that matches.
fn cached(kernels: &Path, wanted: Option<&str>) -> Option<Kernel> {
    let ready: Vec<Kernel> = fs::read_dir(kernels)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|folder| {
            folder.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b"."))
        })
        .filter_map(Kernel::in_folder)
        .collect();
    let chosen = newest(ready.iter().map(|kernel| kernel.release.clone()), wanted)?;
    ready.into_iter().find(|kernel| kernel.release == chosen)
}

/// The newest kernel of the archive that matches, and the packages that it consists of.
fn choose(
    apt: &PrivateApt,
    distribution: &Distribution,
    wanted: Option<&str>,
) -> Result<(Release, Vec<String>)> {
    let complaints = step("fetching the package lists", || apt.update())?;
    let names = apt.output("apt-cache", &["pkgnames", "linux-"])?;
    let known: Vec<&str> = names.lines().collect();
    let flavour = distribution.flavour();
    let releases: Vec<Release> =
        known.iter().filter_map(|package| Release::of_package(package, flavour)).collect();
    let Some(release) = newest(releases.iter().cloned(), wanted) else {
        let mut offered: Vec<&str> = releases.iter().map(Release::name).collect();
        offered.sort_unstable();
        bail!(
            "no kernel {} in {}; it has: {}\n{complaints}",
            wanted.unwrap_or("at all"),
            distribution.name(),
            if offered.is_empty() { "none".into() } else { offered.join(", ") },
        );
    };
    let packages = ["image", "binary", "modules", "modules-extra", "base"]
        .map(|part| format!("linux-{part}-{}", release.name()))
        .into_iter()
        .filter(|package| known.contains(&package.as_str()))
        .chain(["busybox-static".into()])
        .collect();
    Ok((release, packages))
}

/// Downloads the packages and unpacks them, all into one folder.
fn download(apt: &PrivateApt, packages: &[String], scratch: &Path, unpacked: &Path) -> Result<()> {
    let mut arguments = vec!["download"];
    arguments.extend(packages.iter().map(String::as_str));
    apt.output_in(scratch, "apt-get", &arguments)?;
    for entry in fs::read_dir(scratch)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            process::run(host::command("dpkg-deb").arg("-x").arg(&file).arg(unpacked))?;
        }
    }
    Ok(())
}

/// Makes out of the unpacked packages what a guest needs.
fn assemble(unpacked: &Path, release: &Release, ready: &Path) -> Result<()> {
    let first = |candidates: &[String]| -> Result<PathBuf> {
        let found = candidates.iter().map(|name| unpacked.join(name)).find(|path| path.exists());
        found.with_context(|| {
            format!("the packages of Linux {} hold no {}", release.name(), candidates.join(" or "))
        })
    };
    let name = release.name();
    let tree = first(&[format!("usr/lib/modules/{name}"), format!("lib/modules/{name}")])?;
    let image = first(&[
        format!("boot/vmlinuz-{name}"),
        format!("usr/lib/modules/{name}/vmlinuz"),
        format!("lib/modules/{name}/vmlinuz"),
    ])?;
    let busybox = first(&["bin/busybox".into(), "usr/bin/busybox".into()])?;

    fs::create_dir_all(ready)?;
    vmlinux::unpack(&image, &ready.join("vmlinux"))?;
    drop_hardware(&tree.join("kernel"))?;
    let modules = modules_folder(ready, release);
    fs::create_dir_all(modules.parent().context("the modules are in a folder")?)?;
    fs::rename(&tree, &modules)?;
    // Programs that handle modules look below /lib/modules or /usr/lib/modules, depending on their age.
    std::os::unix::fs::symlink("usr/lib", ready.join("lib"))?;
    process::run(host::command("depmod").arg("-b").arg(ready).arg(name))?;
    initrd::write(&ready.join("initrd"), &busybox, &boot_modules(ready, name)?)
}

/// Removes what drives hardware that a guest cannot have: most of the modules.
fn drop_hardware(kernel: &Path) -> Result<()> {
    let drivers = kernel.join("drivers");
    let kept: Vec<PathBuf> = KEPT_DRIVERS.iter().map(|name| drivers.join(name)).collect();
    prune(&drivers, &kept)?;
    prune(&kernel.join("sound"), &[])
}

/// Removes all files below a folder but those whose path, without extensions, is or is below one that is kept.
fn prune(folder: &Path, kept: &[PathBuf]) -> Result<()> {
    let Ok(list) = fs::read_dir(folder) else { return Ok(()) };
    for entry in list {
        let path = entry?.path();
        let is_kept = kept.iter().any(|kept| path.with_file_name(stem(&path)).starts_with(kept));
        if path.is_dir() && !is_kept {
            prune(&path, kept)?;
        } else if !is_kept {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// A module's name without what says how it is stored: `dummy` of `dummy.ko.xz`.
fn stem(path: &Path) -> &str {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.split('.').next().unwrap_or_default()
}

/// The modules for the initrd, each after those it depends on.
fn boot_modules(root: &Path, release: &str) -> Result<Vec<Module>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for (names, required) in [(&MODULES[..], true), (&OPTIONAL_MODULES[..], false)] {
        for name in names {
            let mut modprobe = host::command("modprobe");
            modprobe.arg("-d").arg(root).args(["-S", release, "--show-depends", name]);
            let listed = match process::output(&mut modprobe) {
                Ok(listed) => listed,
                Err(error) if required => {
                    return Err(error)
                        .with_context(|| format!("Linux {release} has no module {name}"));
                }
                Err(_) => {
                    say(format_args!("Linux {release} has no module {name}: going on without"));
                    continue;
                }
            };
            for file in module_files(&listed) {
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
    }
    files.iter().map(|file| read_module(file)).collect()
}

/// The files out of what `modprobe --show-depends` lists: `insmod FILE OPTIONS` and `builtin NAME` lines.
fn module_files(listed: &str) -> Vec<PathBuf> {
    let insmod = listed.lines().filter_map(|line| line.strip_prefix("insmod "));
    insmod.filter_map(|rest| rest.split_whitespace().next()).map(PathBuf::from).collect()
}

/// Reads a module, unpacked: the guest's busybox loads no others.
fn read_module(file: &Path) -> Result<Module> {
    let program = match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => "cat",
    };
    let mut unpack = host::command(program);
    if program != "cat" {
        unpack.arg("-dcq");
    }
    let result = process::complete(unpack.arg(file))?;
    if !result.status.success() {
        bail!("cannot unpack {}: {}", file.display(), process::tail(&result.stderr));
    }
    Ok(Module { name: format!("{}.ko", stem(file)), bytes: result.stdout })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_modprobe_lists() {
        let listed =
            "builtin virtio\ninsmod /m/kernel/a.ko.xz \ninsmod /m/kernel/b.ko numdummies=0\n";
        assert_eq!(
            module_files(listed),
            ["/m/kernel/a.ko.xz", "/m/kernel/b.ko"].map(PathBuf::from)
        );
    }

    #[test]
    fn only_kept_drivers_stay() {
        let tree = tempfile::tempdir().unwrap();
        let drivers = tree.path().join("drivers");
        for file in [
            "net/dummy.ko.xz",
            "net/dummy_other.ko",
            "net/e1000/e1000.ko",
            "infiniband/sw/rxe/rdma_rxe.ko",
            "virtio/v.ko",
        ] {
            let path = drivers.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        drop_hardware(tree.path()).unwrap();
        assert!(drivers.join("net/dummy.ko.xz").exists());
        assert!(drivers.join("infiniband/sw/rxe/rdma_rxe.ko").exists());
        assert!(drivers.join("virtio/v.ko").exists());
        assert!(!drivers.join("net/dummy_other.ko").exists());
        assert!(!drivers.join("net/e1000/e1000.ko").exists());
    }

    #[test]
    fn the_newest_cached_kernel_is_taken() {
        let kernels = tempfile::tempdir().unwrap();
        for name in ["6.1.0-9-amd64", "6.1.0-37-amd64", ".scratch-6.1.99"] {
            fs::create_dir(kernels.path().join(name)).unwrap();
        }
        let pick =
            |wanted| cached(kernels.path(), wanted).map(|kernel| kernel.release.name().to_owned());
        assert_eq!(pick(Some("6.1")).unwrap(), "6.1.0-37-amd64");
        assert_eq!(pick(Some("6.12")), None);
        assert!(cached(&kernels.path().join("missing"), None).is_none());
    }

    #[test]
    fn modules_are_read_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("a_b.ko");
        fs::write(&plain, "module").unwrap();
        let module = read_module(&plain).unwrap();
        assert_eq!((module.name.as_str(), module.bytes.as_slice()), ("a_b.ko", &b"module"[..]));
    }
}
