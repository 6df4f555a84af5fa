//! Feature `dynamic-linking`: the shared libraries become dependencies of the program.
//!
//! Only the first symbol of each is referred to by name (`src/native/linked.rs`), so that the program links with, and runs
//! with, a library that is older than some of the functions.

use std::path::Path;

use crate::{environment, fail};

struct Wanted {
    name: &'static str,
    pkg_config: &'static str,
    package: &'static str,
    /// What to tell the compiler if it is found, for a library that may be missing.
    optional: Option<&'static str>,
}

const WANTED: [Wanted; 3] = [
    Wanted { name: "ibverbs", pkg_config: "libibverbs", package: "libibverbs-dev", optional: None },
    Wanted { name: "rdmacm", pkg_config: "librdmacm", package: "librdmacm-dev", optional: None },
    Wanted {
        name: "efa",
        pkg_config: "libefa",
        package: "libibverbs-dev",
        optional: Some("ibverbs_linked_efa"),
    },
];

/// Prints the link instructions.
pub(crate) fn link() {
    let directory = environment::directory(environment::LIB_DIR);
    if let Some(directory) = &directory {
        println!("cargo::rustc-link-search=native={}", directory.display());
    }
    for wanted in &WANTED {
        let found = match &directory {
            Some(directory) => in_directory(wanted, directory),
            None => by_pkg_config(wanted),
        };
        match (found, wanted.optional) {
            (Ok(()), Some(cfg)) => println!("cargo::rustc-cfg={cfg}"),
            (Ok(()), None) | (Err(_), Some(_)) => {}
            (Err(reason), None) => fail(&format!(
                "the cargo feature `dynamic-linking` needs lib{}: {reason}\n\
                 Install the package {} (Debian and Ubuntu; Fedora and RHEL: rdma-core-devel) and pkg-config, or let \
                 RDMA_CORE_LIB_DIR name the directory of its libraries; or use \
                 the feature `dynamic-loading`, which needs nothing at build time.",
                wanted.name, wanted.package,
            )),
        }
    }
}

fn in_directory(wanted: &Wanted, directory: &Path) -> Result<(), String> {
    let file = directory.join(format!("lib{}.so", wanted.name));
    if !file.exists() {
        return Err(format!(
            "{} does not exist, and {} names this directory",
            file.display(),
            environment::LIB_DIR
        ));
    }
    println!("cargo::rustc-link-lib=dylib={}", wanted.name);
    Ok(())
}

fn by_pkg_config(wanted: &Wanted) -> Result<(), String> {
    pkg_config::probe_library(wanted.pkg_config).map(drop).map_err(|error| error.to_string())
}
