//! How many handshakes of one source may fail (§17.4).
//!
//! Each source has so many failures, which come back one by one as time goes on. Who has none left is turned away before
//! its credentials are looked at, and is told when to come again. Nobody else notices.

use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::shared::register;

/// So many sources are remembered that have failed; beyond it, the one that was heard of last the longest ago is
/// forgotten.
const SOURCES: usize = 16_384;

/// What sources that are not known share.
const UNKNOWN: &str = "";

/// The failures of all sources. All clones are the same.
#[derive(Clone)]
pub(crate) struct Budget(Option<Arc<Inner>>);

struct Inner {
    /// How many failures a source has at most.
    failures: u32,
    /// In what time one comes back.
    refill: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sources: HashMap<Arc<str>, Source>,
    /// Those without a handshake under way, in the order in which they were last heard of.
    idle: BTreeMap<u64, Arc<str>>,
    next: u64,
}

/// What is known of a source.
struct Source {
    /// When it has all its failures back.
    whole: Instant,
    /// Handshakes of it whose verdict is still to come.
    pending: u32,
    /// Those that would be too many if all of these failed.
    waiting: BTreeMap<u64, Option<Waker>>,
    /// Its place among the idle ones.
    place: Option<u64>,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(20, Duration::from_secs(3))
    }
}

impl Budget {
    /// Of `failures`, at least one, of which one comes back in each `refill`.
    pub(crate) fn new(failures: u32, refill: Duration) -> Self {
        let state = Mutex::default();
        Self(Some(Arc::new(Inner { failures: failures.max(1), refill, state })))
    }

    /// Nobody counts.
    pub(crate) fn unlimited() -> Self {
        Self(None)
    }

    /// A source wants to show who it is; `Err` says how long it has to stay away. Waits while those of its handshakes
    /// whose verdict is still to come may use up what it has left: otherwise many at once would try out as many
    /// credentials.
    ///
    /// Dropped before it is ready, nothing has happened.
    pub(crate) async fn admit(
        &self,
        source: Option<&str>,
        now: impl Fn() -> Instant,
    ) -> Result<Trial, Duration> {
        let Some(inner) = &self.0 else { return Ok(Trial(None)) };
        let source = source.unwrap_or(UNKNOWN);
        let mut place = Place { inner, source, ticket: None };
        poll_fn(|cx| place.poll(cx, now())).await
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// How many failures are left of a source that has all back at `whole`; where there are none, how long until there is
    /// one.
    fn left(&self, whole: Instant, now: Instant) -> Result<u32, Duration> {
        let debt = whole.saturating_duration_since(now);
        let others = self.refill.saturating_mul(self.failures - 1);
        if debt > others {
            return Err(debt - others);
        }
        let used = debt.as_nanos().div_ceil(self.refill.as_nanos().max(1));
        Ok(self.failures.saturating_sub(u32::try_from(used).unwrap_or(u32::MAX)))
    }
}

impl State {
    /// A verdict is to come for a source.
    fn begin(&mut self, name: &str, now: Instant) -> Arc<str> {
        let name = match self.sources.get_key_value(name) {
            Some((name, _)) => name.clone(),
            None => name.into(),
        };
        let source = self.sources.entry(name.clone()).or_insert_with(|| Source {
            whole: now,
            pending: 0,
            waiting: BTreeMap::new(),
            place: None,
        });
        source.pending += 1;
        let place = source.place.take();
        place.and_then(|place| self.idle.remove(&place));
        name
    }

    /// A source has one failure less.
    fn charge(&mut self, trial: &Pending, now: Instant) {
        if let Some(source) = self.sources.get_mut(&trial.source) {
            source.whole = source.whole.max(now) + trial.inner.refill;
        }
    }

    /// The verdict has come, or will not.
    fn end(&mut self, trial: &Pending, wakers: &mut Vec<Waker>) {
        let Some(source) = self.sources.get_mut(&trial.source) else { return };
        source.pending = source.pending.saturating_sub(1);
        wakers.extend(source.waiting.values_mut().filter_map(Option::take));
        self.rest(&trial.source, trial.begun);
    }

    /// Forgets a source that is whole and has nothing under way, and puts it behind all others where it is not whole. `now`
    /// may be a little earlier than that.
    fn rest(&mut self, name: &str, now: Instant) {
        let Some((name, source)) = self.sources.get_key_value(name) else { return };
        if source.pending > 0 || !source.waiting.is_empty() {
            return;
        }
        let (name, is_whole, place) = (name.clone(), source.whole <= now, self.next);
        let source = match is_whole {
            true => self.sources.remove(&name),
            false => None,
        };
        let before = match self.sources.get_mut(&name) {
            Some(source) => source.place.replace(place),
            None => source.and_then(|source| source.place),
        };
        before.and_then(|before| self.idle.remove(&before));
        if is_whole {
            return;
        }
        self.next += 1;
        self.idle.insert(place, name);
        if self.idle.len() > SOURCES
            && let Some((_, oldest)) = self.idle.pop_first()
        {
            self.sources.remove(&oldest);
        }
    }
}

/// A handshake that is about to begin.
struct Place<'a> {
    inner: &'a Arc<Inner>,
    source: &'a str,
    ticket: Option<u64>,
}

impl Place<'_> {
    fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<Result<Trial, Duration>> {
        // Dropped behind the lock.
        let (_replaced, _left);
        let mut state = self.inner.lock();
        let State { sources, next, .. } = &mut *state;
        if let Some(source) = sources.get_mut(self.source) {
            let left = self.inner.left(source.whole, now);
            if left.is_ok_and(|left| left <= source.pending) {
                let ticket = *self.ticket.get_or_insert_with(|| {
                    *next += 1;
                    *next
                });
                _replaced = register(source.waiting.entry(ticket).or_default(), cx);
                return Poll::Pending;
            }
            _left = self.ticket.take().and_then(|ticket| source.waiting.remove(&ticket));
            if let Err(wait) = left {
                state.rest(self.source, now);
                return Poll::Ready(Err(wait));
            }
        }
        let source = state.begin(self.source, now);
        Poll::Ready(Ok(Trial(Some(Pending { inner: self.inner.clone(), source, begun: now }))))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let _waker;
        let mut state = self.inner.lock();
        let Some(source) = state.sources.get_mut(self.source) else { return };
        _waker = source.waiting.remove(&ticket);
        let whole = source.whole;
        // As if it had something to make good: whoever ends or comes next looks again.
        state.rest(self.source, whole.checked_sub(Duration::from_nanos(1)).unwrap_or(whole));
    }
}

/// A handshake whose verdict is still to come.
#[must_use = "dropped, it counts for nothing"]
pub(crate) struct Trial(Option<Pending>);

struct Pending {
    inner: Arc<Inner>,
    source: Arc<str>,
    begun: Instant,
}

impl Trial {
    /// It has failed, and is over: that is one failure less for its source.
    pub(crate) fn fail(&mut self, now: Instant) {
        let Some(pending) = &self.0 else { return };
        pending.inner.lock().charge(pending, now);
        self.end();
    }
}

/// The verdict has come, or will not.
impl Trial {
    /// It is no longer under way.
    fn end(&mut self) {
        let Some(pending) = self.0.take() else { return };
        let mut wakers = Vec::new();
        pending.inner.lock().end(&pending, &mut wakers);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Whether a handshake of `source` may begin at `now`; `None` where it has to wait.
    fn admit(budget: &Budget, source: &str, now: Instant) -> Option<Result<Trial, Duration>> {
        let admitted = pin!(budget.admit(Some(source), || now));
        match admitted.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(admitted) => Some(admitted),
            Poll::Pending => None,
        }
    }

    fn fails(budget: &Budget, source: &str, now: Instant) {
        let Some(Ok(mut trial)) = admit(budget, source, now) else { panic!("{source} may not begin") };
        trial.fail(now);
    }

    fn wait(budget: &Budget, source: &str, now: Instant) -> Option<Duration> {
        admit(budget, source, now).expect("nobody else is under way").err()
    }

    fn size(budget: &Budget) -> (usize, usize) {
        let state = budget.0.as_ref().expect("a budget").lock();
        (state.sources.len(), state.idle.len())
    }

    // spec: §17.4
    #[test]
    fn failures_run_out_and_come_back_one_by_one() {
        let (budget, now) = (Budget::new(3, SECOND), Instant::now());
        for _ in 0..3 {
            fails(&budget, "bad", now);
        }
        assert_eq!(wait(&budget, "bad", now), Some(SECOND));
        assert_eq!(wait(&budget, "bad", now + SECOND / 4), Some(SECOND * 3 / 4));
        assert_eq!(wait(&budget, "good", now), None, "nobody else notices");
        fails(&budget, "bad", now + SECOND);
        assert_eq!(wait(&budget, "bad", now + SECOND), Some(SECOND));
        for _ in 0..3 {
            fails(&budget, "bad", now + SECOND * 10);
        }
        assert_eq!(wait(&budget, "bad", now + SECOND * 10), Some(SECOND));
        assert_eq!(size(&budget), (1, 1));
    }

    // spec: §17.4
    #[test]
    fn who_succeeds_leaves_no_trace() {
        let (budget, now) = (Budget::new(1, SECOND), Instant::now());
        for _ in 0..100 {
            assert_eq!(wait(&budget, "good", now), None);
        }
        assert_eq!(size(&budget), (0, 0));
        fails(&budget, "bad", now);
        assert_eq!(size(&budget), (1, 1));
        assert_eq!(wait(&budget, "bad", now + SECOND * 2), None);
        assert_eq!(size(&budget), (0, 0));
    }

    // spec: §17.4
    #[test]
    fn many_at_once_try_no_more_than_one_by_one() {
        let (budget, now) = (Budget::new(2, SECOND), Instant::now());
        let mut trials: Vec<Trial> = (0..2).map(|_| admit(&budget, "bad", now).unwrap().unwrap()).collect();
        let mut third = pin!(budget.admit(Some("bad"), || now));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(third.as_mut().poll(&mut cx).is_pending());
        trials.remove(0).fail(now);
        assert!(third.as_mut().poll(&mut cx).is_pending(), "the second one may fail too");
        drop(trials);
        let Poll::Ready(Ok(mut third)) = third.poll(&mut cx) else { panic!("it did not fail") };
        third.fail(now);
        drop(third);
        assert_eq!(wait(&budget, "bad", now), Some(SECOND));
    }

    #[test]
    fn who_gives_up_waiting_is_forgotten() {
        let (budget, now) = (Budget::new(1, SECOND), Instant::now());
        let trial = admit(&budget, "a", now).unwrap().unwrap();
        for _ in 0..10 {
            assert!(admit(&budget, "a", now).is_none());
        }
        drop(trial);
        assert_eq!(size(&budget), (0, 0));
        let mut trial = admit(&budget, "a", now).unwrap().unwrap();
        let mut waits = Box::pin(budget.admit(Some("a"), || now));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waits.as_mut().poll(&mut cx).is_pending());
        trial.fail(now);
        drop((trial, waits));
        assert_eq!((size(&budget), wait(&budget, "a", now)), ((1, 1), Some(SECOND)));
    }

    // spec: §17.2
    #[test]
    fn sources_are_bounded() {
        let (budget, now) = (Budget::new(1, SECOND), Instant::now());
        for source in 0..SOURCES + 5 {
            fails(&budget, &source.to_string(), now);
        }
        assert_eq!(size(&budget), (SOURCES, SOURCES));
        assert_eq!(wait(&budget, "4", now), None, "the oldest are forgotten");
        assert_eq!(wait(&budget, "5", now), Some(SECOND));
    }

    #[test]
    fn who_is_not_known_shares_with_all_such() {
        let (budget, now) = (Budget::new(1, SECOND), Instant::now());
        let nobody = || pin!(budget.admit(None, || now)).poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Ok(mut trial)) = nobody() else { panic!("the first one may") };
        trial.fail(now);
        drop(trial);
        assert!(matches!(nobody(), Poll::Ready(Err(wait)) if wait == SECOND));
        assert!(
            pin!(Budget::unlimited().admit(None, || now))
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_ready()
        );
    }
}
