//! What becomes of those who connect to a server.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use fluxar_proto::{Error, Offered, ResumeRefused};

use crate::accept::Shaking;
use crate::auth::{Admitted, Door};
use crate::clock::Clock;
use crate::connections::{Connections, Handshake, Listening};
use crate::driver::Driver;
use crate::handler::Router;
use crate::hub::Hub;
use crate::keeper::Keeper;
use crate::peer::Peer;
use crate::runtime::{Link, Listener, Runtime, Timer};
use crate::sessions::{Session, Sessions, TakenUp};
use crate::settings::Settings;
use crate::shared::Shared;
use crate::store::Store;
use crate::upkeep::LinkEnd;

/// How long the server waits after it could not accept a connection, as when it is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// When who was refused for want of room may come again.
const RETRY_AFTER_MS: u64 = 1_000;

/// Called with each new peer.
pub(crate) type OnConnect = Arc<dyn Fn(Peer) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Gives a peer its store.
pub(crate) type StoreBy = Arc<dyn Fn(&Peer) -> Option<Arc<dyn Store>> + Send + Sync>;

/// What one listener needs to serve who connects.
pub(crate) struct Serving<R: Runtime> {
    pub(crate) runtime: R,
    pub(crate) settings: Settings,
    pub(crate) router: Router,
    pub(crate) door: Door,
    pub(crate) on_connect: Option<OnConnect>,
    pub(crate) store_by: Option<StoreBy>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) hub: Hub,
}

impl<R: Runtime> Serving<R> {
    pub(crate) async fn run(self, listener: R::Listener) {
        let listening = Listening(self.connections.clone());
        // Dropped before that: once the server has ended, others can listen there.
        let mut listener = listener;
        let this = Arc::new(self);
        loop {
            let accepted = async {
                this.connections.room().await;
                listener.accept().await
            };
            match listening.until_stopped(accepted).await {
                Some(Ok(link)) => {
                    let handshake = Handshake::new(this.connections.clone());
                    this.runtime.spawn(this.clone().serve(link, handshake));
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    let mut timer = this.runtime.timer(this.runtime.now() + ACCEPT_PAUSE);
                    poll_fn(|cx| timer.poll_expired(cx)).await;
                }
                None => return,
            }
        }
    }

    /// One link, from its first byte to its last.
    async fn serve(self: Arc<Self>, link: R::Link, handshake: Handshake) {
        let clock = Clock::new(&self.runtime);
        let ids = match clock.ids() {
            Ok(ids) => ids,
            Err(error) => return tracing::error!(%error, "no randomness for a connection"),
        };
        let remote = link.remote();
        let incoming = fluxar_proto::Incoming::new(self.settings.config.clone(), clock.now(), ids);
        let mut shaking = Shaking::new(&self.runtime, clock.clone(), link);
        let mut offered = match handshake.while_welcome(shaking.next(incoming)).await {
            Some(Ok(offered)) => offered,
            Some(Err(error)) => return tracing::debug!(remote, %error, "a handshake failed"),
            None => return,
        };
        if self.connections.leaving().is_some() {
            let error = Error::draining("the server is about to leave").with_processed(false);
            return self.refuse(clock, shaking, handshake, *offered, error).await;
        }
        let taken = match self.take_up(&mut offered) {
            Ok(taken) => taken,
            Err(error) => {
                tracing::debug!(remote, %error, "a session could not go on");
                return self.refuse(clock, shaking, handshake, *offered, error).await;
            }
        };
        if taken.is_none() && !handshake.take_place() {
            let error = Error::resource_exhausted("the server has as many connections as it takes");
            let error = error.with_processed(false).with_retry_after_ms(RETRY_AFTER_MS);
            return self.refuse(clock, shaking, handshake, *offered, error).await;
        }
        let present = taken.as_ref().map(TakenUp::present);
        let admitted = self.door.admit(&mut shaking, offered, present);
        let admitted = match handshake.while_welcome(admitted).await {
            Some(Ok(admitted)) => admitted,
            Some(Err(error)) => return tracing::info!(remote, %error, "a peer is not let in"),
            None => return,
        };
        match taken {
            Some(taken) => self.resume(shaking, handshake, admitted, taken).await,
            None => self.begin(clock, shaking, handshake, admitted).await,
        }
    }

    /// Nothing comes of an offer, and its initiator is told why.
    async fn refuse(
        &self,
        clock: Clock,
        mut shaking: Shaking<R>,
        handshake: Handshake,
        offered: Offered,
        error: Error,
    ) {
        offered.refuse(clock.now(), error, &mut shaking.out);
        handshake.while_welcome(shaking.farewell()).await;
    }

    /// Looks for the session that the initiator asks for, if it does. Where that is not known a fresh one follows (§9.9).
    ///
    /// # Errors
    ///
    /// What the initiator is told that has broken its session.
    fn take_up(&self, offered: &mut Offered) -> Result<Option<TakenUp>, Error> {
        match self.sessions.take_up(offered) {
            Some(Ok((_, taken))) if !self.door.may_be(offered, &taken.present()) => Ok(None),
            Some(Ok((tentative, taken))) => {
                offered.set_resumed(tentative);
                Ok(Some(taken))
            }
            Some(Err(ResumeRefused::Violation(error))) => Err(Error::new(error.code(), error.to_string())),
            Some(Err(_)) | None => Ok(None),
        }
    }

    /// A session goes on over a link.
    async fn resume(
        &self,
        mut shaking: Shaking<R>,
        handshake: Handshake,
        admitted: Admitted,
        taken: TakenUp,
    ) {
        // When credentials run out is told by the session's clock, not by that of the link.
        let (now, grant) = (taken.now(), admitted.grant());
        let Admitted { offered, granted, renewer, .. } = admitted;
        let resuming = match grant {
            Some(grant) => offered.accept_resumed_with(now, grant, &mut shaking.out),
            None => offered.accept_resumed(now, &mut shaking.out),
        };
        let Some(resuming) = resuming else {
            // The credentials have run out just now.
            handshake.while_welcome(shaking.farewell()).await;
            return;
        };
        let confirmed = match handshake.while_welcome(shaking.next(resuming)).await {
            Some(Ok(confirmed)) => confirmed,
            Some(Err(error)) => return tracing::debug!(%error, "a session did not go on"),
            None => return,
        };
        drop(handshake);
        let (link, input) = shaking.into_link();
        if let Some((session, number)) = taken.confirm(confirmed, link.remote()) {
            session.shared().known().admit(granted, renewer);
            self.drive(session, link, number, input).await;
        }
    }

    /// A session begins.
    async fn begin(&self, clock: Clock, shaking: Shaking<R>, handshake: Handshake, admitted: Admitted) {
        let grant = admitted.grant().unwrap_or_default();
        let Admitted { offered, granted, psk, renewer } = admitted;
        let connection = offered.accept_with(clock.now(), grant);
        let (link, input) = shaking.into_link();
        let timeout = self.settings.call_timeout;
        let shared = Shared::new(connection, clock, link.remote(), timeout, self.hub.tasks().clone());
        shared.known().guard(self.settings.gate.clone());
        shared.known().begin(psk);
        shared.known().admit(granted, renewer);
        let Some(registered) = handshake.done(&shared) else { return };
        let (router, hub) = (self.router.clone(), self.hub.clone());
        let session = Session::begin(self.sessions.clone(), registered, &shared, router, hub);
        // The server may have been told to leave since it let this one in.
        if let Some(drain) = self.connections.leaving() {
            shared.drain(drain);
        }
        let store = self.store_by.as_ref().and_then(|choose| choose(&Peer::new(shared.clone())));
        if let Some(store) = store {
            match Keeper::new(store) {
                Ok(keeper) => Keeper::start(keeper, &shared, self.hub.clone()),
                Err(error) => return tracing::error!(%error, "no randomness for a connection"),
            }
        }
        if let Some(hook) = self.on_connect.clone() {
            let peer = Peer::new(shared.clone());
            // Called in that task too: a hook may panic before there is a future, and must not take the connection along.
            self.runtime.spawn(async move { hook(peer).await });
        }
        self.drive(session, link, shared.link(), input).await;
    }

    /// Drives a session over a link. Where that is lost, the session waits in a small task of its own.
    async fn drive(&self, session: Arc<Session>, link: R::Link, number: u64, input: BytesMut) {
        let upkeep = session.upkeep();
        let driver = Driver::new(&self.runtime, link, number, upkeep, &self.settings, input);
        if let LinkEnd::Lost(number) = driver.await {
            self.runtime.spawn(session.wait(number));
        }
    }
}
