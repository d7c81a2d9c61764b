//! Members of a group stand in for each other (§12.15): where one has no room, leaves, or joins.

use std::sync::atomic::Ordering;

use fluxar_proto::{Error, OutMessage, Qos, Text};

use super::held::{Answer, Held, waits_no_more};
use super::member::{Member, get, is_ready};
use super::port::no_room;
use super::routing::Routing;
use super::{Effects, Undelivered};
use crate::peer::Peer;

impl Routing {
    pub(super) fn group_of(&self, target: usize) -> Option<(Text, Text)> {
        let member = get(&self.members, target)?;
        Some((member.filter.clone(), member.group.clone()?))
    }

    /// Gives a message to a member of a group that has room. Where none has, it gives back at whose queue it is to wait, if
    /// there is any.
    pub(super) fn give(
        &mut self,
        filter: &str,
        group: &str,
        message: &OutMessage,
        peer: &Option<Peer>,
        effects: &mut Effects,
    ) -> Option<Option<usize>> {
        loop {
            let members = &self.members;
            let Some(target) = self.router.member(filter, group, |key| is_ready(members, *key)) else {
                return Some(None);
            };
            if !is_ready(&self.members, target) {
                return Some(Some(target));
            }
            if self.try_one(target, message, peer.as_ref(), effects) {
                return None;
            }
            // So that each is asked once.
            if let Some(Some(member)) = self.members.get_mut(target) {
                member.full = true;
            }
        }
    }

    /// A member joins a group: it takes over what waits for others, ahead of all that is published from now on. So what
    /// members leave behind does not grow by coming and going.
    pub(super) fn hand_over(&mut self, to: usize, filter: &str, group: &str, effects: &mut Effects) {
        let is_of_group = |member: &Member| {
            &*member.filter == filter && member.group.as_deref().is_some_and(|name| name == group)
        };
        let others = self.stalled.iter().copied();
        let others = others.filter(|target| get(&self.members, *target).is_some_and(is_of_group));
        for from in others.collect::<Vec<_>>() {
            while let Some(held) = get(&self.members, from).and_then(|member| member.waiting.front()) {
                let (message, peer) = (held.message.clone(), held.peer.clone());
                if !self.try_one(to, &message, peer.as_ref(), effects) {
                    if let Some(Some(member)) = self.members.get_mut(to) {
                        member.full = true;
                    }
                    return;
                }
                self.pop_waiting(from, effects);
            }
        }
    }

    /// A subscription is over. What it has not acknowledged goes to another member of its group (§12.15).
    pub(super) fn remove(&mut self, target: usize, effects: &mut Effects) {
        let group = self.group_of(target);
        self.router.unsubscribe(&target);
        self.stalled.remove(&target);
        let Some(member) = self.members.get_mut(target).and_then(Option::take) else { return };
        self.free.push(target);
        let Member { place, qos, waiting, left, .. } = member;
        let over = || Error::unavailable("the subscription has ended");
        for message in left {
            let attempts = message.attempts();
            let why = match &group {
                Some((filter, group)) if attempts < self.attempts => {
                    match self.give(filter, group, &message, &None, effects) {
                        None => continue,
                        Some(Some(target)) if self.inherit(target, &message) => continue,
                        Some(Some(_)) => no_room(),
                        Some(None) => over(),
                    }
                }
                _ => over(),
            };
            effects.undelivered.push(Undelivered::new(&message, place.peer(), attempts, why));
        }
        for held in waiting {
            let given = group.as_ref().map_or(Some(None), |(filter, group)| {
                self.give(filter, group, &held.message, &held.peer, effects)
            });
            match given {
                None => held.delivered.store(true, Ordering::Relaxed),
                Some(Some(target)) if !matches!(held.answer, Answer::None) => self.wait(target, held.clone()),
                Some(Some(target)) if self.inherit(target, &held.message) => {}
                // Last values are still there, and of what is sent at most once nobody learns what becomes of it.
                _ if held.message.is_retained() || held.message.qos().min(qos) == Qos::AtMostOnce => {}
                given => {
                    let why = given.flatten().map_or_else(over, |_| no_room());
                    let attempts = held.message.attempts();
                    effects.undelivered.push(Undelivered::new(&held.message, place.peer(), attempts, why));
                }
            }
            waits_no_more(held, effects);
        }
        effects.places.push(place);
    }

    /// A message that nobody waits for goes from one member of a group to another that has no room, within bounds.
    fn inherit(&mut self, target: usize, message: &OutMessage) -> bool {
        let has_place =
            get(&self.members, target).is_some_and(|member| member.has_place(self.limits, message));
        if has_place {
            self.wait(target, Held::of(message.clone()));
        }
        has_place
    }
}
