//! Tokio with a transport that does what transports may do, and mostly do not: takes and gives bytes in pieces of any
//! size, says "not now" for no reason, and fails on request.

use std::io::{self, ErrorKind, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::BytesMut;
use fluxar::{Address, Tokio, TokioLink, TokioListener, TokioTimer};
use fluxar_runtime::{Link, Listener, Runtime};

use crate::random::Random;

/// What a transport does to those who use it.
#[derive(Clone, Debug, Default)]
pub struct Chaos {
    faults: Arc<Faults>,
}

#[derive(Debug, Default)]
struct Faults {
    pieces: Mutex<Option<Random>>,
    never_connects: AtomicBool,
    breaks_writes: AtomicBool,
}

impl Chaos {
    /// Takes and gives bytes in small pieces.
    pub fn in_pieces(random: &mut Random) -> Self {
        let faults = Faults { pieces: Mutex::new(Some(random.fork())), ..Faults::default() };
        Self { faults: Arc::new(faults) }
    }

    /// Dials, and gets no answer.
    pub fn never_connecting() -> Self {
        let faults = Faults { never_connects: true.into(), ..Faults::default() };
        Self { faults: Arc::new(faults) }
    }

    /// From now on nothing can be read until a write was tried; that fails.
    pub fn break_writes(&self) {
        self.faults.breaks_writes.store(true, Ordering::SeqCst);
    }
}

impl Runtime for Chaos {
    type Timer = TokioTimer;
    type Link = ChaosLink;
    type Listener = ChaosListener;

    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        Tokio.spawn(future);
    }

    fn now(&self) -> Instant {
        Tokio.now()
    }

    fn timer(&self, at: Instant) -> TokioTimer {
        Tokio.timer(at)
    }

    async fn connect(&self, address: &Address) -> io::Result<ChaosLink> {
        if self.faults.never_connects.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        Ok(ChaosLink::new(Tokio.connect(address).await?, self.faults.clone()))
    }

    async fn bind(&self, address: &Address) -> io::Result<ChaosListener> {
        Ok(ChaosListener { listener: Tokio.bind(address).await?, faults: self.faults.clone() })
    }
}

/// A listening socket whose connections are [`ChaosLink`]s.
#[derive(Debug)]
pub struct ChaosListener {
    listener: TokioListener,
    faults: Arc<Faults>,
}

impl Listener for ChaosListener {
    type Link = ChaosLink;

    async fn accept(&mut self) -> io::Result<ChaosLink> {
        Ok(ChaosLink::new(self.listener.accept().await?, self.faults.clone()))
    }

    fn local_address(&self) -> io::Result<Address> {
        self.listener.local_address()
    }
}

/// A socket with moods.
#[derive(Debug)]
pub struct ChaosLink {
    link: TokioLink,
    faults: Arc<Faults>,
    random: Option<Random>,
    /// What was read and not given yet.
    kept: BytesMut,
    /// A write was tried, and failed.
    broken: bool,
}

impl ChaosLink {
    fn new(link: TokioLink, faults: Arc<Faults>) -> Self {
        let random = faults.pieces.lock().expect("a lock").as_mut().map(Random::fork);
        Self { link, faults, random, kept: BytesMut::new(), broken: false }
    }

    /// Now and then, "not now".
    fn moody(&mut self, cx: &mut Context<'_>) -> bool {
        let moody = self.random.as_mut().is_some_and(|random| random.below(4) == 0);
        if moody {
            cx.waker().wake_by_ref();
        }
        moody
    }

    /// A length of at most `max`, which is not 0; mostly a small one.
    fn piece(&mut self, max: usize) -> usize {
        let Some(random) = &mut self.random else { return max };
        let bound = [1, 2, 5, 50, 5000, max][random.below(6) as usize];
        1 + random.below(bound.min(max) as u64) as usize
    }

    /// Whether reading has to wait for a write to fail.
    fn waits_for_write(&self) -> bool {
        self.faults.breaks_writes.load(Ordering::SeqCst) && !self.broken
    }
}

impl Link for ChaosLink {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        if self.waits_for_write() || self.moody(cx) {
            return Poll::Pending;
        }
        if self.kept.is_empty() {
            self.kept.reserve(4096);
            if ready!(self.link.poll_read(cx, &mut self.kept))? == 0 {
                return Poll::Ready(Ok(0));
            }
        }
        let count = self.piece(self.kept.len().min(buffer.capacity() - buffer.len()));
        buffer.extend_from_slice(&self.kept.split_to(count));
        Poll::Ready(Ok(count))
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waits_for_write() || self.moody(cx) {
            return Poll::Pending;
        }
        if self.kept.is_empty() { self.link.poll_readable(cx) } else { Poll::Ready(Ok(())) }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.faults.breaks_writes.load(Ordering::SeqCst) {
            self.broken = true;
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        if self.random.is_none() {
            return self.link.poll_write(cx, pieces);
        }
        if self.moody(cx) {
            return Poll::Pending;
        }
        let count = self.piece(pieces.iter().map(|piece| piece.len()).sum());
        let some: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).take(count).collect();
        self.link.poll_write(cx, &[IoSlice::new(&some)])
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.moody(cx) { Poll::Pending } else { self.link.poll_shutdown(cx) }
    }

    fn remote(&self) -> String {
        self.link.remote()
    }

    fn is_confidential(&self) -> bool {
        self.link.is_confidential()
    }

    fn source(&self) -> Option<String> {
        self.link.source()
    }
}
