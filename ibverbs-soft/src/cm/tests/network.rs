//! The network.

use std::time::{Duration, Instant};

use super::Owner;
use crate::cm::{Event, Manager, MessageBytes, Notice};
use crate::random::Random;
use crate::transport::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

impl Side {
    pub(super) fn other(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }
}

/// What happens to messages, in percent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weather {
    pub(super) lost: u64,
    pub(super) repeated: u64,
    /// How many milliseconds they take at most.
    pub(super) delay: u64,
}

pub(super) struct Network {
    pub(super) client: Manager<Owner>,
    pub(super) server: Manager<Owner>,
    weather: Weather,
    random: Random,
    start: Instant,
    time: Duration,
    /// Messages on their way, with their times of arrival.
    flying: Vec<(Duration, Side, Path, Box<MessageBytes>)>,
    pub(super) events: Vec<Notice<Owner>>,
    /// A side that gets nothing any more, as if it were dead.
    pub(super) dead: Option<Side>,
    /// How many messages were sent.
    pub(super) sent: usize,
}

impl Network {
    /// One that delivers everything, at once.
    pub(super) fn fine() -> Network {
        Network::with(Weather::default(), 0)
    }

    pub(super) fn with(weather: Weather, seed: u64) -> Network {
        Network {
            client: Manager::new(0xc, 1000),
            server: Manager::new(0x5, 2000),
            weather,
            random: Random::from_seed(seed),
            start: Instant::now(),
            time: Duration::ZERO,
            flying: Vec::new(),
            events: Vec::new(),
            dead: None,
            sent: 0,
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.start + self.time
    }

    pub(super) fn manager(&mut self, side: Side) -> &mut Manager<Owner> {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.random.next() % 100 < percent
    }

    fn collect(&mut self) {
        for side in [Side::Client, Side::Server] {
            while let Some((path, message)) = self.manager(side).poll_transmit() {
                self.sent += 1;
                let copies = match () {
                    () if self.dead == Some(side.other()) || self.chance(self.weather.lost) => 0,
                    () if self.chance(self.weather.repeated) => 2,
                    () => 1,
                };
                for _ in 0..copies {
                    let delay = self.random.next() % (self.weather.delay + 1);
                    let arrival = self.time + Duration::from_millis(delay);
                    self.flying.push((arrival, side.other(), path, message.clone()));
                }
            }
            while let Some(notice) = self.manager(side).poll_event() {
                self.events.push(notice);
            }
        }
    }

    /// Lets the next thing happen that does before the end; false if there is none.
    fn step(&mut self, end: Duration) -> bool {
        self.collect();
        let next_message =
            self.flying.iter().enumerate().min_by_key(|(_, it)| it.0).map(|(n, it)| (it.0, n));
        let now = self.start;
        let timeouts = [self.client.next_timeout(), self.server.next_timeout()];
        let next_timeout =
            timeouts.into_iter().flatten().min().map(|time| time.saturating_duration_since(now));
        match (next_message, next_timeout) {
            (Some((time, n)), timeout) if timeout.is_none_or(|it| time <= it) && time <= end => {
                self.time = self.time.max(time);
                let (_, side, path, message) = self.flying.remove(n);
                let now = self.now();
                self.manager(side).handle_message(now, &path, &*message);
            }
            (_, Some(time)) if time <= end => {
                self.time = self.time.max(time);
                let now = self.now();
                self.client.handle_timeout(now);
                self.server.handle_timeout(now);
            }
            _ => return false,
        }
        self.collect();
        true
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.time + time;
        while self.step(end) {}
        self.time = end;
    }

    /// Waits for the next event of an owner.
    #[track_caller]
    pub(super) fn expect(&mut self, owner: Owner) -> (u32, Event) {
        let end = self.time + Duration::from_secs(120);
        loop {
            self.collect();
            if let Some(n) = self.events.iter().position(|notice| notice.owner == owner) {
                let notice = self.events.remove(n);
                return (notice.connection, notice.event);
            }
            assert!(self.step(end), "nothing happens any more");
        }
    }
}
