//! `cargo xtask interop`: the software device and the kernel's SoftRoCE do everything to each other that devices do, over a network
//! that is whole, and over one that loses packets.
//!
//! SoftRoCE is in the guest's first namespace, and the software device in another one, for the former takes the port of
//! RoCEv2 wherever it is. The program of both ends is `tests/interop`.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::artifacts;
use crate::progress::say;
use crate::script::{Run, Script};
use crate::vm::{self, Job, MachineArgs, Network, RdmaCore};
use crate::workspace;

/// Options of `cargo xtask interop`.
#[derive(clap::Args)]
pub(crate) struct InteropArgs {
    #[command(flatten)]
    machine: MachineArgs,
    /// Seconds that it may take over one network
    #[arg(long, default_value_t = 240, value_name = "SECONDS")]
    timeout: u64,
}

/// Both processes: the program, what the network does, and the folder for the capture of all packets. One that loses packets must
/// have lost some on either way.
const BOTH: &str = r#"
program=$1 network=$2 folder=$3
ends=('' 'ip netns exec soft')
interfaces=(foreign0 foreign1)
if [ $network = lossy ]; then
  for n in 0 1; do
    ${ends[n]} tc qdisc add dev ${interfaces[n]} root netem loss 1% || exit
  done
fi
IBVERBS_TEST_DEVICE=rxf "$program" $network > /run/softroce.log 2>&1 &
${ends[1]} env IBVERBS_TEST_DEVICE=soft0 IBVERBS_PROVIDER=soft IBVERBS_SOFT_ADDR=10.10.0.2 \
  IBVERBS_SOFT_PCAP=/run/$network.pcap "$program" $network 10.10.0.1
status=$?
[ $status = 0 ] || kill $!
wait $! || status=1
cat /run/softroce.log
cp /run/$network.pcap "$folder"
if [ $network = lossy ]; then
  for n in 0 1; do
    lost=$(${ends[n]} tc -s qdisc show dev ${interfaces[n]} | grep -o 'dropped [0-9]*')
    echo "${interfaces[n]}: $lost"
    [ "${lost#* }" -gt 0 ] || status=1
    ${ends[n]} tc qdisc del dev ${interfaces[n]} root
  done
fi
exit $status
"#;

/// What the network does.
const NETWORKS: [&str; 2] = ["whole", "lossy"];

/// Runs the command; returns 0 if everything has arrived as it should.
pub(crate) fn run(args: &InteropArgs) -> Result<u8> {
    let guest = vm::prepare(&args.machine)?;
    let build = ["build", "--release", "--package", "ibverbs-tests", "--bin", "interop"];
    let programs = artifacts::build(workspace::cargo().args(build))?;
    let program = &programs.first().context("the program of both ends was not built")?.path;
    let folder = workspace::target_dir()?.join("interop").join(guest.release());
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let runs = NETWORKS.map(|network| Run {
        name: format!("a {network} network"),
        command: [
            "bash".into(),
            "-c".into(),
            BOTH.into(),
            "bash".into(),
            OsString::from(program),
            network.into(),
            OsString::from(&folder),
        ]
        .into(),
    });
    let script = Script { runs: &runs, timeout: Duration::from_secs(args.timeout) };
    say(format_args!("running the software device beside Linux {}", guest.release()));
    let outcome = guest.run(&Job {
        command: &["bash".into(), "-c".into(), script.text()],
        folder: workspace::root(),
        writable: std::slice::from_ref(&folder),
        devices: 1,
        networks: &[Network::Foreign],
        rdma_core: RdmaCore::Pinned,
        timeout: Some(script.timeout()),
        keep_stdout: true,
    })?;
    println!();
    let mut failed = false;
    for ended in script.results(&String::from_utf8_lossy(&outcome.stdout)) {
        let verdict = if ended.passed { "ok" } else { "FAILED" };
        println!("{:<16}  {verdict:6}  {:6.1} s", ended.name, ended.time.as_secs_f64());
        failed |= !ended.passed;
    }
    println!("the packets are in {}", folder.display());
    Ok(u8::from(failed))
}
