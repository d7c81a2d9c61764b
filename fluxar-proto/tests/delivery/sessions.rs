//! Messages that outlive a session: the link breaks, or a side closes it, and both go on from what they have stored (§12.17).

use fluxar_proto::{Error, Resumed};

use crate::subscriptions::Stand;
use crate::support::{A, B, ms};
use crate::world::World;

impl World {
    /// The link breaks, or somebody closes the session, and another one takes its place.
    pub(crate) fn reconnect(&mut self) {
        let now = self.pair.now;
        match self.rng.below(4) {
            0 => self.pair.a().close(now, None),
            1 => self.pair.b().close(now, Some(Error::unavailable("that was it"))),
            _ => self.pair.cut(),
        }
        // Longer than a close may take.
        self.pair.wait(ms(6_000));
        for end in [A, B] {
            self.bury(end);
        }
        self.check_audit();
        self.subs.clear();
        self.routes.iter_mut().for_each(|path| path.renew());
        self.pair = Self::link(&self.settings, &mut self.rng);
        for end in [A, B] {
            self.apps[end].unreleased.clear();
            self.recover(end);
        }
    }

    /// The connection of one side has ended: its application takes what is still to be had.
    fn bury(&mut self, end: usize) {
        self.collect(end);
        for publication in std::mem::take(&mut self.apps[end].announced) {
            self.take_fate(end, publication);
        }
        while self.read_publication(end) {}
        for index in 0..self.subs.len() {
            if self.subs[index].taker != end {
                continue;
            }
            while self.read_delivery(index) {}
            let sub = &self.subs[index];
            // §12.12: the end of the session ends it in every state.
            assert!(!sub.is_kept() && matches!(sub.takes, Stand::Ended | Stand::LetGo), "{sub:?}");
        }
        // What the application already has it may still handle.
        for held in std::mem::take(&mut self.apps[end].held) {
            if self.rng.below(3) == 0 {
                self.accept(end, held);
            }
        }
        let app = &mut self.apps[end];
        assert!(app.open.is_empty(), "without a fate: {:?}", app.open);
        (app.waits, app.readable) = (false, false);
        app.forgotten.clear();
        let side = self.pair.side(end);
        let stats = side.stats();
        assert_eq!((stats.subscriptions, stats.subscribers), (0, 0), "{stats:?}");
        assert_eq!((stats.publish_bytes, stats.held_publication_bytes), (0, 0), "{stats:?}");
        assert_eq!((side.wants_transmit(), side.poll_timeout()), (false, None));
    }

    /// What the store of one side says is to be done in the new session.
    fn recover(&mut self, end: usize) {
        let app = &mut self.apps[end];
        app.backlog.retain(|(_, resumed)| !resumed.released);
        let released = |(id, number): (&_, &u64)| (*number, Resumed { id: *id, attempt: 1, released: true });
        app.backlog.extend(app.acknowledged.iter().map(released));
        app.backlog.make_contiguous().sort_by_key(|(number, _)| *number);
    }
}
