//! Calls, as their caller sees them.

use std::fmt;
use std::future::{Future, IntoFuture, poll_fn};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use fluxar_proto::message::encode_meta;
use fluxar_proto::{CallId, CallOptions, Code, Error, Payload};

use crate::payload::{FromPayload, IntoPayload};
use crate::queue::Purpose;
use crate::request::update_error;
use crate::shared::Shared;
use crate::turn::Turn;

/// A call that is about to be made; `.await` makes it and gives its outcome.
///
/// ```no_run
/// # async fn doc(peer: fluxar_runtime::Peer) -> Result<(), fluxar_runtime::Error> {
/// use std::time::Duration;
///
/// let user: String = peer.call("users.name", &42).await?;
/// let user: String = peer.call("users.name", &42).timeout(Duration::from_millis(200)).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Cancel safety
///
/// Dropping the future cancels the call: a callee that already has it is told to stop, one that has not never gets it.
#[must_use = "a call is made when it is awaited"]
pub struct Call<'a, T> {
    shared: &'a Arc<Shared>,
    method: &'a str,
    payload: Result<Payload, Error>,
    timeout: Option<Duration>,
    idempotent: bool,
    meta: Vec<(String, Result<Payload, Error>)>,
    output: PhantomData<fn() -> T>,
}

impl<'a, T: FromPayload> Call<'a, T> {
    pub(crate) fn new(shared: &'a Arc<Shared>, method: &'a str, payload: Result<Payload, Error>) -> Self {
        let timeout = shared.call_timeout();
        Self { shared, method, payload, timeout, idempotent: false, meta: Vec::new(), output: PhantomData }
    }

    /// Gives the call up after `timeout`, on both sides: the callee learns how long it has (§10.5).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Says that the call may be made more than once: where its outcome was lost with the session
    /// ([`State::Lost`](crate::State::Lost)), a client that [comes back](crate::Reconnect) makes it again, within its time
    /// (§16.4). Its argument is kept for that until it is answered. Other calls fail then, unless they were never sent.
    ///
    /// ```no_run
    /// # async fn doc(peer: fluxar_runtime::Peer) -> Result<(), fluxar_runtime::Error> {
    /// let user: String = peer.call("users.name", &42).idempotent().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Adds metadata that the callee can read, as `traceparent`.
    pub fn meta(mut self, key: impl Into<String>, value: &(impl IntoPayload + ?Sized)) -> Self {
        self.meta.push((key.into(), value.to_payload()));
        self
    }

    /// Makes the call and leaves it open, for updates both ways. Waits while as many calls are open as the peer allows.
    ///
    /// # Errors
    ///
    /// Where the call could not be made; nothing was sent then.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, no call was made.
    pub async fn start(self) -> Result<OpenCall<T>, Error> {
        let mut begun = self.begin();
        poll_fn(|cx| begun.poll_start(cx)).await.map_err(Error::into_outcome)
    }

    fn begin(self) -> Unsent<'a, T> {
        let prepared = self.payload.and_then(|payload| {
            let mut options = CallOptions::new().with_meta(encode_pairs(self.meta)?);
            options.timeout = self.timeout;
            options.idempotent = self.idempotent;
            Ok((payload, options))
        });
        let turn = Turn::new(self.shared.clone(), Purpose::Call);
        let (prepared, failed) = match prepared {
            Ok(prepared) => (Some(prepared), None),
            Err(error) => (None, Some(error)),
        };
        Unsent { method: self.method, prepared, failed, turn, output: PhantomData }
    }
}

impl<'a, T: FromPayload> IntoFuture for Call<'a, T> {
    type Output = Result<T, Error>;
    type IntoFuture = Calling<'a, T>;

    fn into_future(self) -> Calling<'a, T> {
        Calling { unsent: self.begin(), again: None, repeated: false, open: None }
    }
}

/// Metadata as one map; empty where there is none. That keys are unique is checked where it is sent.
pub(crate) fn encode_pairs(pairs: Vec<(String, Result<Payload, Error>)>) -> Result<Bytes, Error> {
    if pairs.is_empty() {
        return Ok(Bytes::new());
    }
    let pairs = pairs.into_iter().map(|(key, value)| value.map(|value| (key, value)));
    let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
    Ok(encode_meta(pairs.iter().map(|(key, value)| (key.as_str(), value.as_item()))))
}

/// A call that waits for room.
struct Unsent<'a, T> {
    method: &'a str,
    prepared: Option<(Payload, CallOptions)>,
    /// Why it could not be prepared.
    failed: Option<Error>,
    turn: Turn,
    output: PhantomData<fn() -> T>,
}

impl<T> Unsent<'_, T> {
    fn poll_start(&mut self, cx: &mut Context<'_>) -> Poll<Result<OpenCall<T>, Error>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        let call = std::task::ready!(self.turn.poll_call(cx, self.method, &mut self.prepared));
        Poll::Ready(call.map(|call| OpenCall::new(self.turn.shared().clone(), call)))
    }
}

/// The future of a [`Call`].
#[must_use = "futures do nothing unless polled"]
pub struct Calling<'a, T> {
    unsent: Unsent<'a, T>,
    /// What it takes to make the call again, where that may become necessary.
    again: Option<(Payload, CallOptions)>,
    /// It was made again.
    repeated: bool,
    /// None until it was made.
    open: Option<OpenCall<T>>,
}

impl<T> Calling<'_, T> {
    /// Whether the callee has refused the call only because it is about to leave, and the call has been made ready for
    /// whoever comes next (§8.6).
    fn moves_on(&mut self, error: &Error) -> bool {
        if error.code != Code::DRAINING || !error.is_retry_safe() {
            return false;
        }
        // Once the peer may have left since; a peer that says so and stays must not keep us busy.
        if self.repeated && !self.unsent.turn.shared().moves_on() {
            return false;
        }
        (self.open, self.repeated) = (None, true);
        self.unsent.prepared = self.again.take();
        self.unsent.prepared.is_some()
    }
}

impl<T: FromPayload> Future for Calling<'_, T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            let Some(open) = &mut this.open else {
                if this.again.is_none() && this.unsent.turn.shared().comes_back() {
                    this.again = this.unsent.prepared.clone();
                }
                return match this.unsent.poll_start(cx) {
                    // Its waker is registered; nothing can have come before the driver has run.
                    Poll::Ready(Ok(open)) => {
                        this.open = Some(open);
                        Poll::Pending
                    }
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error.into_outcome())),
                    Poll::Pending => Poll::Pending,
                };
            };
            match std::task::ready!(Pin::new(open).poll(cx)) {
                Err(error) if this.moves_on(&error) => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

/// A call that is open: a future of its outcome, and a channel for updates.
///
/// ```no_run
/// # async fn doc(peer: fluxar_runtime::Peer) -> Result<(), fluxar_runtime::Error> {
/// let mut call = peer.call::<u64>("index.rebuild", &()).start().await?;
/// while let Some(percent) = call.next_update::<u8>().await {
///     println!("{} %", percent?);
/// }
/// println!("{} documents", call.await?);
/// # Ok(())
/// # }
/// ```
///
/// # Cancel safety
///
/// Dropping it cancels the call.
pub struct OpenCall<T> {
    shared: Arc<Shared>,
    /// None once the outcome was taken.
    call: Option<CallId>,
    output: PhantomData<fn() -> T>,
}

impl<T> OpenCall<T> {
    fn new(shared: Arc<Shared>, call: CallId) -> Self {
        Self { shared, call: Some(call), output: PhantomData }
    }

    /// The next update from the callee; `None` once the outcome is there and no update is left. Updates are kept for a
    /// slow caller only up to a limit, then the oldest go (§10.3).
    ///
    /// # Errors
    ///
    /// Where the update is not a `U`.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, no update is lost.
    pub async fn next_update<U: FromPayload>(&mut self) -> Option<Result<U, Error>> {
        let update = poll_fn(|cx| self.poll_update(cx)).await?;
        Some(U::from_payload(&update))
    }

    fn poll_update(&mut self, cx: &mut Context<'_>) -> Poll<Option<Payload>> {
        match self.call {
            Some(call) => self.shared.poll_update(cx, call),
            None => Poll::Ready(None),
        }
    }

    /// Sends an update to the callee. Waits while too much is queued (§10.3).
    ///
    /// # Errors
    ///
    /// `cancelled` where the call has its outcome, or gets it meanwhile; `message_too_large`; or the value's own serialization.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, nothing was sent.
    pub async fn update(&mut self, value: &(impl IntoPayload + ?Sized)) -> Result<(), Error> {
        let payload = value.to_payload()?;
        let Some(call) = self.call else { return Err(update_error(fluxar_proto::UpdateError::Gone)) };
        let mut turn = Turn::new(self.shared.clone(), Purpose::Update);
        let send = poll_fn(|cx| {
            let is_open =
                |state: &mut crate::shared::State, cx: &mut Context<'_>| state.wait_while_open(call, cx);
            turn.poll_update(cx, is_open, |connection| connection.update(call, payload.clone()))
        });
        send.await.map_err(update_error)
    }
}

impl<T: FromPayload> Future for OpenCall<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(call) = self.call else { return Poll::Pending };
        let result = std::task::ready!(self.shared.poll_response(cx, call));
        self.call = None;
        let result = result.and_then(|payload| {
            // The callee did its part; that we cannot read its answer makes no retry safe.
            T::from_payload(&payload)
                .map_err(|error| Error::new(Code::INTERNAL, format!("bad response: {}", error.message)))
                .map_err(|error| error.with_processed(true))
        });
        Poll::Ready(result.map_err(Error::into_outcome))
    }
}

impl<T> Drop for OpenCall<T> {
    fn drop(&mut self) {
        if let Some(call) = self.call {
            self.shared.cancel(call);
        }
    }
}

impl<T> fmt::Debug for OpenCall<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OpenCall").field(&self.call).finish()
    }
}
