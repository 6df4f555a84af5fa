//! Unpacking a kernel image, so that the guest need not: without KVM that takes it seconds.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;

use anyhow::{bail, Context, Result};

use crate::host;

/// Unpacks the ELF kernel out of a bzImage.
pub(crate) fn unpack(image: &Path, vmlinux: &Path) -> Result<()> {
    let bytes = fs::read(image).with_context(|| format!("cannot read {}", image.display()))?;
    let payload = Payload::find(&bytes)
        .with_context(|| format!("{} is not a kernel image", image.display()))?;
    let compressed = vmlinux.with_extension("compressed");
    fs::write(&compressed, payload.bytes)?;
    // The exit status says nothing: behind the compressed kernel stand four bytes (its size), and some of the programs
    // call that garbage. Whether a kernel came out is looked at instead.
    host::command(payload.program[0])
        .args(&payload.program[1..])
        .stdin(File::open(&compressed)?)
        .stdout(File::create(vmlinux)?)
        .stderr(Stdio::null())
        .status()
        .with_context(|| format!("cannot run {}", payload.program[0]))?;
    fs::remove_file(&compressed)?;
    if !fs::read(vmlinux)?.starts_with(b"\x7fELF") {
        bail!("{} did not unpack the kernel in {}", payload.program[0], image.display());
    }
    Ok(())
}

/// The compressed kernel inside an image, and the program that unpacks it.
#[derive(Debug, PartialEq, Eq)]
struct Payload<'a> {
    bytes: &'a [u8],
    program: &'static [&'static str],
}

impl<'a> Payload<'a> {
    /// Follows the header described in the kernel's `Documentation/arch/x86/boot.rst`.
    fn find(image: &'a [u8]) -> Result<Self> {
        if image.get(0x202..0x206) != Some(b"HdrS") {
            bail!("no boot header");
        }
        let word = |at: usize| -> Result<usize> {
            let bytes = image.get(at..at + 4).context("the boot header is cut off")?;
            Ok(u32::from_le_bytes(bytes.try_into()?) as usize)
        };
        // A count of 0 means 4, for images older than the field.
        let setup_sectors = match image[0x1F1] {
            0 => 4,
            count => usize::from(count),
        };
        let start = (setup_sectors + 1) * 512 + word(0x248)?;
        let bytes = image.get(start..start + word(0x24C)?).context("the image is cut off")?;
        let without_size = &bytes[..bytes.len().saturating_sub(4)];
        let (bytes, program): (_, &[&str]) = match bytes {
            [0xFD, b'7', b'z', ..] => (bytes, &["xz", "-dc", "--single-stream"]),
            [0x28, 0xB5, 0x2F, ..] => (without_size, &["zstd", "-dc"]),
            [0x1F, 0x8B, ..] => (bytes, &["gzip", "-dc"]),
            [0x02, 0x21, 0x4C, 0x18, ..] => (without_size, &["lz4", "-dc"]),
            _ => bail!(
                "compressed in a way that is not known here: {:02x?}",
                &bytes[..bytes.len().min(4)]
            ),
        };
        Ok(Self { bytes, program })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(setup_sectors: u8, payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 512 * 6 + 16];
        image[0x1F1] = setup_sectors;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24C].copy_from_slice(&16u32.to_le_bytes());
        image[0x24C..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.truncate(
            if setup_sectors == 0 { 512 * 5 } else { (usize::from(setup_sectors) + 1) * 512 } + 16,
        );
        image.extend(payload);
        image
    }

    #[test]
    fn the_payload_is_found_by_the_header() {
        let image_5 = image(5, b"\xFD7zXZ and SIZE");
        let found = Payload::find(&image_5).unwrap();
        assert_eq!((found.bytes, found.program[0]), (&b"\xFD7zXZ and SIZE"[..], "xz"));
        let image_0 = image(0, b"\x28\xB5\x2F\xFDdataSIZE");
        let found = Payload::find(&image_0).unwrap();
        assert_eq!((found.bytes, found.program[0]), (&b"\x28\xB5\x2F\xFDdata"[..], "zstd"));
    }

    #[test]
    fn what_is_no_image_is_an_error() {
        let error = |image: &[u8]| Payload::find(image).unwrap_err().to_string();
        assert_eq!(error(b"short"), "no boot header");
        let mut cut = image(5, b"\xFD7zXZ");
        cut.pop();
        assert_eq!(error(&cut), "the image is cut off");
        assert!(error(&image(5, b"????")).contains("not known here: [3f, 3f, 3f, 3f]"));
    }

    #[test]
    fn a_kernel_is_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let elf = folder.path().join("elf");
        fs::write(&elf, b"\x7fELF kernel").unwrap();
        let packed =
            std::process::Command::new("gzip").arg("-c").arg(&elf).output().unwrap().stdout;
        let bzimage = folder.path().join("bzImage");
        fs::write(&bzimage, image(5, &[packed.as_slice(), b"SIZE"].concat())).unwrap();
        let out = folder.path().join("vmlinux");
        unpack(&bzimage, &out).unwrap();
        assert_eq!(fs::read(&out).unwrap(), b"\x7fELF kernel");
    }
}
