//! The responder's part of the handshake, over a link.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use fluxar_proto::{ConnectionError, Incoming, Offered, Progress, TransmitBuf};

use crate::clock::Clock;
use crate::farewell::poll_discard;
use crate::runtime::{Link, Runtime, Timer};

/// Room for the first bytes of a connection; an offer is smaller as a rule.
const ROOM: usize = 1024;

/// How long a refused peer has to take what it is told.
const FAREWELL: Duration = Duration::from_secs(1);

/// Reads the offer from a new link. On an error the peer was told what is wrong, where it could still hear it.
pub(crate) async fn offer<R: Runtime>(
    runtime: &R,
    clock: &Clock,
    link: &mut R::Link,
    mut incoming: Incoming,
    input: &mut BytesMut,
) -> Result<Box<Offered>, ConnectionError> {
    let mut timer = runtime.timer(clock.to_runtime(incoming.deadline()));
    let mut out = TransmitBuf::new();
    let error = loop {
        let step = match poll_fn(|cx| poll_step(cx, link, input, &mut timer)).await {
            Step::Read(Ok(0)) => Err(ConnectionError::LinkLost { unread: input.len() }),
            Step::Read(Ok(_)) => incoming.handle_input(clock.now(), input, &mut out),
            Step::Read(Err(error)) => Err(ConnectionError::Transport(error.to_string())),
            Step::TimedOut => {
                let timed_out = incoming.handle_timeout(clock.now(), &mut out);
                // A timer may fire a little early.
                timer.reset(clock.to_runtime(incoming.deadline()));
                timed_out.map(|()| Progress::More(incoming))
            }
        };
        match step {
            Ok(Progress::More(more)) => incoming = more,
            Ok(Progress::Offered(offered)) => return Ok(offered),
            Err(error) => break error,
        }
    };
    timer.reset(runtime.now() + FAREWELL);
    poll_fn(|cx| {
        if timer.poll_expired(cx).is_ready() {
            return Poll::Ready(());
        }
        poll_farewell(cx, link, &mut out, input).map(drop)
    })
    .await;
    Err(error)
}

enum Step {
    Read(io::Result<usize>),
    TimedOut,
}

fn poll_step(
    cx: &mut Context<'_>,
    link: &mut impl Link,
    input: &mut BytesMut,
    timer: &mut impl Timer,
) -> Poll<Step> {
    let readable = match input.is_empty() {
        // A connection that says nothing holds no buffer.
        true => link.poll_readable(cx),
        false => Poll::Ready(Ok(())),
    };
    let read = match readable {
        Poll::Ready(Ok(())) => {
            let missing = fluxar_proto::frame::missing(input);
            input.reserve(missing.min(input.len()).max(ROOM));
            link.poll_read(cx, input)
        }
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        Poll::Pending => Poll::Pending,
    };
    match read {
        Poll::Ready(result) => Poll::Ready(Step::Read(result)),
        Poll::Pending => timer.poll_expired(cx).map(|()| Step::TimedOut),
    }
}

/// Writes what is left to say, ends the output, and waits for the peer to do the same.
fn poll_farewell(
    cx: &mut Context<'_>,
    link: &mut impl Link,
    out: &mut TransmitBuf,
    input: &mut BytesMut,
) -> Poll<io::Result<()>> {
    while !out.is_empty() {
        let written = ready!(link.poll_write(cx, &[IoSlice::new(out.chunk())]))?;
        out.advance(written);
    }
    ready!(link.poll_shutdown(cx))?;
    poll_discard(cx, link, input).map(Ok)
}
