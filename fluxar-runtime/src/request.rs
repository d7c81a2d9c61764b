//! A call, as its handler sees it.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use fluxar_proto::message::Meta;
use fluxar_proto::{DecodeError, Error, Payload, RequestId, Text, UpdateError};

use crate::auth::Identity;
use crate::payload::{FromPayload, IntoPayload, Raw};
use crate::peer::Peer;
use crate::queue::Purpose;
use crate::shared::{Shared, State};
use crate::turn::Turn;

/// A call of the other peer, handed to the handler of its method.
///
/// The handler's future is dropped where it stands when the caller cancels, when the deadline passes and when the
/// connection is lost: nobody waits for its answer then. What must be finished all the same belongs into a task of its
/// own.
pub struct Request {
    shared: Arc<Shared>,
    request: fluxar_proto::Request,
}

impl Request {
    pub(crate) fn new(shared: Arc<Shared>, request: fluxar_proto::Request) -> Self {
        Self { shared, request }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn id(&self) -> RequestId {
        self.request.id
    }

    pub(crate) fn method_text(&self) -> Text {
        self.request.method.clone()
    }

    /// The method called.
    pub fn method(&self) -> &str {
        &self.request.method
    }

    /// The argument.
    ///
    /// # Errors
    ///
    /// `invalid_argument` where it is not a `T`; handed on with `?`, that is what the caller gets.
    pub fn payload<T: FromPayload>(&self) -> Result<T, Error> {
        T::from_payload(&self.request.payload).map_err(|error| error.with_processed(false))
    }

    /// The argument, as it came.
    pub fn raw(&self) -> Raw {
        self.request.payload.clone().into()
    }

    /// What the caller says about the call, as `traceparent`; the time it allows is [`remaining`](Self::remaining).
    pub fn meta(&self) -> Meta<'_> {
        // Checked when it came.
        Meta::decode(&self.request.meta).unwrap_or(Meta::EMPTY)
    }

    /// The metadata as it came: a map, or null.
    ///
    /// # Errors
    ///
    /// Where it nests as deep as metadata may, which is one level deeper than a payload may (§5.3).
    pub fn raw_meta(&self) -> Result<Raw, DecodeError> {
        let meta = &self.request.meta;
        if meta.is_empty() { Ok(Payload::null().into()) } else { Raw::new(meta.clone()) }
    }

    /// How long the caller still waits; `None` where it set no deadline.
    pub fn remaining(&self) -> Option<Duration> {
        self.request.deadline.map(|at| at - self.shared.clock().now())
    }

    /// The caller: for calling back, for instance.
    pub fn peer(&self) -> Peer {
        Peer::new(self.shared.clone())
    }

    /// The caller, as [`Peer::identity`].
    pub fn identity(&self) -> Option<Arc<Identity>> {
        self.shared.known().identity()
    }

    /// Whether somebody still waits for the answer.
    pub fn is_wanted(&self) -> bool {
        self.shared.is_wanted(self.request.id)
    }

    /// Sends an update to the caller: progress, or an intermediate result. Waits while too much is queued (§10.3).
    ///
    /// # Errors
    ///
    /// `cancelled` where nobody waits for the call any more; `message_too_large`; or the value's own serialization.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, nothing was sent.
    pub async fn update(&self, value: &(impl IntoPayload + ?Sized)) -> Result<(), Error> {
        let payload = value.to_payload()?;
        let id = self.request.id;
        let mut turn = Turn::new(self.shared.clone(), Purpose::Update);
        let mut place = Place { request: self, ticket: None };
        let send = poll_fn(|cx| {
            let is_open = |state: &mut State, cx: &mut Context<'_>| {
                state.connection.is_wanted(id) && state.wait_in(id, &mut place.ticket, cx)
            };
            turn.poll_update(cx, is_open, |connection| connection.update_request(id, payload.clone()))
        });
        send.await.map_err(update_error)
    }

    /// The next update from the caller; `None` when nobody waits for the call any more. Updates are kept for a slow
    /// handler only up to a limit, then the oldest go (§10.3). Where several wait, each update goes to one of them.
    ///
    /// # Errors
    ///
    /// Where the update is not a `T`.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, no update is lost.
    pub async fn next_update<T: FromPayload>(&self) -> Option<Result<T, Error>> {
        let mut place = Place { request: self, ticket: None };
        let update =
            poll_fn(|cx| self.shared.poll_request_update(cx, self.request.id, &mut place.ticket)).await?;
        Some(T::from_payload(&update))
    }
}

/// Somebody waits for what happens to a request.
struct Place<'a> {
    request: &'a Request,
    ticket: Option<u64>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.request.shared.leave_request(self.request.id(), ticket);
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method())
            .field("id", &self.request.id)
            .finish_non_exhaustive()
    }
}

pub(crate) fn update_error(error: UpdateError) -> Error {
    match error {
        UpdateError::TooLarge => Error::new(fluxar_proto::Code::MESSAGE_TOO_LARGE, error.to_string()),
        _ => Error::cancelled(error.to_string()),
    }
    .with_processed(false)
    .into_outcome()
}
