//! Two connections, and between them links in memory that cut what they carry into pieces, delay it, or break.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use fluxar_proto::{Config, Connection, ConnectionError, Event, Incoming, Instant, Progress, TransmitBuf};

use super::{Outcome, TestRng, ids, outcomes};

/// More steps than any test needs: a session that is not idle after as many never will be.
const STEPS: usize = 100_000;

/// How a link cuts what it carries, or what it has carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunks {
    /// As it is written.
    Whole,
    /// Into pieces of so many bytes.
    Of(usize),
    /// Into pieces of random size, from one byte to so many.
    UpTo(usize),
}

impl Chunks {
    fn next(self, left: usize, rng: &mut TestRng) -> usize {
        match self {
            Self::Whole => left,
            Self::Of(size) => size.min(left),
            Self::UpTo(size) => (1 + rng.below(size)).min(left),
        }
    }
}

/// In which order a step does what is to be done.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// Timers, transmitting, delivering, events.
    Fixed,
    /// Any, with useless calls in between.
    Shuffled(TestRng),
}

/// One direction of the link.
#[derive(Debug)]
struct Wire {
    flying: VecDeque<(Instant, Vec<u8>)>,
    /// What was sent before has left by then.
    busy: Instant,
    /// The other side will see the end behind what is flying.
    ended: bool,
}

/// One side.
#[derive(Debug)]
pub(crate) struct End {
    incoming: Option<Incoming>,
    pub(crate) connection: Option<Connection>,
    out: TransmitBuf,
    input: BytesMut,
    /// Everything that was sent.
    pub(crate) sent: Vec<u8>,
    /// The transport takes nothing at the moment.
    pub(crate) blocked: bool,
    /// What the handshake or the connection failed with.
    pub(crate) error: Option<ConnectionError>,
    /// Events that nobody has taken.
    pub(crate) events: Vec<Event>,
    shut: bool,
}

#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) ends: [End; 2],
    /// `wires[n]` leads to `ends[n]`.
    wires: [Wire; 2],
    rng: TestRng,
    /// How the link cuts: its pieces arrive at different times.
    pub(crate) chunks: Chunks,
    /// How the receiver reads what has arrived: without doing anything else in between.
    pub(crate) reads: Chunks,
    /// In which order a step does things.
    pub(crate) order: Order,
    /// Pieces take this long,
    pub(crate) latency: Duration,
    /// and up to so much more.
    pub(crate) delay: Duration,
    /// So many bytes leave in a millisecond, each way; 0: any number.
    pub(crate) rate: u64,
}

/// The index of the side that initiates.
pub(crate) const A: usize = 0;
/// The index of the side that responds.
pub(crate) const B: usize = 1;

impl Pair {
    /// A pair that has not exchanged a byte.
    pub(crate) fn new(a: &Arc<Config>, b: &Arc<Config>, seed: u64) -> Self {
        let now = Instant::ZERO;
        let end = |incoming, connection| End {
            incoming,
            connection,
            out: TransmitBuf::new(),
            input: BytesMut::new(),
            sent: vec![],
            blocked: false,
            error: None,
            events: vec![],
            shut: false,
        };
        let initiator = Connection::initiate(a.clone(), now, ids(seed ^ 0xa));
        let responder = Incoming::new(b.clone(), now, ids(seed ^ 0xb));
        Self {
            now,
            ends: [end(None, Some(initiator)), end(Some(responder), None)],
            wires: [(); 2].map(|()| Wire { flying: VecDeque::new(), busy: now, ended: false }),
            rng: TestRng::new(seed),
            chunks: Chunks::Whole,
            reads: Chunks::Whole,
            order: Order::Fixed,
            latency: Duration::ZERO,
            delay: Duration::ZERO,
            rate: 0,
        }
    }

    /// A pair with these settings on both sides, and its handshake behind it.
    pub(crate) fn established(config: &Arc<Config>) -> Self {
        let mut pair = Self::new(config, config, 7);
        pair.drive();
        for end in [A, B] {
            assert!(matches!(pair.events(end)[..], [Event::Established]));
        }
        pair
    }

    /// The connection of one side; the responder has none before the offer has come.
    pub(crate) fn side(&mut self, end: usize) -> &mut Connection {
        self.ends[end].connection.as_mut().expect("a connection")
    }

    pub(crate) fn a(&mut self) -> &mut Connection {
        self.side(A)
    }

    pub(crate) fn b(&mut self) -> &mut Connection {
        self.side(B)
    }

    /// Takes the events of one side.
    pub(crate) fn events(&mut self, end: usize) -> Vec<Event> {
        self.poll_events(end);
        std::mem::take(&mut self.ends[end].events)
    }

    /// The outcomes of the calls of one side among its events.
    pub(crate) fn outcomes(&mut self, end: usize) -> Vec<Outcome> {
        let events = self.events(end);
        outcomes(self.side(end), &events)
    }

    /// The transport breaks: what flies is lost, and both sides see the end.
    pub(crate) fn cut(&mut self) {
        for wire in &mut self.wires {
            wire.flying.clear();
            wire.ended = true;
        }
    }

    /// The network fails without anybody being told: from now on everything is lost.
    pub(crate) fn lose(&mut self) {
        self.latency = Duration::from_secs(1_000_000);
    }

    /// Does what can be done at this moment; whether there was something.
    pub(crate) fn step(&mut self) -> bool {
        let Order::Shuffled(mut rng) = self.order.clone() else { return self.step_in_order() };
        let mut moved = false;
        for _ in 0..rng.below(12) {
            let end = rng.below(2);
            moved |= match rng.below(6) {
                0 => self.fire(end),
                1 => self.transmit(end),
                2 => self.deliver(end),
                3 => self.poll_events(end),
                4 => self.transmit(end) | self.transmit(end) | self.poll_events(end),
                _ => self.disturb(end),
            };
        }
        self.order = Order::Shuffled(rng);
        // The last word has an orderly step, so that idle is idle.
        moved || self.step_in_order()
    }

    fn step_in_order(&mut self) -> bool {
        [A, B]
            .map(|end| self.fire(end) | self.transmit(end) | self.deliver(end) | self.poll_events(end))
            .contains(&true)
    }

    /// Until nothing moves any more; pieces in flight arrive, but no timer is waited for.
    pub(crate) fn drive(&mut self) {
        for _ in 0..STEPS {
            if !self.step() {
                match self.next_arrival() {
                    Some(at) => self.now = self.now.max(at),
                    None => return,
                }
            }
        }
        panic!("never idle: {self:#?}");
    }

    /// Lets time pass, with every timer and every piece at its moment.
    pub(crate) fn wait(&mut self, duration: Duration) {
        let until = self.now + duration;
        for _ in 0..STEPS {
            if self.step() {
                continue;
            }
            let timers = self.ends.iter().filter_map(|end| end.connection.as_ref()?.poll_timeout());
            match timers.chain(self.next_arrival()).min().filter(|next| *next <= until) {
                Some(next) => self.now = self.now.max(next),
                None => {
                    self.now = until;
                    return;
                }
            }
        }
        panic!("never idle: {self:#?}");
    }

    /// Calls that have no use at this moment, and must do no harm.
    fn disturb(&mut self, end: usize) -> bool {
        let (now, end) = (self.now, &mut self.ends[end]);
        let Some(connection) = &mut end.connection else { return false };
        let _early_or_late: Result<(), ConnectionError> = connection.handle_timeout(now);
        if connection.error().is_none() {
            connection.handle_input(now, &mut end.input).unwrap();
        }
        let _polled = (connection.poll_timeout(), connection.wants_transmit(), connection.stats());
        false
    }

    fn next_arrival(&self) -> Option<Instant> {
        self.wires.iter().filter_map(|wire| Some(wire.flying.front()?.0)).min()
    }

    fn fire(&mut self, end: usize) -> bool {
        let (now, end) = (self.now, &mut self.ends[end]);
        let Some(connection) = &mut end.connection else { return false };
        if connection.poll_timeout().is_none_or(|at| at > now) {
            return false;
        }
        if let Err(error) = connection.handle_timeout(now) {
            end.error.get_or_insert(error);
        }
        assert!(connection.poll_timeout().is_none_or(|at| at > now), "a timer that does not advance");
        true
    }

    fn transmit(&mut self, from: usize) -> bool {
        let now = self.now;
        let end = &mut self.ends[from];
        let added = match &mut end.connection {
            Some(connection) => connection.poll_transmit(now, &mut end.out),
            None => 0,
        };
        if end.blocked {
            return added > 0;
        }
        let bytes = end.out.copy_to_bytes(end.out.remaining());
        end.sent.extend_from_slice(&bytes);
        let over = match &end.connection {
            Some(connection) => connection.is_closed(),
            None => end.error.is_some(),
        };
        let shutting = over && !std::mem::replace(&mut end.shut, over);
        self.carry(1 - from, &bytes);
        self.wires[1 - from].ended |= shutting;
        shutting || !bytes.is_empty()
    }

    fn carry(&mut self, to: usize, mut bytes: &[u8]) {
        let wire = &mut self.wires[to];
        if wire.ended {
            return;
        }
        while !bytes.is_empty() {
            let size = self.chunks.next(bytes.len(), &mut self.rng);
            let (piece, rest) = bytes.split_at(size);
            let delay = self.rng.below(self.delay.as_micros() as usize + 1) as u64;
            let takes = (size as u64 * 1000).checked_div(self.rate).unwrap_or(0);
            wire.busy = wire.busy.max(self.now) + Duration::from_micros(takes);
            let arrival = wire.busy + self.latency + Duration::from_micros(delay);
            // Pieces do not overtake each other.
            let arrival = wire.flying.back().map_or(arrival, |(last, _)| arrival.max(*last));
            wire.flying.push_back((arrival, piece.to_vec()));
            bytes = rest;
        }
    }

    fn deliver(&mut self, to: usize) -> bool {
        let now = self.now;
        if let Some((_, piece)) = self.wires[to].flying.pop_front_if(|(at, _)| *at <= now) {
            let mut rest = &piece[..];
            while !rest.is_empty() {
                let read;
                (read, rest) = rest.split_at(self.reads.next(rest.len(), &mut self.rng));
                self.ends[to].take(now, read);
            }
            return true;
        }
        let ends = self.wires[to].ended && self.wires[to].flying.is_empty();
        let end = &mut self.ends[to];
        match &mut end.connection {
            Some(connection) if ends && !connection.is_closed() => {
                let error = connection.handle_eof(now, end.input.len()).unwrap_err();
                end.error.get_or_insert(error);
                true
            }
            _ => false,
        }
    }

    fn poll_events(&mut self, end: usize) -> bool {
        let end = &mut self.ends[end];
        let Some(connection) = &mut end.connection else { return false };
        let before = end.events.len();
        end.events.extend(std::iter::from_fn(|| connection.poll_event()));
        end.events.len() > before
    }
}

impl End {
    fn take(&mut self, now: Instant, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        if let Some(incoming) = self.incoming.take() {
            match incoming.handle_input(now, &mut self.input, &mut self.out) {
                Ok(Progress::More(incoming)) => self.incoming = Some(incoming),
                Ok(Progress::Offered(offered)) => self.connection = Some(offered.accept(now)),
                Err(error) => self.error = Some(error),
            }
        }
        if let Some(connection) = &mut self.connection
            && let Err(error) = connection.handle_input(now, &mut self.input)
        {
            self.error.get_or_insert(error);
        }
    }
}
