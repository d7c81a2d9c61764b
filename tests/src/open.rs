//! Tokio with links on which everybody can listen, and a listener who does.

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::BytesMut;
use fluxar::{Address, Tokio, TokioLink, TokioListener, TokioTimer};
use fluxar_runtime::{Link, Listener, Runtime};

/// A network in the open. All clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Open {
    network: Arc<Network>,
}

#[derive(Debug, Default)]
struct Network {
    confidential: AtomicBool,
    heard: Mutex<Vec<u8>>,
    /// Links that were dialled.
    dialled: Mutex<usize>,
}

impl Open {
    /// One that says to be confidential all the same, for comparison.
    pub fn confidential() -> Self {
        let open = Self::default();
        open.network.confidential.store(true, Ordering::SeqCst);
        open
    }

    /// Whether it says so.
    pub fn is_confidential(&self) -> bool {
        self.network.confidential.load(Ordering::SeqCst)
    }

    /// Whether somebody who listens has heard `secret`: in either direction, on any link.
    ///
    /// # Panics
    ///
    /// Where a test has panicked.
    pub fn has_heard(&self, secret: &str) -> bool {
        let heard = self.network.heard.lock().expect("a lock");
        heard.windows(secret.len()).any(|window| window == secret.as_bytes())
    }

    /// How many links were dialled.
    ///
    /// # Panics
    ///
    /// Where a test has panicked.
    pub fn dialled(&self) -> usize {
        *self.network.dialled.lock().expect("a lock")
    }
}

impl Runtime for Open {
    type Timer = TokioTimer;
    type Link = OpenLink;
    type Listener = OpenListener;

    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        Tokio.spawn(future);
    }

    fn now(&self) -> Instant {
        Tokio.now()
    }

    fn timer(&self, at: Instant) -> TokioTimer {
        Tokio.timer(at)
    }

    async fn connect(&self, address: &Address) -> io::Result<OpenLink> {
        let link = Tokio.connect(address).await?;
        *self.network.dialled.lock().expect("a lock") += 1;
        Ok(OpenLink { link, network: self.network.clone() })
    }

    async fn bind(&self, address: &Address) -> io::Result<OpenListener> {
        Ok(OpenListener { listener: Tokio.bind(address).await?, network: self.network.clone() })
    }
}

/// A listening socket whose connections are [`OpenLink`]s.
#[derive(Debug)]
pub struct OpenListener {
    listener: TokioListener,
    network: Arc<Network>,
}

impl Listener for OpenListener {
    type Link = OpenLink;

    async fn accept(&mut self) -> io::Result<OpenLink> {
        Ok(OpenLink { link: self.listener.accept().await?, network: self.network.clone() })
    }

    fn local_address(&self) -> io::Result<Address> {
        self.listener.local_address()
    }
}

/// A socket that is listened to.
#[derive(Debug)]
pub struct OpenLink {
    link: TokioLink,
    network: Arc<Network>,
}

impl OpenLink {
    fn hear(&self, bytes: &[u8]) {
        self.network.heard.lock().expect("a lock").extend_from_slice(bytes);
    }
}

impl Link for OpenLink {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        let before = buffer.len();
        let count = ready!(self.link.poll_read(cx, buffer))?;
        self.hear(&buffer[before..]);
        Poll::Ready(Ok(count))
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.link.poll_readable(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let count = ready!(self.link.poll_write(cx, pieces))?;
        let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).take(count).collect();
        self.hear(&all);
        Poll::Ready(Ok(count))
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.link.poll_shutdown(cx)
    }

    fn remote(&self) -> String {
        self.link.remote()
    }

    fn is_confidential(&self) -> bool {
        self.network.confidential.load(Ordering::SeqCst)
    }
}
