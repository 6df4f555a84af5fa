//! The public header tree: the headers of the libraries that are bound, laid out as programs include them.
//!
//! Which headers are public, and where they go, is read from upstream's own cmake files (`publish_headers`).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};

use super::content;

/// Folders whose published headers are taken: the libraries that are bound.
const LIBRARIES: [&str; 3] = ["libibverbs", "librdmacm", "providers/efa"];
/// The kernel's headers. Upstream takes most of them from the installed kernel headers (`publish_internal_headers`), but
/// the ones above include them, and an installed kernel may be older than the release.
const KERNEL: &str = "kernel-headers";
/// Where headers go; what is published elsewhere is private to the build of rdma-core.
const PUBLIC: [&str; 2] = ["infiniband", "rdma"];

/// One header: where it is in the source, and where it goes in the header tree.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    source: PathBuf,
    published: PathBuf,
}

/// Writes the header tree of the source tree into a folder that does not exist yet.
pub(crate) fn publish(source: &Path, into: &Path) -> Result<()> {
    for header in published(source)? {
        let target = into.join(&header.published);
        let folder = target.parent().context("a header is in a folder")?;
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let from = source.join(&header.source);
        fs::copy(&from, &target)
            .with_context(|| format!("cannot copy {} to {}", from.display(), target.display()))?;
    }
    Ok(())
}

/// Whether a folder holds exactly the header tree of the source tree.
pub(crate) fn are_current(source: &Path, folder: &Path) -> Result<bool> {
    if !folder.is_dir() {
        return Ok(false);
    }
    let headers = published(source)?;
    let mut expected: Vec<_> = headers.iter().map(|header| header.published.clone()).collect();
    expected.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    if content::files(folder)? != expected {
        return Ok(false);
    }
    let same = |header: &Header| -> Result<bool> {
        Ok(fs::read(source.join(&header.source))? == fs::read(folder.join(&header.published))?)
    };
    for header in &headers {
        if !same(header)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn published(source: &Path) -> Result<Vec<Header>> {
    let mut headers = Vec::new();
    for folder in LIBRARIES {
        headers.extend(published_by(source, folder, &["publish_headers"])?);
    }
    headers.extend(published_by(source, KERNEL, &["publish_headers", "publish_internal_headers"])?);
    Ok(headers)
}

fn published_by(source: &Path, folder: &str, functions: &[&str]) -> Result<Vec<Header>> {
    let file = source.join(folder).join("CMakeLists.txt");
    let text =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let headers: Vec<Header> = calls(&text, functions)
        .into_iter()
        .filter(|(target, _)| PUBLIC.iter().any(|public| Path::new(target).starts_with(public)))
        .flat_map(|(target, files)| files.into_iter().map(move |file| (target, file)))
        .filter_map(|(target, file)| {
            let name = Path::new(file).file_name()?;
            Some(Header {
                source: Path::new(folder).join(file),
                published: Path::new(target).join(name),
            })
        })
        .collect();
    if headers.is_empty() {
        bail!("{} publishes no headers", file.display());
    }
    Ok(headers)
}

/// The calls of some cmake functions: the first argument of each, and the others.
fn calls<'a>(text: &'a str, functions: &[&str]) -> Vec<(&'a str, Vec<&'a str>)> {
    text.split(')')
        .filter_map(|piece| {
            let (before, arguments) = piece.rsplit_once('(')?;
            let name = before.split_whitespace().next_back()?;
            let mut words = arguments.split_whitespace();
            functions.contains(&name).then_some((words.next()?, words.collect()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CMAKE: &str = "publish_headers(infiniband\n  verbs.h\n  sub/opcode.h\n  )\n\n\
        publish_internal_headers(infiniband\n  driver.h\n  )\n\
        configure_file(\"a.in\"\n  \"${B}/a\" @ONLY)\n\
        publish_internal_headers(linux\n  linux/vfio.h\n  )\n";

    #[test]
    fn calls_are_found_by_name() {
        assert_eq!(
            calls(CMAKE, &["publish_headers"]),
            [("infiniband", vec!["verbs.h", "sub/opcode.h"])]
        );
        assert_eq!(calls(CMAKE, &["publish_internal_headers"]).len(), 2);
        assert_eq!(calls("publish_headers(rdma", &["publish_headers"]).len(), 1);
        assert!(calls("no calls", &["publish_headers"]).is_empty());
    }

    /// A source tree of the shape that rdma-core has.
    fn source() -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("libibverbs/CMakeLists.txt", CMAKE);
        write("libibverbs/verbs.h", "v");
        write("libibverbs/sub/opcode.h", "o");
        write("librdmacm/CMakeLists.txt", "publish_headers(rdma rdma_cma.h)");
        write("librdmacm/rdma_cma.h", "c");
        write("providers/efa/CMakeLists.txt", "publish_headers(infiniband efadv.h)");
        write("providers/efa/efadv.h", "e");
        write("kernel-headers/CMakeLists.txt", "publish_internal_headers(rdma/hfi rdma/hfi/h.h)\npublish_internal_headers(linux linux/x.h)");
        write("kernel-headers/rdma/hfi/h.h", "h");
        tree
    }

    #[test]
    fn the_tree_is_exactly_what_is_published() {
        let source = source();
        let out = tempfile::tempdir().unwrap();
        let tree = out.path().join("include");
        assert!(!are_current(source.path(), &tree).unwrap());
        publish(source.path(), &tree).unwrap();
        let names: Vec<_> =
            content::files(&tree).unwrap().iter().map(|file| file.display().to_string()).collect();
        let expected = [
            "infiniband/efadv.h",
            "infiniband/opcode.h",
            "infiniband/verbs.h",
            "rdma/hfi/h.h",
            "rdma/rdma_cma.h",
        ];
        assert_eq!(names, expected);
        assert!(are_current(source.path(), &tree).unwrap());
    }

    #[test]
    fn a_changed_or_foreign_header_is_noticed() {
        let source = source();
        let out = tempfile::tempdir().unwrap();
        let tree = out.path().join("include");
        publish(source.path(), &tree).unwrap();
        fs::write(tree.join("rdma/foreign.h"), "").unwrap();
        assert!(!are_current(source.path(), &tree).unwrap());
        fs::remove_file(tree.join("rdma/foreign.h")).unwrap();
        assert!(are_current(source.path(), &tree).unwrap());
        fs::write(tree.join("infiniband/verbs.h"), "changed").unwrap();
        assert!(!are_current(source.path(), &tree).unwrap());
    }

    #[test]
    fn a_folder_that_publishes_nothing_is_an_error() {
        let source = source();
        fs::write(source.path().join("librdmacm/CMakeLists.txt"), "").unwrap();
        let error = published(source.path()).unwrap_err().to_string();
        assert!(error.contains("librdmacm/CMakeLists.txt publishes no headers"), "{error}");
    }
}
