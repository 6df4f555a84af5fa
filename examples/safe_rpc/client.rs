//! The client: sends requests, checks and records their replies, and connects again whenever it must.

use std::io::{ErrorKind, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, Context as _, Result};
use clap::value_parser;
use ibverbs::ProtectionDomain;
use ibverbs_examples::{Local, Opened, Progress as Shown};

use crate::link::{farewell, read_within, Arrived, Link, Prepared, Sizes};
use crate::record::Record;
use crate::service::{check, Account};
use crate::trouble::Trouble;
use crate::wire::{
    check_head, Banner, Greeting, Head, Reader, Welcome, HEAD, MAX_IN_FLIGHT, MAX_SIZE, RECEIVES,
    WELCOME,
};

/// How a client is started.
#[derive(clap::Args)]
pub(crate) struct ClientOptions {
    #[command(flatten)]
    local: Local,

    #[command(flatten)]
    pub(crate) work: Work,

    /// Where to record what is done, so that another process can go on; it is made if it is not there
    #[arg(long)]
    record: Option<PathBuf>,

    /// Do not tell how far it is
    #[arg(short, long)]
    quiet: bool,

    /// The server's TCP port
    #[arg(short, long, default_value_t = 18516)]
    tcp_port: u16,

    /// The machine of the server
    host: String,
}

/// What a client is to do.
#[derive(clap::Args, Clone)]
pub(crate) struct Work {
    /// How many requests the session is to have, those that are in the record already included
    #[arg(short = 'n', long, default_value_t = 1_000_000, value_parser = value_parser!(u64).range(1..))]
    pub(crate) requests: u64,

    /// End after so many seconds, also if there are fewer requests
    #[arg(long, value_parser = seconds)]
    pub(crate) seconds: Option<Duration>,

    /// How many requests may be on their way
    #[arg(long, default_value_t = 64, value_parser = value_parser!(u16).range(1..=i64::from(MAX_IN_FLIGHT)))]
    pub(crate) in_flight: u16,

    /// Bytes of the longest request; most are shorter
    #[arg(short, long, default_value_t = 1024, value_parser = value_parser!(u32).range(1..=i64::from(MAX_SIZE)))]
    pub(crate) size: u32,

    /// How many receives to post for the server's replies
    #[arg(long, default_value_t = 24, value_parser = value_parser!(u16).range(RECEIVES))]
    pub(crate) receives: u16,
}

fn seconds(text: &str) -> Result<Duration> {
    Ok(Duration::try_from_secs_f64(text.parse()?)?)
}

/// How long nothing may be acknowledged.
const PATIENCE: Duration = Duration::from_secs(40);

/// How long one connection may go without a reply, and how long the steps of connecting may take.
const STEP: Duration = Duration::from_secs(15);

/// How long to wait before a connection is tried again.
const PAUSE: Duration = Duration::from_millis(20);

struct Client<'c> {
    options: &'c ClientOptions,
    opened: &'c Opened,
    pd: &'c ProtectionDomain,
    record: Record,
    /// The highest number that any request was sent with.
    sent: u64,
    /// When to send nothing new any more.
    end: Option<Instant>,
    /// When the last reply was recorded.
    last: Instant,
    /// `None` if it is quiet.
    shown: Option<Shown>,
    /// What the reply in hand must be; and its request.
    due: Vec<u8>,
    request: Vec<u8>,
}

/// Sends the requests, and returns when all are acknowledged.
pub(crate) fn run(options: &ClientOptions) -> Result<()> {
    let begin = Instant::now();
    let record = Record::open(options.record.as_deref(), options.work.size)?;
    let opened = options.local.open()?;
    println!("{opened}");
    let before = record.progress;
    if before.acked > 0 {
        println!("client {:016x} goes on after {}", before.requests.client, before.acked);
    }
    let mut client = Client {
        options,
        opened: &opened,
        pd: &opened.context.alloc_pd()?,
        sent: before.acked,
        end: options.work.seconds.map(|seconds| begin + seconds),
        last: Instant::now(),
        shown: (!options.quiet).then(|| Shown::of(options.work.requests, "requests")),
        due: Vec::new(),
        request: vec![0; options.work.size as usize],
        record,
    };
    client.work()?;
    drop(client.shown);
    let now = client.record.progress;
    let (count, seconds) = (now.acked - before.acked, begin.elapsed().as_secs_f64());
    println!(
        "client {:016x}: {} requests acknowledged, each executed exactly once; {count} of them now in {seconds:.3} s, \
         {:.0} requests/s",
        now.requests.client,
        now.acked,
        count as f64 / seconds,
    );
    println!("    {} connections, {} requests sent again", now.connections, now.repeated);
    Ok(())
}

impl Client<'_> {
    fn work(&mut self) -> Result<()> {
        let mut said = String::new();
        loop {
            let trouble = match self.connect().and_then(|link| self.talk(link)) {
                Ok(()) => return Ok(()),
                Err(trouble) => trouble,
            };
            let error = match trouble {
                Trouble::Lost(error) => error,
                Trouble::Wrong(error) | Trouble::Fatal(error) => return Err(error),
            };
            if self.last.elapsed() > PATIENCE {
                let acked = self.record.progress.acked;
                return Err(error.context(format!("nothing after {acked} for {PATIENCE:?}")));
            }
            let why = format!("{error:#}");
            if why != said {
                eprintln!("connecting again: {why}");
                said = why;
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn connect(&mut self) -> Result<Link, Trouble> {
        let Work { in_flight, size, receives, .. } = self.options.work;
        let mut tcp = self.dial()?;
        let deadline = Instant::now() + STEP;
        tcp.set_nodelay(true)?;
        tcp.set_write_timeout(Some(STEP))?;
        check_head(&read_within(&mut tcp, deadline)?).map_err(Trouble::Wrong)?;
        let banner = read_within(&mut tcp, deadline)?;
        let banner = Banner::from_bytes(&banner).map_err(Trouble::Wrong)?;
        if banner.busy {
            return Err(Trouble::Lost(anyhow!("the server has too many clients")));
        }
        let mtu = self.opened.context.query_port(self.opened.port)?.active_mtu();
        let payload = Account::BYTES + size as usize;
        let sizes =
            Sizes { ours: receives, theirs: banner.receives, payload, mtu: mtu.min(banner.mtu) };
        let prepared = Prepared::new(self.opened, self.pd, sizes)?;
        self.record.progress.connections += 1;
        // What the server is told is recorded before.
        self.record.write().map_err(Trouble::Fatal)?;
        let progress = self.record.progress;
        let greeting = Greeting {
            client: progress.requests.client,
            acked: progress.acked,
            size,
            in_flight,
            mtu,
            receives,
            endpoint: prepared.endpoint()?,
        };
        let words = [&HEAD[..], &greeting.to_bytes()].concat();
        tcp.write_all(&words)?;
        let [word] = read_within(&mut tcp, deadline)?;
        if word != WELCOME {
            return Err(farewell(&tcp, &[word]));
        }
        let welcome = read_within(&mut tcp, deadline)?;
        let welcome = Welcome::from_bytes(&welcome).map_err(Trouble::Wrong)?;
        self.sent = self.sent.max(welcome.executed);
        Ok(prepared.connect(welcome.endpoint, tcp, b"")?)
    }

    fn dial(&self) -> Result<TcpStream> {
        let (host, port) = (&*self.options.host, self.options.tcp_port);
        let mut result = Err(ErrorKind::AddrNotAvailable.into());
        for address in (host, port).to_socket_addrs().context("the server has no address")? {
            result = TcpStream::connect_timeout(&address, STEP);
            if result.is_ok() {
                break;
            }
        }
        result.with_context(|| format!("no server answers at {host}, TCP port {port}"))
    }

    /// The last request that is to be sent.
    fn limit(&mut self) -> u64 {
        let is_over = self.end.is_some_and(|end| Instant::now() >= end);
        // What was sent once may have been executed, and its reply is waited for.
        if is_over {
            self.sent
        } else {
            self.options.work.requests.max(self.sent)
        }
    }

    /// Sends what is to be sent, first what is not acknowledged yet, until the server reports that all was executed.
    fn talk(&mut self, mut link: Link) -> Result<(), Trouble> {
        let in_flight = u64::from(self.options.work.in_flight);
        let (mut next, mut arrived) = (self.record.progress.acked + 1, Vec::new());
        let (mut heard, mut has_asked) = (Instant::now(), false);
        loop {
            let (limit, acked) = (self.limit(), self.record.progress.acked);
            let requests = self.record.progress.requests;
            while next <= limit.min(acked + in_flight) {
                let head = Head::Request { id: next, acked };
                if !link.stage(head, |to| requests.write(next, to)) {
                    break;
                }
                self.record.progress.repeated += u64::from(next <= self.sent);
                self.sent = self.sent.max(next);
                next += 1;
            }
            if acked == limit && !has_asked {
                has_asked = link.stage(Head::Report { acked }, |_| 0);
            }
            link.flush()?;
            link.wait(&mut arrived)?;
            let report = self.take(&arrived)?;
            arrived.drain(..).for_each(|arrived| link.give_back(arrived));
            if self.record.progress.acked > acked {
                // Before the server is told, with the next request, and forgets them.
                self.record.write().map_err(Trouble::Fatal)?;
                if let Some(shown) = &mut self.shown {
                    shown.step(self.record.progress.acked);
                }
                heard = Instant::now();
                self.last = heard;
            }
            match report {
                Some(report) if has_asked => return self.compare(report),
                Some(_) => return Err(Trouble::Wrong(anyhow!("the server reports unasked"))),
                None if heard.elapsed() > STEP => {
                    return Err(Trouble::Lost(anyhow!("the server does not answer")));
                }
                None => {}
            }
        }
    }

    /// Checks replies. Returns the server's report, if it is there.
    fn take(&mut self, arrived: &[Arrived]) -> Result<Option<(u64, Account)>, Trouble> {
        let mut report = None;
        for message in arrived {
            let message = message.message()?;
            match message.head {
                Head::Credits => {}
                Head::Reply { id } => self.reply(id, message.payload).map_err(Trouble::Wrong)?,
                Head::Account { executed } => {
                    let account = Account::read(&mut Reader(message.payload));
                    report = Some((executed, account.map_err(Trouble::Wrong)?));
                }
                head => return Err(Trouble::Wrong(anyhow!("a server sends {head:?}"))),
            }
        }
        Ok(report)
    }

    /// Checks a reply. They come in the order of their requests.
    fn reply(&mut self, id: u64, reply: &[u8]) -> Result<()> {
        let progress = &mut self.record.progress;
        let expected = progress.acked + 1;
        if id != expected {
            bail!("a reply to request {id} comes when that to {expected} is due");
        }
        let len = progress.requests.write(id, &mut self.request);
        self.due.clear();
        let mut account = progress.account;
        account.call(&self.request[..len], &mut self.due);
        check(id, reply, &self.due)?;
        (progress.acked, progress.account) = (id, account);
        Ok(())
    }

    /// Whether the server has executed what was acknowledged, and nothing else.
    fn compare(&mut self, (executed, account): (u64, Account)) -> Result<(), Trouble> {
        let progress = &self.record.progress;
        if (executed, account) != (progress.acked, progress.account) {
            return Err(Trouble::Wrong(anyhow!(
                "{} requests are acknowledged, {:?}, and the server has executed {executed}, {account:?}",
                progress.acked,
                progress.account
            )));
        }
        self.record.write().map_err(Trouble::Fatal)
    }
}
