//! Feature `bindgen`: bindings from the headers in use.

use std::fs;
use std::path::PathBuf;

#[cfg(not(feature = "static-linking"))]
use crate::environment;
use crate::{fail, generate};

/// The youngest functions that the hand-written part of the crate calls, of libibverbs and of libefa.
const YOUNGEST: [&str; 2] = ["_ibv_query_comp_cntr_caps", "efadv_qp_from_ibv_qp_ex"];

/// Writes `bindings.rs` and `functions.rs` into the build's output folder.
pub(crate) fn generate() {
    let include = include_directories();
    let source = source();
    let generated = generate::generate(&include, source.as_deref()).unwrap_or_else(|error| {
        fail(&format!(
            "cannot generate the bindings: {error}\n\
             The headers come from RDMA_CORE_INCLUDE_DIR or pkg-config (Debian and Ubuntu: libibverbs-dev and \
             librdmacm-dev), and bindgen needs libclang (libclang-dev)."
        ))
    });
    for function in YOUNGEST {
        if !generated.functions.contains(function) {
            fail(&format!(
                "the rdma-core headers in {include:?} do not declare `{function}`: they are older than those of \
                 rdma-core 65.0, the oldest from which bindings can be generated. Without the cargo feature \
                 `bindgen`, the committed bindings work with older libraries too"
            ));
        }
    }
    write("bindings.rs", &generated.bindings);
    write("functions.rs", &generated.functions);
}

fn write(name: &str, text: &str) {
    let path = crate::out_dir().join(name);
    fs::write(&path, text)
        .unwrap_or_else(|error| fail(&format!("cannot write {}: {error}", path.display())));
}

/// Where the headers are: those that were built, those that the environment names, or those of pkg-config.
fn include_directories() -> Vec<PathBuf> {
    #[cfg(feature = "static-linking")]
    return vec![crate::building::include_directory()];
    #[cfg(not(feature = "static-linking"))]
    {
        if let Some(directory) = environment::directory(environment::INCLUDE_DIR) {
            return vec![directory];
        }
        let mut directories = Vec::new();
        for library in ["libibverbs", "librdmacm"] {
            // Where pkg-config knows nothing, the headers may still be where every compiler looks.
            if let Ok(found) = pkg_config::Config::new().cargo_metadata(false).probe(library) {
                directories.extend(found.include_paths);
            }
        }
        directories.push(PathBuf::from("/usr/include"));
        directories
    }
}

/// The source tree, where it is at hand: linking statically, only what it exports can be referred to.
fn source() -> Option<PathBuf> {
    #[cfg(feature = "static-linking")]
    return Some(crate::building::source());
    #[cfg(not(feature = "static-linking"))]
    None
}
