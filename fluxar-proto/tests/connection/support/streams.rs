//! Streams between a script and a connection, at either end, and what an application sees of them.

use std::sync::Arc;

use bytes::Bytes;
use fluxar_proto::message::{Id, Kind, verb};
use fluxar_proto::{
    Code, Config, Connection, ConnectionError, Error, Event, Payload, Received, StreamEvent, StreamId,
    StreamOpening, StreamOptions, Withdrawn,
};

use super::{Msg, Script, cbor, one, uint};

/// The offer or the answer of a script that has streams, with these limits.
pub(crate) fn hello(answers: bool, limits: &[(&str, u64)]) -> Vec<u8> {
    cbor(|out| {
        out.map(3)?;
        if answers {
            out.str("version")?.u8(1)?;
        } else {
            out.str("versions")?.array(1)?.u8(1)?;
        }
        out.str("caps")?.map(1)?.str("features")?.array(1)?.str("stream")?;
        out.str("limits")?.map(limits.len() as u64)?;
        for (name, value) in limits {
            out.str(name)?.u64(*value)?;
        }
        Ok(())
    })
}

/// A connection opposite of a script, both with streams.
pub(crate) fn streaming(config: &Arc<Config>, limits: &[(&str, u64)]) -> Script {
    Script::responder_with(config, hello(false, limits))
}

/// One stream between a script and a connection, which the connection has opened or accepted.
pub(crate) struct Talk {
    pub(crate) script: Script,
    pub(crate) stream: StreamId,
    pub(crate) wire: Id,
    /// What came with the opening, and nobody has heard yet.
    unheard: Vec<Msg>,
}

impl Talk {
    /// The stream as its opener has it, and as its acceptor.
    pub(crate) fn both(config: &Arc<Config>) -> [Self; 2] {
        [Self::opened(config, &[]), Self::accepted(config, &[])]
    }

    /// The connection has opened the stream, and the script has seen the opening.
    pub(crate) fn opened(config: &Arc<Config>, limits: &[(&str, u64)]) -> Self {
        let mut script = Script::initiator_with(config, hello(true, limits));
        let options = StreamOptions::new();
        let stream = script.connection.open_stream(script.now, "m", uint(0), options).unwrap();
        let mut unheard = script.read();
        assert_eq!(unheard.remove(0).id, stream.wire_id());
        Self { unheard, ..Self::over(script, stream) }
    }

    /// The script has opened the stream, and the connection has accepted it.
    pub(crate) fn accepted(config: &Arc<Config>, limits: &[(&str, u64)]) -> Self {
        let mut script = streaming(config, limits);
        let opening = Msg::opening(Kind::Stream, script.id(), "m").payload(uint(0));
        script.send(opening).unwrap();
        let stream = one(opened(&script.events())).id;
        Self::over(script, stream)
    }

    /// A stream whose opening is behind it.
    pub(crate) fn over(script: Script, stream: StreamId) -> Self {
        Self { script, wire: stream.wire_id(), stream, unheard: vec![] }
    }

    pub(crate) fn connection(&mut self) -> &mut Connection {
        &mut self.script.connection
    }

    /// A message that continues the stream.
    pub(crate) fn message(&mut self, verb: Option<&str>) -> Msg {
        let message = Msg::continuation(Kind::Stream, self.script.id(), self.wire);
        verb.map_or(message.clone(), |verb| message.verb(verb))
    }

    /// The script sends one item.
    pub(crate) fn data(&mut self, payload: impl Into<Bytes>) -> Result<(), ConnectionError> {
        let message = self.message(None).payload(payload);
        self.script.send(message)
    }

    /// The script sends a verb without a payload.
    pub(crate) fn say(&mut self, verb: &str) -> Result<(), ConnectionError> {
        let message = self.message(Some(verb));
        self.script.send(message)
    }

    pub(crate) fn say_with(&mut self, verb: &str, payload: impl Into<Bytes>) -> Result<(), ConnectionError> {
        let message = self.message(Some(verb)).payload(payload);
        self.script.send(message)
    }

    pub(crate) fn say_error(&mut self, verb: &str, code: Code) -> Result<(), ConnectionError> {
        let message = self.message(Some(verb)).error(Error::new(code, "so be it"));
        self.script.send(message)
    }

    /// What the connection sends, but for its pings.
    pub(crate) fn messages(&mut self) -> Vec<Msg> {
        let mut messages = std::mem::take(&mut self.unheard);
        messages.extend(self.script.read());
        messages.retain(|message| message.target.as_deref() != Some(verb::PING));
        messages
    }

    /// What the connection sends, as (verb, payload); nothing of it may carry an error or concern anything else.
    #[track_caller]
    pub(crate) fn heard(&mut self) -> Vec<(String, Payload)> {
        let heard = self.messages().into_iter().map(|message| {
            assert_eq!((message.kind, message.reference), (Kind::Stream, Some(self.wire)), "{message:?}");
            assert_eq!(message.error, None);
            (message.target.unwrap_or_default(), Payload::new(message.payload.into()).unwrap())
        });
        heard.collect()
    }

    /// The connection says one thing, with an error; its verb and the error's code.
    #[track_caller]
    pub(crate) fn heard_error(&mut self) -> (String, Code) {
        let message = one(self.messages());
        assert_eq!(message.reference, Some(self.wire), "{message:?}");
        (message.target.clone().unwrap_or_default(), message.code())
    }

    /// What the application gets.
    #[track_caller]
    pub(crate) fn take(&mut self) -> (Vec<Payload>, Last) {
        take(&mut self.script.connection, self.stream)
    }

    /// What happened to the stream.
    #[track_caller]
    pub(crate) fn notes(&mut self) -> Vec<Note> {
        let (events, id) = (self.script.events(), self.stream);
        notes(&events).into_iter().filter(|(stream, _)| *stream == Some(id)).map(|(_, note)| note).collect()
    }

    /// Whether the exchange is still open, which costs the connection: its id must not be used again then.
    pub(crate) fn still_open(mut self) -> bool {
        self.script.send(Msg::opening(Kind::Stream, self.wire, "again")).is_err()
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.script.connection.stats().dropped
    }
}

/// How a stream ended for its application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    /// Not yet.
    Open,
    End(Payload),
    Failed(Code, Option<bool>),
}

/// In order, with no value.
pub(crate) const ENDED: Last = Last::End(Payload::null());

pub(crate) fn failed(code: Code) -> Last {
    Last::Failed(code, None)
}

/// Takes everything that has come on a stream: the items, and how it ended, if it did.
#[track_caller]
pub(crate) fn take(connection: &mut Connection, stream: StreamId) -> (Vec<Payload>, Last) {
    let mut items = Vec::new();
    loop {
        let last = match connection.poll_stream(stream).unwrap() {
            Some(Received::Items(more)) => {
                let before = items.len();
                items.extend(more);
                assert!(items.len() > before, "items without an item");
                continue;
            }
            Some(Received::End(last)) => Last::End(last),
            Some(Received::Failed(error)) => Last::Failed(error.code, error.processed),
            None => Last::Open,
        };
        return (items, last);
    }
}

/// The streams that were opened, among some events.
pub(crate) fn opened(events: &[Event]) -> Vec<StreamOpening> {
    let opened = events.iter().filter_map(|event| match event {
        Event::Stream(StreamEvent::Opened(opening)) => Some(opening.clone()),
        _ => None,
    });
    opened.collect()
}

/// What happened to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    Opened,
    Readable,
    Writable,
    Withdrawn(Withdrawn),
    Capacity,
}

/// What happened to streams, among some events.
pub(crate) fn notes(events: &[Event]) -> Vec<(Option<StreamId>, Note)> {
    let notes = events.iter().filter_map(|event| match event {
        Event::Stream(StreamEvent::Opened(opening)) => Some((Some(opening.id), Note::Opened)),
        Event::Stream(StreamEvent::Readable(id)) => Some((Some(*id), Note::Readable)),
        Event::Stream(StreamEvent::Writable(id)) => Some((Some(*id), Note::Writable)),
        Event::Stream(StreamEvent::Withdrawn(id, why)) => Some((Some(*id), Note::Withdrawn(*why))),
        Event::Stream(StreamEvent::Capacity) => Some((None, Note::Capacity)),
        _ => None,
    });
    notes.collect()
}
