//! What an application sets of reconnecting.

use std::time::Duration;

/// How a client comes back after it has lost its connection.
///
/// It waits before each attempt for a random time between zero and a bound that doubles, so that the clients of a server
/// that restarts do not all come at once. Where a server has said when to come again, it waits for at least that long
/// (§16.4). A client with several URLs tries them in turn, and the bound doubles once all were tried.
///
/// ```
/// use std::time::Duration;
///
/// use fluxar_runtime::{Client, ClientBuilder, Reconnect, Runtime};
///
/// # fn doc<R: Runtime + Default>() -> ClientBuilder<R> {
/// Client::<R>::connect("tcp://127.0.0.1:7777")
///     .reconnect(Reconnect::default().first(Duration::from_millis(50)).attempts(20))
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconnect {
    pub(super) first: Duration,
    pub(super) max: Duration,
    /// `None`: without end.
    pub(super) attempts: Option<u32>,
}

impl Default for Reconnect {
    /// At first within 100 ms, later within 30 s, for ever.
    fn default() -> Self {
        Self { first: Duration::from_millis(100), max: Duration::from_secs(30), attempts: None }
    }
}

impl Reconnect {
    /// Never: the first lost link is the end of the connection.
    ///
    /// ```
    /// # use fluxar_runtime::{Client, ClientBuilder, Reconnect, Runtime};
    /// # fn doc<R: Runtime + Default>() -> ClientBuilder<R> {
    /// Client::<R>::connect("tcp://127.0.0.1:7777").reconnect(Reconnect::off())
    /// # }
    /// ```
    pub fn off() -> Self {
        Self::default().attempts(0)
    }

    /// The bound of the wait before the first attempt. Default 100 ms.
    ///
    /// ```
    /// # use fluxar_runtime::Reconnect;
    /// # use std::time::Duration;
    /// let policy = Reconnect::default().first(Duration::from_millis(10));
    /// ```
    pub fn first(mut self, first: Duration) -> Self {
        self.first = first;
        self
    }

    /// What the bound grows to. Default 30 s.
    ///
    /// ```
    /// # use fluxar_runtime::Reconnect;
    /// # use std::time::Duration;
    /// let policy = Reconnect::default().max(Duration::from_secs(5));
    /// ```
    pub fn max(mut self, max: Duration) -> Self {
        self.max = max;
        self
    }

    /// Gives up after so many attempts in a row that came to nothing; each URL that is tried counts. Default: never.
    ///
    /// ```
    /// # use fluxar_runtime::Reconnect;
    /// let policy = Reconnect::default().attempts(10);
    /// ```
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = Some(attempts);
        self
    }

    /// Whether it ever tries again.
    pub(crate) fn is_on(&self) -> bool {
        self.attempts != Some(0)
    }
}
