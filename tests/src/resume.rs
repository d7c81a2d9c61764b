//! What a scripted peer may say of sessions that outlive their link, right or wrong.

use std::fmt;

use fluxar_proto::message::{Id, Kind, verb};
use hmac::{Hmac, KeyInit, Mac};
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use serde::ser::{Serialize, Serializer};
use sha2::Sha256;

use crate::verbs::Terms;
use crate::wire::{Message, Wire};

/// A byte string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a byte string")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Any).map_err(D::Error::custom)
    }
}

/// What hellos say of sessions.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Session {
    /// An offer's wish that a session goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
    /// An answer's word that it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Resumed>,
    /// What the session is called from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Pass>,
}

/// What an offer says of the session that is to go on.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Resume {
    /// Which one.
    pub session: Bytes,
    /// How many messages the initiator has handled.
    pub handled: u64,
    /// That it knows the secret.
    pub proof: Bytes,
}

/// What an answer says where a session goes on.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Resumed {
    /// How many messages the responder has handled.
    pub handled: u64,
}

/// What an answer calls a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Pass {
    /// Its name.
    pub id: Bytes,
    /// How long it outlives its link.
    pub resume_ms: u64,
    /// What proves that one has a right to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Bytes>,
}

/// What somebody who may resume a session has.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// Its name, and the secret.
    pub pass: Pass,
}

impl Ticket {
    /// The one that an answer holds.
    ///
    /// # Panics
    ///
    /// Where it holds none, or not all that belongs to it.
    pub fn of(answer: &Message) -> Self {
        let pass = said(answer).session.expect("a session");
        assert_eq!((pass.id.0.len(), pass.secret.as_ref().map(|secret| secret.0.len())), (16, Some(32)));
        assert!(pass.resume_ms > 0);
        Self { pass }
    }

    /// The one for the session's next link, once an offer made with this one was answered.
    ///
    /// # Panics
    ///
    /// Where the answer does not say that this session goes on.
    pub fn next(&self, answer: &Message) -> Self {
        let mut next = Self::of(answer);
        assert_eq!(next.pass.id, self.pass.id, "a session keeps its name");
        let secret = next.pass.secret.take().unwrap_or_default();
        next.pass.secret = Some(Bytes(self.mac(&[b"fluxar resumed", &secret.0])));
        next
    }

    /// An offer that the session goes on.
    pub fn offer(&self, handled: u64) -> Message {
        let mut offer = terms().offer();
        offer.payload = self.offer_with(handled, self.proof(offer.id)).payload;
        offer
    }

    /// The same with whatever proof.
    pub fn offer_with(&self, handled: u64, proof: Vec<u8>) -> Message {
        let resume = Resume { session: self.pass.id.clone(), handled, proof: Bytes(proof) };
        terms().session(Session { resume: Some(resume), ..Session::default() }).offer()
    }

    /// The proof that belongs to an offer.
    pub fn proof(&self, offer: Id) -> Vec<u8> {
        self.mac(&[b"fluxar resume", &self.pass.id.0, offer.as_bytes()])
    }

    fn mac(&self, parts: &[&[u8]]) -> Vec<u8> {
        let secret = self.pass.secret.clone().unwrap_or_default();
        let mut mac = Hmac::<Sha256>::new_from_slice(&secret.0).expect("any length will do");
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().to_vec()
    }
}

/// Everything that outlives a link.
pub fn terms() -> Terms {
    Terms::streams().feature("pubsub").feature("resume")
}

/// What a hello says of sessions.
///
/// # Panics
///
/// Where it is none.
pub fn said(hello: &Message) -> Session {
    assert_eq!((hello.kind, &hello.error), (Kind::Hello, &None));
    hello.decode()
}

impl Message {
    /// How many messages were handled.
    pub fn handled(count: u64) -> Self {
        Self::control(verb::HANDLED).payload(&count)
    }
}

impl Wire {
    /// Connects and shakes hands, for a session that can be resumed.
    ///
    /// # Panics
    ///
    /// Where it gets none.
    pub async fn resumable(url: &str) -> (Self, Ticket) {
        let mut wire = Self::connect(url).await;
        let answer = wire.shake_hands_with(terms().offer()).await;
        let ticket = Ticket::of(&answer);
        (wire, ticket)
    }

    /// Goes on with a session on a new link, up to the answer: gives what the server has handled, and the fresh ticket.
    ///
    /// # Panics
    ///
    /// Where the server does not take it up.
    pub async fn resuming(url: &str, ticket: &Ticket, handled: u64) -> (Self, u64, Ticket) {
        let mut wire = Self::connect(url).await;
        let answer = wire.shake_hands_with(ticket.offer(handled)).await;
        let resumed = said(&answer).resumed.expect("the session goes on");
        (wire, resumed.handled, ticket.next(&answer))
    }

    /// The same, and confirms it.
    ///
    /// # Panics
    ///
    /// Where the server does not take it up.
    pub async fn resumed(url: &str, ticket: &Ticket, handled: u64) -> (Self, u64, Ticket) {
        let (mut wire, known, fresh) = Self::resuming(url, ticket, handled).await;
        wire.send(&Message::handled(handled)).await;
        (wire, known, fresh)
    }
}

/// Whoever has a right to a session, and keeps count as it has to.
pub struct Owner {
    /// The link.
    pub wire: Wire,
    /// What the session is resumed with.
    pub ticket: Ticket,
    /// How many counted messages have come.
    pub handled: u64,
    url: String,
}

impl Owner {
    /// A new session.
    ///
    /// # Panics
    ///
    /// Where it gets none that can be resumed.
    pub async fn new(url: &str) -> Self {
        let (wire, ticket) = Wire::resumable(url).await;
        Self { wire, ticket, handled: 0, url: url.to_owned() }
    }

    /// The next message, which is counted where that has to be.
    ///
    /// # Panics
    ///
    /// Where none comes.
    pub async fn receive(&mut self) -> Message {
        let message = self.wire.receive().await;
        self.handled += u64::from(!matches!(message.kind, Kind::Hello | Kind::Control));
        message
    }

    /// What comes in answer to a call, until `response_to` it has come.
    ///
    /// # Panics
    ///
    /// Where the link ends without.
    pub async fn response_to(&mut self, call: Id) -> Message {
        loop {
            let message = self.receive().await;
            if message.reference == Some(call) && message.target.is_none() {
                return message;
            }
        }
    }

    /// The session works.
    ///
    /// # Panics
    ///
    /// Where it does not.
    pub async fn works(&mut self) {
        let call = Message::call("echo").payload("the owner's");
        self.wire.send(&call).await;
        assert_eq!(self.response_to(call.id).await.decode::<String>(), "the owner's");
    }

    /// Goes on over a new link, and says how much the server has handled.
    ///
    /// # Panics
    ///
    /// Where the server does not let it.
    pub async fn come_back(&mut self) -> u64 {
        let (wire, known, ticket) = Wire::resumed(&self.url, &self.ticket, self.handled).await;
        (self.wire, self.ticket) = (wire, ticket);
        known
    }

    /// Ends the session in order.
    ///
    /// # Panics
    ///
    /// Where the link is gone.
    pub async fn leave(self) {
        self.wire.leave().await;
    }
}

impl Wire {
    /// Ends the session in order.
    ///
    /// # Panics
    ///
    /// Where the link is gone.
    pub async fn leave(mut self) {
        self.send(&Message::control(verb::CLOSE)).await;
        self.ended().await;
    }
}
