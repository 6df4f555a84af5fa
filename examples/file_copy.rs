//! Copies a file to another process: a small `rcopy`. The sender writes it in chunks into a ring in the receiver's
//! memory, where up to 16 of them are under way; the receiver stores them, and gives their places back.
//!
//! On the machine that receives, and on the one that has the file, with the name or an address of the receiver's RDMA
//! device:
//!
//! ```text
//! file_copy --into /srv/incoming
//! file_copy server.example.com disk.img
//! ```
//!
//! Whoever can reach the receiver can send it files: it is for networks where that is all right. What it takes is a
//! plain name, of a file that is not there yet. The file gets this name only when all of it is there, with the sender's
//! checksum: a CRC-32, which finds mistakes. Who has sent the file it does not tell, and nor would a checksum that is
//! harder to forge. Only if the receiver itself is killed does a part of a file stay, under a hidden name.

use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context as _, Result};
use clap::{value_parser, Parser};
use crc32fast::Hasher;
use ibverbs::rdmacm::{Acceptor, Incoming, Tcp};
use ibverbs_examples::{
    show, Addresses, Arrived, Inbox, Message, Progress, Ring, Served, Wire, MAX_CHUNK, PATIENCE,
    SLOTS,
};

/// Copy a file to another process, with RDMA writes.
///
/// The receiver is started without an argument, the sender with the name or the address of the receiver's machine
/// and the file.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    addresses: Addresses,

    /// The file to send
    #[arg(requires = "server")]
    file: Option<PathBuf>,

    /// What the receiver is to call it [default: its name here]
    #[arg(long = "as", value_name = "NAME", requires = "file")]
    name: Option<String>,

    /// The folder in which the receiver stores files
    #[arg(short, long, default_value = ".")]
    into: PathBuf,

    /// Let the receiver replace files that are there
    #[arg(short, long)]
    overwrite: bool,

    /// After how many files the receiver ends; 0 means never
    #[arg(short = 'n', long, default_value_t = 1)]
    files: u32,

    /// How long a chunk is, in KiB; the receiver says it
    #[arg(short, long, default_value_t = 64, value_parser = value_parser!(u32).range(1..=i64::from(MAX_CHUNK >> 10)))]
    chunk: u32,
}

/// How long it may take until the receiver's disk has everything.
const STORE: Duration = Duration::from_secs(600);

fn main() -> Result<()> {
    let options = Options::parse();
    match &options.file {
        Some(file) => send(&options, file),
        None => {
            ensure!(options.addresses.is_server(), "which file is to be sent?");
            receive(&options)
        }
    }
}

fn send(options: &Options, path: &Path) -> Result<()> {
    let open = || -> Result<_> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        ensure!(metadata.is_file(), "it is no regular file");
        Ok((file, metadata.len()))
    };
    let (mut file, len) = open().with_context(|| format!("cannot send {}", path.display()))?;
    let own_name = || path.file_name().and_then(|name| name.to_str());
    let name = options.name.as_deref().or_else(own_name);
    let name = name.with_context(|| format!("the name of {} is no text", path.display()))?;
    let (mut wire, ring) = Wire::connect(options.addresses.route()?.resolve()?)?;
    let start = Instant::now();
    if let Err(error) = send_file(&mut wire, ring, &mut file, name, len) {
        wire.fail(&error);
        return Err(error);
    }
    wire.end(true)?;
    println!("{}: {}", path.display(), rate(len, start));
    Ok(())
}

fn send_file(wire: &mut Wire, ring: Ring, file: &mut File, name: &str, len: u64) -> Result<()> {
    wire.send(&Message::Offer { len, name: name.to_owned() })?;
    match wire.next(PATIENCE)? {
        Arrived::Message(Message::Accept) => {}
        other => bail!("the receiver answers with {other:?}"),
    }
    let (mut sent, mut credits, mut checksum) = (0, SLOTS, Hasher::new());
    let mut progress = Progress::of(len, Progress::BYTES);
    while sent < len {
        while credits == 0 {
            credits = match wire.next(PATIENCE)? {
                Arrived::Credits(more @ 1..=SLOTS) => more,
                other => bail!("the receiver owes a credit and sends {other:?}"),
            };
        }
        let chunk = u64::from(ring.chunk).min(len - sent);
        wire.write(chunk as u32, |bytes| {
            file.read_exact(bytes).context("cannot read the rest of the file")?;
            checksum.update(bytes);
            Ok(())
        })?;
        (sent, credits) = (sent + chunk, credits - 1);
        progress.step(sent);
    }
    drop(progress);
    wire.send(&Message::End(checksum.finalize()))?;
    loop {
        match wire.next(STORE)? {
            Arrived::Message(Message::Done) => return Ok(()),
            Arrived::Credits(_) => {}
            other => bail!("the receiver has the file and sends {other:?}"),
        }
    }
}

fn receive(options: &Options) -> Result<()> {
    ensure!(options.into.is_dir(), "there is no folder {}", options.into.display());
    let mut acceptor = options.addresses.listen(|address| Acceptor::bind(Tcp, address))?;
    let mut served = Served::default();
    while options.files == 0 || served.clients() < options.files {
        if let Some(incoming) = acceptor.accept(None)? {
            let peer = show(incoming.peer_addr());
            served.add(&peer, serve(incoming, options));
        }
    }
    served.result()
}

fn serve(incoming: Incoming<Tcp>, options: &Options) -> Result<String> {
    let chunk = options.chunk << 10;
    let mut inbox = None;
    let mut wire = Wire::accept(incoming, |pd| {
        let memory = inbox.insert(Inbox::new(pd, (SLOTS * chunk) as usize)?).remote();
        Ok(Ring { chunk, memory })
    })?;
    let inbox = inbox.context("there is no ring")?;
    let result = receive_file(&mut wire, &inbox, options);
    if let Err(error) = &result {
        wire.fail(error);
    }
    let ended = wire.end(false);
    result.and_then(|summary| ended.map(|()| summary))
}

fn receive_file(wire: &mut Wire, inbox: &Inbox, options: &Options) -> Result<String> {
    let (name, len) = match wire.next(PATIENCE)? {
        Arrived::Message(Message::Offer { name, len }) => (name, len),
        other => bail!("the sender begins with {other:?}"),
    };
    let path = options.into.join(&name);
    let exists = path.symlink_metadata().is_ok();
    ensure!(options.overwrite || !exists, "{name:?} is there already");
    // It is removed when it is dropped, unless it has got its name by then.
    let mut file = tempfile::Builder::new()
        .prefix(".file_copy")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(&options.into)
        .with_context(|| format!("cannot create a file in {}", options.into.display()))?;
    wire.send(&Message::Accept)?;

    let (start, mut progress) = (Instant::now(), Progress::of(len, Progress::BYTES));
    let chunk = u64::from(options.chunk << 10);
    let (mut stored, mut checksum) = (0, Hasher::new());
    let mut bytes = vec![0; chunk as usize];
    for number in 0.. {
        let expected = chunk.min(len - stored);
        if expected == 0 {
            break;
        }
        match wire.next(PATIENCE)? {
            Arrived::Chunk(n, len) if (n, u64::from(len)) == (number as u32, expected) => {}
            other => bail!("{expected} bytes are due as chunk {number}, and not {other:?}"),
        }
        let bytes = &mut bytes[..expected as usize];
        inbox.read((number % u64::from(SLOTS) * chunk) as usize, bytes);
        // The place is free: what comes now goes elsewhere, or may be written there.
        wire.send_credit()?;
        checksum.update(bytes);
        file.as_file_mut().write_all(bytes).context("cannot store the file")?;
        stored += expected;
        progress.step(stored);
    }
    drop(progress);
    match wire.next(PATIENCE)? {
        Arrived::Message(Message::End(theirs)) => {
            let ours = checksum.finalize();
            ensure!(
                ours == theirs,
                "the file has the checksum {ours:08x} here and {theirs:08x} there"
            );
        }
        other => bail!("the end of the file is due, and not {other:?}"),
    }
    file.as_file().sync_all().context("cannot store the file")?;
    let persisted =
        if options.overwrite { file.persist(&path) } else { file.persist_noclobber(&path) };
    persisted.with_context(|| format!("cannot give the file its name {name:?}"))?;
    wire.send(&Message::Done)?;
    Ok(format!("{name:?}: {}", rate(len, start)))
}

fn rate(len: u64, start: Instant) -> String {
    let seconds = start.elapsed().as_secs_f64();
    format!("{len} bytes in {seconds:.3} s, {:.3} GiB/s", len as f64 / seconds / f64::from(1 << 30))
}
