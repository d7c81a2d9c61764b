//! Connecting, as all commands do that need a peer, and coming back.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fluxar::{Auth, Client, ConnectError, Psk, Reconnect, State, States};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::access;
use crate::args::AccessArgs;
use crate::failure::{Exit, Failure, say};

/// What this program calls itself in the handshake.
pub(crate) const AGENT: &str = concat!("fluxar-cli/", env!("CARGO_PKG_VERSION"));

/// Where a command goes, as whom, and whether it comes back.
pub(crate) struct Destination<'a> {
    url: &'a str,
    others: &'a [String],
    auth: Option<Auth>,
    psk: Option<Psk>,
    allow_plaintext_auth: bool,
    comes_back: bool,
}

/// How long the news that a link is lost waits: it is none where the command ends meanwhile.
const GRACE: Duration = Duration::from_millis(20);

/// A connection, and what has become of its session.
pub(crate) struct Connected {
    client: Client,
    lost: Arc<AtomicBool>,
    telling: JoinHandle<()>,
    over: oneshot::Sender<()>,
}

impl Connected {
    /// Whether a session was lost: not only its link.
    pub(crate) fn has_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Closes it. What becomes of it from now on is not told.
    pub(crate) async fn shut_down(self) {
        drop(self.over);
        // It does not panic, nor does anybody else end it.
        self.telling.await.unwrap_or_default();
        self.client.shut_down().await;
    }
}

impl std::ops::Deref for Connected {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl<'a> Destination<'a> {
    pub(crate) fn new(url: &'a str, args: &'a AccessArgs, comes_back: bool) -> Result<Self, Failure> {
        Ok(Self {
            url,
            others: &args.others,
            auth: args.auth.as_ref().map(access::credentials).transpose()?,
            psk: args.psk.as_ref().map(access::psk).transpose()?,
            allow_plaintext_auth: args.allow_plaintext_auth,
            comes_back,
        })
    }

    /// Connects, unless Ctrl-C comes first.
    pub(crate) async fn dial(&self) -> Result<Connected, Failure> {
        let interrupted = || Err(Failure::silent(Exit::Interrupted));
        unless_interrupted(self.connect()).await.unwrap_or_else(interrupted)
    }

    pub(crate) async fn connect(&self) -> Result<Connected, Failure> {
        let mut builder = Client::connect(self.url).configure(|config| config.agent = Some(AGENT.into()));
        for url in self.others {
            builder = builder.url(url);
        }
        if let Some(auth) = &self.auth {
            builder = builder.auth(auth.clone());
        }
        if let Some(psk) = &self.psk {
            builder = builder.psk(psk.clone());
        }
        if self.allow_plaintext_auth {
            builder = builder.allow_plaintext_auth();
        }
        let reconnect = if self.comes_back { Reconnect::default() } else { Reconnect::off() };
        let client = builder.reconnect(reconnect).build().await.map_err(|error| self.failure(error))?;
        let lost = Arc::<AtomicBool>::default();
        let (over, is_over) = oneshot::channel();
        let telling = tokio::spawn(tell(client.states(), lost.clone(), is_over));
        Ok(Connected { client, lost, telling, over })
    }

    fn failure(&self, error: ConnectError) -> Failure {
        match error {
            ConnectError::Address(_) | ConnectError::WrongTransport(_) => Failure::usage(error),
            ConnectError::Handshake(error) => {
                // With several, nobody says which it was.
                let url = if self.others.is_empty() { format!("{}: ", self.url) } else { String::new() };
                Failure::connection(format_args!("cannot connect: {url}the handshake failed: {error}"))
            }
            _ => Failure::connection(format_args!("cannot connect: {error}")),
        }
    }
}

/// Says on standard error what becomes of the connection, beside its end, which the command itself tells. Ends once
/// `over` does, when all that has happened by then is told; a link that is lost at the last moment is no news.
async fn tell(mut states: States, lost: Arc<AtomicBool>, mut over: oneshot::Receiver<()>) {
    let (mut held, mut is_gone) = (None, false);
    loop {
        let grace = sleep_until(held.as_ref().map_or_else(Instant::now, |(_, until)| *until));
        let state = tokio::select! {
            biased;
            state = states.next() => state,
            () = grace, if held.is_some() => {
                held.take().into_iter().for_each(|(line, _)| say(line));
                continue;
            }
            _ = &mut over => return,
        };
        held.take().into_iter().for_each(|(line, _)| say(line));
        let Some(state) = state else { return };
        let line = match &state {
            State::Reconnecting { attempt: 1, next } => {
                let line = format!("link lost: reconnecting in {}", Seconds(*next));
                held = Some((line, Instant::now() + GRACE));
                None
            }
            State::Reconnecting { attempt, next } => {
                Some(format!("reconnecting in {} (attempt {attempt})", Seconds(*next)))
            }
            State::Resumed { resent } => Some(format!("resumed: {} sent again", count(*resent, "message"))),
            State::Lost { calls, streams, subscriptions } => {
                lost.store(true, Ordering::Relaxed);
                let calls = count(*calls as u64, "call");
                let streams = count(*streams as u64, "stream");
                let subscriptions = count(*subscriptions as u64, "subscription");
                Some(format!("session lost: {calls}, {streams}, {subscriptions}"))
            }
            State::Connected if is_gone => Some("connected again".into()),
            _ => None,
        };
        is_gone = !state.is_connected();
        line.into_iter().for_each(say);
    }
}

fn count(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// A time in seconds, to the millisecond.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s", self.0.as_secs_f64())
    }
}

/// What `command` comes to, or `None` where Ctrl-C comes first.
pub(crate) async fn unless_interrupted<T>(command: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        output = command => Some(output),
        // Where there is no such signal to be had, the command goes on.
        Ok(()) = tokio::signal::ctrl_c() => None,
    }
}
