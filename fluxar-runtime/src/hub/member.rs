//! One subscription, as a hub's routing sees it.

use std::collections::VecDeque;
use std::sync::Arc;

use fluxar_proto::{OutMessage, Qos, QueueLimits, Text};

use super::held::{Answer, Held};
use super::port::Place;

/// What so many members of a group leave behind may wait for one that stays: each has held as much as a queue holds.
const LEAVERS: usize = 16;

/// A subscription.
pub(super) struct Member {
    pub(super) place: Place,
    /// The highest mode that it takes.
    pub(super) qos: Qos,
    pub(super) filter: Text,
    pub(super) group: Option<Text>,
    /// It had no room when it was last asked, and will say when it has.
    pub(super) full: bool,
    /// What it has no room for.
    pub(super) waiting: VecDeque<Arc<Held>>,
    /// What of that are last values.
    pub(super) values: Load,
    /// What else of that no publisher waits for.
    pub(super) unclaimed: Load,
    /// What it has left behind that may go to others.
    pub(super) left: Vec<OutMessage>,
}

/// So many messages, of so many bytes.
#[derive(Default)]
pub(super) struct Load {
    pub(super) items: usize,
    pub(super) bytes: usize,
}

impl Member {
    /// Which of the counts a waiting message is in: publishers bound what they wait for themselves.
    pub(super) fn load(&mut self, held: &Held) -> Option<&mut Load> {
        match &held.answer {
            Answer::None if held.message.is_retained() => Some(&mut self.values),
            Answer::None => Some(&mut self.unclaimed),
            _ => None,
        }
    }

    /// Whether messages wait that nothing may go past, in whatever mode: last values come before what follows them (§12.16),
    /// and that in its order.
    pub(super) fn has_values_first(&self) -> bool {
        self.values.items > 0 || (self.group.is_none() && self.unclaimed.items > 0)
    }

    /// Whether one more message that no publisher waits for may wait: as many as so many members of a group can leave.
    pub(super) fn has_place(&self, limits: QueueLimits, message: &OutMessage) -> bool {
        let Load { items, bytes } = &self.unclaimed;
        let (most_items, most_bytes) =
            (limits.items.saturating_mul(LEAVERS), limits.bytes.saturating_mul(LEAVERS));
        *items == 0 || (*items < most_items && bytes + message.held_bytes() <= most_bytes)
    }
}

pub(super) fn get(members: &[Option<Member>], target: usize) -> Option<&Member> {
    members.get(target).and_then(Option::as_ref)
}

/// Whether a subscription may have room.
pub(super) fn is_ready(members: &[Option<Member>], target: usize) -> bool {
    get(members, target).is_some_and(|member| !member.full)
}
