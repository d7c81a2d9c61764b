//! One connection, and opposite of it a script that sends any message and reads what comes.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use fluxar_proto::message::{Id, Kind};
use fluxar_proto::{
    Config, Connection, ConnectionError, Dial, Event, Incoming, Instant, Lost, Progress, TransmitBuf,
};

use super::msg::framed;
use super::{Msg, Outcome, cbor, id, ids, outcomes};

#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) now: Instant,
    pub(crate) connection: Connection,
    /// What was sent to the connection and has not made a frame.
    pub(crate) input: BytesMut,
    last_id: u64,
    /// What happened besides what a step was about.
    unseen: Vec<Event>,
}

/// An answer with these features and limits, and no heartbeat.
pub(crate) fn features(features: &[&str], limits: &[(&str, u64)]) -> Vec<u8> {
    cbor(|out| {
        out.map(3)?.str("version")?.u8(1)?;
        out.str("caps")?.map(1)?.str("features")?.array(features.len() as u64)?;
        for feature in features {
            out.str(feature)?;
        }
        out.str("limits")?.map(1 + limits.len() as u64)?.str("heartbeat_ms")?.u8(0)?;
        for (name, value) in limits {
            out.str(name)?.u64(*value)?;
        }
        Ok(())
    })
}

impl Script {
    /// The connection initiates; its offer is not answered yet.
    pub(crate) fn offered_by(config: &Arc<Config>) -> Self {
        Self::over(Connection::initiate(config.clone(), Instant::ZERO, ids(1)))
    }

    /// Opposite of a connection that has exchanged nothing but what its making took.
    pub(crate) fn over(connection: Connection) -> Self {
        Self { now: Instant::ZERO, connection, input: BytesMut::new(), last_id: 0, unseen: vec![] }
    }

    /// The connection has initiated, and the script has answered with the smallest answer there is.
    pub(crate) fn initiator(config: &Arc<Config>) -> Self {
        Self::initiator_with(config, cbor(|out| out.map(1)?.str("version")?.u8(1)?.ok()))
    }

    /// As `initiator`, with an answer of the script's own.
    pub(crate) fn initiator_with(config: &Arc<Config>, answer: Vec<u8>) -> Self {
        let mut script = Self::offered_by(config);
        let offer = super::one(script.read());
        script.send(Msg::continuation(Kind::Hello, id(0), offer.id).payload(answer)).unwrap();
        assert!(matches!(script.events()[..], [Event::Established]));
        script
    }

    /// The connection has initiated, and goes on over other links after this one; all features are on, within these limits.
    pub(crate) fn reconnecting(change: impl FnOnce(&mut Config), limits: &[(&str, u64)]) -> Self {
        let config = super::config(|c| {
            c.reconnect = true;
            c.limits.heartbeat_ms = 0;
            change(c);
        });
        Self::initiator_with(&config, features(&["stream", "pubsub"], limits))
    }

    /// The link is lost, and with it the session; the connection lives on. What was lost.
    pub(crate) fn lose_session(&mut self) -> Lost {
        self.connection.handle_eof(self.now, self.input.len()).unwrap();
        self.input.clear();
        assert!(self.connection.is_detached() && self.read().is_empty());
        let lost = self.events().into_iter().filter_map(|event| match event {
            Event::Lost(lost) => Some(lost),
            other => {
                self.unseen.push(other);
                None
            }
        });
        super::one(lost.collect())
    }

    /// A new link comes, and with it a fresh session.
    pub(crate) fn renew(&mut self, answer: Vec<u8>) {
        assert_eq!(self.connection.reconnect(self.now, Dial::default()), Ok(true), "the link is not wanted");
        let offer = super::one(self.read());
        let id = self.id();
        self.send(Msg::continuation(Kind::Hello, id, offer.id).payload(answer)).unwrap();
        let events = self.events();
        assert!(events.iter().any(|event| matches!(event, Event::Established)), "{events:?}");
        self.unseen.extend(events);
    }

    /// The connection has responded to the smallest offer there is.
    pub(crate) fn responder(config: &Arc<Config>) -> Self {
        Self::responder_with(config, cbor(|out| out.map(1)?.str("versions")?.array(1)?.u8(1)?.ok()))
    }

    /// As `responder`, with an offer of the script's own.
    pub(crate) fn responder_with(config: &Arc<Config>, offer: Vec<u8>) -> Self {
        let mut input = BytesMut::from(&Msg::bare(Kind::Hello, id(0)).payload(offer).frame()[..]);
        let incoming = Incoming::new(config.clone(), Instant::ZERO, ids(2));
        let mut out = TransmitBuf::new();
        let offered = match incoming.handle_input(Instant::ZERO, &mut input, &mut out) {
            Ok(Progress::Offered(offered)) => offered,
            other => panic!("{other:?}"),
        };
        let mut script = Self::over(offered.accept(Instant::ZERO));
        assert!(matches!(script.events()[..], [Event::Established]));
        assert_eq!(super::one(script.read()).reference, Some(id(0)));
        script
    }

    /// An id that was not used before.
    pub(crate) fn id(&mut self) -> Id {
        self.last_id += 1;
        id(self.last_id)
    }

    pub(crate) fn send(&mut self, message: Msg) -> Result<(), ConnectionError> {
        self.send_bytes(&message.frame())
    }

    pub(crate) fn send_body(&mut self, body: &[u8]) -> Result<(), ConnectionError> {
        self.send_bytes(&framed(body))
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), ConnectionError> {
        self.input.extend_from_slice(bytes);
        self.connection.handle_input(self.now, &mut self.input)
    }

    /// Calls `method` of the connection; the id of the request.
    pub(crate) fn call(&mut self, method: &str) -> Id {
        let id = self.id();
        self.send(Msg::opening(Kind::Call, id, method)).unwrap();
        id
    }

    /// Sends a continuation of type call.
    pub(crate) fn follow(&mut self, reference: Id, verb: Option<&str>) -> Result<(), ConnectionError> {
        let message = Msg::continuation(Kind::Call, self.id(), reference);
        self.send(verb.map_or(message.clone(), |verb| message.verb(verb)))
    }

    /// Everything that the connection has to send at the moment.
    pub(crate) fn read(&mut self) -> Vec<Msg> {
        Msg::decode_all(&self.read_bytes())
    }

    pub(crate) fn read_bytes(&mut self) -> Vec<u8> {
        let (mut out, mut bytes) = (TransmitBuf::new(), Vec::new());
        loop {
            let wanted = self.connection.wants_transmit();
            let count = self.connection.poll_transmit(self.now, &mut out);
            assert!(wanted || count == 0, "bytes that were not announced");
            if count == 0 {
                return bytes;
            }
            out.segments().for_each(|segment| bytes.extend_from_slice(segment));
            out.advance(count);
        }
    }

    /// Everything that has happened.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        let unseen = std::mem::take(&mut self.unseen);
        unseen.into_iter().chain(std::iter::from_fn(|| self.connection.poll_event())).collect()
    }

    /// The outcomes of calls among everything that has happened.
    pub(crate) fn outcomes(&mut self) -> Vec<Outcome> {
        let events = self.events();
        outcomes(&mut self.connection, &events)
    }

    /// Lets time pass, with every timer at its moment.
    pub(crate) fn wait(&mut self, duration: Duration) -> Result<(), ConnectionError> {
        let until = self.now + duration;
        let mut fired = 0;
        while let Some(next) = self.connection.poll_timeout().filter(|next| *next <= until) {
            fired += 1;
            assert!(fired < 10_000, "a timer that does not advance: {next:?}");
            self.now = self.now.max(next);
            self.connection.handle_timeout(self.now)?;
        }
        self.now = until;
        Ok(())
    }
}
