//! An rdma-core that is not where the tools look: the variables that name its directories.

use std::path::PathBuf;

/// Names the directory that has `infiniband/verbs.h`.
#[cfg(feature = "bindgen")]
pub(crate) const INCLUDE_DIR: &str = "RDMA_CORE_INCLUDE_DIR";

/// Names the directory that has `libibverbs.so`.
#[cfg(feature = "dynamic-linking")]
pub(crate) const LIB_DIR: &str = "RDMA_CORE_LIB_DIR";

/// The directory that a variable names, which has to exist.
pub(crate) fn directory(variable: &str) -> Option<PathBuf> {
    println!("cargo::rerun-if-env-changed={variable}");
    let directory = PathBuf::from(std::env::var_os(variable)?);
    if directory.is_relative() {
        // The build script does not run where the user stands.
        crate::fail(&format!("{variable} is {}: name an absolute path", directory.display()));
    }
    if !directory.is_dir() {
        crate::fail(&format!("{variable} is {}, which is not a directory", directory.display()));
    }
    Some(directory)
}
