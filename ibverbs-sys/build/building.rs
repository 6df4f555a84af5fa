//! Feature `static-linking`: rdma-core is built from source, providers included, into the build's output folder.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::fail;

/// Names a source tree other than the one in `vendor/`.
const SOURCE_DIR: &str = "RDMA_CORE_SOURCE_DIR";

/// If set and not 0, libnl is linked dynamically.
///
/// A shared library (crate type `cdylib`) needs this where the distribution compiles its static libnl for programs only,
/// as Debian does.
const SHARED_LIBNL: &str = "RDMA_CORE_SHARED_LIBNL";

/// Libraries of rdma-core that verbs, connection manager and providers do without.
const UNUSED: [&str; 3] = ["ibmad", "ibnetdisc", "ibumad"];

/// Builds the static libraries and prints the link instructions.
pub(crate) fn build() {
    let source = source();
    println!("cargo::rerun-if-changed={}", source.display());
    println!("cargo::rerun-if-env-changed=CC");
    configure(&source);
    compile();
    link();
}

/// The source tree, which has to be there.
pub(crate) fn source() -> PathBuf {
    println!("cargo::rerun-if-env-changed={SOURCE_DIR}");
    let source = std::env::var_os(SOURCE_DIR).map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../vendor/rdma-core"),
        PathBuf::from,
    );
    if source.is_relative() {
        // The build script does not run where the user stands.
        fail(&format!("{SOURCE_DIR} is {}: name an absolute path", source.display()));
    }
    if !source.join("CMakeLists.txt").is_file() {
        fail(&format!(
            "the cargo feature `static-linking` builds rdma-core, but there is no source of it in {}.\n\
             Run `cargo xtask vendor` in the workspace of ibverbs-sys, which puts the pinned release there; or let \
             {SOURCE_DIR} name a source tree of rdma-core 65.0.",
            source.display(),
        ));
    }
    fs::canonicalize(&source).unwrap_or(source)
}

/// The headers of what was built.
#[cfg(feature = "bindgen")]
pub(crate) fn include_directory() -> PathBuf {
    build_directory().join("include")
}

fn build_directory() -> PathBuf {
    crate::out_dir().join("rdma-core")
}

fn configure(source: &Path) {
    let directory = build_directory();
    let generator = if has_ninja() { "Ninja" } else { "Unix Makefiles" };
    // cmake refuses a folder that was configured for another source tree or generator.
    if !was_configured(&directory, source, generator) && directory.exists() {
        fs::remove_dir_all(&directory).unwrap_or_else(|error| {
            fail(&format!("cannot remove {}: {error}", directory.display()))
        });
    }
    let mut cmake = Command::new("cmake");
    cmake.arg("-S").arg(source).arg("-B").arg(&directory).args(["-G", generator]).args([
        "-DCMAKE_BUILD_TYPE=Release",
        // The program may be a shared library itself.
        "-DCMAKE_POSITION_INDEPENDENT_CODE=ON",
        "-DENABLE_STATIC=1",
        "-DNO_MAN_PAGES=1",
        "-DNO_PYVERBS=1",
        // Not IN_PLACE: the program is to look for its configuration on the machine that runs it, as an installed
        // library does, not in this folder.
        "-DCMAKE_INSTALL_PREFIX=/usr",
        "-DCMAKE_INSTALL_SYSCONFDIR=/etc",
        "-DCMAKE_INSTALL_RUNDIR=/run",
    ]);
    run(&mut cmake, "configure rdma-core");
}

fn has_ninja() -> bool {
    Command::new("ninja")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

fn was_configured(directory: &Path, source: &Path, generator: &str) -> bool {
    let Ok(cache) = fs::read_to_string(directory.join("CMakeCache.txt")) else { return false };
    let has = |line: String| cache.lines().any(|other| other == line);
    has(format!("CMAKE_HOME_DIRECTORY:INTERNAL={}", source.display()))
        && has(format!("CMAKE_GENERATOR:INTERNAL={generator}"))
}

/// Builds the static libraries only: no shared ones, no programs.
fn compile() {
    let jobs = std::env::var("NUM_JOBS").unwrap_or_else(|_| "1".to_owned());
    let mut cmake = Command::new("cmake");
    cmake.arg("--build").arg(build_directory()).args([
        "--target",
        "make_static",
        "--parallel",
        &jobs,
    ]);
    // Cargo's own job server is not one that a make under cmake can be told of with these flags.
    cmake.env_remove("MAKEFLAGS").env_remove("MFLAGS").env_remove("CARGO_MAKEFLAGS");
    run(&mut cmake, "build rdma-core");
}

fn run(command: &mut Command, purpose: &str) {
    let advice = "It needs the whole source tree, a C compiler, cmake, ninja or make, python3 and libnl (Debian and Ubuntu: \
                  `apt-get install build-essential cmake ninja-build pkg-config python3 libnl-3-dev \
                  libnl-route-3-dev`).";
    // Cargo reads the standard output of a build script.
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            eprintln!("{}", String::from_utf8_lossy(&output.stdout));
            fail(&format!("cannot {purpose}: `{command:?}` failed ({}). {advice}", output.status));
        }
        Err(error) => {
            fail(&format!("cannot {purpose}: cannot run `{command:?}`: {error}. {advice}"))
        }
    }
}

fn link() {
    let libraries = build_directory().join("lib");
    println!("cargo::rustc-link-search=native={}", libraries.display());
    let mut names = static_libraries(&libraries);
    names.retain(|name| !UNUSED.contains(&name.as_str()));
    if !names.iter().any(|name| name == "ibverbs") {
        fail(&format!("the build of rdma-core left no libibverbs.a in {}", libraries.display()));
    }
    for name in names {
        println!("cargo::rustc-link-lib=static={name}");
    }
    println!("cargo::rerun-if-env-changed={SHARED_LIBNL}");
    let shared =
        std::env::var_os(SHARED_LIBNL).is_some_and(|value| !value.is_empty() && value != "0");
    for name in ["nl-route-3", "nl-3"] {
        match static_netlink(name).filter(|_| !shared) {
            Some(directory) => {
                println!("cargo::rustc-link-search=native={}", directory.display());
                println!("cargo::rustc-link-lib=static={name}");
            }
            None => println!("cargo::rustc-link-lib=dylib={name}"),
        }
    }
    println!("cargo::rustc-link-lib=dylib=pthread");
}

fn static_libraries(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory)
        .unwrap_or_else(|error| fail(&format!("cannot read {}: {error}", directory.display())));
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|file| Some(file.strip_prefix("lib")?.strip_suffix(".a")?.to_owned()))
        .collect();
    names.sort();
    names
}

/// The directory of a static library of libnl, if there is one.
fn static_netlink(name: &str) -> Option<PathBuf> {
    let compiler = std::env::var_os("CC").unwrap_or_else(|| OsString::from("cc"));
    // The compiler knows where it would find the archive; it prints the bare name if it would not.
    let output =
        Command::new(compiler).arg(format!("-print-file-name=lib{name}.a")).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    path.is_absolute().then(|| path.parent().map(Path::to_owned)).flatten()
}
