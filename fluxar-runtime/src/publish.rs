//! Publications, as their publisher sees them.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};

use fluxar_proto::{Code, Error, Payload, PublicationId, PublishError as CoreError, PublishOptions, Qos};

use crate::call::encode_pairs;
use crate::hub::{Hub, Outcome, Passing};
use crate::payload::IntoPayload;
use crate::queue::Purpose;
use crate::shared::Shared;
use crate::turn::Turn;

/// A message that is about to be published; `.await` publishes it, and gives its fate.
///
/// ```no_run
/// # async fn doc(peer: fluxar_runtime::Peer) -> Result<(), Box<dyn std::error::Error>> {
/// use fluxar_runtime::Qos;
///
/// peer.publish("sensors.kitchen", &21.5).await?; // at most once
/// peer.publish("orders.created", &42).qos(Qos::ExactlyOnce).await?; // once it was accepted
/// # Ok(())
/// # }
/// ```
///
/// # Durable stores
///
/// Where the connection has a [`Store`](crate::Store), a message with acknowledgement is saved there first. It is sent until
/// it is settled, also over the end of the connection: a publication that is [`Lost`](PublishError::Lost) is then not
/// lost, but goes on in the next one that has the same store.
///
/// # Cancel safety
///
/// Dropped while it waits for room, nothing was published, unless it was saved in a store; or, at a [`Hub`], some
/// subscriptions have got it: then the others get it too, unless too many such messages wait for them. Later on the message
/// goes its way, with the repetitions that it needs: dropping the future only means that nobody wants to know its fate.
#[must_use = "a message is published when it is awaited"]
pub struct Publish<'a> {
    to: To<'a>,
    topic: &'a str,
    payload: Result<Payload, Error>,
    options: PublishOptions,
    meta: Vec<(String, Result<Payload, Error>)>,
    waits: bool,
}

/// Who takes a publication, or gives a subscription.
#[derive(Clone, Copy)]
pub(crate) enum To<'a> {
    Peer(&'a Arc<Shared>),
    Hub(&'a Hub),
}

impl<'a> Publish<'a> {
    pub(crate) fn new(to: To<'a>, topic: &'a str, payload: Result<Payload, Error>) -> Self {
        Self { to, topic, payload, options: PublishOptions::new(), meta: Vec::new(), waits: true }
    }

    /// How often the message arrives. Default: [`Qos::AtMostOnce`].
    pub fn qos(mut self, qos: Qos) -> Self {
        self.options = self.options.with_qos(qos);
        self
    }

    /// Has it kept as the last value of its topic, for those who subscribe later; `()` clears that (§12.16).
    pub fn retain(mut self) -> Self {
        self.options = self.options.with_retain();
        self
    }

    /// Adds metadata that the subscribers can read, as `traceparent`.
    pub fn meta(mut self, key: impl Into<String>, value: &(impl IntoPayload + ?Sized)) -> Self {
        self.meta.push((key.into(), value.to_payload()));
        self
    }

    /// Drops the message where there is no room for it, with [`PublishError::Dropped`]. Otherwise it waits for room, behind
    /// those who came before.
    ///
    /// To a [`Hub`] it means that subscriptions that are full, and would have the publisher wait, do not get it.
    pub fn no_wait(mut self) -> Self {
        self.waits = false;
        self
    }
}

impl<'a> IntoFuture for Publish<'a> {
    type Output = Result<Fate, PublishError>;
    type IntoFuture = Publishing<'a>;

    fn into_future(self) -> Publishing<'a> {
        let Self { to, topic, payload, mut options, meta, waits } = self;
        let prepared = payload.and_then(|payload| {
            options.meta = encode_pairs(meta)?;
            Ok((payload, options))
        });
        let step = match (prepared, to) {
            (Err(error), _) => Step::Done(Some(Err(PublishError::NotSent(error.into_outcome())))),
            (Ok(prepared), To::Peer(shared))
                if shared.keeper().is_some() && prepared.1.qos > Qos::AtMostOnce =>
            {
                Step::Kept { shared, topic, prepared: Some(prepared), waits }
            }
            (Ok(prepared), To::Peer(shared)) => {
                let turn = Turn::new(shared.clone(), Purpose::Publish);
                Step::Unsent { topic, prepared: Some(prepared), turn, waits }
            }
            (Ok(prepared), To::Hub(hub)) => Step::Here { hub, topic, prepared: Some(prepared), waits },
        };
        Publishing(step)
    }
}

/// The future of a [`Publish`].
#[must_use = "futures do nothing unless polled"]
pub struct Publishing<'a>(Step<'a>);

pub(crate) enum Step<'a> {
    /// It waits for room.
    Unsent { topic: &'a str, prepared: Option<(Payload, PublishOptions)>, turn: Turn, waits: bool },
    /// It is for a hub of this side's.
    Here { hub: &'a Hub, topic: &'a str, prepared: Option<(Payload, PublishOptions)>, waits: bool },
    /// It goes by way of a durable store.
    Kept { shared: &'a Arc<Shared>, topic: &'a str, prepared: Option<(Payload, PublishOptions)>, waits: bool },
    /// It waits for its fate.
    Sent(Sent),
    /// It waits for room in the queues of a hub's subscriptions, or for what the store's keeper has to say.
    Passing(Passing),
    /// It is known.
    Done(Option<Result<Fate, PublishError>>),
}

impl Future for Publishing<'_> {
    type Output = Result<Fate, PublishError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            self.0 = match &mut self.0 {
                Step::Unsent { topic, prepared, turn, waits } => {
                    match ready!(poll_unsent(cx, topic, prepared, turn, *waits)) {
                        Ok(Some(publication)) => {
                            // The waker is registered; nothing can have come before the driver has run.
                            let sent = Sent { shared: turn.shared().clone(), publication: Some(publication) };
                            self.0 = Step::Sent(sent);
                            return Poll::Pending;
                        }
                        Ok(None) => Step::Done(Some(Ok(Fate::Queued))),
                        Err(error) => Step::Done(Some(Err(error))),
                    }
                }
                Step::Here { hub, topic, prepared, waits } => {
                    let Some((payload, options)) = prepared.take() else { return Poll::Pending };
                    hub.begin_publish(topic, payload, options, *waits)
                }
                Step::Kept { shared, topic, prepared, waits } => {
                    let (Some(prepared), Some(keeper)) = (prepared.take(), shared.keeper()) else {
                        return Poll::Pending;
                    };
                    let outcome = Outcome::new();
                    let told = outcome.clone();
                    let (place, topic) = (keeper.place(), (*topic).into());
                    let published = keeper.clone().publish((*shared).clone(), place, topic, prepared, *waits);
                    // In a task of its own: what is in the store has to be followed to its end.
                    shared.tasks().spawn(async move { told.set(published.await) });
                    Step::Passing(Passing::new(outcome))
                }
                Step::Sent(sent) => Step::Done(Some(fate_of(ready!(sent.poll(cx))))),
                Step::Passing(passing) => Step::Done(Some(ready!(passing.poll(cx)))),
                Step::Done(result) => return result.take().map_or(Poll::Pending, Poll::Ready),
            };
        }
    }
}

/// Publishes, as soon as there is room.
pub(crate) fn poll_unsent(
    cx: &mut Context<'_>,
    topic: &str,
    prepared: &mut Option<(Payload, PublishOptions)>,
    turn: &mut Turn,
    waits: bool,
) -> Poll<Result<Option<PublicationId>, PublishError>> {
    match turn.poll_publish(cx, topic, prepared) {
        Poll::Ready(result) => Poll::Ready(result.map_err(|error| not_sent(turn.shared(), error))),
        Poll::Pending if waits => Poll::Pending,
        Poll::Pending => Poll::Ready(Err(PublishError::Dropped)),
    }
}

pub(crate) fn not_sent(shared: &Shared, error: CoreError) -> PublishError {
    PublishError::NotSent(shared.publish_error(error).into_outcome())
}

/// A publication whose fate is not known yet.
pub(crate) struct Sent {
    shared: Arc<Shared>,
    /// None once it is known.
    publication: Option<PublicationId>,
}

impl Sent {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<fluxar_proto::Fate> {
        let Some(publication) = self.publication else { return Poll::Pending };
        let fate = ready!(self.shared.poll_fate(cx, publication));
        self.publication = None;
        Poll::Ready(fate)
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        if let Some(publication) = self.publication {
            self.shared.forget_publication(publication);
        }
    }
}

pub(crate) fn fate_of(fate: fluxar_proto::Fate) -> Result<Fate, PublishError> {
    use fluxar_proto::Fate as Core;
    match fate {
        Core::Accepted { attempts } => Ok(Fate::Accepted { attempts }),
        // It came while the peer was about to leave: nothing is wrong with the message (§8.6).
        Core::Rejected { error, attempts } if error.code == Code::DRAINING => {
            Err(PublishError::Lost { error: error.into_outcome(), attempts })
        }
        Core::Rejected { error, attempts } => {
            Err(PublishError::Rejected { error: error.into_outcome(), attempts })
        }
        Core::GivenUp { error, attempts } => {
            Err(PublishError::GivenUp { error: error.into_outcome(), attempts })
        }
        Core::Lost { error, attempts } => Err(PublishError::Lost { error: error.into_outcome(), attempts }),
    }
}

/// What became of a message that was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It will be sent, at most once: nobody learns what becomes of it.
    Queued,
    /// The receiver has taken responsibility for it: its application has handled it, or its hub holds it for every
    /// subscription that matches, of which there may be none.
    Accepted {
        /// How often it was sent.
        attempts: u32,
    },
}

/// Why a message was not published, or not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// It was not sent: the topic, the payload or the metadata is bad, it is larger than the peer takes, or the connection
    /// is closed.
    NotSent(Error),
    /// There was no room for it, and it was not to [wait](Publish::no_wait).
    Dropped,
    /// The receiver has refused it, in a way that makes a repetition pointless.
    Rejected {
        /// Why.
        error: Error,
        /// How often it was sent.
        attempts: u32,
    },
    /// The last attempt failed too. It is not known whether the message was handled.
    GivenUp {
        /// Why the last attempt failed.
        error: Error,
        /// How often it was sent.
        attempts: u32,
    },
    /// The connection ended before the message was accepted. It is not known whether it was handled, unless it was never
    /// sent.
    Lost {
        /// Why the connection ended; [`is_retry_safe`](Error::is_retry_safe) where the message was never sent.
        error: Error,
        /// How often it was sent.
        attempts: u32,
    },
}

/// What a message is dropped with for which there is no room.
static DROPPED: LazyLock<Error> = LazyLock::new(|| {
    Error::resource_exhausted("there was no room for the message").with_processed(false).into_outcome()
});

impl PublishError {
    /// What went wrong.
    pub fn error(&self) -> &Error {
        match self {
            Self::Dropped => &DROPPED,
            Self::NotSent(error)
            | Self::Rejected { error, .. }
            | Self::GivenUp { error, .. }
            | Self::Lost { error, .. } => error,
        }
    }

    /// How often the message was sent.
    pub fn attempts(&self) -> u32 {
        match self {
            Self::Dropped | Self::NotSent(_) => 0,
            Self::Rejected { attempts, .. }
            | Self::GivenUp { attempts, .. }
            | Self::Lost { attempts, .. } => *attempts,
        }
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = self.error();
        match self {
            Self::NotSent(_) => write!(f, "not published: {error}"),
            Self::Dropped => write!(f, "dropped: {error}"),
            Self::Rejected { .. } => write!(f, "rejected: {error}"),
            Self::GivenUp { attempts, .. } => write!(f, "given up after {attempts} attempts: {error}"),
            Self::Lost { .. } => write!(f, "lost: {error}"),
        }
    }
}

impl std::error::Error for PublishError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.error())
    }
}

impl From<PublishError> for Error {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Dropped => DROPPED.clone(),
            PublishError::NotSent(error)
            | PublishError::Rejected { error, .. }
            | PublishError::GivenUp { error, .. }
            | PublishError::Lost { error, .. } => error,
        }
    }
}
