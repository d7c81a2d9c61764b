//! Filters by their tokens.

use alloc::boxed::Box;
use alloc::vec::Vec;

use hashbrown::{Equivalent, HashMap};

use super::{ONE, RESERVED, REST, SEPARATOR};
use crate::pattern::HashKey;

/// A value for each of many filters, found by the topics that they match.
///
/// The cost of a look-up grows with the tokens of the topic, at most 128, and with the filters that match, or that match
/// its first tokens by wildcards; but not with the others. Filters and topics come from peers, so the hash that finds
/// them is keyed.
///
/// ```
/// use fluxar_proto::{HashKey, topic::Trie};
///
/// let mut trie = Trie::new(HashKey::new(7, 8)); // two words that nobody can guess
/// *trie.entry("orders.*") = "any order";
/// *trie.entry("orders.created") = "new orders";
/// let mut found = Vec::new();
/// trie.find("orders.created", |value| found.push(*value));
/// found.sort();
/// assert_eq!(found, ["any order", "new orders"]);
/// ```
#[derive(Debug)]
pub struct Trie<V> {
    /// Of all nodes in one table: who a node is below which token.
    edges: HashMap<Edge, usize, HashKey>,
    nodes: slab::Slab<Node<V>>,
    root: usize,
}

#[derive(Debug)]
struct Node<V> {
    /// How many edges lead from here.
    children: usize,
    /// The child for `*`, which every look-up asks for.
    one: Option<usize>,
    /// The child for `>`.
    rest: Option<usize>,
    value: Option<V>,
}

impl<V> Node<V> {
    const NEW: Self = Self { children: 0, one: None, rest: None, value: None };

    fn is_used(&self) -> bool {
        self.children > 0 || self.value.is_some()
    }

    /// Where the child for a wildcard is noted.
    fn wildcard(&mut self, token: &str) -> Option<&mut Option<usize>> {
        match token {
            ONE => Some(&mut self.one),
            REST => Some(&mut self.rest),
            _ => None,
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Edge {
    from: usize,
    token: Box<str>,
}

/// An edge that is looked for.
#[derive(Hash)]
struct Asked<'a> {
    from: usize,
    token: &'a str,
}

impl Equivalent<Edge> for Asked<'_> {
    fn equivalent(&self, edge: &Edge) -> bool {
        self.from == edge.from && *self.token == *edge.token
    }
}

impl<V> Trie<V> {
    /// No filters. `key` should be random: it keeps peers from choosing tokens whose hashes collide (§17.2).
    pub fn new(key: HashKey) -> Self {
        let mut nodes = slab::Slab::new();
        let root = nodes.insert(Node::NEW);
        Self { edges: HashMap::with_hasher(key), nodes, root }
    }

    /// Whether there is no filter.
    pub fn is_empty(&self) -> bool {
        self.nodes.get(self.root).is_none_or(|root| !root.is_used())
    }

    /// The value of `filter`, which gets the default one where it has none.
    pub fn entry(&mut self, filter: &str) -> &mut V
    where
        V: Default,
    {
        let mut at = self.root;
        for token in filter.split(SEPARATOR) {
            at = self.child_or_new(at, token);
        }
        match self.nodes.get_mut(at) {
            Some(node) => node.value.get_or_insert_with(V::default),
            None => unreachable!("a node that was just reached"),
        }
    }

    /// The value of `filter`, if it has one.
    pub fn get_mut(&mut self, filter: &str) -> Option<&mut V> {
        let mut at = self.root;
        for token in filter.split(SEPARATOR) {
            at = self.child(at, token)?;
        }
        self.nodes.get_mut(at)?.value.as_mut()
    }

    /// Takes the value of `filter` out, and with it whatever only led there.
    pub fn remove(&mut self, filter: &str) -> Option<V> {
        let mut path = Vec::new();
        let mut at = self.root;
        for token in filter.split(SEPARATOR) {
            path.push((at, token));
            at = self.child(at, token)?;
        }
        let value = self.nodes.get_mut(at)?.value.take()?;
        while let Some((parent, token)) = path.pop() {
            if self.nodes.get(at).is_none_or(Node::is_used) {
                break;
            }
            self.nodes.remove(at);
            self.edges.remove(&Asked { from: parent, token });
            if let Some(node) = self.nodes.get_mut(parent) {
                node.children -= 1;
                if let Some(wildcard) = node.wildcard(token) {
                    *wildcard = None;
                }
            }
            at = parent;
        }
        Some(value)
    }

    /// Hands the value of every filter that matches `topic` to `each`: always in the same order, but in none that means
    /// something.
    pub fn find<'a>(&'a self, topic: &str, mut each: impl FnMut(&'a V)) {
        self.walk(topic, |node| {
            if let Some(value) = self.nodes.get(node).and_then(|node| node.value.as_ref()) {
                each(value);
            }
        });
    }

    /// As [`find`](Self::find), to change what is found.
    pub fn find_mut(&mut self, topic: &str, mut each: impl FnMut(&mut V)) {
        let mut found = Vec::new();
        self.walk(topic, |node| found.push(node));
        for node in found {
            if let Some(value) = self.nodes.get_mut(node).and_then(|node| node.value.as_mut()) {
                each(value);
            }
        }
    }

    /// Hands every node to `each` at which a filter ends that matches `topic`.
    fn walk(&self, topic: &str, mut each: impl FnMut(usize)) {
        // Nodes that have matched so far, and where in the topic their next token begins. Where tokens and `*` both
        // match there are two ways to go; each leads to another node, so that no node is visited twice.
        let mut ways = Vec::new();
        ways.push((self.root, Some(topic)));
        while let Some((at, left)) = ways.pop() {
            let Some(left) = left else {
                each(at);
                continue;
            };
            let Some(node) = self.nodes.get(at) else { continue };
            let (token, left) = match left.split_once(SEPARATOR) {
                Some((token, left)) => (token, Some(left)),
                None => (left, None),
            };
            let reserved = at == self.root && token == RESERVED;
            if !reserved {
                node.rest.into_iter().for_each(&mut each);
                ways.extend(node.one.map(|one| (one, left)));
            }
            ways.extend(self.child(at, token).map(|child| (child, left)));
        }
    }

    /// How many edges and nodes there are.
    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        (self.edges.len(), self.nodes.len())
    }

    fn child(&self, from: usize, token: &str) -> Option<usize> {
        self.edges.get(&Asked { from, token }).copied()
    }

    fn child_or_new(&mut self, from: usize, token: &str) -> usize {
        if let Some(child) = self.child(from, token) {
            return child;
        }
        let child = self.nodes.insert(Node::NEW);
        self.edges.insert(Edge { from, token: token.into() }, child);
        if let Some(node) = self.nodes.get_mut(from) {
            node.children += 1;
            if let Some(wildcard) = node.wildcard(token) {
                *wildcard = Some(child);
            }
        }
        child
    }
}
