//! Two hosts between which links come and go: an initiator that has one connection, and a responder that keeps its
//! sessions, as a driver and a listener would.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use fluxar_proto::{
    Attempt, Code, Config, Connection, ConnectionError, Dial, Error, Event, Incoming, Instant, Offered,
    Progress, ResumeProgress, ResumeRefused, Resuming, TransmitBuf,
};

use super::{A, B, TestRng, ids};

/// More steps than any test needs.
const STEPS: usize = 200_000;

/// One direction of a link.
#[derive(Debug)]
struct Wire {
    flying: VecDeque<u8>,
    /// So many bytes more will arrive; what comes behind them is lost.
    passes: usize,
    /// So many bytes more may be read for now; what comes behind them waits.
    open: usize,
    /// Who reads sees the end behind what is flying.
    ended: bool,
}

impl Wire {
    fn carry(&mut self, bytes: &[u8]) {
        let passed = bytes.len().min(self.passes);
        self.passes -= passed;
        self.flying.extend(&bytes[..passed]);
    }

    /// Moves what has arrived, at most so many bytes; how many.
    fn take(&mut self, most: usize, input: &mut BytesMut) -> usize {
        let taken = self.flying.len().min(most).min(self.open);
        self.open -= taken;
        input.extend(self.flying.drain(..taken));
        taken
    }

    /// Who writes closes it: that too is lost, where what is written is.
    fn close(&mut self) {
        self.ended |= self.passes > 0;
    }

    fn at_end(&self) -> bool {
        self.ended && self.open > 0 && self.flying.is_empty()
    }
}

/// What the responder does with a link.
#[derive(Debug)]
enum Host {
    Incoming(Incoming),
    /// Waits for the confirmation of a session.
    Resuming(Resuming, usize),
    /// Drives a session, whose link had this number.
    Driving(usize, u64),
    Gone,
}

/// One side of a link.
#[derive(Debug, Default)]
struct Side {
    out: TransmitBuf,
    input: BytesMut,
}

#[derive(Debug)]
pub(crate) struct Link {
    /// `wires[n]` leads to side n.
    wires: [Wire; 2],
    sides: [Side; 2],
    /// The initiator's number for it, while its driver lives.
    number: Option<u64>,
    host: Host,
    /// Everything that each side has written.
    pub(crate) sent: [Vec<u8>; 2],
}

impl Link {
    /// Whether the responder has let go of it.
    pub(crate) fn is_dropped(&self) -> bool {
        matches!(self.host, Host::Gone)
    }

    /// The responder sees nothing more of it for now, its end included.
    pub(crate) fn hold(&mut self) {
        self.wires[B].open = 0;
    }
}

#[derive(Debug)]
pub(crate) struct Duo {
    pub(crate) now: Instant,
    config: Arc<Config>,
    pub(crate) a: Connection,
    /// The sessions of the responder, the latest at the end.
    pub(crate) b: Vec<Connection>,
    pub(crate) links: Vec<Link>,
    /// What handshakes failed with at the responder, for something that was said.
    pub(crate) broken: Vec<ConnectionError>,
    /// Events that nobody has taken: of the initiator, and of the responder with the number of the session.
    events: (Vec<Event>, Vec<(usize, Event)>),
    /// How the links cut what they carry; 0: not at all.
    pub(crate) pieces: usize,
    /// So many bytes a transport takes in one step; 0: all.
    pub(crate) takes: usize,
    /// So many sessions, of the first ones, the responder does not know any more.
    forgotten: usize,
    refusal: Option<Error>,
    rng: TestRng,
}

impl Duo {
    /// The initiator has no link yet.
    pub(crate) fn new(a: &Arc<Config>, b: &Arc<Config>, seed: u64) -> Self {
        Self {
            now: Instant::ZERO,
            config: b.clone(),
            a: Connection::waiting(a.clone(), Instant::ZERO, ids(seed ^ 0xa)),
            b: vec![],
            links: vec![],
            broken: vec![],
            events: (vec![], vec![]),
            pieces: 0,
            takes: 0,
            forgotten: 0,
            refusal: None,
            rng: TestRng::new(seed),
        }
    }

    /// A session is there.
    pub(crate) fn established(a: &Arc<Config>, b: &Arc<Config>) -> Self {
        let mut duo = Self::new(a, b, 7);
        duo.connect();
        duo.drive();
        assert!(matches!(duo.events_of_a()[..], [Event::Established]));
        assert!(matches!(duo.events_of_b()[..], [Event::Established]));
        duo
    }

    /// The latest session of the responder.
    pub(crate) fn b(&mut self) -> &mut Connection {
        self.b.last_mut().expect("a session")
    }

    /// A new link, which the initiator wants; its index.
    pub(crate) fn connect(&mut self) -> usize {
        let wanted = self.a.reconnect(self.now, Dial::default());
        assert_eq!(wanted, Ok(true), "the link is not wanted");
        let number = Some(self.a.link());
        let link = Link { number, ..self.fresh_link() };
        self.links.push(link);
        self.links.len() - 1
    }

    fn fresh_link(&mut self) -> Link {
        let wire = || Wire { flying: VecDeque::new(), passes: usize::MAX, open: usize::MAX, ended: false };
        Link {
            wires: [wire(), wire()],
            sides: Default::default(),
            number: None,
            host: Host::Incoming(Incoming::new(self.config.clone(), self.now, ids(self.rng.word()))),
            sent: [vec![], vec![]],
        }
    }

    pub(crate) fn link(&mut self) -> &mut Link {
        self.links.last_mut().expect("a link")
    }

    /// Of what flies to each side, and will, so many bytes still arrive. Nobody is told.
    pub(crate) fn cut(&mut self, link: usize, passes: [usize; 2]) {
        for (wire, passes) in self.links[link].wires.iter_mut().zip(passes) {
            let flying = wire.flying.len().min(passes);
            let lost = flying < wire.flying.len();
            wire.flying.truncate(flying);
            // What was cut before stays so.
            wire.passes = if lost { 0 } else { wire.passes.min(passes - flying) };
        }
    }

    /// How long the offer is that the initiator is about to send, its frame included.
    pub(crate) fn offer_len(&mut self) -> usize {
        let link = self.links.len() - 1;
        self.drive_a(link);
        self.link().sent[A].len()
    }

    /// Of what the initiator sends on a link, the responder sees only so many bytes for now.
    pub(crate) fn hold_back(&mut self, link: usize, open: usize) {
        self.links[link].wires[B].open = open;
    }

    /// The responder sees the rest.
    pub(crate) fn let_go(&mut self, link: usize) {
        self.links[link].wires[B].open = usize::MAX;
    }

    /// One side sees the end of its link, behind what still arrives.
    pub(crate) fn notice(&mut self, link: usize, side: usize) {
        let wire = &mut self.links[link].wires[side];
        (wire.ended, wire.passes) = (true, 0);
    }

    /// What flies to the initiator on the latest link becomes something else.
    pub(crate) fn tamper(&mut self, change: impl FnOnce(&mut [u8])) {
        let link = self.links.len() - 1;
        for _ in 0..3 {
            self.drive_a(link);
            self.drive_b(link);
            if !self.links[link].wires[A].flying.is_empty() {
                break;
            }
        }
        change(self.links[link].wires[A].flying.make_contiguous());
    }

    /// Somebody else connects, and sends these bytes; the index of the link.
    pub(crate) fn rogue(&mut self, bytes: &[u8]) -> usize {
        let mut link = self.fresh_link();
        link.wires[B].carry(bytes);
        self.links.push(link);
        self.links.len() - 1
    }

    /// The responder knows none of its sessions any more: it refuses whoever asks for one with this, or begins a fresh one.
    pub(crate) fn forget(&mut self, refusal: Option<Error>) {
        (self.forgotten, self.refusal) = (self.b.len(), refusal);
    }

    /// The settings of the responder change for links that come from now on.
    pub(crate) fn configure(&mut self, change: impl FnOnce(&mut Config)) {
        change(Arc::make_mut(&mut self.config));
    }

    /// The latest link breaks, with all that flies, and both sides see it.
    pub(crate) fn break_link(&mut self) {
        self.break_link_of(self.links.len() - 1);
    }

    /// The same for any link.
    pub(crate) fn break_link_of(&mut self, link: usize) {
        self.cut(link, [0, 0]);
        self.notice(link, A);
        self.notice(link, B);
        self.drive();
    }

    /// Takes the events of the initiator.
    pub(crate) fn events_of_a(&mut self) -> Vec<Event> {
        self.poll_events();
        std::mem::take(&mut self.events.0)
    }

    /// Takes the events of the responder, of all its sessions.
    pub(crate) fn events_of_b(&mut self) -> Vec<Event> {
        self.numbered_events_of_b().into_iter().map(|(_, event)| event).collect()
    }

    /// The same with the number of the session.
    pub(crate) fn numbered_events_of_b(&mut self) -> Vec<(usize, Event)> {
        self.poll_events();
        std::mem::take(&mut self.events.1)
    }

    fn poll_events(&mut self) {
        self.events.0.extend(std::iter::from_fn(|| self.a.poll_event()));
        for (n, connection) in self.b.iter_mut().enumerate() {
            self.events.1.extend(std::iter::from_fn(|| connection.poll_event()).map(|event| (n, event)));
        }
    }

    /// Does what can be done at this moment; whether there was something.
    pub(crate) fn step(&mut self) -> bool {
        let mut moved = self.fire();
        for link in 0..self.links.len() {
            moved |= self.drive_a(link);
            moved |= self.drive_b(link);
        }
        moved
    }

    /// Until nothing moves any more at this moment.
    pub(crate) fn drive(&mut self) {
        for _ in 0..STEPS {
            if !self.step() {
                return;
            }
        }
        panic!("never idle");
    }

    /// Lets time pass, with every timer at its moment.
    pub(crate) fn wait(&mut self, duration: Duration) {
        let until = self.now + duration;
        loop {
            self.drive();
            match self.next_timeout().filter(|next| *next <= until) {
                Some(next) => self.now = self.now.max(next),
                None => break,
            }
        }
        self.now = until;
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let hosts = self.links.iter().filter_map(|link| match &link.host {
            Host::Incoming(incoming) => Some(incoming.deadline()),
            Host::Resuming(resuming, _) => Some(resuming.deadline()),
            Host::Driving(..) | Host::Gone => None,
        });
        let sessions = self.b.iter().chain([&self.a]).filter_map(Connection::poll_timeout);
        hosts.chain(sessions).min()
    }

    fn fire(&mut self) -> bool {
        let now = self.now;
        let mut fired = false;
        for connection in self.b.iter_mut().chain([&mut self.a]) {
            if connection.poll_timeout().is_some_and(|at| at <= now) {
                fired = true;
                // Its error is the connection's, which keeps it.
                let _ended: Result<(), ConnectionError> = connection.handle_timeout(now);
                let next = connection.poll_timeout();
                assert!(next.is_none_or(|at| at > now), "a timer that does not advance: {connection:?}");
            }
        }
        fired
    }

    /// The initiator's driver of a link.
    fn drive_a(&mut self, link: usize) -> bool {
        let (now, piece, takes) = (self.now, self.piece(), self.takes());
        let Link { wires, sides, number, sent, .. } = &mut self.links[link];
        let Some(known) = *number else { return false };
        let connection = &mut self.a;
        if connection.link() != known || connection.is_closed() {
            // What it had written before still goes.
            *number = None;
            write(&mut sides[A], &mut wires[B], &mut sent[A], usize::MAX);
            wires[B].close();
            return true;
        }
        connection.poll_transmit(now, &mut sides[A].out);
        let mut moved = write(&mut sides[A], &mut wires[B], &mut sent[A], takes);
        moved |= read(connection, &mut sides[A], &mut wires[A], piece, now);
        moved
    }

    /// The responder's driver of a link.
    fn drive_b(&mut self, link: usize) -> bool {
        let (now, piece, takes) = (self.now, self.piece(), self.takes());
        let Link { wires, sides, host, sent, .. } = &mut self.links[link];
        match std::mem::replace(host, Host::Gone) {
            Host::Driving(session, number) => {
                let connection = &mut self.b[session];
                if connection.link() != number {
                    // What was not written is lost with the transport.
                    sides[B] = Side::default();
                    wires[A].close();
                    return true;
                }
                connection.poll_transmit(now, &mut sides[B].out);
                let mut moved = write(&mut sides[B], &mut wires[A], &mut sent[B], takes);
                if connection.is_closed() && sides[B].out.is_empty() {
                    wires[A].close();
                    return true;
                }
                *host = Host::Driving(session, number);
                if !connection.is_frozen() {
                    moved |= read(connection, &mut sides[B], &mut wires[B], piece, now);
                }
                moved
            }
            Host::Gone => false,
            waiting => {
                let taken = wires[B].take(piece, &mut sides[B].input);
                let ended = wires[B].at_end() && taken == 0;
                self.handshake(link, waiting, ended) || taken > 0
            }
        }
    }

    /// The responder's side of a handshake goes on.
    fn handshake(&mut self, link: usize, host: Host, ended: bool) -> bool {
        let now = self.now;
        let side = &mut self.links[link].sides[B];
        let next = match host {
            Host::Incoming(mut incoming) => {
                if ended || incoming.handle_timeout(now, &mut side.out).is_err() {
                    Host::Gone
                } else if side.input.is_empty() {
                    Host::Incoming(incoming)
                } else {
                    match incoming.handle_input(now, &mut side.input, &mut side.out) {
                        Ok(Progress::More(incoming)) => Host::Incoming(incoming),
                        Ok(Progress::Offered(offered)) => self.decide(link, *offered),
                        Err(error) => {
                            self.broken.push(error);
                            Host::Gone
                        }
                    }
                }
            }
            Host::Resuming(mut resuming, session) => {
                let attempt = resuming.attempt();
                if ended || resuming.handle_timeout(now).is_err() {
                    self.abandon(session, attempt)
                } else {
                    match resuming.handle_input(&mut side.input) {
                        Ok(ResumeProgress::More(resuming)) => Host::Resuming(resuming, session),
                        Ok(ResumeProgress::Confirmed(confirmed)) => {
                            let connection = &mut self.b[session];
                            if connection.confirm_link(now, confirmed) {
                                let number = connection.link();
                                // What came behind the confirmation.
                                if connection.handle_input(now, &mut side.input).is_err() {
                                    assert!(connection.error().is_some());
                                }
                                Host::Driving(session, number)
                            } else {
                                Host::Gone
                            }
                        }
                        Err(error) => {
                            self.broken.push(error);
                            self.abandon(session, attempt)
                        }
                    }
                }
            }
            host => host,
        };
        let Link { wires, sides, sent, host, .. } = &mut self.links[link];
        let mut moved = write(&mut sides[B], &mut wires[A], &mut sent[B], usize::MAX);
        if matches!(next, Host::Gone) {
            wires[A].close();
            moved = true;
        }
        moved |= matches!(next, Host::Driving(..));
        *host = next;
        moved
    }

    fn abandon(&mut self, session: usize, attempt: Attempt) -> Host {
        self.b[session].abandon(self.now, attempt);
        Host::Gone
    }

    /// What a listener does with an offer.
    fn decide(&mut self, link: usize, mut offered: Offered) -> Host {
        let now = self.now;
        let side = &mut self.links[link].sides[B];
        if let Some(resume) = offered.offer().resume.clone() {
            if let Some(refusal) = self.refusal.clone() {
                offered.refuse(now, refusal, &mut side.out);
                return Host::Gone;
            }
            let known = self.b.iter_mut().position(|session| session.session_id() == Some(resume.session));
            let known = known.filter(|session| *session >= self.forgotten);
            if let Some(session) = known {
                match self.b[session].take_up(now, &resume, offered.id()) {
                    Ok(tentative) => {
                        offered.set_resumed(tentative);
                        let resuming = offered.accept_resumed(now, &mut side.out).expect("a session");
                        return Host::Resuming(resuming, session);
                    }
                    Err(ResumeRefused::Violation(why)) => {
                        offered.refuse(now, Error::new(why.code(), why.to_string()), &mut side.out);
                        return Host::Gone;
                    }
                    Err(_) => {}
                }
            }
        }
        self.b.push(offered.accept(now));
        Host::Driving(self.b.len() - 1, self.b().link())
    }

    fn takes(&self) -> usize {
        if self.takes == 0 { usize::MAX } else { self.takes }
    }

    fn piece(&mut self) -> usize {
        if self.pieces == 0 { usize::MAX } else { 1 + self.rng.below(self.pieces) }
    }

    /// Nothing is kept to be sent again, on either side, once everything was told.
    pub(crate) fn kept(&mut self) -> [usize; 2] {
        [self.a.stats().kept_messages, self.b().stats().kept_messages]
    }
}

fn write(side: &mut Side, wire: &mut Wire, sent: &mut Vec<u8>, takes: usize) -> bool {
    let bytes = side.out.copy_to_bytes(side.out.remaining().min(takes));
    sent.extend_from_slice(&bytes);
    wire.carry(&bytes);
    !bytes.is_empty()
}

fn read(connection: &mut Connection, side: &mut Side, wire: &mut Wire, piece: usize, now: Instant) -> bool {
    if wire.take(piece, &mut side.input) > 0 {
        if connection.handle_input(now, &mut side.input).is_err() {
            assert!(connection.error().is_some());
        }
        return true;
    }
    if wire.at_end() {
        wire.ended = false;
        // Where it ends the connection, that keeps the error.
        let _ended: Result<(), ConnectionError> = connection.handle_eof(now, side.input.len());
        return true;
    }
    false
}

/// Settings of two hosts whose sessions survive their links.
pub(crate) fn survivors(change: impl Fn(&mut Config)) -> [Arc<Config>; 2] {
    [true, false].map(|reconnect| {
        super::config(|c| {
            (c.resume, c.reconnect) = (true, reconnect);
            c.limits.heartbeat_ms = 0;
            change(c);
        })
    })
}

/// How often sessions went on, and how many messages were sent again, among some events.
pub(crate) fn resumes(events: &[Event]) -> Vec<usize> {
    let resumes = events.iter().filter_map(|event| match event {
        Event::Resumed { resent } => Some(*resent),
        _ => None,
    });
    resumes.collect()
}

/// The code of the `close` among the messages of some bytes, if there is one.
pub(crate) fn closed(bytes: &[u8]) -> Option<Option<Code>> {
    let messages = super::Msg::decode_all(bytes);
    let close = messages.iter().find(|message| {
        message.target.as_deref() == Some(fluxar_proto::message::verb::CLOSE) && message.reference.is_none()
    });
    close.map(|close| close.error.as_ref().map(|error| error.code))
}
