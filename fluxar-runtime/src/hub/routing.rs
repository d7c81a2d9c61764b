//! What is behind a hub's lock: subscriptions, and messages on their way to them.
//!
//! A message that a subscription has no room for waits in front of its queue, and so do those that come after it: that
//! keeps the order of each publisher (§12.6). The publisher is answered once the message waits nowhere any more.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fluxar_proto::hub::{Hub as Router, Retain, RetainLimits};
use fluxar_proto::{
    Error, Gone, HashKey, OutMessage, Qos, QueueLimits, SubscribeRequest, SubscriberId, Text,
};

use super::held::{Answer, Held, Offered, answer, offered, waits_no_more};
use super::local::Dropped;
use super::member::{Load, Member, get, is_ready};
use super::port::{Place, Tried, no_room};
use super::{Effects, HubStats, LocalQueue, Outcome, Undelivered};
use crate::peer::Peer;
use crate::shared::{ForHub, Shared};

/// So many messages of publishers that are gone may wait for one subscription.
const ORPHANS: usize = 256;

/// So many last values, and bytes of them, may wait for the subscriptions of one peer, unless they are for the only one that
/// waits: otherwise each would hold as many as there are, for a peer that need not take any (§17.2).
const BACKLOG_ITEMS: usize = 1 << 16;
const BACKLOG_BYTES: usize = 64 << 20;

pub(super) struct Routing {
    pub(super) router: Router<usize>,
    pub(super) members: Vec<Option<Member>>,
    pub(super) free: Vec<usize>,
    /// The subscriptions of peers, by connection.
    remote: HashMap<(u64, SubscriberId), usize>,
    /// The subscriptions for which messages wait.
    pub(super) stalled: BTreeSet<usize>,
    pub(super) attempts: u32,
    /// The bounds of what is held for each subscription.
    pub(super) limits: QueueLimits,
    stats: HubStats,
    /// Buffers that are used again.
    targets: Vec<usize>,
    plan: Vec<(usize, usize)>,
}

/// One of those that are published together.
struct Entry {
    offered: Offered,
    /// Somebody has got it.
    delivered: bool,
    /// Somebody has no room for it.
    held: Option<Arc<Held>>,
    /// It is not to wait, and somebody did not get it.
    missed: bool,
}

impl Routing {
    pub(super) fn new(key: HashKey, retain: RetainLimits, limits: QueueLimits, attempts: u32) -> Self {
        Self {
            router: Router::new(key, retain),
            members: Vec::new(),
            free: Vec::new(),
            remote: HashMap::new(),
            stalled: BTreeSet::new(),
            attempts,
            limits,
            stats: HubStats::default(),
            targets: Vec::new(),
            plan: Vec::new(),
        }
    }

    pub(super) fn stats(&self) -> HubStats {
        let (retained, retained_bytes) = self.router.retained_size();
        let waiting = self.stalled.iter().filter_map(|target| self.members.get(*target)?.as_ref());
        let waiting = waiting.map(|member| member.waiting.len()).sum();
        HubStats { subscriptions: self.router.len(), retained, retained_bytes, waiting, ..self.stats }
    }

    pub(super) fn local_queues(&self) -> impl Iterator<Item = &Arc<LocalQueue>> {
        self.members.iter().flatten().filter_map(|member| match &member.place {
            Place::Local(queue) => Some(queue),
            Place::Remote { .. } => None,
        })
    }

    /// Does what a turn of a connection's driver has left to do. Publications that follow each other go out together.
    pub(super) fn run(
        &mut self,
        shared: &Arc<Shared>,
        todo: impl Iterator<Item = ForHub>,
        effects: &mut Effects,
    ) {
        let mut batch = Vec::new();
        for one in todo {
            let one = match one {
                ForHub::Publication(publication) => {
                    batch.push(offered(shared, &publication));
                    continue;
                }
                other => other,
            };
            self.publish(std::mem::take(&mut batch), effects);
            match one {
                // The keeper's.
                ForHub::Publication(_) | ForHub::Completed(_) | ForHub::Released(_) => {}
                ForHub::Subscribe(request) => self.subscribe(shared, &request, effects),
                ForHub::Unsubscribed(subscriber) => {
                    if let Some(target) = self.remote.remove(&(shared.number(), subscriber)) {
                        self.remove(target, effects);
                    }
                }
                ForHub::Room(subscriber) => {
                    if let Some(target) = self.remote.get(&(shared.number(), subscriber)) {
                        self.room(*target, effects);
                    }
                }
                ForHub::Undelivered { subscriber, message, attempts, error, ended } => {
                    let target = self.remote.get(&(shared.number(), subscriber)).copied();
                    let member = target.and_then(|target| self.members.get_mut(target)?.as_mut());
                    match member {
                        Some(member) if ended && member.group.is_some() => {
                            member.left.push(message.with_attempts(attempts));
                        }
                        _ => {
                            let peer = Some(Peer::new(shared.clone()));
                            effects.undelivered.push(Undelivered::new(&message, peer, attempts, error));
                        }
                    }
                }
                ForHub::Lost | ForHub::Closed => self.forget_publisher(shared, effects),
            }
        }
        self.publish(batch, effects);
    }

    /// Publishes messages, in this order.
    pub(super) fn publish(&mut self, batch: Vec<Offered>, effects: &mut Effects) {
        let (mut plan, mut grouped) = (std::mem::take(&mut self.plan), false);
        let mut entries = Vec::with_capacity(batch.len());
        for offered in batch {
            self.stats.published += 1;
            if offered.retain && self.router.retain(offered.message.clone()) == Retain::Full {
                self.stats.refused += 1;
                let error = Error::resource_exhausted("no room for another last value").with_processed(false);
                answer(offered.answer, Err(error), effects);
                continue;
            }
            self.targets.clear();
            let members = &self.members;
            self.router.route_by(offered.message.topic(), &mut self.targets, |key| is_ready(members, *key));
            for target in &self.targets {
                grouped |= get(members, *target).is_some_and(|member| member.group.is_some());
                plan.push((*target, entries.len()));
            }
            entries.push(Entry { offered, delivered: false, held: None, missed: false });
        }
        // Each subscription is taken up once for all that it gets. Where there are groups, whose members may stand in for
        // each other, what goes to each stays in order only message by message.
        if !grouped && entries.len() > 1 {
            plan.sort_by_key(|(target, _)| *target);
        }
        for run in plan.chunk_by(|(a, _), (b, _)| a == b) {
            self.deliver(run, &mut entries, effects);
        }
        for entry in entries {
            let Entry { offered, delivered, held, missed } = entry;
            match held {
                Some(held) => held.delivered.store(delivered, Ordering::Relaxed),
                None if missed => answer(offered.answer, Err(no_room()), effects),
                None => answer(offered.answer, Ok(()), effects),
            }
        }
        plan.clear();
        self.plan = plan;
    }

    /// Delivers what one subscription gets of those that are published together.
    fn deliver(&mut self, run: &[(usize, usize)], entries: &mut [Entry], effects: &mut Effects) {
        let Some((target, _)) = run.first().copied() else { return };
        let Some(Some(member)) = self.members.get(target) else { return };
        let (mut tried, mut turned_away) = (Tried::default(), Vec::new());
        let mut port = member.place.open();
        for (_, index) in run {
            let Some(entry) = entries.get_mut(*index) else { continue };
            let offered = &entry.offered;
            // Those that wait come first, where the mode is the same for all purposes of order.
            let behind = !member.waiting.is_empty() || !turned_away.is_empty();
            let in_line =
                offered.message.qos().min(member.qos) > Qos::AtMostOnce || member.has_values_first();
            if behind && in_line {
                turned_away.push((*index, false));
                continue;
            }
            let (message, peer) = (&offered.message, offered.peer.as_ref());
            match tried.deliver(&mut port, message, member.qos, peer, &mut effects.wakers) {
                Ok(true) => entry.delivered = true,
                Ok(false) => turned_away.push((*index, false)),
                // It has ended, and we will hear of it.
                Err(Gone) => turned_away.push((*index, true)),
            }
        }
        port.close(&mut effects.wakers);
        self.follow_up(target, tried, effects);
        for (index, gone) in turned_away {
            if let Some(entry) = entries.get_mut(index) {
                self.turned_away(target, gone, entry, effects);
            }
        }
    }

    /// Counts and tells what came of what was tried.
    fn follow_up(&mut self, target: usize, tried: Tried, effects: &mut Effects) {
        let Tried { delivered, dropped, closed, mut lost, gone } = tried;
        lost.extend(gone.iter().filter_map(Dropped::message).map(|message| (message, no_room())));
        effects.dropped.extend(gone);
        self.stats.delivered += delivered;
        self.stats.dropped += dropped;
        let Some(Some(member)) = self.members.get(target) else { return };
        for (message, error) in lost {
            let attempts = message.attempts();
            effects.undelivered.push(Undelivered::new(&message, member.place.peer(), attempts, error));
        }
        // That of a peer was ended by its connection, which will say so.
        if closed && let Place::Local(queue) = &member.place {
            let error = Error::resource_exhausted("the subscription's queue is full");
            let left = queue.end(Some(error), &mut effects.wakers, &mut effects.dropped);
            self.leave(target, left, effects);
        }
    }

    /// A subscription has no room for a message, or is `gone`: another member of its group gets it, or it waits.
    fn turned_away(&mut self, target: usize, gone: bool, entry: &mut Entry, effects: &mut Effects) {
        if let Some(Some(member)) = self.members.get_mut(target) {
            member.full = true;
        }
        let mut wait_at = (!gone).then_some(target);
        if let Some((filter, group)) = self.group_of(target) {
            let Some(other) =
                self.give(&filter, &group, &entry.offered.message, &entry.offered.peer, effects)
            else {
                entry.delivered = true;
                return;
            };
            wait_at = wait_at.or(other.filter(|other| *other != target));
        }
        let Some(target) = wait_at else { return };
        let has_place = get(&self.members, target)
            .is_some_and(|member| member.has_place(self.limits, &entry.offered.message));
        let lossy = entry.offered.message.qos() == Qos::AtMostOnce;
        if matches!(entry.offered.answer, Answer::AtOnce(_)) || (lossy && !has_place) {
            self.stats.dropped += 1;
            entry.missed = true;
            return;
        }
        let held = entry.held.get_or_insert_with(|| Held::new(&mut entry.offered)).clone();
        self.wait(target, held);
    }

    /// Delivers a message to a subscription for which none waits, if it has room.
    pub(super) fn try_one(
        &mut self,
        target: usize,
        message: &OutMessage,
        peer: Option<&Peer>,
        effects: &mut Effects,
    ) -> bool {
        let Some(Some(member)) = self.members.get(target) else { return false };
        if !member.waiting.is_empty() {
            return false;
        }
        let mut tried = Tried::default();
        let mut port = member.place.open();
        let done = tried.deliver(&mut port, message, member.qos, peer, &mut effects.wakers);
        port.close(&mut effects.wakers);
        self.follow_up(target, tried, effects);
        done == Ok(true)
    }

    pub(super) fn wait(&mut self, target: usize, held: Arc<Held>) {
        if let Some(Some(member)) = self.members.get_mut(target) {
            held.waits.fetch_add(1, Ordering::Relaxed);
            if let Some(load) = member.load(&held) {
                load.items += 1;
                load.bytes += held.message.held_bytes();
            }
            member.waiting.push_back(held);
            self.stalled.insert(target);
        }
    }

    /// There is room in the queue of a subscription.
    pub(super) fn room(&mut self, target: usize, effects: &mut Effects) {
        let Some(Some(member)) = self.members.get_mut(target) else { return };
        member.full = false;
        let (mut tried, mut done) = (Tried::default(), 0);
        let mut port = member.place.open();
        for held in &member.waiting {
            let peer = held.peer.as_ref();
            match tried.deliver(&mut port, &held.message, member.qos, peer, &mut effects.wakers) {
                Ok(true) => done += 1,
                Ok(false) | Err(Gone) => {
                    member.full = true;
                    break;
                }
            }
        }
        port.close(&mut effects.wakers);
        for _ in 0..done {
            self.pop_waiting(target, effects);
        }
        self.follow_up(target, tried, effects);
    }

    /// The first message that waits for a subscription was delivered.
    pub(super) fn pop_waiting(&mut self, target: usize, effects: &mut Effects) {
        let Some(Some(member)) = self.members.get_mut(target) else { return };
        let Some(held) = member.waiting.pop_front() else { return };
        if let Some(load) = member.load(&held) {
            load.items -= 1;
            load.bytes -= held.message.held_bytes();
        }
        if member.waiting.is_empty() {
            self.stalled.remove(&target);
        }
        held.delivered.store(true, Ordering::Relaxed);
        waits_no_more(held, effects);
    }

    /// A peer subscribes.
    fn subscribe(&mut self, shared: &Arc<Shared>, request: &SubscribeRequest, effects: &mut Effects) {
        let subscriber = request.id;
        let is_flooded = self.is_flooded_by(shared, request);
        let now = shared.clock().now();
        let mut state = shared.lock();
        let confirmed = match is_flooded {
            true => {
                let error = Error::resource_exhausted("too many last values wait to be taken already");
                // What it fails with ends the connection, which will say so.
                state.connection.refuse_subscription(now, subscriber, error).ok();
                Err(Gone)
            }
            false => state.connection.confirm(subscriber, request.qos, self.limits),
        };
        effects.wakers.extend(state.take_driver());
        drop(state);
        // It has unsubscribed, its connection is over, or it was refused.
        if confirmed.is_err() {
            return;
        }
        let place = Place::Remote { shared: shared.clone(), subscriber };
        let qos = if request.inflight == 0 { Qos::AtMostOnce } else { request.qos };
        let target = self.add(place, qos, &request.filter, request.group.as_deref(), effects);
        self.remote.insert((shared.number(), subscriber), target);
    }

    /// Whether more last values wait for subscriptions of a peer than may, with those that one more would get.
    fn is_flooded_by(&self, shared: &Arc<Shared>, request: &SubscribeRequest) -> bool {
        // At most once, nothing waits.
        let waits = request.qos > Qos::AtMostOnce && request.inflight > 0;
        if request.group.is_some() || !waits {
            return false;
        }
        let stalled = self.stalled.iter().filter_map(|target| get(&self.members, *target));
        let theirs = stalled.filter(
            |member| matches!(&member.place, Place::Remote { shared: peer, .. } if Arc::ptr_eq(peer, shared)),
        );
        let waiting = theirs.fold((0, 0), |(items, bytes), Member { values, .. }| {
            (items + values.items, bytes + values.bytes)
        });
        let beyond = |(items, bytes): (usize, usize)| items > BACKLOG_ITEMS || bytes > BACKLOG_BYTES;
        // The only one that waits gets them all.
        waiting.0 > 0
            && (beyond(waiting) || {
                let values = self.router.retained(&request.filter);
                let all =
                    values.fold(waiting, |(items, bytes), value| (items + 1, bytes + value.held_bytes()));
                all.0 > waiting.0 && beyond(all)
            })
    }

    /// This side itself subscribes.
    pub(super) fn subscribe_local(
        &mut self,
        queue: &Arc<LocalQueue>,
        filter: &str,
        group: Option<&str>,
        effects: &mut Effects,
    ) {
        let target = self.add(Place::Local(queue.clone()), queue.qos(), filter, group, effects);
        queue.set_target(target);
    }

    fn add(
        &mut self,
        place: Place,
        qos: Qos,
        filter: &str,
        group: Option<&str>,
        effects: &mut Effects,
    ) -> usize {
        let (text, in_group) = (group.map(Text::from), group.is_some());
        let member = Member {
            place,
            qos,
            filter: Text::from(filter),
            group: text,
            full: false,
            waiting: VecDeque::new(),
            values: Load::default(),
            unclaimed: Load::default(),
            left: Vec::new(),
        };
        let target = self.free.pop().unwrap_or_else(|| {
            self.members.push(None);
            self.members.len() - 1
        });
        self.members[target] = Some(member);
        self.router.subscribe(target, filter, group);
        // The last values come before all that is published from now on (§12.16).
        let values: Vec<OutMessage> =
            if in_group { Vec::new() } else { self.router.retained(filter).cloned().collect() };
        for message in values {
            if !self.try_one(target, &message, None, effects) {
                self.wait(target, Held::of(message));
            }
        }
        if let Some((filter, group)) = self.group_of(target) {
            self.hand_over(target, &filter, &group, effects);
        }
        target
    }

    /// A subscription of this side's is over.
    pub(super) fn leave_local(
        &mut self,
        queue: &Arc<LocalQueue>,
        left: Vec<OutMessage>,
        effects: &mut Effects,
    ) {
        let target = queue.target();
        let Some(Some(member)) = self.members.get(target) else { return };
        if matches!(&member.place, Place::Local(local) if Arc::ptr_eq(local, queue)) {
            self.leave(target, left, effects);
        }
    }

    fn leave(&mut self, target: usize, left: Vec<OutMessage>, effects: &mut Effects) {
        if let Some(Some(member)) = self.members.get_mut(target) {
            member.left.extend(left);
            self.remove(target, effects);
        }
    }

    /// The connection of a publisher has ended: it will publish again what was not acknowledged, or not.
    fn forget_publisher(&mut self, shared: &Arc<Shared>, effects: &mut Effects) {
        self.abandon(|answer| matches!(answer, Answer::Peer(peer, _) if Arc::ptr_eq(peer, shared)), effects);
    }

    /// Nobody waits for a publication of this side's any more.
    pub(super) fn forget_outcome(&mut self, outcome: &Arc<Outcome>, effects: &mut Effects) {
        self.abandon(|answer| matches!(answer, Answer::Local(told) if Arc::ptr_eq(told, outcome)), effects);
    }

    /// Of messages whose publisher waits no more, what nobody has got is dropped; what some have got the others get too,
    /// within bounds.
    fn abandon(&mut self, is_theirs: impl Fn(&Answer) -> bool, effects: &mut Effects) {
        let mut over = Vec::new();
        for target in &self.stalled {
            let Some(Some(member)) = self.members.get_mut(*target) else { continue };
            let mut orphans = member.waiting.len().saturating_sub(ORPHANS);
            let mut gone = Vec::new();
            member.waiting.retain(|held| {
                let theirs = is_theirs(&held.answer);
                let drop = theirs && (!held.delivered.load(Ordering::Relaxed) || orphans > 0);
                if drop {
                    orphans = orphans.saturating_sub(1);
                    gone.push(held.clone());
                }
                !drop
            });
            gone.into_iter().for_each(|held| waits_no_more(held, effects));
            over.extend(member.waiting.is_empty().then_some(*target));
        }
        for target in over {
            self.stalled.remove(&target);
        }
    }
}
