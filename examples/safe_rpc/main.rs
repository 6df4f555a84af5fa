//! Remote procedure calls without a line of `unsafe`: a server and clients, of which any process may be killed at any
//! time, and each call that was acknowledged is executed exactly once.
//!
//! Messages are sent from and received into buffers of the owned posting level, which move to the device and back.
//!
//! ```text
//! safe_rpc                                            # the trial: starts all, kills, starts again, verifies
//! safe_rpc server /var/lib/calls.journal
//! safe_rpc client server.example.com --record calls.record --requests 100000
//! ```
//!
//! # Flow control
//!
//! Each side posts receives and says how many, over TCP, with the endpoint of its queue pair. A message uses up a
//! credit of its sender, and carries the number of receives that it has posted again. So every message finds a receive:
//! the queue pairs are told to fail at once if one does not (`rnr_retry` is 0). `credits` has the rules, and why
//! neither side waits for ever.
//!
//! # Exactly once
//!
//! A client has a session, by a number of its own, and numbers its requests. It has several in flight.
//!
//! 1. The server executes a request, keeps the reply, and writes both to its `journal`. Then it replies.
//! 2. The client checks the reply and writes to its `record` how far it is. Then the request is acknowledged.
//! 3. With its next request it says how far it is, and the server forgets replies up to there.
//!
//! | killed | what is lost | what happens |
//! |---|---|---|
//! | the server before 1 is written | the execution | the client sends the request again, and it is executed |
//! | the server after it | perhaps the reply | the client sends it again, and the reply that was kept comes |
//! | the client before 2 is written | the reply | started again it goes on from its record: as above |
//! | the client after it | nothing | started again it goes on with the next request |
//!
//! So a request is executed at least once, since it is sent until it is acknowledged; and at most once, since the
//! server knows the number of the last that it executed, and a `session` executes the next only. A client that cannot
//! make its requests again, as this one can, writes them to its record before it sends them.
//!
//! A session belongs to the last connection that asked for it: what an earlier one still has in its queue is not
//! executed.
//!
//! The `service` itself counts, and knows nothing of the numbers: if a call is lost or repeated, all its replies from
//! there on are others. Every reply is compared with the only right one, the last report of the server with the record,
//! and in the trial the record with the journal.
//!
//! What is written survives a process, and not a machine that loses power: it would have to be synchronised before each
//! step.

#![forbid(unsafe_code)]

mod client;
mod credits;
mod journal;
mod link;
mod record;
mod server;
mod service;
mod session;
mod store;
#[cfg(test)]
mod tests;
mod trial;
mod trouble;
mod wire;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Call a server over RDMA so that each call is executed exactly once, whatever process dies.
///
/// Without a command this starts a server and clients, kills them and starts them again, and checks at the end that all
/// that was acknowledged was executed once.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    trial: trial::TrialOptions,
}

#[derive(Subcommand)]
enum Command {
    /// Serve clients, until this is killed; started again with the same journal, it goes on
    Server(server::ServerOptions),
    /// Send requests to a server; started again with the same record, it goes on
    Client(client::ClientOptions),
}

fn main() -> Result<()> {
    let Options { command, trial } = Options::parse();
    match command {
        Some(Command::Server(options)) => server::run(&options),
        Some(Command::Client(options)) => client::run(&options),
        None => trial::run(&trial),
    }
}
