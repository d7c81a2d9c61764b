//! Who brings a client's connection one link after the other.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use chacha20::ChaCha12Rng;
use fluxar_proto::{ConnectionError, Dial};

use super::verdict::{Verdict, verdict};
use super::{Backoff, Site, Sites, State};
use crate::address::Address;
use crate::auth::Wallet;
use crate::driver::Driver;
use crate::handler::Router;
use crate::hub::Hub;
use crate::runtime::{Link, Runtime, Timer};
use crate::settings::Settings;
use crate::shared::{Gap, Shared};
use crate::upkeep::{Detached, Hold, LinkEnd, Upkeep};

/// The task of a client's connection: drives its links, and sees to it that there is another one after each, to the end of
/// the connection.
///
/// ```text
///              +---------------------- link lost -----------------------+
///              v                                                        |
///   decide --wait--> dial --connected--> offer, in the driver --established--> drive --over--> (end)
///   |  ^              |                   |
///   |  +---- failed --+------ failed -----+
///   +--- refused for good, no attempts left: the connection ends
/// ```
pub(crate) struct Linker<R: Runtime> {
    pub(crate) runtime: R,
    pub(crate) shared: Arc<Shared>,
    pub(crate) router: Router,
    pub(crate) hub: Hub,
    pub(crate) settings: Settings,
    pub(crate) wallet: Wallet,
    pub(crate) sites: Sites,
    pub(crate) backoff: Backoff,
    pub(crate) rng: ChaCha12Rng,
    /// Where the server that is about to leave has sent us.
    pub(crate) redirect: Option<String>,
}

impl<R: Runtime> Linker<R> {
    /// Drives `link`, whose offer is queued already, and those that follow it.
    pub(crate) async fn run(mut self, link: R::Link, mut site: Site) {
        let _hold = Hold::new(self.upkeep());
        let mut first = true;
        let mut next = Some(link);
        while let Some(link) = next {
            let (since, number) = (self.shared.clock().now(), self.shared.link());
            let driver =
                Driver::new(&self.runtime, link, number, self.upkeep(), &self.settings, BytesMut::new());
            let LinkEnd::Lost(number) = driver.await else { return };
            let Some(gap) = self.shared.take_gap() else { return };
            if gap.stood {
                self.redirect = gap.redirect.clone();
                self.sites.settle(&site);
                self.backoff.stood(self.shared.clock().now() - since);
            } else if first {
                // Whoever builds the client sees to that.
                return self.give_up(gap.why);
            }
            first = false;
            next = self.bring(number, gap, &mut site).await;
        }
    }

    fn upkeep(&self) -> Upkeep {
        Upkeep::new(self.shared.clone(), self.router.clone(), self.hub.clone())
    }

    /// Brings the next link to a connection that waits for one under `number`; `site` is where the last one was. `None` once
    /// the connection is over.
    async fn bring(&mut self, number: u64, mut gap: Gap, site: &mut Site) -> Option<R::Link> {
        let mut detached = Detached::new(self.upkeep(), number);
        loop {
            tracing::debug!(at = %site.address, why = %gap.why, "a link is lost");
            let at = match self.decide(&gap, site) {
                Ok((next, at)) => {
                    *site = next;
                    at
                }
                Err(why) => {
                    self.give_up(why);
                    return None;
                }
            };
            let mut timer = self.runtime.timer(self.shared.clock().to_runtime(at));
            while_detached(&mut detached, poll_fn(|cx| timer.poll_expired(cx))).await?;
            let why = match while_detached(&mut detached, self.connect(site)).await? {
                Ok((link, shown)) => match self.shared.attach(link.remote(), site.is_own, shown) {
                    Ok(wanted) => return wanted.then_some(link),
                    Err(why) => why,
                },
                Err(why) => ConnectionError::Transport(format!("{}: {why}", site.address)),
            };
            gap = Gap { why, stood: false, redirect: None };
        }
    }

    /// A link, and what to show on it.
    async fn connect(&self, site: &Site) -> Result<(R::Link, Dial), String> {
        let (address, timeout) = (&site.address, self.settings.config.handshake_timeout);
        let shown = self.wallet.dial(self.shared.tasks(), address, site.is_own).await;
        let mut shown = shown.map_err(|error| error.to_string())?;
        let link = dial(&self.runtime, address, timeout).await.map_err(|error| error.to_string())?;
        shown.confidential = link.is_confidential();
        Ok((link, shown))
    }

    /// Where and when to try next after `gap`, and says so; why the connection ends where that is of no use.
    fn decide(&mut self, gap: &Gap, site: &Site) -> Result<(Site, fluxar_proto::Instant), ConnectionError> {
        let now = self.shared.clock().now();
        match verdict(&gap.why) {
            Verdict::Again(after) => self.sites.put_off(site, now + after.unwrap_or_default()),
            // A redirection has led astray; that says nothing of our own URLs.
            Verdict::Stop if !site.is_own => {}
            Verdict::Stop => return Err(gap.why.clone()),
        }
        // Only where the session may still be known it is worth to insist: also where the server is about to leave, since
        // what is open ends there.
        if gap.stood && gap.why.is_link_loss() {
            self.sites.stay(site);
        } else {
            self.sites.pass(site);
            if let Some(url) = self.redirect.take() {
                let follows = self.sites.redirect(&url);
                tracing::debug!(url, follows, "the server has redirected");
            }
        }
        let given_up = || match &gap.why {
            why if why.is_link_loss() => ConnectionError::Transport(format!("given up: {why}")),
            why => why.clone(),
        };
        let (attempt, wait) = self.backoff.next(&mut self.rng).ok_or_else(given_up)?;
        let (next, at) = self.sites.next(now + wait).ok_or_else(given_up)?;
        tracing::debug!(at = %next.address, attempt, wait = ?(at - now), "connecting again");
        self.shared.report(State::Reconnecting { attempt, next: at - now });
        Ok((next, at))
    }

    /// The end, for want of another link.
    fn give_up(&self, why: ConnectionError) {
        self.upkeep().end(&why);
    }
}

/// `future`'s output, while the connection is kept without a link; `None` where it is over before.
async fn while_detached<F: Future>(detached: &mut Detached, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match std::pin::Pin::new(&mut *detached).poll(cx) {
        Poll::Ready(_) => Poll::Ready(None),
        Poll::Pending => future.as_mut().poll(cx).map(Some),
    })
    .await
}

/// Connects, within a time.
pub(crate) async fn dial<R: Runtime>(
    runtime: &R,
    address: &Address,
    timeout: Duration,
) -> io::Result<R::Link> {
    let mut timer = runtime.timer(runtime.now() + timeout);
    let mut dialling = pin!(runtime.connect(address));
    poll_fn(|cx| {
        if let Poll::Ready(result) = dialling.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        timer.poll_expired(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    })
    .await
}
