//! The project's own commands: `cargo xtask help` lists them.

mod apt;
mod artifacts;
mod bench;
mod bindgen;
mod cache;
mod drop_in;
mod examples;
mod host;
mod interop;
mod link;
mod loopback;
mod peers;
mod perftest;
mod process;
mod progress;
mod rdma_core;
mod script;
mod speed;
mod symbols;
mod test;
mod vendor;
mod vm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "The project's own commands")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Put the pinned rdma-core into vendor/
    Vendor(vendor::VendorArgs),
    /// Build the shared libraries of the pinned rdma-core; print their folder
    RdmaCore,
    /// Run a command under a real SoftRoCE kernel, in a virtual machine
    Vm(vm::VmArgs),
    /// Run the example `loopback` under a real SoftRoCE kernel, with all set-up
    Loopback(loopback::LoopbackArgs),
    /// Run every example under a real SoftRoCE kernel, or on the software device
    Examples(examples::ExamplesArgs),
    /// Run all tests, those that need a device under a real SoftRoCE kernel, with all set-up
    Test(test::TestArgs),
    /// Count the instructions of operations, and measure their time, beside C and raw FFI
    Bench(bench::BenchArgs),
    /// Build the software device as libibverbs.so.1, librdmacm.so.1 and libefa.so.1; print the folder, for
    /// LD_LIBRARY_PATH
    DropIn(drop_in::DropInArgs),
    /// Measure with perftest and with the example `perf`, under a real SoftRoCE kernel
    Perftest(perftest::PerftestArgs),
    /// Let the software device and the kernel's SoftRoCE do everything to each other, over networks whole and lossy
    Interop(interop::InteropArgs),
    /// Measure the software device beside plain UDP and SoftRoCE, in one virtual machine
    Speed(speed::SpeedArgs),
    /// Generate the bindings of ibverbs-sys, and the lists of the drop-in library, from the pinned rdma-core
    Bindgen(bindgen::BindgenArgs),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Vendor(args) => vendor::run(&args)?,
        Command::RdmaCore => rdma_core::run()?,
        Command::Vm(args) => return Ok(vm::run(&args)?.into()),
        Command::Loopback(args) => return Ok(loopback::run(&args)?.into()),
        Command::Examples(args) => return Ok(examples::run(&args)?.into()),
        Command::Test(args) => return Ok(test::run(&args)?.into()),
        Command::Bench(args) => return Ok(bench::run(&args)?.into()),
        Command::Perftest(args) => return Ok(perftest::run(&args)?.into()),
        Command::Interop(args) => return Ok(interop::run(&args)?.into()),
        Command::DropIn(args) => return Ok(drop_in::run(&args)?.into()),
        Command::Speed(args) => return Ok(speed::run(&args)?.into()),
        Command::Bindgen(args) => bindgen::run(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}
