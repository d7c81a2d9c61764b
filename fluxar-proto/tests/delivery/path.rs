//! Messages on their way from one application to another: what was sent, what was seen of it, and what may be.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use fluxar_proto::{Code, Config, Delivery, Error, Fate, Instant, MessageId, Payload, Publication, Qos};

use crate::support::{cbor, item};

/// The least wait before a repetition that nobody has asked for.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The codes that make a repetition pointless (§12.8).
const POINTLESS: [Code; 8] = [
    Code::INVALID_ARGUMENT,
    Code::NOT_FOUND,
    Code::ALREADY_EXISTS,
    Code::PERMISSION_DENIED,
    Code::OUT_OF_RANGE,
    Code::UNIMPLEMENTED,
    Code::MESSAGE_TOO_LARGE,
    Code::DRAINING,
];

/// What the sending application was told of a message, once and for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Accepted,
    Rejected,
    GivenUp,
    /// It did not want to be told.
    Forgotten,
    /// Dropped from a full queue before it was sent.
    Dropped,
    /// Its subscription has ended.
    Ended,
}

/// One message, as its sender has made it.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    /// The mode in which it was published, and the one in which it must arrive.
    pub(crate) published: Qos,
    pub(crate) qos: Qos,
    pub(crate) topic: String,
    pub(crate) len: usize,
    /// `retain` of a publication, `retained` of a delivery.
    pub(crate) marked: bool,
    /// Of a publication: its application says when it is released.
    pub(crate) durable: bool,
    /// How often it was sent before: in earlier sessions, or to another member of a group.
    pub(crate) before: u32,
    /// When it was handed over to be sent, in this session.
    pub(crate) since: Instant,
    /// Attempts as which the application got it, in this session.
    handed: Vec<u32>,
    /// The application has it and has not answered.
    held: bool,
    /// It was accepted in this session.
    accepted: bool,
    /// How often it was handled, ever.
    handled: u32,
    /// What the application has answered `nack` with.
    refused: Vec<Error>,
    pub(crate) outcome: Option<Outcome>,
}

impl Letter {
    pub(crate) fn new(published: Qos, qos: Qos, topic: &str, len: usize, marked: bool) -> Self {
        Self {
            published,
            qos,
            topic: topic.into(),
            len,
            marked,
            durable: false,
            before: 0,
            since: Instant::ZERO,
            handed: vec![],
            held: false,
            accepted: false,
            handled: 0,
            refused: vec![],
            outcome: None,
        }
    }

    /// What it carries: its number, and some ballast.
    pub(crate) fn payload(&self, number: u64) -> Payload {
        item(|out| out.array(2)?.u64(number)?.bytes(&vec![number as u8; self.len])?.ok())
    }

    /// Every third one has metadata.
    pub(crate) fn meta(&self, number: u64) -> Bytes {
        match number % 3 {
            0 => cbor(|out| out.map(1)?.str("n")?.u64(number)?.ok()).into(),
            _ => Bytes::new(),
        }
    }

    pub(crate) fn was_handled(&self) -> bool {
        self.handled > 0
    }
}

/// The number that a payload begins with.
pub(crate) fn number(payload: &Payload) -> u64 {
    payload.as_item().array().unwrap().next().unwrap().as_u64().unwrap()
}

/// A message as an application gets it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) id: MessageId,
    topic: String,
    pub(crate) qos: Qos,
    marked: bool,
    dup: bool,
    attempt: u32,
    meta: Bytes,
    payload: Payload,
}

impl From<Publication> for Seen {
    fn from(seen: Publication) -> Self {
        let Publication { id, qos, retain: marked, dup, attempt, meta, payload, .. } = seen;
        Self { id, topic: (*seen.topic).into(), qos, marked, dup, attempt, meta, payload }
    }
}

impl From<Delivery> for Seen {
    fn from(seen: Delivery) -> Self {
        let Delivery { id, qos, retained: marked, dup, attempt, meta, payload, .. } = seen;
        Self { id, topic: (*seen.topic).into(), qos, marked, dup, attempt, meta, payload }
    }
}

/// All messages of one publisher to its peer, or of one subscription.
#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) letters: BTreeMap<u64, Letter>,
    /// For each mode, the last message that arrived for the first time.
    newest: BTreeMap<Qos, u64>,
    /// How often the sender tries,
    attempts: u32,
    /// and how long it waits at least before it tries again, unless the application names another time.
    patience: Duration,
    /// The last message of which it was told that the subscription had ended.
    ended: u64,
}

impl Path {
    pub(crate) fn new(sender: &Config) -> Self {
        let (attempts, patience) = (sender.attempts.max(1), sender.ack_timeout.min(FIRST_WAIT));
        Self { letters: BTreeMap::new(), newest: BTreeMap::new(), attempts, patience, ended: 0 }
    }

    fn letter(&mut self, number: u64) -> &mut Letter {
        self.letters.get_mut(&number).unwrap_or_else(|| panic!("nobody has sent {number}"))
    }

    /// The last attempt of a message: one more than before, where those were enough.
    fn last_attempt(&mut self, number: u64) -> u32 {
        let limit = self.attempts;
        limit.max(self.letter(number).before + 1)
    }

    /// §12.8: so many attempts take their time, where no answer of the application makes them shorter.
    fn check_pace(&mut self, number: u64, waits: u32, now: Instant) {
        let least = self.patience * waits;
        let letter = self.letter(number);
        let early = letter.refused.is_empty() && now < letter.since + least;
        assert!(!early, "{number}: {waits} times in {:?}", now - letter.since);
    }

    /// The application gets a message. Its number.
    pub(crate) fn hand(&mut self, seen: &Seen, now: Instant) -> u64 {
        let number = number(&seen.payload);
        let last = self.last_attempt(number);
        let before = self.letter(number).before;
        self.check_pace(number, seen.attempt.saturating_sub(before + 1), now);
        let letter = self.letter(number);
        // §12.5, §12.6: it arrives as it was sent.
        assert_eq!((&seen.topic, seen.qos, seen.marked), (&letter.topic, letter.qos, letter.marked));
        assert!(
            seen.payload == letter.payload(number) && seen.meta == letter.meta(number),
            "{number} changed"
        );
        // §12.8: a retransmission says so, and which attempt it is; there are no more of them than were allowed.
        assert_eq!(seen.dup, seen.attempt > 1, "{number}");
        assert!((letter.before + 1..=last).contains(&seen.attempt), "{number}: attempt {}", seen.attempt);
        assert!(letter.handed.iter().all(|one| *one < seen.attempt), "{number}: the same attempt again");
        // §12.7: at most once.
        let again = !letter.handed.is_empty();
        assert!(!(again && letter.qos == Qos::AtMostOnce), "{number} came twice");
        // §12.8, §12.14: what the application still has is not handed to it again,
        assert!(!letter.held, "{number} came again while it was held");
        // §12.9: and what it has accepted, exactly once, never.
        assert!(
            !(letter.accepted && letter.qos == Qos::ExactlyOnce),
            "{number} came again after it was accepted"
        );
        letter.handed.push(seen.attempt);
        letter.held = letter.qos > Qos::AtMostOnce;
        let (published, first) = (letter.published, seen.attempt == 1);
        // §12.6: in the order in which they were published, but for retransmissions.
        if first && let Some(before) = self.newest.insert(published, number) {
            assert!(before < number, "{number} came behind {before}");
        }
        number
    }

    /// The application has handled a message, before it says so.
    pub(crate) fn handle(&mut self, number: u64) {
        let letter = self.letter(number);
        letter.handled += 1;
        // §12.9, §12.17: once, for as long as both ends remember.
        assert!(letter.handled == 1 || letter.qos != Qos::ExactlyOnce, "{number} was handled twice");
    }

    pub(crate) fn ack(&mut self, number: u64) {
        let letter = self.letter(number);
        (letter.held, letter.accepted) = (false, true);
    }

    pub(crate) fn nack(&mut self, number: u64, error: Error) {
        let letter = self.letter(number);
        letter.held = false;
        letter.refused.push(error);
    }

    fn tell(&mut self, number: u64, outcome: Outcome) {
        // §12.8, §12.13: every message has one fate.
        let before = self.letter(number).outcome.replace(outcome);
        assert_eq!(before, None, "{number}: a second fate, {outcome:?}");
    }

    /// The publisher learns what became of a message. Where the session was lost, that it may go on: how often it was sent.
    pub(crate) fn learn(&mut self, number: u64, fate: Fate, now: Instant) -> Option<u32> {
        let (Fate::Accepted { attempts }
        | Fate::Rejected { attempts, .. }
        | Fate::GivenUp { attempts, .. }
        | Fate::Lost { attempts, .. }) = fate;
        let before = self.letter(number).before;
        self.check_pace(number, attempts.saturating_sub(before + 1), now);
        let letter = self.letter(number);
        let most = letter.handed.last().copied().unwrap_or(letter.before);
        match fate {
            Fate::Accepted { attempts } => {
                // §12.5, §12.9: not without an `ack` of the application.
                assert!(letter.was_handled(), "{number} was accepted, and nobody has");
                assert!(attempts >= most, "{number}: {attempts} attempts");
                self.tell(number, Outcome::Accepted);
            }
            Fate::Rejected { error, attempts } => self.refuse(number, error, attempts, Outcome::Rejected),
            Fate::GivenUp { error, attempts } => self.refuse(number, error, attempts, Outcome::GivenUp),
            Fate::Lost { error, attempts } => {
                // §12.4, §16.4: what was never sent is not acted upon.
                assert_eq!(attempts == 0, error.processed == Some(false), "{number}: {error:?}");
                assert!(attempts >= most, "{number}: {attempts} attempts");
                return Some(attempts);
            }
        }
        None
    }

    /// A message was refused for good, or given up (§12.8): for that reason, and after as many attempts as it says.
    fn refuse(&mut self, number: u64, error: Error, attempts: u32, outcome: Outcome) {
        let last = self.last_attempt(number);
        let letter = self.letter(number);
        let pointless = POINTLESS.contains(&error.code);
        assert_eq!(pointless, outcome == Outcome::Rejected, "{number}: {error:?}");
        let by_itself = matches!(error.code, Code::DEADLINE_EXCEEDED | Code::RESOURCE_EXHAUSTED);
        let said = letter.refused.contains(&error);
        assert!(said || by_itself, "{number}: nobody has said {error:?}");
        // §12.9: a message that its application has refused for good, it has not handled.
        let handled = letter.was_handled() && letter.qos == Qos::ExactlyOnce;
        assert!(!(said && handled), "{number} was handled, and then refused");
        assert!(attempts >= letter.handed.last().copied().unwrap_or(0), "{number}: {attempts} attempts");
        match outcome {
            Outcome::GivenUp => assert_eq!(attempts, last, "{number}: {error:?}"),
            _ => assert!((1..=last).contains(&attempts), "{number}: {attempts} attempts"),
        }
        self.tell(number, outcome);
    }

    /// A delivery is not delivered after all.
    pub(crate) fn undelivered(
        &mut self,
        number: u64,
        attempts: u32,
        error: Error,
        ended: bool,
        now: Instant,
    ) {
        let before = self.letter(number).before;
        self.check_pace(number, attempts.saturating_sub(before + 1), now);
        let letter = self.letter(number);
        assert!(letter.qos > Qos::AtMostOnce, "{number} was sent at most once");
        if ended {
            // §12.15: they may go to others, in their order.
            assert!(self.ended < number, "{number} was told of behind {}", self.ended);
            self.ended = number;
            self.tell(number, Outcome::Ended);
        } else if attempts == letter.before && error.processed == Some(false) {
            assert!(letter.handed.is_empty(), "{number} was dropped after it was sent");
            self.tell(number, Outcome::Dropped);
        } else {
            let pointless = POINTLESS.contains(&error.code);
            self.refuse(
                number,
                error,
                attempts,
                if pointless { Outcome::Rejected } else { Outcome::GivenUp },
            );
        }
    }

    /// The session is over, and with it what the connections know.
    pub(crate) fn renew(&mut self) {
        for letter in self.letters.values_mut() {
            (letter.held, letter.accepted) = (false, false);
            letter.handed.clear();
        }
    }

    /// The sender will learn no more of a subscription: what was not acknowledged it has learnt.
    pub(crate) fn check_told(&self) {
        for (number, letter) in self.acknowledged() {
            // §12.4, §12.8: at least once, or somebody was told why not.
            assert!(letter.outcome.is_some() || letter.accepted, "{number} was lost, and nobody was told");
        }
    }

    /// Every publication has come to its end.
    pub(crate) fn check_fates(&self) {
        for (number, letter) in self.acknowledged() {
            assert!(letter.outcome.is_some(), "{number} has no fate");
        }
    }

    fn acknowledged(&self) -> impl Iterator<Item = (&u64, &Letter)> {
        self.letters.iter().filter(|(_, letter)| letter.qos > Qos::AtMostOnce)
    }

    /// What was sent at most once and did not arrive was dropped by a full queue (§12.7), which has dropped so many
    /// messages in all.
    pub(crate) fn check_drops(&self, dropped: usize) {
        let lossy = || self.letters.values().filter(|letter| letter.qos == Qos::AtMostOnce);
        let missing = lossy().filter(|letter| letter.handed.is_empty()).count();
        assert!(missing <= dropped, "{missing} are lost, and {dropped} were dropped");
        let all = lossy().count() == self.letters.len();
        assert!(!all || missing == dropped, "{missing} are lost, and {dropped} were dropped");
    }
}
