//! A server and clients in one process, with peers that say anything. Who dies is left to the trial.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use clap::Parser;

use crate::wire::{Banner, Greeting, HEAD};
use crate::{client, server, Command, Options};

fn command(words: &[&str]) -> Command {
    ibverbs::soft::install().unwrap();
    let words = ["safe_rpc"].iter().chain(words);
    Options::try_parse_from(words).unwrap().command.unwrap()
}

/// Runs a client with these further words, of the server on this port.
fn call(port: u16, words: &[&str]) -> anyhow::Result<()> {
    let port = format!("--tcp-port={port}");
    let Command::Client(options) = command(&[&["client", "127.0.0.1", &port], words].concat())
    else {
        panic!("it is no client")
    };
    client::run(&options)
}

/// A server that runs until the tests end, on its port.
fn serve() -> (tempfile::TempDir, u16) {
    let folder = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (journal, tcp_port) = (folder.path().join("journal"), format!("--tcp-port={port}"));
    let words = ["server", "--bind=127.0.0.1", &tcp_port, journal.to_str().unwrap()];
    let Command::Server(options) = command(&words) else { panic!("it is no server") };
    std::thread::spawn(move || server::run(&options).unwrap());
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::sleep(Duration::from_millis(10));
    }
    (folder, port)
}

/// What the server says at the end to somebody who says this.
fn answer(port: u16, words: &[u8]) -> String {
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut banner = [0; HEAD.len() + Banner::BYTES];
    tcp.read_exact(&mut banner).unwrap();
    tcp.write_all(words).unwrap();
    tcp.shutdown(Shutdown::Write).unwrap();
    let mut said = Vec::new();
    // What it has not read may reset the connection.
    let _ = tcp.read_to_end(&mut said);
    String::from_utf8(said).unwrap()
}

#[test]
fn a_server_of_many_clients_goes_on_whatever_they_say() {
    let (_folder, port) = serve();
    std::thread::scope(|scope| {
        for words in [["--size=1", "--requests=500"], ["--size=5000", "--requests=300"]] {
            scope.spawn(move || call(port, &words).unwrap());
        }
        let says = |words: &[u8]| answer(port, words);
        assert_eq!(says(b"GET / HTTP"), "the peer is another program");
        let mut head = HEAD;
        head[9] += 1;
        assert!(says(&head).contains("speaks version 2, and here it is 1"));
        let garbage = [&HEAD[..], &[0xff; Greeting::BYTES]].concat();
        assert!(says(&garbage).contains("bytes are not 1 to"));
        for len in 0..garbage.len() {
            says(&garbage[..len]);
        }
    });
    call(port, &["--requests=100"]).unwrap();
}

#[test]
fn a_client_goes_on_from_its_record_and_only_with_the_same_journal() {
    let ((_folder, port), (_other, other)) = (serve(), serve());
    let folder = tempfile::tempdir().unwrap();
    let record = format!("--record={}", folder.path().join("record").display());
    let requests = |count| format!("--requests={count}");
    for count in [100, 100, 250] {
        call(port, &[&record, &requests(count)]).unwrap();
    }
    let refusal = call(other, &[&record, &requests(300)]).unwrap_err().to_string();
    assert!(
        refusal.contains("the peer says: this server knows nothing of the client"),
        "{refusal}"
    );
    call(port, &[&record, &requests(300)]).unwrap();
}

#[test]
fn a_client_tells_what_its_server_is_not() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let refusal = |words: &'static [u8]| {
        std::thread::scope(|scope| {
            // The first connection comes to nothing, and the client tries again.
            scope.spawn(|| {
                drop(listener.accept().unwrap());
                let (mut tcp, _) = listener.accept().unwrap();
                tcp.write_all(words).unwrap();
                let _ = tcp.read_to_end(&mut Vec::new());
            });
            call(port, &["--requests=1"]).unwrap_err().to_string()
        })
    };
    assert_eq!(refusal(b"220 mail.example.com ESMTP"), "the peer is another program");
    assert!(refusal(b"safe_rpc\0\x02").contains("speaks version 2"));
    assert!(refusal(b"safe_rpc\0\x01\0\0\0\x04\0\0\x03").contains("3 receives"));
}
