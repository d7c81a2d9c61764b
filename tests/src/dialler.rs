//! A client whose links the test makes and cuts: the protocol's core over a socket, and nothing else.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use fluxar::{Config, ConnectionError, Error, IntoPayload, Payload};
use fluxar_proto::{
    CallEvent, CallId, CallOptions, Connection, Event, IdSource, Instant, PubSubEvent, TransmitBuf,
};
use rand_core::SeedableRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::wire::{Stream, open};

/// A client of the protocol's core.
pub struct Dialler {
    url: String,
    zero: std::time::Instant,
    /// The connection itself.
    pub connection: Connection,
    link: Option<Box<dyn Stream>>,
    input: BytesMut,
    out: TransmitBuf,
    events: VecDeque<Event>,
}

impl Dialler {
    /// Connects, and shakes hands.
    ///
    /// # Panics
    ///
    /// Where that fails.
    pub async fn connect(url: &str) -> Self {
        Self::with(url, |_| {}).await
    }

    /// The same after `change`.
    ///
    /// # Panics
    ///
    /// Where the handshake fails.
    pub async fn with(url: &str, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        static DIALLERS: AtomicU64 = AtomicU64::new(0);
        let seed = DIALLERS.fetch_add(1, Ordering::Relaxed);
        let ids = IdSource::new(0, chacha20::ChaCha12Rng::seed_from_u64(seed));
        let mut dialler = Self {
            url: url.into(),
            zero: std::time::Instant::now(),
            connection: Connection::waiting(Arc::new(config), Instant::ZERO, ids),
            link: None,
            input: BytesMut::new(),
            out: TransmitBuf::new(),
            events: VecDeque::new(),
        };
        dialler.dial().await;
        dialler.until("hands are shaken", |event| matches!(event, Event::Established).then_some(())).await;
        dialler
    }

    /// The time of the connection.
    pub fn now(&self) -> Instant {
        Instant::ZERO + self.zero.elapsed()
    }

    /// Brings a new link.
    ///
    /// # Panics
    ///
    /// Where the connection has one, or nobody listens.
    pub async fn dial(&mut self) {
        self.link = Some(open(&self.url).await);
        let now = self.now();
        let wanted = self.connection.reconnect(now, fluxar_proto::Dial::default());
        assert_eq!(wanted, Ok(true), "it has a link, or is over");
    }

    /// Offers over a new link, which it gives up then.
    ///
    /// # Panics
    ///
    /// As [`dial`](Self::dial).
    pub async fn offer(&mut self) -> Box<dyn Stream> {
        self.dial().await;
        self.flush().await;
        self.leave()
    }

    /// Brings a new link, and waits until the session goes on over it; how many messages go again.
    ///
    /// # Panics
    ///
    /// Where it does not go on.
    pub async fn resume(&mut self) -> usize {
        self.dial().await;
        let resumed = |event: &Event| match event {
            Event::Resumed { resent } => Some(*resent),
            Event::Lost(lost) => panic!("the session is lost: {lost:?}"),
            _ => None,
        };
        let resent = self.until("the session goes on", resumed).await;
        self.flush().await;
        resent
    }

    /// Loses the link, which is closed.
    pub fn cut(&mut self) {
        drop(self.leave());
    }

    /// Loses the link, which the other side does not notice as long as it is kept.
    ///
    /// # Panics
    ///
    /// Where there is none.
    pub fn leave(&mut self) -> Box<dyn Stream> {
        let now = self.now();
        let unread = std::mem::take(&mut self.input).len();
        self.out = TransmitBuf::new();
        self.connection.abort(now, ConnectionError::LinkLost { unread });
        self.link.take().expect("a link")
    }

    /// Makes a call.
    ///
    /// # Panics
    ///
    /// Where that cannot be.
    pub async fn call(&mut self, method: &str, payload: &impl IntoPayload) -> CallId {
        self.call_within(method, payload, CallOptions::default()).await
    }

    /// The same with options.
    ///
    /// # Panics
    ///
    /// Where that cannot be.
    pub async fn call_within(
        &mut self,
        method: &str,
        payload: &impl IntoPayload,
        options: CallOptions,
    ) -> CallId {
        let (now, payload) = (self.now(), payload.to_payload().expect("a payload"));
        let call = self.connection.call(now, method, payload, options).expect("a call");
        self.flush().await;
        call
    }

    /// The outcome of a call, which may have come before.
    ///
    /// # Panics
    ///
    /// Where it does not come, although there is a link.
    pub async fn outcome(&mut self, call: CallId) -> Result<Payload, Error> {
        loop {
            if let Some(outcome) = self.connection.take_response(call).expect("a call of ours") {
                return outcome;
            }
            let come = |event: &Event| match event {
                Event::Call(CallEvent::Response(of)) if *of == call => Some(()),
                _ => None,
            };
            self.until("the outcome", come).await;
        }
    }

    /// The event that `seen` waits for; others before it are passed over.
    ///
    /// # Panics
    ///
    /// Where it does not come, although there is a link.
    pub async fn until<T>(&mut self, what: &str, mut seen: impl FnMut(&Event) -> Option<T>) -> T {
        loop {
            while let Some(event) = self.events.pop_front() {
                if let Some(seen) = seen(&event) {
                    return seen;
                }
            }
            assert!(self.turn().await, "never came: {what}; {:?}", self.connection.error());
        }
    }

    /// Waits for so many deliveries on subscriptions of ours; what they carry.
    ///
    /// # Panics
    ///
    /// Where they do not come.
    pub async fn deliveries<T: fluxar::FromPayload>(&mut self, count: usize) -> Vec<T> {
        let mut payloads = Vec::new();
        while payloads.len() < count {
            let delivered = |event: &Event| match event {
                Event::PubSub(PubSubEvent::Delivered(subscription)) => Some(*subscription),
                _ => None,
            };
            let subscription = self.until("a delivery", delivered).await;
            while let Ok(Some(delivery)) = self.connection.poll_delivery(subscription) {
                payloads.push(T::from_payload(&delivery.payload).expect("what was published"));
                self.connection.ack(delivery.id).ok();
            }
        }
        self.flush().await;
        payloads
    }

    /// Sends what there is to be sent.
    ///
    /// # Panics
    ///
    /// Where the other side takes nothing any more.
    pub async fn flush(&mut self) {
        let now = self.now();
        while !self.out.is_empty() || self.connection.poll_transmit(now, &mut self.out) > 0 {
            let link = self.link.as_mut().expect("a link");
            link.write_all_buf(&mut self.out).await.expect("the other side takes what we send");
        }
        self.note_events();
    }

    /// Sends and reads until `future` is ready.
    ///
    /// # Panics
    ///
    /// Where there is no link, or it is lost.
    pub async fn meanwhile<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        loop {
            tokio::select! {
                output = &mut future => return output,
                alive = self.exchange() => assert!(alive, "{:?}", self.connection.error()),
            }
        }
    }

    /// Sends, and reads once where nothing has happened that nobody has seen. Whether anything can still happen.
    async fn turn(&mut self) -> bool {
        self.flush().await;
        !self.events.is_empty() || self.exchange().await || !self.events.is_empty()
    }

    /// Sends, and reads once. Whether there still is a link.
    async fn exchange(&mut self) -> bool {
        self.flush().await;
        let wait = self.connection.poll_timeout().map_or(Duration::from_secs(60), |at| at - self.now());
        let Some(link) = &mut self.link else { return false };
        let read = tokio::time::timeout(wait, link.read_buf(&mut self.input)).await;
        let now = self.now();
        match read {
            Ok(Ok(1..)) => drop(self.connection.handle_input(now, &mut self.input)),
            Ok(Ok(0)) => drop(self.connection.handle_eof(now, self.input.len())),
            Ok(Err(error)) => self.connection.abort(now, ConnectionError::Transport(error.to_string())),
            Err(_) => drop(self.connection.handle_timeout(now)),
        }
        if self.connection.is_detached() || self.connection.is_closed() {
            self.link = None;
        }
        self.note_events();
        self.link.is_some()
    }

    fn note_events(&mut self) {
        while let Some(event) = self.connection.poll_event() {
            self.events.push_back(event);
        }
    }
}
