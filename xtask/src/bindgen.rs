//! `cargo xtask bindgen`: the committed bindings of `ibverbs-sys`, from the headers of the pinned rdma-core; and what the drop-in
//! library exports, from its version scripts.

#[path = "../../ibverbs-sys/build/generate.rs"]
mod generate;

use std::fs;
use std::path::Path;

use anyhow::{anyhow, bail, Context, Result};

use crate::{symbols, workspace};

/// Generate the bindings of ibverbs-sys, and the lists of the drop-in library, from the pinned rdma-core
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
    let symbols = symbols::generate(&source, &generated.functions)?;
    for (name, text) in [
        ("ibverbs-sys/src/bindings.rs", generated.bindings),
        ("ibverbs-sys/src/functions.rs", generated.functions),
        ("ibverbs-soft/drop-in/exports.map", symbols.exports),
        ("ibverbs-soft/drop-in/src/refused.rs", symbols.refused),
    ] {
        let path = workspace::root().join(name);
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
        "{} is not what the pinned rdma-core gives. The first difference is in line {}:\n  committed: {}\n  generated: {}\n\
         Run `cargo xtask bindgen`, and see UPGRADE.md in ibverbs-sys.",
        path.display(),
        line + 1,
        show(&committed),
        show(generated),
    )
}
