//! What we publish (§12.5).
//!
//! ```text
//!             room in flight, room in the transport
//!  QUEUED ------------------------------------------> (sender.rs) --- Accepted, Rejected, GivenUp --> KNOWN --> taken
//!    |  at most once: sent, and no more is known of it     |                                            ^
//!    |                                                     | the connection ends: Lost                  |
//!    +-----------------------------------------------------+--------------------------------------------+
//! ```

use alloc::collections::VecDeque;

use super::desk::Desk;
use super::errors::PublishError;
use super::message::{AppMeta, Content, MESSAGE_COST, check_publishable, publication_meta};
use super::sender::{First, Outcome, Report, Sender, Untold, Weigh};
use super::types::{Fate, PubSubEvent, PublicationId, PublishOptions, Qos};
use crate::message::{Code, Error, Id, Kind, Marks, Payload, verb};
use crate::pattern::{Context, Gone, OpenIds, Outgoing, Owner, Target, Text};
use crate::session::{ConnectionError, Limits};
use crate::time::Instant;

/// So many of our publications are in flight at the most, whatever the peer allows.
const MAX_INFLIGHT: usize = 1 << 16;

impl Weigh for Content {
    fn weight(&self) -> usize {
        self.held() + MESSAGE_COST
    }

    fn is_durable(&self) -> bool {
        self.durable
    }
}

/// All publications of ours.
#[derive(Debug)]
pub(super) struct Publications {
    queue: VecDeque<Queued>,
    pub(super) sender: Sender<Content>,
    records: slab::Slab<Record>,
    /// What queued and unsettled publications count for, and the fates that nobody has taken.
    held: usize,
    /// New publications wait beyond so many.
    buffer: usize,
    /// The largest message that the peer takes, in bytes.
    peer_max_message: usize,
    /// A publication was turned away with `Blocked`, so that somebody waits for `Capacity`.
    waits: bool,
    in_round: bool,
    /// The topic of the last one: many publish on one, which need not be checked and copied again.
    topic: Option<Text>,
    published: u64,
}

#[derive(Debug)]
struct Queued {
    content: Content,
    /// With acknowledgement: its id and its record.
    named: Option<(Id, usize)>,
    /// How often it was sent in earlier sessions.
    attempts: u32,
    /// It is only to be released.
    released: bool,
}

impl Queued {
    /// Why it cannot be sent to a peer with these limits.
    fn problem(&self, on: bool, peer: &Limits) -> Option<Error> {
        let (len, limit) = (self.content.size(), peer.max_message as usize);
        if !on {
            Some(Error::new(Code::UNIMPLEMENTED, "publish and subscribe is not negotiated any more"))
        } else if self.released {
            None
        } else if len > limit {
            let message = alloc::format!("a message of {len} bytes, where the peer takes {limit}");
            Some(Error::new(Code::MESSAGE_TOO_LARGE, message))
        } else if self.named.is_some() && peer.max_inflight == 0 {
            Some(Error::resource_exhausted("the peer takes no messages with acknowledgement any more"))
        } else {
            None
        }
    }
}

/// What the application will want to know.
#[derive(Debug)]
struct Record {
    id: Id,
    fate: Option<Fate>,
}

impl Publications {
    pub(super) fn new(buffer: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            sender: Sender::new(Owner::Publications, 0),
            records: slab::Slab::new(),
            held: 0,
            buffer,
            peer_max_message: 0,
            waits: false,
            in_round: false,
            topic: None,
            published: 0,
        }
    }

    /// The handshake is done: so many may be in flight, and so large be a message.
    pub(super) fn start(&mut self, on: bool, peer: &Limits, desk: &mut Desk, open: &mut OpenIds) {
        self.sender.set_limit(MAX_INFLIGHT.min(peer.max_inflight as usize));
        self.peer_max_message = peer.max_message as usize;
        if !on {
            self.sender.forget_releases(open);
        }
        self.check_queued(on, peer, desk);
        self.wake(desk);
    }

    pub(super) fn published(&self) -> u64 {
        self.published
    }

    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Messages that are queued or not settled.
    pub(super) fn unsettled(&self) -> usize {
        self.queue.len() + self.sender.len()
    }

    fn has_room(&self) -> bool {
        self.held == 0 || self.held < self.buffer
    }

    pub(super) fn ready(&mut self) -> Result<(), PublishError> {
        if self.has_room() {
            return Ok(());
        }
        self.waits = true;
        Err(PublishError::Blocked)
    }

    /// Somebody waits for the handshake.
    pub(super) fn wait(&mut self) {
        self.waits = true;
    }

    /// Tells whoever was turned away that there is room again: for some messages at once, where there were some.
    pub(super) fn relieve(&mut self, desk: &mut Desk) {
        if self.waits && self.held <= self.buffer / 2 {
            self.waits = false;
            desk.events.push_back(PubSubEvent::Capacity);
        }
    }

    pub(super) fn publish(
        &mut self,
        topic: &str,
        payload: Payload,
        options: PublishOptions,
        desk: &mut Desk,
        cx: &mut Context<'_>,
    ) -> Result<Option<PublicationId>, PublishError> {
        let topic = self.topic_of(topic)?;
        let meta = match options.meta.is_empty() {
            true => AppMeta::default(),
            false => publication_meta(options.meta).map_err(PublishError::BadMeta)?,
        };
        let PublishOptions { qos, retain, resumed, durable, .. } = options;
        let content = Content { topic, qos, retain, durable, meta, payload };
        if content.size() > self.peer_max_message {
            return Err(PublishError::TooLarge { len: content.size(), limit: self.peer_max_message });
        }
        self.ready()?;
        let mut queued = Queued { content, named: None, attempts: 0, released: false };
        if let Some(resumed) = resumed {
            if cx.open.contains(resumed.id) {
                return Err(PublishError::Resumed);
            }
            (queued.attempts, queued.released) = (resumed.attempt, resumed.released);
        }
        self.published += 1;
        self.held += queued.content.weight();
        if qos == Qos::AtMostOnce {
            self.queue.push_back(queued);
            self.wake(desk);
            return Ok(None);
        }
        let id = resumed.map_or_else(|| cx.ids.next(cx.now), |resumed| resumed.id);
        self.held += MESSAGE_COST;
        let slot = self.records.insert(Record { id, fate: None });
        let publication = PublicationId { slot, id };
        queued.named = Some((id, slot));
        if queued.released {
            self.settle(publication, Fate::Accepted { attempts: queued.attempts }, desk);
        }
        self.queue.push_back(queued);
        self.wake(desk);
        Ok(Some(publication))
    }

    fn topic_of(&mut self, topic: &str) -> Result<Text, PublishError> {
        if let Some(last) = &self.topic
            && last.as_bytes() == topic.as_bytes()
        {
            return Ok(last.clone());
        }
        check_publishable(topic).map_err(PublishError::BadTopic)?;
        let topic = Text::from(topic);
        self.topic = Some(topic.clone());
        Ok(topic)
    }

    /// Joins the round, if there is something that can be sent.
    pub(super) fn wake(&mut self, desk: &mut Desk) {
        if !self.in_round && self.is_ready(desk) {
            self.in_round = true;
            desk.round.push_back(Owner::Publications);
        }
    }

    fn is_ready(&self, desk: &Desk) -> bool {
        let has_room = |queued: &Queued| queued.named.is_none() || self.sender.has_room();
        let may_go = |queued: &&Queued| queued.released || !desk.holds_back;
        let first = || self.queue.front().filter(may_go).is_some_and(has_room);
        self.sender.has_again() || first()
    }

    /// The next message, where it is the turn of publications.
    pub(super) fn send(&mut self, desk: &mut Desk, cx: &mut Context<'_>) -> Option<Outgoing> {
        self.in_round = false;
        let outgoing = self.send_again(desk, cx.now).or_else(|| self.send_first(desk, cx));
        self.wake(desk);
        self.relieve(desk);
        outgoing
    }

    fn send_again(&mut self, desk: &mut Desk, now: Instant) -> Option<Outgoing> {
        let repeat = self.sender.repeat(now, desk)?;
        Some(publication(repeat.id, repeat.message.clone(), repeat.qos, repeat.attempt))
    }

    fn send_first(&mut self, desk: &mut Desk, cx: &mut Context<'_>) -> Option<Outgoing> {
        if !self.is_ready(desk) {
            return None;
        }
        let Queued { content, named, attempts, released } = self.queue.pop_front()?;
        let Some((id, slot)) = named else {
            self.held -= content.weight();
            return Some(publication(cx.ids.next(cx.now), content, Qos::AtMostOnce, 1));
        };
        if cx.open.contains(id) {
            // The peer has opened something by the id of a message of an earlier session.
            self.held -= content.weight();
            let error = Error::already_exists("the peer uses the id of the message for something else");
            self.settle(PublicationId { slot, id }, Fate::Rejected { error, attempts }, desk);
            return None;
        }
        if released {
            self.held -= content.weight();
            self.sender.begin_release(id, cx.open);
            let release = Target::Verb(verb::RELEASE);
            return Some(Outgoing::new(Kind::Message, cx.ids.next(cx.now), Some(id), release));
        }
        let (qos, attempt, tag) = (content.qos, attempts.saturating_add(1), slot as u64);
        let outgoing = publication(id, content.clone(), qos, attempt);
        self.sender.begin(First { id, tag, qos, attempt, message: content }, cx.now, desk, cx.open);
        Some(outgoing)
    }

    /// The sender has something to tell of a publication.
    pub(super) fn report(&mut self, report: Option<Report<Content>>, desk: &mut Desk) {
        if let Some(Report { id, tag, attempts, message, outcome }) = report {
            self.held -= message.weight();
            let fate = match outcome {
                Outcome::Accepted => Fate::Accepted { attempts },
                Outcome::Rejected(error) => Fate::Rejected { error, attempts },
                Outcome::GivenUp(error) => Fate::GivenUp { error, attempts },
            };
            self.settle(PublicationId { slot: tag as usize, id }, fate, desk);
        }
        self.wake(desk);
        self.relieve(desk);
    }

    /// The fate of a publication is known. Where nobody wants it, there is no record any more.
    fn settle(&mut self, publication: PublicationId, fate: Fate, desk: &mut Desk) {
        let record = self.records.get_mut(publication.slot).filter(|record| record.id == publication.id);
        if let Some(record) = record
            && record.fate.is_none()
        {
            record.fate = Some(fate);
            desk.events.push_back(PubSubEvent::Fate(publication));
        }
    }

    pub(super) fn take_fate(
        &mut self,
        publication: PublicationId,
        desk: &mut Desk,
    ) -> Result<Option<Fate>, Gone> {
        let record = self.records.get_mut(publication.slot).filter(|record| record.id == publication.id);
        let fate = record.ok_or(Gone)?.fate.take();
        if fate.is_some() {
            self.forget(publication, desk)?;
        }
        Ok(fate)
    }

    pub(super) fn forget(&mut self, publication: PublicationId, desk: &mut Desk) -> Result<(), Gone> {
        let record = self.records.get(publication.slot).filter(|record| record.id == publication.id);
        record.ok_or(Gone)?;
        self.records.remove(publication.slot);
        self.held -= MESSAGE_COST;
        self.relieve(desk);
        Ok(())
    }

    /// The peer takes nothing new any more: what was not sent yet is lost. What is only to be released goes on.
    pub(super) fn refuse_queued(&mut self, error: &Error, desk: &mut Desk) {
        let released = |queued: &Queued| queued.released;
        let (goes_on, lost) = core::mem::take(&mut self.queue).into_iter().partition(released);
        self.queue = goes_on;
        let lost: VecDeque<Queued> = lost;
        for queued in lost {
            self.held -= queued.content.weight();
            let Some((id, slot)) = queued.named else { continue };
            let attempts = queued.attempts;
            let mut error = error.clone();
            // Of what became of an earlier attempt nobody knows.
            error.processed = error.processed.filter(|_| attempts == 0);
            self.settle(PublicationId { slot, id }, Fate::Lost { error, attempts }, desk);
        }
        if core::mem::take(&mut self.waits) {
            desk.events.push_back(PubSubEvent::Capacity);
        }
    }

    /// The peer takes nothing new any more, but a fresh session is to come: what is only to be released goes first.
    pub(super) fn hold_back(&mut self, desk: &mut Desk) {
        self.queue.make_contiguous().sort_by_key(|queued| !queued.released);
        self.wake(desk);
    }

    /// The connection ends: what was published with acknowledgement is lost. The rest may still be sent.
    pub(super) fn wind_up(&mut self, why: &ConnectionError, desk: &mut Desk, open: &mut OpenIds) {
        // There will be no room any more.
        self.waits = false;
        if self.unsettled() == 0 {
            return;
        }
        let [unsent, sent] = [why.call_error(false), why.call_error(true)];
        let mut sender = core::mem::replace(&mut self.sender, Sender::new(Owner::Publications, 0));
        let (_, bytes) = sender.kept();
        self.held -= bytes;
        for Untold { id, tag, attempts, .. } in sender.clear(desk, open) {
            let fate = Fate::Lost { error: sent.clone(), attempts };
            self.settle(PublicationId { slot: tag as usize, id }, fate, desk);
        }
        let queue = core::mem::take(&mut self.queue);
        for queued in queue {
            let Some((id, slot)) = queued.named else {
                self.queue.push_back(queued);
                continue;
            };
            self.held -= queued.content.weight();
            let attempts = queued.attempts;
            let error = if attempts == 0 { &unsent } else { &sent };
            self.settle(PublicationId { slot, id }, Fate::Lost { error: error.clone(), attempts }, desk);
        }
        self.wake(desk);
    }

    /// The session is lost, and a fresh one is to come. What is not settled is sent again there, ahead of what was never sent,
    /// unless this was the last attempt.
    pub(super) fn renew(&mut self, why: &ConnectionError, desk: &mut Desk, open: &mut OpenIds) {
        let unsettled = self.sender.renew(desk, open);
        let mut queue = VecDeque::with_capacity(unsettled.len() + self.queue.len());
        let mut error = None;
        for Untold { id, tag, attempts, message } in unsettled {
            let slot = tag as usize;
            if attempts < desk.patience.attempts {
                let named = Some((id, slot));
                queue.push_back(Queued { content: message, named, attempts, released: false });
                continue;
            }
            self.held -= message.weight();
            let error = error.get_or_insert_with(|| why.call_error(true)).clone();
            self.settle(PublicationId { slot, id }, Fate::GivenUp { error, attempts }, desk);
        }
        queue.append(&mut self.queue);
        self.queue = queue;
        self.wake(desk);
        self.relieve(desk);
    }

    /// A session may have other limits than the one before, for which messages were queued. What is beyond them is rejected as
    /// it would be by the peer; what is sent at most once is dropped.
    fn check_queued(&mut self, on: bool, peer: &Limits, desk: &mut Desk) {
        for queued in core::mem::take(&mut self.queue) {
            let Some(error) = queued.problem(on, peer) else {
                self.queue.push_back(queued);
                continue;
            };
            self.held -= queued.content.weight();
            if let Some((id, slot)) = queued.named {
                let attempts = queued.attempts;
                let error = if attempts == 0 { error.with_processed(false) } else { error };
                self.settle(PublicationId { slot, id }, Fate::Rejected { error, attempts }, desk);
            }
        }
    }

    /// Nothing more can be sent.
    pub(super) fn terminate(&mut self) {
        let held = self.queue.iter().map(|queued| queued.content.weight());
        self.held -= held.sum::<usize>();
        self.queue.clear();
        self.in_round = false;
    }
}

/// A publication on its way out.
fn publication(id: Id, content: Content, qos: Qos, attempt: u32) -> Outgoing {
    let Content { topic, retain, meta, payload, .. } = content;
    let mut outgoing = Outgoing::new(Kind::Message, id, None, Target::Address(topic)).with_payload(payload);
    outgoing.meta = meta.into_map();
    outgoing.marks = Marks { qos: qos.to_wire(), attempt, retain, ..Marks::default() };
    outgoing
}
