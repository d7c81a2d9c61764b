//! What ends a connection.

use alloc::string::{String, ToString};
use core::fmt;

use crate::frame::FrameError;
use crate::message::{Code, DecodeError, Error, Id};

/// How much of the cause goes into the error of each open call, in bytes (§5.12).
const MAX_CAUSE: usize = 1024;

/// Why a connection ended. Once a connection has one, every later call returns the same.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The peer sent a frame with an impossible length (§3.1).
    Frame(FrameError),
    /// The peer sent bytes that are not an envelope (§5.17).
    Malformed(DecodeError),
    /// The peer sent a hello that cannot be read, or that lacks what it must have (§6.2).
    Hello(HelloError),
    /// The peer did what the protocol forbids.
    Violation(Violation),
    /// The two sides have no protocol version in common.
    NoCommonVersion,
    /// The credentials may not be sent in clear over such a transport (§6.11).
    AuthInClear,
    /// Offer or proof would be larger than a handshake allows, or the name of the pre-shared key is (§3.3, §6.12).
    HelloTooLarge,
    /// The peer did not prove that it holds the pre-shared key (§6.12).
    Psk(PskError),
    /// The responder refused our offer, for this reason.
    Refused(Error),
    /// The peer closed the connection, with or without a reason.
    ClosedByPeer(Option<Error>),
    /// We closed the connection, with or without a reason.
    ClosedLocally(Option<Error>),
    /// Something that had to come did not come in time.
    TimedOut(Timeout),
    /// The transport ended without a `close`; `unread` bytes of an unfinished frame were left.
    LinkLost {
        /// Bytes of a frame whose end never came.
        unread: usize,
    },
    /// The transport failed, for the reason that its driver gives.
    Transport(String),
    /// The session could not go on after its link was lost: the time for it was over, or the peer does not know it
    /// any more (§9.9).
    SessionLost,
}

/// What did not come in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Timeout {
    /// The handshake took too long.
    Handshake,
    /// Nothing was received for three heartbeat intervals.
    Heartbeat,
    /// The transport took no bytes for too long: the peer does not read.
    Write,
}

/// What is wrong with the proof of a pre-shared key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PskError {
    /// The responder takes no part in it.
    Declined,
    /// There is none.
    Missing,
    /// It is not that of the key.
    Wrong,
}

/// Whose doing an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This side's application.
    Local,
    /// The peer.
    Peer,
    /// The transport between them.
    Link,
}

/// What the protocol forbids, and a peer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// The first message was no `hello`.
    HelloExpected,
    /// Another message than the proof that was asked for.
    ProofExpected,
    /// A fifth proof is asked for.
    TooManyProofs,
    /// A `hello` after the handshake.
    HelloRepeated,
    /// An answer that does not refer to our offer, or picks what was not offered.
    WrongAnswer,
    /// An opening with the id of something that is open.
    DuplicateId(Id),
    /// A continuation that its sender's role does not allow.
    WrongRole(Id),
    /// A message of a type that always refers to something, without a `ref`.
    MissingRef,
    /// An opening without the target that it needs.
    MissingTarget,
    /// An offer with a target.
    MisplacedTarget,
    /// An error in a message that cannot have one.
    MisplacedError,
    /// A qos above what its subscription grants, or asks for.
    WrongQos(Id),
    /// A delivery without a topic, where the filter of its subscription does not say it.
    MissingTopic(Id),
    /// More cancelled or rejected openings than are borne.
    Flood,
    /// Data of a stream without credit for it.
    NoCredit(Id),
    /// More credit than a stream's direction may have.
    CreditOverflow(Id),
    /// A payload that is not what its verb calls for.
    BadPayload(Id),
    /// A number of handled messages that cannot be (§9.3).
    WrongCount,
    /// The first message on the new link of a session was not `handled` (§9.6).
    HandledExpected,
}

/// What is wrong with a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HelloError {
    /// Its payload is not the map that it must be.
    Decode(DecodeError),
    /// A required key is missing.
    Missing(&'static str),
    /// The value of this key is not what it must be.
    Invalid(&'static str),
}

impl ConnectionError {
    /// The error code that belongs to it on the wire.
    pub fn code(&self) -> Code {
        match self {
            Self::Frame(FrameError::TooLong { .. }) => Code::MESSAGE_TOO_LARGE,
            Self::Frame(FrameError::Empty) | Self::Malformed(_) | Self::Hello(_) => Code::MALFORMED,
            Self::Violation(violation) => violation.code(),
            Self::NoCommonVersion => Code::UNSUPPORTED_VERSION,
            Self::AuthInClear => Code::FAILED_PRECONDITION,
            Self::HelloTooLarge => Code::MESSAGE_TOO_LARGE,
            Self::Psk(_) => Code::UNAUTHENTICATED,
            Self::Refused(error) => error.code,
            Self::TimedOut(Timeout::Handshake) => Code::DEADLINE_EXCEEDED,
            Self::TimedOut(Timeout::Heartbeat | Timeout::Write) => Code::HEARTBEAT_TIMEOUT,
            Self::ClosedByPeer(error) | Self::ClosedLocally(error) => {
                error.as_ref().map_or(Code::UNAVAILABLE, |error| error.code)
            }
            Self::LinkLost { .. } | Self::Transport(_) | Self::SessionLost => Code::UNAVAILABLE,
        }
    }

    /// Whose doing it is.
    pub fn origin(&self) -> Origin {
        match self {
            Self::ClosedLocally(_) | Self::AuthInClear | Self::HelloTooLarge => Origin::Local,
            Self::TimedOut(Timeout::Heartbeat | Timeout::Write)
            | Self::LinkLost { .. }
            | Self::Transport(_)
            | Self::SessionLost => Origin::Link,
            _ => Origin::Peer,
        }
    }

    /// Whether it says no more than that the link is gone: a session may go on over another one (§8.8).
    pub fn is_link_loss(&self) -> bool {
        matches!(
            self,
            Self::LinkLost { .. } | Self::Transport(_) | Self::TimedOut(Timeout::Heartbeat | Timeout::Write)
        )
    }

    /// What the peer is told of it in `close`; `None` where there is nothing to tell, or nobody to hear it.
    pub(crate) fn report(&self) -> Option<Error> {
        match self {
            Self::Frame(_)
            | Self::Malformed(_)
            | Self::Hello(_)
            | Self::Violation(_)
            | Self::Psk(_)
            | Self::TimedOut(_) => Some(Error::new(self.code(), self.to_string())),
            _ => None,
        }
    }

    /// What a call fails with that was open when the connection ended; `sent` says whether the transport ever
    /// got it. What was never sent is certainly not processed, so that a retry is safe (§10.9).
    ///
    /// Of what the cause says it keeps 1,024 bytes: every open call gets it, and a peer may say much in its `close`.
    pub fn call_error(&self, sent: bool) -> Error {
        let mut text = self.to_string();
        text.truncate(text.floor_char_boundary(MAX_CAUSE));
        text.shrink_to_fit();
        let error = Error::new(Code::UNAVAILABLE, text);
        if sent { error } else { error.with_processed(false) }
    }
}

impl Violation {
    /// Some are wrong in their shape alone, whatever has happened before (§5.14).
    const fn code(self) -> Code {
        match self {
            Self::MissingRef
            | Self::MissingTarget
            | Self::MisplacedTarget
            | Self::MisplacedError
            | Self::BadPayload(_) => Code::MALFORMED,
            Self::Flood => Code::RESOURCE_EXHAUSTED,
            Self::NoCredit(_) | Self::CreditOverflow(_) => Code::FLOW_CONTROL,
            Self::HelloExpected
            | Self::ProofExpected
            | Self::TooManyProofs
            | Self::HelloRepeated
            | Self::WrongAnswer
            | Self::WrongQos(_)
            | Self::WrongCount
            | Self::HandledExpected
            | Self::MissingTopic(_)
            | Self::DuplicateId(_)
            | Self::WrongRole(_) => Code::PROTOCOL_VIOLATION,
        }
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let closed = |f: &mut fmt::Formatter<'_>, who: &str, error: &Option<Error>| match error {
            Some(error) => write!(f, "{who}: {error}"),
            None => f.write_str(who),
        };
        match self {
            Self::Frame(error) => write!(f, "bad frame: {error}"),
            Self::Malformed(error) => write!(f, "malformed message: {error}"),
            Self::Hello(error) => write!(f, "bad hello: {error}"),
            Self::Violation(error) if error.code() == Code::MALFORMED => {
                write!(f, "malformed message: {error}")
            }
            Self::Violation(error) => write!(f, "protocol violation: {error}"),
            Self::NoCommonVersion => f.write_str("no common protocol version"),
            Self::AuthInClear => f.write_str("credentials do not travel in clear over such a transport"),
            Self::HelloTooLarge => f.write_str("credentials too large for a handshake"),
            Self::Psk(error) => error.fmt(f),
            Self::Refused(error) => write!(f, "connection refused: {error}"),
            Self::ClosedByPeer(error) => closed(f, "connection closed by the peer", error),
            Self::ClosedLocally(error) => closed(f, "connection closed", error),
            Self::TimedOut(Timeout::Handshake) => f.write_str("the handshake timed out"),
            Self::TimedOut(Timeout::Heartbeat) => f.write_str("the peer has gone silent"),
            Self::TimedOut(Timeout::Write) => f.write_str("the peer does not read"),
            Self::LinkLost { unread: 0 } => f.write_str("connection lost"),
            Self::LinkLost { unread } => {
                write!(f, "connection lost within a frame, after {unread} bytes of it")
            }
            Self::Transport(why) => write!(f, "connection lost: {why}"),
            Self::SessionLost => f.write_str("the session was lost with its link"),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ProofExpected => f.write_str("another message than the proof that was asked for"),
            Self::TooManyProofs => f.write_str("more proofs asked for than a handshake has"),
            Self::HelloExpected => f.write_str("the first message must be a hello"),
            Self::HelloRepeated => f.write_str("a hello after the handshake"),
            Self::WrongAnswer => f.write_str("the answer does not fit the offer"),
            Self::DuplicateId(id) => write!(f, "an opening with the id of something open, {id}"),
            Self::WrongRole(id) => write!(f, "the sender's role does not allow this on {id}"),
            Self::MissingRef => f.write_str("a message of this type needs a ref"),
            Self::MissingTarget => f.write_str("an opening of this type needs a target"),
            Self::MisplacedTarget => f.write_str("an offer has no target"),
            Self::MisplacedError => f.write_str("a message of this kind has no error"),
            Self::WrongQos(id) => write!(f, "more qos than was granted or asked for, on {id}"),
            Self::MissingTopic(id) => write!(f, "a delivery without its topic, on {id}"),
            Self::Flood => f.write_str("too many cancelled or rejected openings"),
            Self::NoCredit(id) => write!(f, "data without credit on {id}"),
            Self::CreditOverflow(id) => write!(f, "more credit than there may be on {id}"),
            Self::BadPayload(id) => write!(f, "a payload that does not fit its verb, on {id}"),
            Self::HandledExpected => f.write_str("the first message on a new link must be `handled`"),
            Self::WrongCount => f.write_str("a number of handled messages that cannot be"),
        }
    }
}

impl fmt::Display for PskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Declined => "the responder takes no part in the pre-shared key",
            Self::Missing => "no proof of the pre-shared key",
            Self::Wrong => "a wrong proof of the pre-shared key",
        })
    }
}

impl fmt::Display for HelloError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decode(error) => error.fmt(f),
            Self::Missing(key) => write!(f, "`{key}` is missing"),
            Self::Invalid(key) => write!(f, "`{key}` is invalid"),
        }
    }
}

impl core::error::Error for ConnectionError {}
impl core::error::Error for Violation {}
impl core::error::Error for HelloError {}
impl core::error::Error for PskError {}

impl From<FrameError> for ConnectionError {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

impl From<DecodeError> for ConnectionError {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
}

impl From<HelloError> for ConnectionError {
    fn from(error: HelloError) -> Self {
        Self::Hello(error)
    }
}

impl From<Violation> for ConnectionError {
    fn from(error: Violation) -> Self {
        Self::Violation(error)
    }
}

impl From<PskError> for ConnectionError {
    fn from(error: PskError) -> Self {
        Self::Psk(error)
    }
}

impl From<DecodeError> for HelloError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}
