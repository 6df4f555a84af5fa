//! Compiles the cases that are written in C, with `gcc -O2` and the headers of the pinned rdma-core.
//!
//! Without these headers the program is built without those cases, so that the workspace builds in a fresh checkout.

use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = "src/in_c.c";

fn main() {
    println!("cargo::rustc-check-cfg=cfg(has_c)");
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-env-changed=RDMA_CORE_INCLUDE_DIR");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let named = std::env::var_os("RDMA_CORE_INCLUDE_DIR").map(PathBuf::from);
    let headers = named.unwrap_or_else(|| root.join("../vendor/include"));
    let verbs = headers.join("infiniband/verbs.h");
    println!("cargo::rerun-if-changed={}", verbs.display());
    if !verbs.is_file() {
        return;
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let object = out.join("in_c.o");
    let mut compile = Command::new("gcc");
    compile.args(["-std=gnu11", "-O2", "-g1", "-Wall", "-Wextra", "-Werror", "-c", "-I"]);
    run(compile.arg(headers).arg("-o").arg(&object).arg(root.join(SOURCE)));
    let library = out.join("libibverbs_benches_c.a");
    run(Command::new("ar").arg("rcs").arg(&library).arg(&object));
    println!("cargo::rustc-link-search=native={}", out.display());
    println!("cargo::rustc-link-lib=static=ibverbs_benches_c");
    println!("cargo::rustc-cfg=has_c");
}

fn run(command: &mut Command) {
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("`{command:?}` failed ({status})"),
        Err(error) => panic!("`{command:?}` cannot be run: {error}"),
    }
}
