//! Two processes that connect through the connection manager and write messages into each other's memory. The request
//! and its answer carry what each must know for that: which protocol this is, and where messages go.
//!
//! On the server's machine, and on another one, with the name or an address of the server's RDMA device:
//!
//! ```text
//! rdmacm_connect
//! rdmacm_connect server.example.com
//! ```
//!
//! Both sides are here in two manners, and each works with each: with the helpers that wait, where the server has one
//! client after the other; and, with `--event-loop`, with one epoll descriptor, where it has many at a time.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};
use clap::{value_parser, Parser};
use ibverbs::rdmacm::{Acceptor, CmEvent, CmEventType, CmId, Incoming, Tcp};
use ibverbs::{CompletionChannel, CompletionQueue, Context, Init, QueuePair, Rc};
use ibverbs_examples::{
    explain, show, wait_connected, Addresses, Hello, Served, Talk, PATIENCE, SET_UP,
};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};

/// Connect to another process, write messages into each other's memory, and check every byte.
///
/// The server is started without an argument, the client with the name or the address of the server's
/// machine. How many messages of which size there are is said by the client.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    addresses: Addresses,

    /// Wait for everything at a time, in an event loop
    #[arg(short, long)]
    event_loop: bool,

    /// Bytes per message
    #[arg(short, long, default_value_t = 4096, value_parser = value_parser!(u32).range(1..=i64::from(Hello::MAX_SIZE)))]
    size: u32,

    /// How many messages to send each way
    #[arg(short = 'n', long, default_value_t = 1000, value_parser = value_parser!(u32).range(1..i64::from(u32::MAX)))]
    iters: u32,

    /// After how many clients the server ends
    #[arg(short, long, default_value_t = 1, value_parser = value_parser!(u32).range(1..))]
    clients: u32,
}

fn main() -> Result<()> {
    let options = Options::parse();
    match (options.addresses.is_server(), options.event_loop) {
        (true, false) => serve(&options),
        (false, false) => call(&options),
        (true, true) => Loop::new()?.serve(&options),
        (false, true) => Loop::new()?.call(&options),
    }
}

/// The server that waits.
fn serve(options: &Options) -> Result<()> {
    let mut acceptor = options.addresses.listen(|address| Acceptor::bind(Tcp, address))?;
    let mut served = Served::default();
    while served.clients() < options.clients {
        if let Some(incoming) = acceptor.accept(None)? {
            let peer = show(incoming.peer_addr());
            served.add(&peer, answer(incoming));
        }
    }
    served.result()
}

/// Serves a client.
fn answer(incoming: Incoming<Tcp>) -> Result<String> {
    let hello = match Hello::from_bytes(incoming.peer_private_data()) {
        Ok(hello) => hello,
        Err(error) => {
            incoming.reject(error.to_string().as_bytes())?;
            return Err(error);
        }
    };
    let cq = incoming.context().create_cq(16).set_private_channel().build()?;
    let (mut talk, qp) = Talk::server((incoming.context(), incoming.port()), &cq, hello)?;
    let mut connection = incoming.accept(qp, &talk.params(), SET_UP).map_err(explain)?;
    while !talk.is_over() {
        talk.go_on(&mut connection.queue_pair)?;
        wait_connected(&mut connection, &cq, PATIENCE, |completion| talk.note(completion))?;
    }
    ensure!(connection.wait_disconnected(Some(PATIENCE))?, "the client does not end");
    Ok(talk.summary())
}

/// The client that waits.
fn call(options: &Options) -> Result<()> {
    let start = Instant::now();
    let resolved = options.addresses.route()?.resolve()?;
    let cq = resolved.context().create_cq(16).set_private_channel().build()?;
    let device = (resolved.context(), resolved.port());
    let (mut talk, qp) = Talk::client(device, &cq, (options.size, options.iters))?;
    let mut connection = resolved.connect(qp, &talk.params(), SET_UP).map_err(explain)?;
    println!("connected to {}", show(connection.peer_addr()));
    talk.answered(connection.peer_private_data())?;
    while !talk.is_over() {
        talk.go_on(&mut connection.queue_pair)?;
        wait_connected(&mut connection, &cq, PATIENCE, |completion| talk.note(completion))?;
    }
    connection.disconnect()?;
    ensure!(connection.wait_disconnected(Some(PATIENCE))?, "the server does not end");
    println!("{}, in {:?} with connecting", talk.summary(), start.elapsed());
    Ok(())
}

/// Both sides in an event loop.
struct Loop {
    epoll: Poll,
    ready: Events,
}

/// The number of the listener, or of the client's connection.
const FIRST: usize = 0;

impl Loop {
    fn new() -> Result<Loop> {
        Ok(Loop { epoll: Poll::new()?, ready: Events::with_capacity(64) })
    }

    fn serve(mut self, options: &Options) -> Result<()> {
        let mut listener = options.addresses.listen(|address| {
            let mut id = CmId::create(Tcp)?;
            id.bind_addr(address)?;
            id.listen(0).map(|()| id)
        })?;
        watch(self.epoll.registry(), &listener, Source::Manager.of(FIRST))?;
        let (mut clients, mut served) = (HashMap::new(), Served::default());
        let mut next = FIRST + 1;
        while served.clients() < options.clients {
            for (number, source) in self.wait(None)? {
                if number == FIRST {
                    // A descriptor is reported once: what is there must be taken until there is no more.
                    while let Some(mut event) = listener.poll_cm_event()? {
                        let Some(id) = event.take_request() else {
                            return Err(event.into_error("listen", &listener).into());
                        };
                        let mut client = Peer::new(id, next);
                        match client.answer(event.private_data(), self.epoll.registry()) {
                            Ok(()) => drop(clients.insert(next, client)),
                            Err(error) => served.add(&client.name(), Err(error)),
                        }
                        next += 1;
                    }
                } else if let Some(mut client) = clients.remove(&number) {
                    match client.handle(source, self.epoll.registry(), options).transpose() {
                        None => drop(clients.insert(number, client)),
                        Some(result) => served.add(&client.name(), result),
                    }
                }
            }
        }
        served.result()
    }

    fn call(mut self, options: &Options) -> Result<()> {
        let route = options.addresses.route()?;
        let mut id = CmId::create(Tcp)?;
        id.resolve_addr(route.source, route.peer, SET_UP)?;
        watch(self.epoll.registry(), &id, Source::Manager.of(FIRST))?;
        let (mut server, start) = (Peer::new(id, FIRST), Instant::now());
        loop {
            let ready = self.wait(Some(PATIENCE))?;
            ensure!(!ready.is_empty(), "nothing happened for {PATIENCE:?}");
            for (_, source) in ready {
                if let Some(summary) = server.handle(source, self.epoll.registry(), options)? {
                    println!("{summary}, in {:?} with connecting", start.elapsed());
                    return Ok(());
                }
            }
        }
    }

    /// Waits until something can be read: of whom, and from where.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<Vec<(usize, Source)>> {
        let mut result = self.epoll.poll(&mut self.ready, timeout);
        while result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Interrupted) {
            result = self.epoll.poll(&mut self.ready, timeout);
        }
        result?;
        Ok(self.ready.iter().map(|event| Source::from_token(event.token())).collect())
    }
}

/// Where something has happened.
#[derive(Clone, Copy)]
enum Source {
    /// The connection manager has an event.
    Manager,
    /// Something has completed.
    Queue,
}

impl Source {
    fn of(self, number: usize) -> Token {
        Token(2 * number + self as usize)
    }

    fn from_token(Token(token): Token) -> (usize, Source) {
        (token / 2, if token % 2 == 0 { Source::Manager } else { Source::Queue })
    }
}

fn watch(registry: &Registry, fd: &impl AsRawFd, token: Token) -> Result<()> {
    Ok(registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)?)
}

/// A connection in the event loop. The queue pair stands above the talk: it is dropped first.
struct Peer {
    id: CmId,
    number: usize,
    /// Before the server has answered.
    waiting: Option<QueuePair<Rc, Init>>,
    /// Afterwards.
    qp: Option<QueuePair<Rc>>,
    line: Option<Line>,
}

/// What a connection has when its device is known.
struct Line {
    talk: Talk,
    cq: CompletionQueue,
    channel: CompletionChannel,
}

impl Peer {
    fn new(id: CmId, number: usize) -> Peer {
        Peer { id, number, waiting: None, qp: None, line: None }
    }

    fn name(&self) -> String {
        show(self.id.peer_addr())
    }

    /// Answers a client's request.
    fn answer(&mut self, private_data: &[u8], registry: &Registry) -> Result<()> {
        let hello = Hello::from_bytes(private_data);
        if let Err(error) = &hello {
            self.id.reject(error.to_string().as_bytes())?;
        }
        let hello = hello?;
        watch(registry, &self.id, Source::Manager.of(self.number))?;
        let (line, qp) = self.prepare(registry, |device, cq| Talk::server(device, cq, hello))?;
        let qp = self.id.bring_up(qp)?;
        self.id.accept(&line.talk.params().for_queue_pair(&qp))?;
        (self.qp, self.line) = (Some(qp), Some(line));
        Ok(())
    }

    /// Makes what it takes to talk, with completions that are watched.
    fn prepare(
        &self,
        registry: &Registry,
        talk: impl FnOnce((&Context, u8), &CompletionQueue) -> Result<(Talk, QueuePair<Rc, Init>)>,
    ) -> Result<(Line, QueuePair<Rc, Init>)> {
        let ctx = self.id.context()?;
        let port = self.id.port().context("the connection has no port")?;
        let channel = ctx.create_comp_channel()?;
        let cq = ctx.create_cq(16).set_comp_channel(&channel).build()?;
        cq.req_notify(false)?;
        watch(registry, &channel, Source::Queue.of(self.number))?;
        let (talk, qp) = talk((&ctx, port), &cq)?;
        Ok((Line { talk, cq, channel }, qp))
    }

    /// Does what is to be done. At the end of the connection, returns what was said.
    fn handle(
        &mut self,
        source: Source,
        registry: &Registry,
        options: &Options,
    ) -> Result<Option<String>> {
        match source {
            Source::Queue => self.talk().map(|()| None),
            Source::Manager => {
                while let Some(event) = self.id.poll_cm_event()? {
                    if event.event_type() == CmEventType::DISCONNECTED {
                        return self.end().map(Some);
                    }
                    self.step(event, registry, options)?;
                }
                Ok(None)
            }
        }
    }

    /// Takes the next step of setting up the connection.
    fn step(&mut self, event: CmEvent, registry: &Registry, options: &Options) -> Result<()> {
        match event.event_type() {
            CmEventType::ADDR_RESOLVED => self.id.resolve_route(SET_UP)?,
            CmEventType::ROUTE_RESOLVED => {
                let terms = (options.size, options.iters);
                let (line, qp) =
                    self.prepare(registry, |device, cq| Talk::client(device, cq, terms))?;
                self.id.connect(&line.talk.params().for_queue_pair(&qp))?;
                (self.waiting, self.line) = (Some(qp), Some(line));
            }
            CmEventType::CONNECT_RESPONSE => {
                let qp = self.waiting.take().context("an answer to no request")?;
                self.qp = Some(self.id.bring_up(qp)?);
                self.id.establish()?;
                println!("connected to {}", self.name());
                self.line.as_mut().context("no line")?.talk.answered(event.private_data())?;
                self.talk()?;
            }
            CmEventType::ESTABLISHED | CmEventType::ADDR_CHANGE | CmEventType::TIMEWAIT_EXIT => {}
            _ => return Err(explain(event.into_error("connect", &self.id))),
        }
        Ok(())
    }

    /// Takes note of what has completed, and goes on. A client that has said everything ends the connection.
    fn talk(&mut self) -> Result<()> {
        let (Some(qp), Some(line)) = (&mut self.qp, &mut self.line) else { return Ok(()) };
        while line.channel.get_event()?.is_some() {}
        let mut result = Ok(());
        line.cq.poll_armed(false, |completion| {
            if result.is_ok() {
                let done = completion.ok().context("a work request failed");
                result = done.and_then(|()| line.talk.note(&completion));
            }
        })?;
        result?;
        if line.talk.is_over() && !line.talk.is_server() {
            self.id.disconnect()?;
        }
        line.talk.go_on(qp)
    }

    /// The connection has ended. If it was the peer that has ended it, it waits for an answer.
    fn end(&mut self) -> Result<String> {
        // What arrived before is there now.
        self.talk()?;
        self.id.disconnect()?;
        let line = self.line.as_ref().context("the connection ended before it began")?;
        ensure!(line.talk.is_over(), "the peer has ended the connection: look at what it said");
        Ok(line.talk.summary())
    }
}
