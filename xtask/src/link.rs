//! The ways of linking the native library, and what each needs when it is built and when it runs.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use clap::ValueEnum;

use crate::vm::RdmaCore;
use crate::{rdma_core, vendor, workspace};

/// A cargo feature of the libraries that says how they find the native library.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Link {
    /// Opens the shared libraries at the first call
    #[default]
    DynamicLoading,
    /// Links the shared libraries of the pinned rdma-core
    DynamicLinking,
    /// Builds the pinned rdma-core into the program
    StaticLinking,
}

impl Link {
    /// The feature's name.
    pub(crate) fn feature(self) -> &'static str {
        match self {
            Self::DynamicLoading => "dynamic-loading",
            Self::DynamicLinking => "dynamic-linking",
            Self::StaticLinking => "static-linking",
        }
    }

    /// Which libraries a guest should have. A statically linked program must not need any.
    pub(crate) fn rdma_core(self) -> RdmaCore {
        match self {
            Self::DynamicLoading | Self::DynamicLinking => RdmaCore::Pinned,
            Self::StaticLinking => RdmaCore::None,
        }
    }

    /// Gets what building needs.
    pub(crate) fn prepare(self) -> Result<Prepared> {
        let vendored = vendor::ensure()?;
        let libraries = match self {
            Self::DynamicLoading | Self::DynamicLinking => Some(rdma_core::build()?.libraries),
            Self::StaticLinking => {
                rdma_core::need_build_tools()?;
                None
            }
        };
        let include = vendored.source.with_file_name("include");
        Ok(Prepared { link: self, libraries, include })
    }
}

/// A way of linking that has all it needs.
pub(crate) struct Prepared {
    link: Link,
    libraries: Option<PathBuf>,
    include: PathBuf,
}

impl Prepared {
    /// A cargo command that builds this way, up to and including its features.
    pub(crate) fn cargo(&self, words: &[&str]) -> Command {
        let mut cargo = workspace::cargo();
        cargo.args(words).args(["--no-default-features", "--features", self.link.feature()]);
        // For the tests that compare with the headers: they must be there.
        cargo.env("RDMA_CORE_INCLUDE_DIR", &self.include);
        if let (Link::DynamicLinking, Some(libraries)) = (self.link, &self.libraries) {
            cargo.env("RDMA_CORE_LIB_DIR", libraries);
            // For what cargo runs itself; the guest gets its own.
            cargo.env("LD_LIBRARY_PATH", libraries);
        }
        cargo
    }
}
