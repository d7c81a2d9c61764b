//! The driver: the one task of a link that reads, writes and keeps the time of its connection.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use fluxar_proto::frame;
use fluxar_proto::{Connection, ConnectionError, Instant, Timeout, TransmitBuf};

use crate::farewell::poll_discard;
use crate::runtime::{Link, Runtime, Timer};
use crate::settings::Settings;
use crate::upkeep::{LinkEnd, STOPPED, Upkeep};

/// How much is read at once, at most, in bytes.
const READ_MAX: usize = 64 << 10;

/// How much is read at once from a connection that says little, in bytes.
const READ_MIN: usize = 4 << 10;

/// How often in a row the driver yields for more before it writes.
const CORKS: u8 = 3;

/// With so many bytes to write, it yields no more.
const CORK_MAX: usize = 2 << 10;

/// How many messages are handled in one turn: the fewer, the sooner the other side has something to do; the more, the
/// fewer system calls there are. With 128 calls in flight 16 did better than 24 and more in every run, and 8 no better.
const BURST: usize = 16;

/// The same where no call is under way: nobody waits for an answer then, and what a hub passes on goes out with fewer and
/// larger writes. With 64 subscribers 64 did more than twice as well as 16, and 256 no better.
const BULK_BURST: usize = 64;

/// How many pieces one vectored write takes.
const PIECES: usize = 64;

/// How often a poll reads and writes before it lets other tasks run.
const ROUNDS: usize = 16;

/// How long a closed connection tries to write what is left, within the time that closing may take in all.
const FLUSH: Duration = Duration::from_secs(1);

/// How long a closed connection waits for the peer to close too, so that what we said last still arrives;
/// within the time that closing may take in all.
const LINGER: Duration = Duration::from_secs(1);

/// Drives one connection over one link, to the end of either.
pub(crate) struct Driver<R: Runtime> {
    link: R::Link,
    /// The number of this link: where the connection has another one, or none, it is no business of ours any more.
    number: u64,
    upkeep: Upkeep,
    write_timeout: Duration,
    close_timeout: Duration,
    input: BytesMut,
    read_size: usize,
    out: TransmitBuf,
    /// There may be whole frames left in `input`.
    unhandled: bool,
    /// Nothing more will be read.
    read_closed: bool,
    /// How often in a row the driver has yielded before writing.
    corked: u8,
    /// Until when all is over: from the moment on in which the connection begins to close.
    over: Option<Instant>,
    /// Until when a closed connection writes.
    flush: Option<Instant>,
    /// Since when the transport has taken nothing of what waits.
    stalled: Option<Instant>,
    /// Since when the transport takes nothing at all any more, and what it said.
    broken: Option<(Instant, String)>,
    timer: R::Timer,
    armed: Option<Instant>,
    /// The peer has said enough for now (§15.4): nothing is read.
    resting: bool,
    /// Another link is about to take over (§9.8): nothing is handed in or written until it has, or has not.
    frozen: bool,
    /// What was read when that began.
    withheld: Option<io::Result<usize>>,
    ending: Ending,
}

/// How the link ends.
enum Ending {
    NotYet,
    /// All is written; the output is being closed.
    ShuttingDown(Instant),
    /// Waiting for the peer to close: closing before everything was read would destroy what is on its way to the peer.
    Lingering(Instant),
}

impl<R: Runtime> Driver<R> {
    /// Drives `link`, which is the connection's under this `number`; `input` was read from it already.
    pub(crate) fn new(
        runtime: &R,
        link: R::Link,
        number: u64,
        upkeep: Upkeep,
        settings: &Settings,
        input: BytesMut,
    ) -> Self {
        let clock = upkeep.shared.clock();
        let now = clock.now();
        let input_is_empty = input.is_empty();
        Self {
            timer: runtime.timer(clock.to_runtime(now)),
            armed: Some(now),
            link,
            number,
            upkeep,
            write_timeout: settings.write_timeout,
            close_timeout: settings.config.close_timeout,
            input,
            read_size: READ_MIN,
            out: TransmitBuf::new(),
            unhandled: !input_is_empty,
            read_closed: false,
            corked: 0,
            over: None,
            flush: None,
            stalled: None,
            broken: None,
            resting: false,
            frozen: false,
            withheld: None,
            ending: Ending::NotYet,
        }
    }

    /// Reads what there is, once. Ready where something has come: bytes, the end, or an error.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.read_closed || self.frozen || self.resting {
            return Poll::Pending;
        }
        if let Some(read) = self.withheld.take() {
            return Poll::Ready(read);
        }
        if self.unhandled {
            return Poll::Ready(Ok(self.input.len()));
        }
        if self.input.is_empty() {
            // An idle connection holds no buffer.
            std::task::ready!(self.link.poll_readable(cx))?;
        }
        self.input.reserve(self.wanted());
        let count = std::task::ready!(self.link.poll_read(cx, &mut self.input))?;
        self.read_size = if count >= self.read_size { (count * 2).min(READ_MAX) } else { self.read_size };
        Poll::Ready(Ok(count))
    }

    /// Room to read into. What a length prefix announces is trusted only as far as bytes have come: a frame's buffer
    /// doubles with what has arrived of it.
    fn wanted(&self) -> usize {
        frame::missing(&self.input).min(self.input.len().max(READ_MAX)).max(self.read_size)
    }

    /// One turn with the lock: hands in what was read, takes out what has happened and what is to be written. `None`
    /// where the link is not the connection's any more.
    fn turn(&mut self, cx: &mut Context<'_>, read: Poll<io::Result<usize>>) -> Option<Turned> {
        let shared = self.upkeep.shared.clone();
        let now = shared.clock().now();
        let mut state = shared.lock();
        if state.connection.link() != self.number {
            return None;
        }
        let thawed = std::mem::replace(&mut self.frozen, state.connection.is_frozen()) && !self.frozen;
        if self.frozen {
            // What is not handed in is not handled either, so that what the other link was told stays true (§9.8).
            self.withheld = self.withheld.take().or(match read {
                Poll::Ready(read) => Some(read),
                Poll::Pending => None,
            });
            self.stalled = None;
        } else {
            self.hand_in(now, &mut state.connection, read);
        }
        if state.connection.poll_timeout().is_some_and(|at| at <= now) {
            state.connection.handle_timeout(now).ok();
        }
        if self.stalled.is_some_and(|since| now - since >= self.write_timeout) {
            state.connection.abort_link(now, self.number, ConnectionError::TimedOut(Timeout::Write));
            self.out = TransmitBuf::new();
        }
        if std::mem::take(&mut state.drops_link) {
            state.connection.abort_link(now, self.number, ConnectionError::LinkLost { unread: 0 });
            self.out = TransmitBuf::new();
        }
        let added = self.take_out(now, &mut state.connection);
        state.drain_events(&mut self.upkeep.chores);
        let in_line = state.expire_queue(now, &mut self.upkeep.chores);
        let number = state.connection.link();
        let rested = std::mem::replace(&mut self.resting, state.connection.read_after().is_some());
        let turned = Turned {
            lost: (number != self.number).then_some(number),
            parting: added > 0,
            thawed: thawed || rested && !self.resting,
            crowded: added > 0 && state.connection.in_flight() > 1,
            more: self.broken.is_none() && state.connection.wants_transmit(),
            closed: state.connection.is_closed(),
            deadline: [state.connection.poll_timeout(), in_line].into_iter().flatten().min(),
        };
        if turned.lost.is_none() {
            state.arm(cx);
        }
        let ending = state.connection.error().is_some();
        drop(state);
        if ending {
            self.over.get_or_insert(now + self.close_timeout);
        }
        if turned.closed {
            let until = self.within(now + FLUSH);
            if *self.flush.get_or_insert(until) <= now {
                self.out = TransmitBuf::new();
            }
        }
        Some(turned)
    }

    /// Every error is sticky and queues what the peer is to be told: the end is noticed by `is_closed`.
    fn hand_in(&mut self, now: Instant, connection: &mut Connection, read: Poll<io::Result<usize>>) {
        match read {
            // What it said first is the reason.
            Poll::Ready(Ok(0) | Err(_)) if self.broken.is_some() => self.read_closed = true,
            Poll::Ready(Ok(0)) => {
                self.read_closed = true;
                connection.handle_eof(now, self.input.len()).ok();
            }
            Poll::Ready(Ok(_)) => {
                let burst = if connection.in_flight() > 0 { BURST } else { BULK_BURST };
                let handled = connection.handle_some_input(now, &mut self.input, burst);
                self.unhandled = handled.unwrap_or(false);
            }
            Poll::Ready(Err(error)) => {
                self.read_closed = true;
                connection.abort_link(now, self.number, ConnectionError::Transport(error.to_string()));
            }
            Poll::Pending => {}
        }
    }

    /// What is to be written; how much that is, in bytes.
    fn take_out(&mut self, now: Instant, connection: &mut Connection) -> usize {
        match &self.broken {
            _ if self.frozen => 0,
            None => connection.poll_transmit(now, &mut self.out),
            // Why nothing can be sent any more may be among what has still to be read: the peer's `close`.
            Some((since, why)) => {
                if self.read_closed || connection.error().is_some() || now - *since >= FLUSH {
                    connection.abort_link(now, self.number, ConnectionError::Transport(why.clone()));
                }
                0
            }
        }
    }

    /// Writes until all is written or the transport takes no more.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let mut count = 0;
            for (piece, segment) in pieces.iter_mut().zip(self.out.segments()) {
                *piece = IoSlice::new(segment);
                count += 1;
            }
            let written = match self.link.poll_write(cx, &pieces[..count]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => written,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.stalled.get_or_insert_with(|| self.upkeep.shared.clock().now());
                    return Poll::Pending;
                }
            };
            self.stalled = None;
            self.out.advance(written);
        }
        self.stalled = None;
        Poll::Ready(Ok(()))
    }

    /// Sees to it that the task runs again when the next deadline has come. Ready when it has.
    fn poll_timer(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        let Some(deadline) = deadline else { return Poll::Pending };
        // A timer that fires too early does no harm, so that it moves only forwards in time when it must: deadlines of
        // calls come and go without touching it.
        if self.armed.is_none_or(|armed| deadline < armed) {
            self.arm(deadline);
        }
        while self.timer.poll_expired(cx).is_ready() {
            if self.upkeep.shared.clock().now() >= deadline {
                self.armed = None;
                return Poll::Ready(());
            }
            self.arm(deadline);
        }
        Poll::Pending
    }

    fn arm(&mut self, at: Instant) {
        self.timer.reset(self.upkeep.shared.clock().to_runtime(at));
        self.armed = Some(at);
    }

    fn deadline(&self, core: Option<Instant>) -> Option<Instant> {
        if self.frozen {
            return core;
        }
        let stall = self.stalled.map(|since| since + self.write_timeout);
        let broken = self.broken.as_ref().map(|(since, _)| *since + FLUSH);
        [core, stall, self.flush, broken].into_iter().flatten().min()
    }

    /// `at`, or when all is over: closing has one clock.
    fn within(&self, at: Instant) -> Instant {
        self.over.map_or(at, |over| at.min(over))
    }

    /// Closes the link so that what was written last arrives.
    fn poll_ending(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.ending {
                Ending::NotYet => {
                    let until = self.within(self.upkeep.shared.clock().now() + LINGER);
                    self.ending = Ending::ShuttingDown(until);
                }
                Ending::ShuttingDown(until) => {
                    let until = *until;
                    match self.link.poll_shutdown(cx) {
                        Poll::Ready(Ok(())) if !self.read_closed => {
                            self.ending = Ending::Lingering(until);
                        }
                        Poll::Ready(_) => return Poll::Ready(()),
                        Poll::Pending => return self.poll_timer(cx, Some(until)),
                    }
                }
                Ending::Lingering(until) => {
                    let until = *until;
                    if poll_discard(cx, &mut self.link, &mut self.input).is_ready() {
                        return Poll::Ready(());
                    }
                    return self.poll_timer(cx, Some(until));
                }
            }
        }
    }

    /// A timer is the sign of a quiet connection, which needs no buffers.
    fn release_buffers(&mut self) {
        self.out.shrink();
        if self.input.is_empty() {
            (self.input, self.read_size) = (BytesMut::new(), READ_MIN);
        }
    }

    fn poll_round(&mut self, cx: &mut Context<'_>) -> Poll<Round> {
        let read = self.poll_read(cx);
        let idle = read.is_pending();
        let Some(turned) = self.turn(cx, read) else { return Poll::Ready(Round::Over(LinkEnd::Replaced)) };
        let busy = self.upkeep.do_chores();
        if let Some(number) = turned.lost {
            // The last word, where the transport takes it at once (§6.9).
            let _written = turned.parting && self.poll_write(cx).is_ready();
            return Poll::Ready(Round::Over(LinkEnd::Lost(number)));
        }
        if self.frozen {
            return self.poll_timer(cx, turned.deadline).map(|()| Round::Again);
        }
        if turned.thawed {
            return Poll::Ready(Round::Again);
        }
        // Whoever was woken goes first, before more is taken in: what it says can be on its way, and be handled at the
        // other end, while this side handles the rest.
        if busy && self.unhandled && self.out.is_empty() {
            cx.waker().wake_by_ref();
            return Poll::Ready(Round::Yielded);
        }
        // Cork: with several calls under way others are about to add to what waits, so that one write serves many. It
        // goes on while something comes to it; a lone caller must not wait for nobody.
        if turned.crowded && self.corked < CORKS && self.out.remaining() < CORK_MAX {
            self.corked += 1;
            cx.waker().wake_by_ref();
            return Poll::Ready(Round::Yielded);
        }
        self.corked = 0;
        let blocked = match self.poll_write(cx) {
            Poll::Ready(Ok(())) => false,
            Poll::Ready(Err(error)) => {
                let now = self.upkeep.shared.clock().now();
                self.broken.get_or_insert((now, error.to_string()));
                self.out = TransmitBuf::new();
                return Poll::Ready(Round::Again);
            }
            Poll::Pending => true,
        };
        if turned.closed && !blocked {
            return Poll::Ready(Round::Over(LinkEnd::Over));
        }
        if !idle || (turned.more && !blocked) {
            return Poll::Ready(Round::Again);
        }
        let deadline = self.deadline(turned.deadline);
        self.poll_timer(cx, deadline).map(|()| {
            self.release_buffers();
            Round::Again
        })
    }
}

/// What the driver learned in its turn with the lock.
struct Turned {
    /// There is something to write, also where the link is lost.
    parting: bool,
    /// The link is lost, and the connection goes on without one under this number.
    lost: Option<u64>,
    /// The link is ours alone again, or the peer may go on.
    thawed: bool,
    /// Several calls are under way, and there is something to write.
    crowded: bool,
    /// There is more to write than was taken.
    more: bool,
    /// Nothing more will come to be written.
    closed: bool,
    /// When the core wants to be called next, or somebody will have waited for too long.
    deadline: Option<Instant>,
}

/// What a round of the driver comes to.
enum Round {
    Again,
    Yielded,
    Over(LinkEnd),
}

impl<R: Runtime> Future for Driver<R> {
    type Output = LinkEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LinkEnd> {
        let this = &mut *self;
        if !matches!(this.ending, Ending::NotYet) {
            return this.poll_ending(cx).map(|()| LinkEnd::Over);
        }
        for _ in 0..ROUNDS {
            match std::task::ready!(this.poll_round(cx)) {
                Round::Again => {}
                Round::Yielded => return Poll::Pending,
                Round::Over(LinkEnd::Over) => return this.poll_ending(cx).map(|()| LinkEnd::Over),
                // The transport is dropped as it is: there is nothing more to be said on it (§9.8).
                Round::Over(end) => return Poll::Ready(end),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The end of the link; or the runtime went down, or dropped the task. Whoever waits must learn of it.
impl<R: Runtime> Drop for Driver<R> {
    fn drop(&mut self) {
        let upkeep = &mut self.upkeep;
        let now = upkeep.shared.clock().now();
        let mut state = upkeep.shared.lock();
        if state.connection.link() != self.number {
            return;
        }
        state.connection.abort(now, ConnectionError::Transport(STOPPED.into()));
        state.drain_events(&mut upkeep.chores);
        // A session that outlives its link is with whoever keeps it.
        if !state.connection.is_detached() {
            state.unlink(&mut upkeep.chores);
        }
        drop(state);
        upkeep.wind_up();
    }
}
