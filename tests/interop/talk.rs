//! What the two processes tell each other over TCP.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use ibverbs_tests::DEADLINE;

const PORT: u16 = 18_600;

/// A connection to the other process.
pub(crate) struct Talk {
    stream: BufReader<TcpStream>,
}

impl Talk {
    /// Connects to the process at this address, or waits for one if there is none.
    pub(crate) fn connect(server: Option<&str>) -> Talk {
        let stream = match server {
            None => TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap().accept().unwrap().0,
            Some(server) => {
                let end = Instant::now() + DEADLINE;
                loop {
                    match TcpStream::connect((server, PORT)) {
                        Ok(stream) => break stream,
                        Err(error) => assert!(Instant::now() < end, "{server}: {error}"),
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        };
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(2 * DEADLINE)).unwrap();
        Talk { stream: BufReader::new(stream) }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.stream.get_mut(), "{line}").expect("the other process is gone");
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        let len = self.stream.read_line(&mut line).expect("the other process does not answer");
        assert!(len > 0, "the other process is gone");
        line.trim().to_owned()
    }

    /// Waits until both processes are there.
    #[track_caller]
    pub(crate) fn meet(&mut self, what: &str) {
        self.tell(what);
        assert_eq!(self.hear(), what, "the other process is elsewhere");
    }

    /// Sends bytes, and receives as many.
    pub(crate) fn exchange<const N: usize>(&mut self, bytes: &[u8; N]) -> [u8; N] {
        self.tell(&bytes.map(|byte| format!("{byte:02x}")).concat());
        let line = self.hear();
        assert_eq!(line.len(), 2 * N, "{line}");
        std::array::from_fn(|i| u8::from_str_radix(&line[2 * i..2 * i + 2], 16).unwrap())
    }
}
