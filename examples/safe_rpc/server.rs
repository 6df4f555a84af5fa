//! The server: a thread for each connection, and one store of sessions.

use std::collections::VecDeque;
use std::fmt::Display;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure, Context as _, Result};
use clap::value_parser;
use ibverbs::{Mtu, ProtectionDomain};
use ibverbs_examples::{Local, Opened};

use crate::link::{read_within, Arrived, Link, Prepared, Sizes};
use crate::service::Account;
use crate::session::Call;
use crate::store::{Lease, Reply, Store};
use crate::trouble::Trouble;
use crate::wire::{check_head, Banner, Greeting, Head, Message, Welcome, HEAD, RECEIVES, WELCOME};

/// How a server is started.
#[derive(clap::Args)]
pub(crate) struct ServerOptions {
    #[command(flatten)]
    local: Local,

    /// Where what must survive this process is written; it is made if it is not there
    journal: PathBuf,

    /// How long the journal may grow, in MiB, before it is begun anew
    #[arg(long, default_value_t = 4, value_parser = value_parser!(u64).range(..1 << 20))]
    journal_limit: u64,

    /// The address to wait for clients on [default: all of them]
    #[arg(long)]
    bind: Option<IpAddr>,

    /// The TCP port to wait for clients on; 0 for any that is free
    #[arg(short, long, default_value_t = 18516)]
    tcp_port: u16,

    /// How many receives to post for each client
    #[arg(long, default_value_t = 32, value_parser = value_parser!(u16).range(RECEIVES))]
    receives: u16,
}

/// The most clients at a time.
const MAX_CLIENTS: u32 = 64;

/// How much memory one client may have here.
const MAX_BYTES: u64 = 256 << 20;

/// How long whoever connects may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the server says when it waits for clients, before the number of the port.
pub(crate) const READY: &str = "waiting for clients on TCP port ";

/// What it says of a client that does what no client should.
pub(crate) const COMPLAINT: &str = "a client is wrong: ";

struct Server<'s> {
    opened: &'s Opened,
    pd: &'s ProtectionDomain,
    mtu: Mtu,
    receives: u16,
    store: Mutex<Store>,
    clients: AtomicU32,
}

/// Serves clients until it is killed.
pub(crate) fn run(options: &ServerOptions) -> Result<()> {
    let opened = options.local.open()?;
    let store = Store::open(&options.journal, options.journal_limit << 20)?;
    println!("{opened}");
    println!("{} sessions are in the journal", store.sessions().len());
    let any = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
    // Not every machine has IPv6; one that has takes IPv4 clients with it as well.
    let addresses = options.bind.map_or(any.to_vec(), |address| vec![address]);
    let addresses: Vec<_> =
        addresses.into_iter().map(|address| SocketAddr::new(address, options.tcp_port)).collect();
    let listener = TcpListener::bind(&addresses[..])
        .with_context(|| format!("cannot listen on TCP port {}", options.tcp_port))?;
    println!("{READY}{}", listener.local_addr()?.port());
    let server = Server {
        opened: &opened,
        pd: &opened.context.alloc_pd()?,
        mtu: opened.context.query_port(opened.port)?.active_mtu(),
        receives: options.receives,
        store: Mutex::new(store),
        clients: AtomicU32::new(0),
    };
    std::thread::scope(|scope| loop {
        match listener.accept() {
            Ok((tcp, peer)) => {
                let server = &server;
                let serve = move || server.serve(tcp, peer);
                if let Err(error) = std::thread::Builder::new().spawn_scoped(scope, serve) {
                    eprintln!("there is no thread for a client: {error}");
                }
            }
            // Such as too many open files: some will be closed.
            Err(error) => {
                eprintln!("no client could be accepted: {error}");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    })
}

impl Server<'_> {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(|_| end("a thread has panicked"))
    }

    fn serve(&self, mut tcp: TcpStream, peer: SocketAddr) {
        let busy = self.clients.fetch_add(1, Ordering::Relaxed) >= MAX_CLIENTS;
        let trouble = match self.welcome(&mut tcp, busy) {
            Ok(Some(connection)) => connection.run(),
            Ok(None) => Trouble::Lost(anyhow!("there are {MAX_CLIENTS} clients already")),
            Err(trouble) => trouble,
        };
        self.clients.fetch_sub(1, Ordering::Relaxed);
        match trouble {
            Trouble::Lost(error) => println!("{peer}: {error:#}"),
            Trouble::Wrong(error) => {
                println!("{COMPLAINT}{peer}: {error:#}");
                // It may be gone, and then it does not matter.
                let _ = tcp.set_nonblocking(false);
                let _ = tcp.write_all(format!("{error:#}").as_bytes());
                let _ = tcp.shutdown(Shutdown::Both);
            }
            Trouble::Fatal(error) => end(format_args!("{error:#}")),
        }
    }

    /// Connects to whoever it is; `None` if it was told that there is no room.
    fn welcome(&self, tcp: &mut TcpStream, busy: bool) -> Result<Option<Connection<'_>>, Trouble> {
        let deadline = Instant::now() + PATIENCE;
        tcp.set_nodelay(true)?;
        tcp.set_write_timeout(Some(PATIENCE))?;
        let banner = Banner { busy, mtu: self.mtu, receives: self.receives };
        tcp.write_all(&[&HEAD[..], &banner.to_bytes()].concat())?;
        if busy {
            return Ok(None);
        }
        let head = read_within(tcp, deadline)?;
        check_head(&head).map_err(Trouble::Wrong)?;
        let greeting = read_within(tcp, deadline)?;
        let greeting = Greeting::from_bytes(&greeting).map_err(Trouble::Wrong)?;
        let sizes = self.sizes(&greeting).map_err(Trouble::Wrong)?;
        let (lease, executed) = self
            .store()
            .lease(greeting.client, greeting.acked, greeting.in_flight)
            .map_err(Trouble::Wrong)?;
        let prepared = Prepared::new(self.opened, self.pd, sizes)?;
        let welcome = Welcome { executed, endpoint: prepared.endpoint()? };
        let words = [&[WELCOME][..], &welcome.to_bytes()].concat();
        let link = prepared.connect(greeting.endpoint, tcp.try_clone()?, &words)?;
        let (in_flight, replies) = (greeting.in_flight.into(), VecDeque::new());
        Ok(Some(Connection { server: self, link, lease, in_flight, replies, report: None }))
    }

    fn sizes(&self, greeting: &Greeting) -> Result<Sizes> {
        let payload = Account::BYTES + greeting.size as usize;
        let count = u64::from(self.receives) + u64::from(greeting.receives);
        // The buffers, and the replies that are kept.
        let bytes = (count + u64::from(greeting.in_flight)) * payload as u64;
        ensure!(bytes <= MAX_BYTES, "{bytes} bytes are too much for a client");
        let mtu = greeting.mtu.min(self.mtu);
        Ok(Sizes { ours: self.receives, theirs: greeting.receives, payload, mtu })
    }
}

/// Ends the process. What it has executed may not be in its journal: whoever starts it again begins with what is.
fn end(why: impl Display) -> ! {
    eprintln!("the server ends: {why}");
    std::process::exit(1)
}

/// A client that is connected.
struct Connection<'s> {
    server: &'s Server<'s>,
    link: Link,
    lease: Lease,
    /// How many requests it has in flight at most.
    in_flight: usize,
    /// What there were no credits for yet.
    replies: VecDeque<Reply>,
    report: Option<(u64, Account)>,
}

impl Connection<'_> {
    /// Serves the client until it is gone.
    fn run(mut self) -> Trouble {
        let mut arrived = Vec::new();
        loop {
            let step = self.link.wait(&mut arrived).and_then(|()| self.serve(&mut arrived));
            if let Err(trouble) = step {
                return trouble;
            }
        }
    }

    fn serve(&mut self, arrived: &mut Vec<Arrived>) -> Result<(), Trouble> {
        self.take(arrived)?;
        arrived.drain(..).for_each(|arrived| self.link.give_back(arrived));
        while let Some(Reply { id, bytes }) = self.replies.front() {
            if !self.link.stage(Head::Reply { id: *id }, |to| put(to, bytes)) {
                break;
            }
            self.replies.pop_front();
        }
        if let Some((executed, account)) = self.report {
            if self.link.stage(Head::Account { executed }, |to| put(to, &account.to_bytes())) {
                self.report = None;
            }
        }
        self.link.flush()
    }

    /// Does what messages ask for.
    fn take(&mut self, arrived: &[Arrived]) -> Result<(), Trouble> {
        let messages = arrived.iter().map(Arrived::message).collect::<Result<Vec<_>, _>>()?;
        let calls = messages.iter().filter_map(|message| match message.head {
            Head::Request { id, acked } => Some(Call { id, acked, request: message.payload }),
            _ => None,
        });
        // All of them are in the journal, with one write, before the first is answered. If there are none, this tells
        // whether the client has another connection, and this one may be left over from a machine that is gone.
        self.server.store().execute(self.lease, calls, &mut self.replies)?;
        for Message { head, .. } in &messages {
            match *head {
                Head::Request { .. } | Head::Credits => {}
                Head::Report { acked } => {
                    self.report = Some(self.server.store().report(self.lease, acked)?);
                }
                Head::Reply { .. } | Head::Account { .. } => {
                    return Err(Trouble::Wrong(anyhow!("a client sends {head:?}")));
                }
            }
        }
        if self.replies.len() > self.in_flight {
            let (count, most) = (self.replies.len(), self.in_flight);
            return Err(Trouble::Wrong(anyhow!("{count} requests are in flight, and not {most}")));
        }
        Ok(())
    }
}

fn put(to: &mut [u8], bytes: &[u8]) -> usize {
    to[..bytes.len()].copy_from_slice(bytes);
    bytes.len()
}
