//! What a message means. One rule decides: without `ref` it opens something, and `target` is an address; with `ref` it
//! continues what `ref` opened, and `target` is a verb (§2.1, §5.18).

use std::collections::HashMap;

use fluxar_proto::Id;
use fluxar_proto::message::{Envelope, Kind, verb};

use crate::notation::one_line;

/// What was opened so far, by the id that continuations refer to.
#[derive(Default)]
pub(super) struct Opened(HashMap<Id, Opening>);

struct Opening {
    /// The number of its frame.
    number: usize,
    /// What it was, as in `request of users.get`.
    what: String,
    /// What others call it, as in `response to users.get`.
    name: String,
    kind: Kind,
}

/// What a message means.
pub(super) struct Meaning {
    /// In a few words.
    pub(super) text: String,
    /// Why no receiver takes it for a message, although its shape is right.
    pub(super) misuse: Option<&'static str>,
}

impl Opened {
    /// Says what the message in frame `number` means, and remembers what it opens.
    pub(super) fn meaning(&mut self, number: usize, envelope: &Envelope<'_>) -> Meaning {
        let misuse = misuse(envelope);
        let target = envelope.target.map(one_line);
        let (text, opens) = match envelope.reference {
            None => {
                let what = opening(envelope.kind, target.as_deref());
                let name = match (envelope.kind, target) {
                    (Kind::Call | Kind::Stream | Kind::Message, Some(target)) => target,
                    _ => format!("the {what}"),
                };
                (what, Some(name))
            }
            Some(reference) => self.continuation(reference, envelope.kind, target.as_deref()),
        };
        if let (Some(name), None) = (opens, misuse) {
            let opening = Opening { number, what: text.clone(), name, kind: envelope.kind };
            self.0.insert(envelope.id, opening);
        }
        let error = if envelope.error.is_some() { ", an error" } else { "" };
        Meaning { text: format!("{text}{error}"), misuse }
    }

    /// What a continuation is; and the name under which it can be referred to itself, if it can.
    fn continuation(&self, reference: Id, kind: Kind, verb: Option<&str>) -> (String, Option<String>) {
        let opening = self.0.get(&reference);
        let name = match opening {
            Some(opening) => format!("{} (#{})", opening.name, opening.number),
            None => "an earlier message".into(),
        };
        let what = match continuation(kind, verb) {
            Some(what) => format!("{what} {name}"),
            None => format!("unknown verb `{}` on {name}", verb.unwrap_or_default()),
        };
        // A delivery is acknowledged, an answer may be followed by a proof.
        let opens = match (kind, verb) {
            (Kind::Message, None) => Some("the delivery".into()),
            (Kind::Hello, None) => Some("the answer".into()),
            _ => None,
        };
        let fits = opening.is_none_or(|opening| belongs(kind, opening.kind));
        let alien =
            opening.filter(|_| !fits).map(|opening| format!(", which is a {}: not allowed", opening.what));
        (what + &alien.unwrap_or_default(), opens)
    }
}

fn opening(kind: Kind, target: Option<&str>) -> String {
    let target = target.unwrap_or("nothing");
    match kind {
        Kind::Hello => "offer".into(),
        Kind::Call => format!("request of {target}"),
        Kind::Stream => format!("opening of stream {target}"),
        Kind::Subscribe => format!("subscription to {target}"),
        Kind::Unsubscribe => "end of no subscription".into(),
        Kind::Message => format!("publication on {target}"),
        Kind::Control => match target {
            verb::PING | verb::AUTH | verb::DRAIN | verb::CLOSE | verb::HANDLED | verb::REKEY => {
                target.into()
            }
            _ => format!("unknown operation {target}"),
        },
    }
}

fn continuation(kind: Kind, verb: Option<&str>) -> Option<&'static str> {
    Some(match (kind, verb) {
        (Kind::Hello, None) => "answer to",
        (Kind::Hello, Some(verb::PROOF)) => "proof for",
        (Kind::Call, None) => "response to",
        (Kind::Call, Some(verb::UPDATE)) => "update of",
        (Kind::Call | Kind::Stream, Some(verb::CANCEL)) => "cancel of",
        (Kind::Stream, None) => "data of",
        (Kind::Stream, Some(verb::ITEMS)) => "items of",
        (Kind::Stream, Some(verb::END)) => "end of",
        (Kind::Stream, Some(verb::PAUSE)) => "pause of",
        (Kind::Stream, Some(verb::RESUME)) => "resume of",
        (Kind::Stream, Some(verb::CREDIT)) => "credit for",
        (Kind::Subscribe, None) => "confirmation of",
        (Kind::Unsubscribe, None) => "end of",
        (Kind::Message, None) => "delivery to",
        (Kind::Message, Some(verb::ACK)) => "ack of",
        (Kind::Message, Some(verb::NACK)) => "nack of",
        (Kind::Message, Some(verb::RELEASE)) => "release of",
        (Kind::Message, Some(verb::COMPLETE)) => "complete of",
        (Kind::Control, None) => "reply to",
        _ => return None,
    })
}

/// Whether a continuation of type `kind` belongs to what a message of type `opened` began (§5.15).
fn belongs(kind: Kind, opened: Kind) -> bool {
    match kind {
        Kind::Unsubscribe => opened == Kind::Subscribe,
        Kind::Message => matches!(opened, Kind::Subscribe | Kind::Message),
        _ => kind == opened,
    }
}

/// Why a message of the right shape is malformed all the same (§5.12, §5.14).
fn misuse(envelope: &Envelope<'_>) -> Option<&'static str> {
    let (opens, target) = (envelope.reference.is_none(), envelope.target);
    match (envelope.kind, target) {
        (Kind::Hello, Some(_)) if opens => return Some("an offer has no target"),
        (Kind::Hello, None) => {}
        (Kind::Unsubscribe, _) if opens => return Some("unsubscribe needs a ref"),
        (_, None) if opens => return Some("an opening of this type needs a target"),
        _ => {}
    }
    let may_fail = match (envelope.kind, target) {
        (Kind::Control, Some(verb::CLOSE)) if opens => true,
        _ if opens => false,
        (Kind::Stream, Some(verb)) => matches!(verb, verb::END | verb::CANCEL),
        (Kind::Message, Some(verb)) => verb == verb::NACK,
        (Kind::Stream | Kind::Message, None) => false,
        (_, verb) => verb.is_none(),
    };
    // A verb that nobody knows is dropped before anybody looks further (§5.15).
    let known = opens || continuation(envelope.kind, target).is_some();
    (envelope.error.is_some() && known && !may_fail).then_some("this message cannot carry an error")
}
