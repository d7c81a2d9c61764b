//! The responder's part of the handshake, over a link.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::ops::ControlFlow;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use fluxar_proto::{
    Confirmed, ConnectionError, Incoming, Instant, Offered, Progress, ProofProgress, Proving, ResumeProgress,
    Resuming, TransmitBuf,
};

use crate::clock::Clock;
use crate::farewell::poll_discard;
use crate::runtime::{Link, Runtime, Timer};

/// Room for the first bytes of a connection; an offer is smaller as a rule.
const ROOM: usize = 1024;

/// How long a refused peer has to take what it is told.
const FAREWELL: Duration = Duration::from_secs(1);

/// A part of the handshake in which the initiator has to say something.
pub(crate) trait Stage: Sized {
    /// What comes of it.
    type Done;

    /// When the handshake must be done.
    fn deadline(&self) -> Instant;

    /// The deadline may have passed.
    fn handle_timeout(&mut self, now: Instant, out: &mut TransmitBuf) -> Result<(), ConnectionError>;

    /// Takes what the initiator says from `input`, once it is whole.
    fn handle_input(
        self,
        now: Instant,
        input: &mut BytesMut,
        out: &mut TransmitBuf,
    ) -> Result<ControlFlow<Self::Done, Self>, ConnectionError>;
}

impl Stage for Incoming {
    type Done = Box<Offered>;

    fn deadline(&self) -> Instant {
        Self::deadline(self)
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut TransmitBuf) -> Result<(), ConnectionError> {
        Self::handle_timeout(self, now, out)
    }

    fn handle_input(
        self,
        now: Instant,
        input: &mut BytesMut,
        out: &mut TransmitBuf,
    ) -> Result<ControlFlow<Self::Done, Self>, ConnectionError> {
        Ok(match Self::handle_input(self, now, input, out)? {
            Progress::More(more) => ControlFlow::Continue(more),
            Progress::Offered(offered) => ControlFlow::Break(offered),
        })
    }
}

impl Stage for Proving {
    type Done = Box<Offered>;

    fn deadline(&self) -> Instant {
        Self::deadline(self)
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut TransmitBuf) -> Result<(), ConnectionError> {
        Self::handle_timeout(self, now, out)
    }

    fn handle_input(
        self,
        now: Instant,
        input: &mut BytesMut,
        out: &mut TransmitBuf,
    ) -> Result<ControlFlow<Self::Done, Self>, ConnectionError> {
        Ok(match Self::handle_input(self, now, input, out)? {
            ProofProgress::More(more) => ControlFlow::Continue(more),
            ProofProgress::Offered(offered) => ControlFlow::Break(offered),
        })
    }
}

impl Stage for Resuming {
    type Done = Confirmed;

    fn deadline(&self) -> Instant {
        Self::deadline(self)
    }

    fn handle_timeout(&mut self, now: Instant, _out: &mut TransmitBuf) -> Result<(), ConnectionError> {
        Self::handle_timeout(self, now)
    }

    fn handle_input(
        self,
        _now: Instant,
        input: &mut BytesMut,
        _out: &mut TransmitBuf,
    ) -> Result<ControlFlow<Self::Done, Self>, ConnectionError> {
        Ok(match Self::handle_input(self, input)? {
            ResumeProgress::More(more) => ControlFlow::Continue(more),
            ResumeProgress::Confirmed(confirmed) => ControlFlow::Break(confirmed),
        })
    }
}

/// A link in the handshake.
pub(crate) struct Shaking<R: Runtime> {
    clock: Clock,
    link: R::Link,
    input: BytesMut,
    /// What the initiator is to be told.
    pub(crate) out: TransmitBuf,
    timer: R::Timer,
}

impl<R: Runtime> Shaking<R> {
    pub(crate) fn new(runtime: &R, clock: Clock, link: R::Link) -> Self {
        let timer = runtime.timer(clock.to_runtime(clock.now()));
        Self { clock, link, input: BytesMut::new(), out: TransmitBuf::new(), timer }
    }

    /// The link itself, once hands are shaken, and what was read from it beyond that.
    pub(crate) fn into_link(self) -> (R::Link, BytesMut) {
        (self.link, self.input)
    }

    /// Writes what is there to be said, and waits for what the initiator says to it. On an error the initiator was told what
    /// is wrong, where it could still hear it.
    pub(crate) async fn next<S: Stage>(&mut self, stage: S) -> Result<S::Done, ConnectionError> {
        let heard = self.hear(stage).await;
        if heard.is_err() {
            self.farewell().await;
        }
        heard
    }

    /// As [`next`](Self::next), but on an error the [`farewell`](Self::farewell) is still to come.
    pub(crate) async fn hear<S: Stage>(&mut self, mut stage: S) -> Result<S::Done, ConnectionError> {
        self.timer.reset(self.clock.to_runtime(stage.deadline()));
        loop {
            let step = match poll_fn(|cx| self.poll_step(cx)).await {
                Step::Read(Ok(0)) => Err(ConnectionError::LinkLost { unread: self.input.len() }),
                Step::Read(Ok(_)) => stage.handle_input(self.clock.now(), &mut self.input, &mut self.out),
                Step::Read(Err(error)) => Err(ConnectionError::Transport(error.to_string())),
                Step::TimedOut => {
                    let timed_out = stage.handle_timeout(self.clock.now(), &mut self.out);
                    // A timer may fire a little early.
                    self.timer.reset(self.clock.to_runtime(stage.deadline()));
                    timed_out.map(|()| ControlFlow::Continue(stage))
                }
            };
            match step {
                Ok(ControlFlow::Continue(more)) => stage = more,
                Ok(ControlFlow::Break(done)) => return Ok(done),
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn link(&self) -> &R::Link {
        &self.link
    }

    /// `future`'s output, or `None` once `deadline` has come.
    pub(crate) async fn within<F: Future>(&mut self, deadline: Instant, future: F) -> Option<F::Output> {
        self.timer.reset(self.clock.to_runtime(deadline));
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            // A timer may fire a little early.
            while self.timer.poll_expired(cx).is_ready() {
                if self.clock.now() >= deadline {
                    return Poll::Ready(None);
                }
                self.timer.reset(self.clock.to_runtime(deadline));
            }
            Poll::Pending
        })
        .await
    }

    /// Writes what there is to be said, and closes the link so that it arrives.
    pub(crate) async fn farewell(&mut self) {
        self.timer.reset(self.clock.to_runtime(self.clock.now() + FAREWELL));
        poll_fn(|cx| {
            if self.timer.poll_expired(cx).is_ready() {
                return Poll::Ready(());
            }
            self.poll_farewell(cx).map(drop)
        })
        .await;
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        // Nothing is said to what was not heard.
        let read = match self.poll_write(cx) {
            Poll::Ready(Ok(())) => self.poll_read(cx),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        match read {
            Poll::Ready(result) => Poll::Ready(Step::Read(result)),
            Poll::Pending => self.timer.poll_expired(cx).map(|()| Step::TimedOut),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Where frames follow each other at once, the next one is here already.
        if fluxar_proto::frame::missing(&self.input) == 0 && !self.input.is_empty() {
            return Poll::Ready(Ok(self.input.len()));
        }
        if self.input.is_empty() {
            // A connection that says nothing holds no buffer.
            ready!(self.link.poll_readable(cx))?;
        }
        let missing = fluxar_proto::frame::missing(&self.input);
        self.input.reserve(missing.min(self.input.len()).max(ROOM));
        self.link.poll_read(cx, &mut self.input)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            match ready!(self.link.poll_write(cx, &[IoSlice::new(self.out.chunk())]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.out.advance(written),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what is left to say, ends the output, and waits for the peer to do the same.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write(cx))?;
        ready!(self.link.poll_shutdown(cx))?;
        poll_discard(cx, &mut self.link, &mut self.input).map(Ok)
    }
}

enum Step {
    Read(io::Result<usize>),
    TimedOut,
}
