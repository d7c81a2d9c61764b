//! An application that takes whatever its connection brings: it answers calls with what they bring, sends the items of
//! streams back, and accepts messages. It remembers what it has seen.

use std::collections::{BTreeMap, VecDeque};

use fluxar_proto::{
    CallEvent, CallId, Connection, Error, Event, Fate, Id, Instant, Lost, OutMessage, Payload, PubSubEvent,
    PublicationId, Qos, QueueLimits, Received, RequestId, SendError, StreamEvent, StreamId, SubscriberId,
    SubscriptionId,
};

use super::pubsub::numbers;
use super::uint;

/// A stream as one side has it.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    /// Whether the application has opened it.
    pub(crate) ours: bool,
    /// The numbers that were sent, and whether the direction has ended in order.
    pub(crate) sent: Vec<u64>,
    pub(crate) ended: bool,
    /// The numbers that came, and how that ended: in order, or not.
    pub(crate) got: Vec<u64>,
    pub(crate) last: Option<Result<(), Error>>,
    /// The application has given it up.
    pub(crate) cancelled: bool,
    /// What was to be sent and was not taken.
    backlog: VecDeque<u64>,
}

/// A message as it came: its id, its number, how often it arrives, whether it may have come before.
pub(crate) type Came = (Id, u64, Qos, bool);

/// What is still to be done.
#[derive(Debug)]
enum Todo {
    Respond(RequestId, Payload),
    Read(StreamId),
    Publications,
    Deliveries(SubscriptionId),
}

#[derive(Debug, Default)]
pub(crate) struct App {
    pub(crate) outcomes: BTreeMap<CallId, Vec<Result<Payload, Error>>>,
    /// The numbers of the requests that came.
    pub(crate) served: Vec<u64>,
    pub(crate) flows: BTreeMap<StreamId, Flow>,
    pub(crate) publications: Vec<Came>,
    pub(crate) deliveries: Vec<Came>,
    pub(crate) fates: BTreeMap<PublicationId, Vec<Fate>>,
    /// Subscriptions of the peer that were confirmed and live.
    pub(crate) subscribers: Vec<SubscriberId>,
    /// The numbers of what could not be delivered.
    pub(crate) undelivered: Vec<u64>,
    pub(crate) ended: Vec<SubscriptionId>,
    pub(crate) resubscribed: usize,
    pub(crate) resumed: usize,
    pub(crate) lost: Vec<Lost>,
    pub(crate) closed: bool,
    todo: VecDeque<Todo>,
}

/// The number that a payload is, or that a large one begins with.
pub(crate) fn number(payload: &Payload) -> u64 {
    match payload.as_item().array() {
        Ok(mut items) => items.next().unwrap().as_u64().unwrap(),
        Err(_) => numbers([payload])[0],
    }
}

/// A payload of so many bytes, and some more, that begins with a number.
pub(crate) fn padded(n: u64, size: usize) -> Payload {
    super::item(|out| out.array(2)?.u64(n)?.bytes(&vec![0; size])?.ok())
}

impl App {
    /// Notes what happened; what is to be done about it waits.
    pub(crate) fn note(&mut self, connection: &mut Connection, event: Event) {
        match event {
            Event::Call(CallEvent::Request(request)) => {
                self.served.push(number(&request.payload));
                self.todo.push_back(Todo::Respond(request.id, request.payload));
            }
            Event::Call(CallEvent::Response(call)) => {
                if let Ok(outcome) = connection.take_response(call) {
                    let outcome = outcome.expect("an outcome that was announced");
                    self.outcomes.entry(call).or_default().push(outcome);
                }
            }
            Event::Stream(StreamEvent::Opened(opening)) => {
                self.flows.insert(opening.id, Flow::default());
                self.todo.push_back(Todo::Read(opening.id));
            }
            Event::Stream(StreamEvent::Readable(stream) | StreamEvent::Writable(stream)) => {
                self.todo.push_back(Todo::Read(stream));
            }
            Event::PubSub(event) => self.note_pubsub(connection, event),
            Event::Resumed { .. } => self.resumed += 1,
            Event::Lost(lost) => self.lost.push(lost),
            Event::Closed(_) => self.closed = true,
            _ => {}
        }
    }

    fn note_pubsub(&mut self, connection: &mut Connection, event: PubSubEvent) {
        match event {
            PubSubEvent::Publication => self.todo.push_back(Todo::Publications),
            PubSubEvent::Delivered(subscription) => self.todo.push_back(Todo::Deliveries(subscription)),
            PubSubEvent::Subscribe(request)
                if connection.confirm(request.id, request.qos, QueueLimits::default()).is_ok() =>
            {
                self.subscribers.push(request.id);
            }
            PubSubEvent::Unsubscribed(subscriber) => self.subscribers.retain(|id| *id != subscriber),
            PubSubEvent::Undelivered { message, .. } => self.undelivered.push(number(message.payload())),
            PubSubEvent::Ended(subscription, _) => self.ended.push(subscription),
            PubSubEvent::Resubscribed { .. } => self.resubscribed += 1,
            PubSubEvent::Fate(publication) => {
                if let Ok(fate) = connection.take_fate(publication) {
                    let fate = fate.expect("a fate that was announced");
                    self.fates.entry(publication).or_default().push(fate);
                }
            }
            _ => {}
        }
    }

    /// Does so many of the things that are to be done; whether there was one.
    pub(crate) fn work(&mut self, connection: &mut Connection, count: usize) -> bool {
        let mut worked = false;
        for _ in 0..count {
            let Some(todo) = self.todo.pop_front() else { break };
            worked = true;
            match todo {
                // Where nobody waits any more it only frees the slot.
                Todo::Respond(request, payload) => {
                    connection.respond(request, Ok(payload)).ok();
                }
                Todo::Read(stream) => self.read(connection, stream),
                Todo::Publications => {
                    while let Some(came) = connection.poll_publication() {
                        self.publications.push((
                            came.id.wire_id(),
                            number(&came.payload),
                            came.qos,
                            came.dup,
                        ));
                        connection.ack(came.id).ok();
                    }
                }
                Todo::Deliveries(subscription) => {
                    while let Ok(Some(came)) = connection.poll_delivery(subscription) {
                        self.deliveries.push((came.id.wire_id(), number(&came.payload), came.qos, came.dup));
                        connection.ack(came.id).ok();
                    }
                }
            }
        }
        worked
    }

    fn read(&mut self, connection: &mut Connection, stream: StreamId) {
        let Some(flow) = self.flows.get_mut(&stream) else { return };
        while flow.last.is_none() && !flow.cancelled {
            match connection.poll_stream(stream) {
                Ok(Some(Received::Items(items))) => {
                    let items: Vec<_> = items.map(|item| number(&item)).collect();
                    flow.got.extend(&items);
                    if !flow.ours {
                        flow.backlog.extend(&items);
                    }
                }
                Ok(Some(Received::End(_))) => flow.last = Some(Ok(())),
                Ok(Some(Received::Failed(error))) => flow.last = Some(Err(error)),
                Ok(None) | Err(_) => break,
            }
        }
        flow.send(connection, stream);
        if !flow.ours && flow.last.is_some() && flow.backlog.is_empty() {
            flow.end(connection, stream);
        }
        flow.let_go(connection, stream);
    }

    /// Opens a stream on which these numbers are sent; they come back.
    pub(crate) fn stream(&mut self, connection: &mut Connection, now: Instant, items: &[u64]) -> StreamId {
        let options = fluxar_proto::StreamOptions::new();
        let stream = connection.open_stream(now, "m", uint(0), options).unwrap();
        self.flows.insert(stream, Flow { ours: true, ..Flow::default() });
        self.send(connection, stream, items);
        stream
    }

    /// Sends numbers on a stream of ours.
    pub(crate) fn send(&mut self, connection: &mut Connection, stream: StreamId, items: &[u64]) {
        let Some(flow) = self.flows.get_mut(&stream).filter(|flow| !flow.ended) else { return };
        flow.backlog.extend(items);
        flow.send(connection, stream);
    }

    /// Ends our direction of a stream of ours, if everything has been taken.
    pub(crate) fn end(&mut self, connection: &mut Connection, stream: StreamId) -> bool {
        let Some(flow) = self.flows.get_mut(&stream) else { return true };
        flow.send(connection, stream);
        if flow.backlog.is_empty() {
            flow.end(connection, stream);
        }
        flow.let_go(connection, stream);
        flow.ended || flow.last.is_some()
    }

    /// Gives a stream up, whoever has opened it.
    pub(crate) fn cancel(&mut self, connection: &mut Connection, stream: StreamId) {
        if let Some(flow) = self.flows.get_mut(&stream) {
            flow.cancelled = true;
            connection.cancel_stream(stream, None);
            connection.release_stream(stream);
        }
    }

    /// Delivers a number to all subscriptions of the peer; to how many.
    pub(crate) fn deliver(&self, connection: &mut Connection, now: Instant, n: u64, qos: Qos) -> usize {
        let message = OutMessage::new("t.x", qos, uint(n), Default::default()).unwrap();
        let taken = self.subscribers.iter().filter(|id| connection.deliver(now, **id, &message).is_ok());
        taken.count()
    }
}

impl Flow {
    fn send(&mut self, connection: &mut Connection, stream: StreamId) {
        while let Some(n) = self.backlog.front().copied() {
            match connection.send_item(stream, uint(n)) {
                Ok(()) => {
                    self.sent.push(n);
                    self.backlog.pop_front();
                }
                Err(SendError::Blocked) => return,
                Err(_) => self.backlog.clear(),
            }
        }
    }

    fn end(&mut self, connection: &mut Connection, stream: StreamId) {
        if !self.ended {
            self.ended = connection.end_stream(stream, Payload::null()).is_ok();
        }
    }

    /// Both directions are over: the slot is free.
    fn let_go(&mut self, connection: &mut Connection, stream: StreamId) {
        // Where the other side has ended in order, ours may have failed since.
        if !self.cancelled && self.last.is_some() && (self.ended || !connection.is_streaming(stream)) {
            connection.release_stream(stream);
        }
    }
}
