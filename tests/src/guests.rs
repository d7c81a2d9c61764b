//! What a scripted peer may say of who it is.

use std::collections::BTreeMap;

use fluxar::{Code, Error};
use fluxar_proto::message::{Id, Kind};
use serde::Serialize;

use crate::verbs::Terms;
use crate::wire::{Message, Wire};

/// What a scripted peer shows: the entries of its `auth` map.
pub type Shown<'a> = BTreeMap<&'a str, &'a str>;

/// A token.
pub fn bearer(token: &str) -> Shown<'_> {
    Shown::from([("scheme", "bearer"), ("token", token)])
}

/// A key.
pub fn api_key(key: &str) -> Shown<'_> {
    Shown::from([("scheme", "api-key"), ("key", key)])
}

/// Name and password.
pub fn credentials<'a>(username: &'a str, password: &'a str) -> Shown<'a> {
    Shown::from([("scheme", "credentials"), ("username", username), ("password", password)])
}

/// A scheme of the application's own.
pub fn custom<'a>(name: &'a str, data: &'a str) -> Shown<'a> {
    Shown::from([("scheme", "custom"), ("name", name), ("data", data)])
}

#[derive(Serialize)]
struct Proof<'a> {
    auth: &'a Shown<'a>,
}

impl Message {
    /// An offer with credentials.
    pub fn offer_of(auth: &Shown<'_>) -> Self {
        Terms::default().offer_of(auth)
    }

    /// The proof that an answer asks for.
    pub fn proof(answer: Id, auth: &Shown<'_>) -> Self {
        Self::continuation(Kind::Hello, answer).verb("proof").payload(&Proof { auth })
    }
}

impl Wire {
    /// What a fresh connection with this offer is refused for; everything that comes is the answer.
    ///
    /// # Panics
    ///
    /// Where it is not refused, or something else comes.
    pub async fn refusal(url: &str, offer: &Message) -> Error {
        let mut wire = Self::connect(url).await;
        wire.send(offer).await;
        wire.refused(offer.id).await
    }

    /// What the answer to `offer`, or to a proof, refuses; nothing comes after it.
    ///
    /// # Panics
    ///
    /// Where it does not, or something else comes.
    pub async fn refused(&mut self, offer: Id) -> Error {
        let answer = self.receive().await;
        assert_eq!((answer.kind, answer.reference), (Kind::Hello, Some(offer)), "{answer:?}");
        let error = answer.error.unwrap_or_else(|| panic!("it is not refused"));
        assert_eq!(self.next().await, None, "nothing comes after a refusal");
        error
    }

    /// The code of [`refusal`](Self::refusal), for credentials.
    ///
    /// # Panics
    ///
    /// As [`refusal`](Self::refusal).
    pub async fn refusal_of(url: &str, auth: &Shown<'_>) -> Code {
        Self::refusal(url, &Message::offer_of(auth)).await.code
    }
}
