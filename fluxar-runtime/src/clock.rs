//! From the runtime's clock to the core's.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fluxar_proto::IdSource;

use crate::runtime::Runtime;

/// Tells the core's time: microseconds since the clock was made.
#[derive(Clone)]
pub(crate) struct Clock {
    zero: Instant,
    unix_ms_at_zero: u64,
    read: Arc<dyn Fn() -> Instant + Send + Sync>,
}

impl Clock {
    pub(crate) fn new(runtime: &impl Runtime) -> Self {
        let runtime = runtime.clone();
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            zero: runtime.now(),
            unix_ms_at_zero: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
            read: Arc::new(move || runtime.now()),
        }
    }

    pub(crate) fn now(&self) -> fluxar_proto::Instant {
        let since = (self.read)().saturating_duration_since(self.zero);
        fluxar_proto::Instant::ZERO + since
    }

    /// The moment `at` on the runtime's clock, rounded up so that a timer never fires early.
    pub(crate) fn to_runtime(&self, at: fluxar_proto::Instant) -> Instant {
        let since = at - fluxar_proto::Instant::ZERO;
        // A moment too far away to be told is as good as a day.
        self.zero.checked_add(since).unwrap_or_else(|| (self.read)() + Duration::from_secs(86_400))
    }

    /// Ids and randomness for one connection.
    pub(crate) fn ids(&self) -> Result<IdSource, getrandom::Error> {
        crate::random::generator().map(|rng| IdSource::new(self.unix_ms_at_zero, rng))
    }
}
