//! Handlers: what a peer runs when it is called.

use std::any::Any;
use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, RwLock};
use std::task::{Context, Poll};

use fluxar_proto::{Code, Error, Payload, RequestId, StreamId, Text};
use futures_util::FutureExt;
use futures_util::future::CatchUnwind;
use pin_project_lite::pin_project;

use crate::auth::{self, Access};
use crate::payload::IntoPayload;
use crate::request::Request;
use crate::runtime::Runtime;
use crate::shared::Shared;
use crate::stream_request::StreamRequest;

/// Why a handler failed: `?` makes one of any type that implements [`std::error::Error`], and [`other`](Self::other) of
/// what holds one without being one, as a boxed error.
///
/// An [`Error`] reaches the caller as it is; only of that of another call, made by the handler, the caller does not learn
/// whether *that* call was processed, which says nothing of its own. Any other error is logged, and the caller learns no more than
/// `unknown: the handler failed`: what went wrong inside a server is not for everybody.
///
/// ```
/// use fluxar_runtime::{Error, HandlerError};
///
/// fn find(id: u32) -> Result<&'static str, HandlerError> {
///     let table: u32 = "42".parse()?; // any std error
///     if id != table {
///         return Err(Error::not_found("no such user").into());
///     }
///     Ok("Ada")
/// }
/// assert_eq!(find(1).unwrap_err().error().to_string(), "not_found: no such user");
/// ```
pub struct HandlerError {
    error: Error,
    cause: Option<Box<dyn StdError + Send + Sync>>,
}

impl HandlerError {
    /// Of an error that `?` does not take, because it is a box around any: `Box<dyn Error + Send + Sync>`, or what turns
    /// into one. A text is one too. An [`Error`] in the box still reaches the caller as it is.
    ///
    /// ```
    /// use fluxar_runtime::HandlerError;
    ///
    /// fn load() -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
    ///     Err("no such table".into())
    /// }
    ///
    /// fn handler() -> Result<u32, HandlerError> {
    ///     let table = load().map_err(HandlerError::other)?;
    ///     Ok(table + 1)
    /// }
    /// assert_eq!(handler().unwrap_err().error().to_string(), "unknown: the handler failed");
    /// ```
    pub fn other(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        match error.into().downcast::<Error>() {
            Ok(ours) => Self { error: ours.passed_on(), cause: None },
            Err(cause) => Self { error: Error::new(Code::UNKNOWN, "the handler failed"), cause: Some(cause) },
        }
    }

    /// What the caller is told.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// What a peer is told that has asked for no handler: of another error than ours, that it should come again.
    pub(crate) fn into_refusal(self, message: &'static str) -> Error {
        match self.cause {
            None => self.error,
            Some(cause) => {
                tracing::error!(error = %cause, message);
                Error::unavailable(message)
            }
        }
    }

    pub(crate) fn into_error(self, method: &str) -> Error {
        if let Some(cause) = &self.cause {
            tracing::error!(method, error = %cause, "a handler failed");
        }
        self.error
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::other(error)
    }
}

/// What the caller is told.
impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

/// What the caller is told.
impl From<HandlerError> for Error {
    fn from(error: HandlerError) -> Self {
        error.error
    }
}

/// So that `?` takes it where any error is taken.
impl From<HandlerError> for Box<dyn StdError + Send + Sync> {
    fn from(error: HandlerError) -> Self {
        error.cause.unwrap_or_else(|| Box::new(error.error))
    }
}

/// So that `?` takes it where any error is taken.
impl From<HandlerError> for Box<dyn StdError> {
    fn from(error: HandlerError) -> Self {
        Box::<dyn StdError + Send + Sync>::from(error)
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerError").field("error", &self.error).field("cause", &self.cause).finish()
    }
}

/// Starts the handler of one method for one request, or for one stream.
type Start<Q> = Arc<dyn Fn(Q) + Send + Sync>;

/// Handlers by method.
type Methods<Q> = Arc<RwLock<HashMap<Box<str>, Start<Q>>>>;

/// The handlers of a peer.
#[derive(Clone, Default)]
pub(crate) struct Router {
    calls: Methods<Request>,
    streams: Methods<StreamRequest>,
}

/// What a handler is run for.
trait Asked: Send + Sized + 'static {
    fn responder(&self) -> Responder;
}

impl Asked for Request {
    fn responder(&self) -> Responder {
        Responder {
            shared: Some(self.shared().clone()),
            id: Asking::Call(self.id()),
            method: self.method_text(),
        }
    }
}

impl Asked for StreamRequest {
    fn responder(&self) -> Responder {
        Responder {
            shared: Some(self.shared().clone()),
            id: Asking::Stream(self.id()),
            method: self.method_text(),
        }
    }
}

impl Router {
    pub(crate) fn handle<R, F, Fut, T>(&self, runtime: R, method: &str, handler: F)
    where
        R: Runtime,
        F: Fn(Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, HandlerError>> + Send + 'static,
        T: IntoPayload + 'static,
    {
        register(&self.calls, method, starter(runtime, handler));
    }

    pub(crate) fn handle_stream<R, F, Fut, T>(&self, runtime: R, method: &str, handler: F)
    where
        R: Runtime,
        F: Fn(StreamRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, HandlerError>> + Send + 'static,
        T: IntoPayload + 'static,
    {
        register(&self.streams, method, starter(runtime, handler));
    }

    /// Starts what is to be run for `request`, or answers that there is nothing.
    pub(crate) fn dispatch(&self, request: Request) {
        // Ahead of the search: whoever may not call it does not learn whether it is there.
        if let Err(error) = auth::check(request.shared(), Access::Call(request.method())) {
            return request.shared().refuse(request.id(), error);
        }
        match find(&self.calls, request.method()) {
            Some(start) => start(request),
            None => request.shared().refuse(request.id(), no_method(request.method())),
        }
    }

    /// The same for a stream.
    pub(crate) fn dispatch_stream(&self, request: StreamRequest) {
        if let Err(error) = auth::check(request.shared(), Access::Stream(request.method())) {
            return request.shared().refuse_stream(request.id(), error);
        }
        match find(&self.streams, request.method()) {
            Some(start) => start(request),
            None => request.shared().refuse_stream(request.id(), no_method(request.method())),
        }
    }
}

fn no_method(method: &str) -> Error {
    Error::new(Code::UNIMPLEMENTED, format!("no method `{method}`"))
}

fn find<Q>(methods: &Methods<Q>, method: &str) -> Option<Start<Q>> {
    methods.read().unwrap_or_else(|e| e.into_inner()).get(method).cloned()
}

fn register<Q>(methods: &Methods<Q>, method: &str, start: Start<Q>) {
    let mut methods = methods.write().unwrap_or_else(|e| e.into_inner());
    let replaced = methods.insert(method.into(), start);
    // What it holds is the application's, and may register handlers when it is dropped.
    drop(methods);
    drop(replaced);
}

/// Runs `handler` in a task of its own.
fn starter<R, Q, F, Fut, T>(runtime: R, handler: F) -> Start<Q>
where
    R: Runtime,
    Q: Asked,
    F: Fn(Q) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, HandlerError>> + Send + 'static,
    T: IntoPayload + 'static,
{
    Arc::new(move |request: Q| {
        let mut responder = request.responder();
        // A handler may panic before its future is made, too.
        let future = std::panic::catch_unwind(AssertUnwindSafe(|| handler(request)));
        match future {
            Ok(future) => {
                let method = responder.method.clone();
                // Encoding the result is the application's code too, and so is dropping the future.
                let answer = future.map(move |result| encode(result, &method));
                let future = Some(AssertUnwindSafe(answer).catch_unwind());
                runtime.spawn(Run { future, responder });
            }
            Err(panic) => responder.respond(Err(panicked(panic, &responder.method))),
        }
    })
}

/// What the caller gets of a handler's result.
fn encode(result: Result<impl IntoPayload, HandlerError>, method: &str) -> Result<Payload, Error> {
    let value = result.map_err(|error| error.into_error(method))?;
    value.to_payload().map_err(|error| {
        tracing::error!(method, %error, "the result of a handler cannot be encoded");
        Error::new(Code::INTERNAL, "the result cannot be encoded").with_processed(true)
    })
}

pub(crate) fn panicked(panic: Box<dyn Any + Send>, method: &str) -> Error {
    // What a handler panics with may panic in turn when it is dropped. That once more nobody catches: it leaks.
    if let Err(again) = std::panic::catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
    tracing::error!(method, "a handler panicked");
    Error::new(Code::INTERNAL, "the handler panicked")
}

pin_project! {
    /// A running handler. It is dropped where it stands when nobody waits for its answer any more.
    struct Run<F: Future> {
        // Before the responder, so that it is dropped first: a caller that has the answer may rely on the handler's end.
        #[pin]
        future: Option<CatchUnwind<AssertUnwindSafe<F>>>,
        responder: Responder,
    }
}

impl<F: Future<Output = Result<Payload, Error>>> Future for Run<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(future) = this.future.as_mut().as_pin_mut() else { return Poll::Ready(()) };
        let result = match future.poll(cx) {
            Poll::Ready(Ok(result)) => result,
            Poll::Ready(Err(panic)) => Err(panicked(panic, &this.responder.method)),
            Poll::Pending if this.responder.poll_wanted(cx) => return Poll::Pending,
            Poll::Pending => Err(Error::new(Code::CANCELLED, "nobody waits for the answer")),
        };
        // What a handler drops may panic as well as the handler itself.
        let dropped = std::panic::catch_unwind(AssertUnwindSafe(|| this.future.set(None)));
        let result = dropped.map_or_else(|panic| Err(panicked(panic, &this.responder.method)), |()| result);
        this.responder.respond(result);
        Poll::Ready(())
    }
}

/// Who is to be answered.
#[derive(Clone, Copy)]
enum Asking {
    Call(RequestId),
    Stream(StreamId),
}

/// Answers a request once, or ends a stream.
struct Responder {
    shared: Option<Arc<Shared>>,
    id: Asking,
    method: Text,
}

impl Responder {
    fn poll_wanted(&self, cx: &mut Context<'_>) -> bool {
        self.shared.as_ref().is_some_and(|shared| match self.id {
            Asking::Call(id) => shared.poll_wanted(id, cx),
            Asking::Stream(id) => shared.poll_streaming(id, cx),
        })
    }

    fn respond(&mut self, result: Result<Payload, Error>) {
        let Some(shared) = self.shared.take() else { return };
        match self.id {
            Asking::Call(id) => shared.respond(id, result),
            Asking::Stream(id) => shared.finish_stream(id, result),
        }
    }
}

/// The runtime went down, or dropped the task: the caller must not wait for ever.
impl Drop for Responder {
    fn drop(&mut self) {
        self.respond(Err(Error::new(Code::UNAVAILABLE, "the handler was stopped")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_caller_learns_does_not_depend_on_the_box() {
        let ours = Error::not_found("no such user");
        let boxed: Box<dyn StdError + Send + Sync> = Box::new(ours.clone());
        assert_eq!(HandlerError::other(boxed).error(), HandlerError::from(ours).error());
        let other = HandlerError::other("secret");
        assert_eq!(other.error().to_string(), "unknown: the handler failed");
        assert_eq!(other.cause.unwrap().to_string(), "secret");
    }
}
