//! Topics, filters, and what matches.

use std::collections::BTreeMap;
use std::string::String;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::pattern::HashKey;

fn trie<V>() -> Trie<V> {
    Trie::new(HashKey::new(1, 2))
}

fn found(trie: &Trie<String>, topic: &str) -> Vec<String> {
    let mut found = Vec::new();
    trie.find(topic, |value| found.push(value.clone()));
    found.sort();
    found
}

// spec: §12.1
#[test]
fn a_topic_is_tokens_between_dots() {
    let longest = "a".repeat(255);
    for good in ["a", "orders.created", "größe.日本", "a.b.c.d", "-_/:", "fluxar", &longest] {
        assert_eq!(check_topic(good), Ok(()), "{good}");
        assert_eq!(check_filter(good), Ok(()), "{good}: a topic is a filter");
    }
    let too_long = "a".repeat(256);
    for (bad, why) in [
        ("", TopicError::Empty),
        (&*too_long, TopicError::TooLong),
        (".", TopicError::EmptyToken),
        (".a", TopicError::EmptyToken),
        ("a.", TopicError::EmptyToken),
        ("a..b", TopicError::EmptyToken),
        ("a b", TopicError::BadCharacter),
        ("a\0", TopicError::BadCharacter),
        ("a\x1f.b", TopicError::BadCharacter),
        ("a\x7f", TopicError::BadCharacter),
    ] {
        assert_eq!(check_topic(bad), Err(why), "{bad:?}");
        assert_eq!(check_filter(bad), Err(why), "{bad:?}");
    }
    for wild in ["*", ">", "a.*", "a.>", "a*", "a.b>"] {
        assert_eq!(check_topic(wild), Err(TopicError::Wildcard), "{wild}");
    }
}

// spec: §12.2
#[test]
fn a_filter_has_whole_tokens_as_wildcards() {
    for good in ["*", ">", "a.*", "*.a", "a.*.b", "*.*", "a.>", "*.>", "a.*.>"] {
        assert_eq!(check_filter(good), Ok(()), "{good}");
        assert!(has_wildcard(good));
    }
    for (bad, why) in [
        (">.a", TopicError::RestInside),
        ("a.>.b", TopicError::RestInside),
        (">.>", TopicError::RestInside),
        ("a.>.", TopicError::RestInside),
        ("a*", TopicError::Wildcard),
        ("**", TopicError::Wildcard),
        (">>", TopicError::Wildcard),
        ("a.*b", TopicError::Wildcard),
        ("*.", TopicError::EmptyToken),
    ] {
        assert_eq!(check_filter(bad), Err(why), "{bad}");
    }
    assert!(!has_wildcard("orders.created"));
}

// spec: §12.2
#[test]
fn filters_match_as_the_table_says() {
    for (filter, hits, misses) in [
        ("orders.created", &["orders.created"][..], &["orders", "orders.created.eu"][..]),
        ("orders.*", &["orders.created"], &["orders", "orders.created.eu"]),
        ("orders.>", &["orders.created", "orders.created.eu"], &["orders"]),
        ("*.created", &["orders.created"], &["a.orders.created"]),
        (">", &["orders", "orders.created", "fluxarish.a"], &["fluxar.a", "fluxar"]),
        ("*.a", &["b.a"], &["fluxar.a"]),
        ("*", &["a"], &["fluxar", "a.b"]),
        ("fluxar.>", &["fluxar.a"], &["fluxar"]),
        ("a.*.c", &["a.b.c", "a.fluxar.c"], &["a.b", "a.b.d", "a.b.c.d"]),
    ] {
        let mut trie = trie();
        *trie.entry(filter) = String::from(filter);
        for hit in hits {
            assert!(matches(filter, hit), "{filter} {hit}");
            assert_eq!(found(&trie, hit), [filter]);
        }
        for miss in misses {
            assert!(!matches(filter, miss), "{filter} {miss}");
            assert!(found(&trie, miss).is_empty(), "{filter} {miss}");
        }
    }
}

// spec: §12.1
#[test]
fn topics_are_compared_byte_by_byte() {
    assert!(!matches("Orders", "orders"));
    // The same letter, composed and decomposed.
    assert!(!matches("\u{e9}", "e\u{301}"));
}

// spec: §14.1
#[test]
fn what_begins_with_fluxar_and_a_dot_is_reserved() {
    for reserved in ["fluxar.a", "fluxar.*", "fluxar.>"] {
        assert!(is_reserved(reserved));
    }
    for free in ["fluxar", "fluxarx.a", "a.fluxar.b", "*.a", ">"] {
        assert!(!is_reserved(free));
    }
}

#[test]
fn what_is_removed_leaves_nothing_behind() {
    let mut trie = trie();
    let deep = [">", "a"].map(|last| std::format!("{}{last}", "a.*.".repeat(60)));
    for filter in deep.iter().map(String::as_str).chain(["a", "a.b", "a.*.c", ">", "*"]) {
        *trie.entry(filter) = String::from(filter);
    }
    assert_eq!(trie.remove("a.*"), None, "on the way to others, but no filter itself");
    assert_eq!(trie.remove("b.c"), None);
    for filter in ["a.b", "a", ">", "*", "a.*.c", &deep[0], &deep[1]] {
        assert!(!trie.is_empty());
        assert_eq!(trie.remove(filter).as_deref(), Some(filter));
        assert_eq!(trie.remove(filter), None);
    }
    assert!(trie.is_empty());
    assert_eq!(trie.size(), (0, 1), "only the root is left");
}

fn token() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&["a", "b", "fluxar", "c"][..])
}

fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(token(), 1..5).prop_map(|tokens| tokens.join("."))
}

fn filter() -> impl Strategy<Value = String> {
    let token = prop_oneof![3 => token(), 1 => Just(ONE)];
    (prop::collection::vec(token, 1..5), any::<bool>()).prop_map(|(mut tokens, rest)| {
        if rest {
            tokens.pop();
            tokens.push(REST);
        }
        tokens.join(".")
    })
}

/// The same question, answered by recursion over lists of tokens.
fn naive(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        ([], []) => true,
        ([REST], [_, ..]) => true,
        ([ONE, filter @ ..], [_, topic @ ..]) => naive(filter, topic),
        ([one, filter @ ..], [other, topic @ ..]) => one == other && naive(filter, topic),
        _ => false,
    }
}

fn expected(filter: &str, topic: &str) -> bool {
    let (filter, topic) = (filter.split('.').collect::<Vec<_>>(), topic.split('.').collect::<Vec<_>>());
    let kept_apart = topic[0] == RESERVED && [ONE, REST].contains(&filter[0]);
    !kept_apart && naive(&filter, &topic)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    // spec: §12.2
    #[test]
    fn the_trie_finds_what_matches_and_nothing_else(
        changes in prop::collection::vec((filter(), any::<bool>()), 0..40),
        topics in prop::collection::vec(topic(), 1..10),
    ) {
        let mut trie = trie();
        let mut model = BTreeMap::new();
        for (filter, add) in changes {
            prop_assert_eq!(check_filter(&filter), Ok(()));
            if add {
                *trie.entry(&filter) = filter.clone();
                model.insert(filter.clone(), filter);
            } else {
                prop_assert_eq!(trie.remove(&filter), model.remove(&filter));
            }
            prop_assert_eq!(trie.is_empty(), model.is_empty());
        }
        for topic in topics {
            let matching = model.keys().filter(|filter| expected(filter, &topic)).cloned().collect::<Vec<_>>();
            prop_assert_eq!(&found(&trie, &topic), &matching);
            for filter in model.keys() {
                prop_assert_eq!(matches(filter, &topic), expected(filter, &topic), "{} {}", filter, topic);
            }
            let mut changed = Vec::new();
            trie.find_mut(&topic, |value| changed.push(value.clone()));
            changed.sort();
            prop_assert_eq!(changed, matching);
        }
        for filter in model.keys() {
            prop_assert_eq!(trie.get_mut(filter).cloned(), Some(filter.clone()));
            trie.remove(filter);
        }
        prop_assert_eq!(trie.size(), (0, 1));
    }

    // spec: §12.2
    #[test]
    fn a_filter_covers_another_if_no_topic_shows_otherwise(
        wide in filter(),
        narrow in filter(),
        topics in prop::collection::vec(topic(), 1..10),
    ) {
        let both = std::format!("{wide} {narrow}");
        let covered = covers(&wide, &narrow);
        // What stands for a wildcard in a topic that the narrower one matches: nothing that any filter names.
        let rests = (1..6).map(|count| ["z"; 5][..count].join("."));
        let witnesses = rests.map(|rest| narrow.replace(ONE, "z").replace(REST, &rest));
        let mut matched = witnesses.filter(|topic| matches(&narrow, topic));
        prop_assert_eq!(covered, matched.all(|topic| matches(&wide, &topic)), "{}", &both);
        for topic in topics.iter().filter(|topic| covered && matches(&narrow, topic)) {
            prop_assert!(matches(&wide, topic), "{} {}", &both, topic);
        }
    }
}
