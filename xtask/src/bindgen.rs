//! `cargo xtask bindgen`: the committed bindings of `ibverbs-sys`, from the headers of the pinned rdma-core.

#[path = "../../ibverbs-sys/build/generate.rs"]
mod generate;

use std::fs;
use std::path::Path;

use anyhow::{anyhow, bail, Context, Result};

use crate::workspace;

/// Generate the bindings of ibverbs-sys from the pinned rdma-core
#[derive(clap::Args)]
pub(crate) struct BindgenArgs {
    /// Change nothing, and fail if the committed bindings are not what would be generated
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &BindgenArgs) -> Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!(
            "the committed bindings are generated on x86-64 Linux, whose layout some of their assertions state; \
             elsewhere, `--features bindgen` of ibverbs-sys generates bindings at build time"
        );
    }
    let vendor = workspace::root().join("vendor");
    let (headers, source) = (vendor.join("include"), vendor.join("rdma-core"));
    for folder in [&headers, &source] {
        if !folder.is_dir() {
            bail!("{} is not there: run `cargo xtask vendor` first", folder.display());
        }
    }
    let generated = generate::generate(&[headers], Some(&source)).map_err(|error| {
        anyhow!(
            "{error}\nbindgen needs libclang (Debian and Ubuntu: `apt-get install libclang-dev`)"
        )
    })?;
    let crate_source = workspace::root().join("ibverbs-sys/src");
    for (name, text) in [("bindings.rs", generated.bindings), ("functions.rs", generated.functions)]
    {
        let path = crate_source.join(name);
        if args.check {
            check(&path, &text)?;
        } else {
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

/// An error that names the first line that differs.
fn check(path: &Path, generated: &str) -> Result<()> {
    let committed =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    if committed == generated {
        return Ok(());
    }
    let line = committed.lines().zip(generated.lines()).take_while(|(old, new)| old == new).count();
    let show = |text: &str| text.lines().nth(line).unwrap_or("(the end of the file)").to_owned();
    bail!(
        "{} is not what the pinned headers give. The first difference is in line {}:\n  committed: {}\n  generated: {}\n\
         Run `cargo xtask bindgen`, and see UPGRADE.md in ibverbs-sys.",
        path.display(),
        line + 1,
        show(&committed),
        show(generated),
    )
}
