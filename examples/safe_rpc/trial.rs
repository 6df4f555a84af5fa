//! The trial: a server and clients, all processes of this program, which are killed and started again.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure, Context as _, Result};
use clap::value_parser;
use ibverbs_examples::Progress as Shown;

use crate::client::Work;
use crate::record::Progress;
use crate::server::{COMPLAINT, READY};
use crate::service::unique;
use crate::store::Store;

/// What the trial is.
#[derive(clap::Args)]
pub(crate) struct TrialOptions {
    /// Device of the clients, and of the server [default: the first one]
    #[arg(short, long)]
    device: Option<String>,

    /// Device of the server, if it is another
    #[arg(long)]
    server_device: Option<String>,

    /// How many clients there are
    #[arg(short, long, default_value_t = 2, value_parser = value_parser!(u16).range(1..=32))]
    clients: u16,

    /// How often to kill something: the server, a client, or both
    #[arg(short, long, default_value_t = 3)]
    kills: u32,

    #[command(flatten)]
    work: Work,
}

/// How long the trial takes if nothing is said about it.
const TIME: Duration = Duration::from_secs(10);

/// How often the trial looks at its processes.
const ROUND: Duration = Duration::from_millis(2);

/// How long a server may take to begin.
const START: Duration = Duration::from_secs(30);

struct Trial<'t> {
    options: &'t TrialOptions,
    folder: tempfile::TempDir,
    begin: Instant,
    /// How long clients send something new.
    time: Duration,
    /// The server's port, once it is known. It stays the same.
    port: u16,
    server: Option<Process>,
    /// Those that have not done all.
    clients: BTreeMap<u16, Process>,
    /// Whether the server has complained about a client.
    complaint: Arc<AtomicBool>,
}

/// A process that is killed when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the trial.
pub(crate) fn run(options: &TrialOptions) -> Result<()> {
    let mut trial = Trial {
        options,
        folder: tempfile::tempdir().context("there is no place for a journal")?,
        begin: Instant::now(),
        time: options.work.seconds.unwrap_or(TIME),
        port: 0,
        server: None,
        clients: BTreeMap::new(),
        complaint: Arc::default(),
    };
    trial.start_server()?;
    (0..options.clients).try_for_each(|client| trial.start_client(client))?;
    let (kills, wanted) = (trial.watch()?, options.kills);
    let seconds = trial.begin.elapsed().as_secs_f64();
    trial.server = None;
    trial.check_complaint()?;
    trial.verify()?;
    let progress: Vec<_> = trial.progress().collect();
    let sum = |of: fn(&Progress) -> u64| progress.iter().map(of).sum::<u64>();
    let (acked, repeated) = (sum(|progress| progress.acked), sum(|progress| progress.repeated));
    println!(
        "{acked} requests of {} clients acknowledged in {seconds:.3} s, {:.0} requests/s: \
         each was executed exactly once",
        progress.len(),
        acked as f64 / seconds,
    );
    println!(
        "    {kills} kills, {} connections, {repeated} requests sent again",
        sum(|progress| progress.connections)
    );
    ensure!(
        kills == wanted,
        "only {kills} of {wanted} kills were in the middle: give it more --requests or --seconds"
    );
    Ok(())
}

/// When the kill of this number comes, as a part of the whole. What starts again takes its time, so that none comes
/// late.
fn moment(number: u32, kills: u32) -> f64 {
    let part = (unique() % 1000) as f64 / 1000.0;
    0.8 * (f64::from(number) + part) / f64::from(kills)
}

impl Trial<'_> {
    fn journal(&self) -> PathBuf {
        self.folder.path().join("journal")
    }

    fn record(&self, client: u16) -> PathBuf {
        self.folder.path().join(format!("record{client}"))
    }

    /// How far the clients are, those that have begun.
    fn progress(&self) -> impl Iterator<Item = Progress> + '_ {
        (0..self.options.clients).filter_map(|client| Progress::look(&self.record(client)))
    }

    /// How many requests are acknowledged.
    fn acked(&self) -> u64 {
        self.progress().map(|progress| progress.acked).sum()
    }

    /// Waits until the clients have done all, and kills meanwhile. Returns how often.
    fn watch(&mut self) -> Result<u32> {
        let wanted = self.options.work.requests * u64::from(self.options.clients);
        let mut shown = Shown::of(wanted, "requests");
        let (mut kills, mut before) = (0, 0);
        let mut due = moment(kills, self.options.kills);
        loop {
            std::thread::sleep(ROUND);
            self.look()?;
            if self.clients.is_empty() {
                return Ok(kills);
            }
            let acked = self.acked();
            shown.step(acked);
            let done = acked as f64 / wanted as f64;
            let gone = self.begin.elapsed().as_secs_f64() / self.time.as_secs_f64();
            // Not before something has gone on since the last, else this is not in the middle.
            if kills < self.options.kills && done.max(gone) >= due && acked > before {
                self.kill(kills)?;
                (kills, before) = (kills + 1, self.acked());
                due = moment(kills, self.options.kills);
            }
        }
    }

    /// Looks whether processes have ended.
    fn look(&mut self) -> Result<()> {
        let mut ended = Ok(());
        self.clients.retain(|_, client| match client.0.try_wait() {
            Ok(None) => true,
            Ok(Some(status)) if status.success() => false,
            other => {
                ended = Err(anyhow!("a client has failed: {other:?}"));
                true
            }
        });
        ended?;
        let server = self.server.as_mut().context("there is no server")?;
        if let Some(status) = server.0.try_wait()? {
            bail!("the server has ended by itself: {status}");
        }
        self.check_complaint()
    }

    /// Kills the server, a client, or both, in turn, and starts them again.
    fn kill(&mut self, number: u32) -> Result<()> {
        let (server, client) = [(true, false), (false, true), (true, true)][number as usize % 3];
        if server {
            self.server = None;
            eprintln!("killed the server after {} requests", self.acked());
        }
        if client {
            let victim = unique() as usize % self.clients.len();
            let client = *self.clients.keys().nth(victim).context("there is no client")?;
            self.clients.remove(&client);
            let acked = Progress::look(&self.record(client)).map_or(0, |progress| progress.acked);
            eprintln!("killed client {client} after {acked} requests of its own");
            self.start_client(client)?;
        }
        if server {
            self.start_server()?;
        }
        Ok(())
    }

    /// A command of this program.
    fn command(&self, name: &str, device: Option<&String>) -> Result<Command> {
        let program = std::env::current_exe().context("this program cannot be found")?;
        let mut command = Command::new(program);
        command.arg(name).args(device.map(|device| format!("--device={device}")));
        command.arg(format!("--tcp-port={}", self.port)).stdin(Stdio::null());
        Ok(command)
    }

    /// Starts the server, and waits until it listens.
    fn start_server(&mut self) -> Result<()> {
        let device = self.options.server_device.as_ref().or(self.options.device.as_ref());
        let mut command = self.command("server", device)?;
        command.args(["--bind", "127.0.0.1"]).arg(self.journal()).stdout(Stdio::piped());
        let mut server = Process(command.spawn().context("the server cannot be started")?);
        let stdout = server.0.stdout.take().context("the server says nothing")?;
        let (ready, is_ready) = std::sync::mpsc::channel();
        let complaint = self.complaint.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(port) = line.strip_prefix(READY) {
                    // Nobody waits for it any more if it took too long.
                    let _ = ready.send(port.parse());
                } else if line.starts_with(COMPLAINT) {
                    complaint.store(true, Ordering::Relaxed);
                    eprintln!("server: {line}");
                }
            }
        });
        self.port = is_ready.recv_timeout(START).context("the server does not begin")??;
        self.server = Some(server);
        Ok(())
    }

    /// Starts a client, or starts it again.
    fn start_client(&mut self, number: u16) -> Result<()> {
        let Work { requests, in_flight, size, receives, .. } = self.options.work;
        let left = self.time.saturating_sub(self.begin.elapsed());
        let mut command = self.command("client", self.options.device.as_ref())?;
        command
            .arg(format!("--requests={requests}"))
            .arg(format!("--in-flight={in_flight}"))
            .arg(format!("--size={size}"))
            .arg(format!("--receives={receives}"))
            .arg(format!("--seconds={}", left.as_secs_f64()))
            .arg("--quiet")
            .arg("--record")
            .arg(self.record(number))
            .arg("127.0.0.1")
            .stdout(Stdio::null());
        let client = Process(command.spawn().context("a client cannot be started")?);
        self.clients.insert(number, client);
        Ok(())
    }

    fn check_complaint(&self) -> Result<()> {
        ensure!(!self.complaint.load(Ordering::Relaxed), "the server has complained of a client");
        Ok(())
    }

    /// Compares what is in the clients' records with what is in the server's journal.
    fn verify(&self) -> Result<()> {
        let store = Store::open(&self.journal(), u64::MAX)?;
        let clients = usize::from(self.options.clients);
        ensure!(store.sessions().len() == clients, "the journal has other sessions");
        ensure!(self.progress().count() == clients, "a record is lost");
        for progress in self.progress() {
            let client = progress.requests.client;
            let session = store.sessions().get(&client);
            let session = session.with_context(|| format!("the session {client:016x} is lost"))?;
            let executed = (session.executed, session.account);
            ensure!(
                executed == (progress.acked, progress.account),
                "client {client:016x} has recorded {}, {:?}, and the server {executed:?}",
                progress.acked,
                progress.account
            );
        }
        Ok(())
    }
}
