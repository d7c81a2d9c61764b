//! The routing of a hub beside a naive one, which looks at every subscription and every value.

use std::collections::{BTreeMap, BTreeSet};

use fluxar_proto::hub::{Hub, Retain, RetainLimits};
use fluxar_proto::topic::{check_filter, check_topic};
use fluxar_proto::{HashKey, OutMessage, Payload, Qos};
use proptest::prelude::*;

use crate::support::{TestRng, cases, item};

/// Whether a filter matches (§12.2), token by token; `fluxar.` and wildcards are apart.
fn matches(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        ([], []) => true,
        ([">"], [_, ..]) => true,
        (["*", filter @ ..], [_, topic @ ..]) => matches(filter, topic),
        ([one, filter @ ..], [other, topic @ ..]) => one == other && matches(filter, topic),
        _ => false,
    }
}

fn matches_text(filter: &str, topic: &str) -> bool {
    let (filter, topic): (Vec<_>, Vec<_>) = (filter.split('.').collect(), topic.split('.').collect());
    !(topic[0] == "fluxar" && [">", "*"].contains(&filter[0])) && matches(&filter, &topic)
}

fn message(topic: &str, payload: Payload) -> OutMessage {
    OutMessage::new(topic, Qos::AtLeastOnce, payload, Default::default()).unwrap()
}

/// A hub, and beside it all that it should know.
struct Model {
    hub: Hub<u32>,
    limits: RetainLimits,
    subscriptions: BTreeMap<u32, (String, Option<String>)>,
    values: BTreeMap<String, Payload>,
    /// How often each member of a group was chosen since the group last changed.
    turns: BTreeMap<(String, String), BTreeMap<u32, u32>>,
    rng: TestRng,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut rng = TestRng::new(seed);
        let items = [0, 1, 4, 1_000][rng.below(4)];
        let bytes = [0, 500, 1_500, 1 << 20][rng.below(4)];
        let limits = RetainLimits { items, bytes };
        let hub = Hub::new(HashKey::new(rng.word(), rng.word()), limits);
        let (subscriptions, values, turns) = Default::default();
        Self { hub, limits, subscriptions, values, turns, rng }
    }

    /// Few tokens, so that much matches.
    fn tokens(&mut self, of: &[&str]) -> Vec<String> {
        let count = 1 + self.rng.below(3);
        (0..count).map(|_| of[self.rng.below(of.len())].into()).collect()
    }

    fn topic(&mut self) -> String {
        let topic = self.tokens(&["a", "b", "é"]).join(".");
        let reserved = topic.starts_with("fluxar.");
        assert!(check_topic(&topic).is_ok() && !reserved, "{topic}");
        topic
    }

    fn filter(&mut self) -> String {
        let mut filter = self.tokens(&["a", "b", "é", "*", "*"]);
        if self.rng.below(3) == 0 {
            filter.pop();
            filter.push(">".into());
        }
        let filter = filter.join(".");
        assert_eq!(check_filter(&filter), Ok(()), "{filter}");
        filter
    }

    fn operate(&mut self) {
        match self.rng.below(10) {
            0..3 => self.subscribe(),
            3 => self.unsubscribe(),
            4..6 => self.retain(),
            6 => self.look(),
            _ => self.route(),
        }
        assert_eq!(self.hub.len(), self.subscriptions.len());
        assert_eq!(self.hub.is_empty(), self.subscriptions.is_empty());
    }

    fn subscribe(&mut self) {
        let (key, filter) = (self.rng.below(24) as u32, self.filter());
        let group = [None, None, Some("g"), Some("h")][self.rng.below(4)];
        self.hub.subscribe(key, &filter, group);
        // What it had subscribed to before is over.
        self.drop_turns(key);
        self.subscriptions.insert(key, (filter, group.map(Into::into)));
        self.drop_turns(key);
    }

    fn unsubscribe(&mut self) {
        let key = self.rng.below(24) as u32;
        self.drop_turns(key);
        assert_eq!(self.hub.unsubscribe(&key), self.subscriptions.remove(&key).is_some());
    }

    fn drop_turns(&mut self, key: u32) {
        if let Some((filter, Some(group))) = self.subscriptions.get(&key) {
            self.turns.remove(&(filter.clone(), group.clone()));
        }
    }

    fn route(&mut self) {
        let topic = self.topic();
        // Some members have no room.
        let busy = (0..24).filter(|_| self.rng.below(5) == 0).collect::<BTreeSet<u32>>();
        let by = self.rng.below(3) == 0;
        let mut receivers = vec![];
        if by {
            self.hub.route_by(&topic, &mut receivers, |key| !busy.contains(key));
        } else {
            self.hub.route(&topic, &mut receivers);
        }
        let mut left = receivers.iter().copied().collect::<BTreeSet<_>>();
        // §12.3, §12.5: nobody gets it twice.
        assert_eq!(left.len(), receivers.len(), "{receivers:?}");
        let mut groups = BTreeMap::<_, Vec<u32>>::new();
        for (key, (filter, group)) in &self.subscriptions {
            let matched = matches_text(filter, &topic);
            match group {
                // §12.5: every subscription that matches gets it.
                None => assert_eq!(left.remove(key), matched, "{key} with {filter} for {topic}"),
                Some(group) if matched => {
                    groups.entry((filter.clone(), group.clone())).or_default().push(*key);
                }
                Some(_) => {}
            }
        }
        for (group, members) in groups {
            // §12.15: exactly one member of each group.
            let chosen = members.iter().filter(|key| left.remove(key)).copied().collect::<Vec<_>>();
            let [chosen] = chosen[..] else { panic!("{chosen:?} of {group:?} for {topic}") };
            if by {
                // §12.15: rather one that has room.
                let free = members.iter().any(|key| !busy.contains(key));
                assert!(!(free && busy.contains(&chosen)), "{chosen} is busy, others are not");
                self.turns.remove(&group);
            } else {
                self.take_turn(group, &members, chosen);
            }
        }
        assert_eq!(left, BTreeSet::new(), "who has not subscribed got {topic}");
    }

    /// §12.15: while the group does not change, messages are spread evenly.
    fn take_turn(&mut self, group: (String, String), members: &[u32], chosen: u32) {
        let turns = self.turns.entry(group).or_default();
        *turns.entry(chosen).or_default() += 1;
        let counts = members.iter().map(|key| turns.get(key).copied().unwrap_or(0));
        let (least, most) = (counts.clone().min().unwrap(), counts.max().unwrap());
        assert!(most - least <= 1, "{turns:?} of {members:?}");
    }

    fn retain(&mut self) {
        let topic = self.topic();
        if self.rng.below(3) == 0 {
            assert_eq!(self.hub.retain(message(&topic, Payload::null())), Retain::Cleared);
            self.values.remove(&topic);
        } else {
            let (tag, len) = (self.rng.word(), self.rng.below(400));
            let payload = item(|out| out.array(2)?.u64(tag)?.bytes(&vec![0; len])?.ok());
            let mut after = self.values.clone();
            after.insert(topic.clone(), payload.clone());
            let held = after.iter().map(|(topic, payload)| message(topic, payload.clone()).held_bytes());
            // §12.16: what would exceed the bound is refused as a whole.
            let fits = after.len() <= self.limits.items && held.sum::<usize>() <= self.limits.bytes;
            let expected = if fits { Retain::Kept } else { Retain::Full };
            assert_eq!(self.hub.retain(message(&topic, payload)), expected, "{topic}");
            if fits {
                self.values = after;
            }
        }
        let held = self.values.iter().map(|(topic, payload)| message(topic, payload.clone()).held_bytes());
        assert_eq!(self.hub.retained_size(), (self.values.len(), held.sum()));
    }

    /// What a new subscription would get first.
    fn look(&mut self) {
        let filter = if self.rng.below(3) == 0 { self.topic() } else { self.filter() };
        let kept = self.hub.retained(&filter).map(|value| {
            assert!(value.is_retained());
            (value.topic().to_string(), value.payload().clone())
        });
        let expected = self.values.iter().filter(|(topic, _)| matches_text(&filter, topic));
        let expected = expected.map(|(topic, payload)| (topic.clone(), payload.clone()));
        assert_eq!(kept.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{filter}");
    }
}

proptest! {
    #![proptest_config(cases(200))]

    // spec: §12.2, §12.3, §12.5, §12.15, §12.16
    #[test]
    fn a_hub_does_what_a_naive_one_does(seed: u64, operations in 1usize..300) {
        let mut model = Model::new(seed);
        for _ in 0..operations {
            model.operate();
        }
    }
}
