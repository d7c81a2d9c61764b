//! A proxy between two peers that treats each link as its [`Plan`] says: passes bytes on in other pieces, slows them
//! down, holds them up, and cuts the link in every way that there is, after exactly as many bytes as it is told.

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use fluxar::Address;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream, tcp, unix};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::net::socket_path;
use crate::plan::{Mishap, Plan, Way};

/// Links that run through here. They end when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    url: String,
    counts: Arc<Counts>,
    order: watch::Sender<Option<Mishap>>,
    accepting: JoinHandle<()>,
    socket: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct Counts {
    links: AtomicUsize,
    alive: AtomicUsize,
    cuts: AtomicUsize,
    shut: AtomicBool,
    calm: AtomicBool,
}

impl Proxy {
    /// A proxy before the server at `url`, of the same transport. `plan` tells what becomes of each link, which are
    /// numbered from 0.
    ///
    /// # Panics
    ///
    /// Where the system does not let us listen.
    pub async fn open(url: &str, mut plan: impl FnMut(usize) -> Plan + Send + 'static) -> Self {
        let counts = Arc::<Counts>::default();
        let (order, orders) = watch::channel(None);
        let target: Address = url.parse().expect("a URL");
        let (listener, url, socket) = match &target {
            Address::Tcp { .. } => {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
                let url = format!("tcp://{}", listener.local_addr().expect("an address"));
                (Listener::Tcp(listener), url, None)
            }
            _ => {
                let path = socket_path();
                let listener = UnixListener::bind(&path).expect("a listener");
                (Listener::Unix(listener), format!("unix://{}", path.display()), Some(path))
            }
        };
        let accepting = tokio::spawn({
            let counts = counts.clone();
            async move {
                // Dropped together with this task, and the links with it.
                let mut links = JoinSet::new();
                loop {
                    let near = listener.accept().await.expect("a connection");
                    let number = counts.links.fetch_add(1, Ordering::SeqCst);
                    let plan = match () {
                        () if counts.shut.load(Ordering::SeqCst) => Plan::refused(),
                        () if counts.calm.load(Ordering::SeqCst) => Plan::default(),
                        () => plan(number),
                    };
                    let mut orders = orders.clone();
                    // Those from before are for others.
                    orders.mark_unchanged();
                    links.spawn(run(near, target.clone(), plan, orders, counts.clone()));
                    while links.try_join_next().is_some() {}
                }
            }
        });
        Self { url, counts, order, accepting, socket }
    }

    /// A proxy that passes everything on, until it is told otherwise.
    ///
    /// # Panics
    ///
    /// As [`open`](Self::open).
    pub async fn clear(url: &str) -> Self {
        Self::open(url, |_| Plan::default()).await
    }

    /// Where to connect to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How many links there have been.
    pub fn links(&self) -> usize {
        self.counts.links.load(Ordering::SeqCst)
    }

    /// How many there are.
    pub fn alive(&self) -> usize {
        self.counts.alive.load(Ordering::SeqCst)
    }

    /// How many links were cut: reset, closed, half closed or silenced.
    pub fn cuts(&self) -> usize {
        self.counts.cuts.load(Ordering::SeqCst)
    }

    /// Has this happen to all the links that there are.
    ///
    /// # Panics
    ///
    /// Where it is something that happens to one direction.
    pub fn strike(&self, mishap: Mishap) {
        let both = [Mishap::Reset, Mishap::Close, Mishap::SilenceBoth].contains(&mishap);
        assert!(both || matches!(mishap, Mishap::StallBoth(_)), "{mishap:?} happens to one direction");
        self.order.send_replace(Some(mishap));
    }

    /// Plans no more: new links pass everything on.
    pub fn calm(&self) {
        self.counts.calm.store(true, Ordering::SeqCst);
    }

    /// Resets every new link at once, or does so no longer.
    pub fn shut(&self, shut: bool) {
        self.counts.shut.store(shut, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        if let Some(path) = &self.socket {
            std::fs::remove_file(path).ok();
        }
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(listener) => Socket::Tcp(listener.accept().await?.0),
            Self::Unix(listener) => Socket::Unix(listener.accept().await?.0),
        })
    }
}

async fn connect(target: &Address) -> io::Result<Socket> {
    Ok(match target {
        Address::Tcp { host, port } => Socket::Tcp(TcpStream::connect((host.as_str(), *port)).await?),
        Address::Unix { path } => Socket::Unix(UnixStream::connect(path).await?),
        other => panic!("no proxy for {other}"),
    })
}

/// Half of a socket to write to, which can be dropped in different ways.
trait Sink: AsyncWrite + Unpin {
    /// Without an end of what was sent: on TCP, a reset.
    fn reset(self);
}

impl Sink for tcp::OwnedWriteHalf {
    fn reset(self) {
        // Where that fails, the other side was faster.
        self.as_ref().set_zero_linger().ok();
        self.forget();
    }
}

impl Sink for unix::OwnedWriteHalf {
    fn reset(self) {
        self.forget();
    }
}

/// One link, to its end.
async fn run(
    near: Socket,
    target: Address,
    plan: Plan,
    orders: watch::Receiver<Option<Mishap>>,
    counts: Arc<Counts>,
) {
    let Ok(far) = connect(&target).await else { return };
    counts.alive.fetch_add(1, Ordering::SeqCst);
    let _alive = Alive(counts.clone());
    let link = Link { counts, silent: false.into(), held_until: None.into() };
    match (near, far) {
        (Socket::Tcp(near), Socket::Tcp(far)) => {
            near.set_nodelay(true).ok();
            far.set_nodelay(true).ok();
            link.carry(near.into_split(), far.into_split(), plan, orders).await;
        }
        (Socket::Unix(near), Socket::Unix(far)) => {
            link.carry(near.into_split(), far.into_split(), plan, orders).await;
        }
        _ => unreachable!("both ends are of one transport"),
    }
}

/// Counts a link for as long as it is there, also where its task is dropped.
struct Alive(Arc<Counts>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Link {
    counts: Arc<Counts>,
    /// Nothing is passed on any more, in neither direction.
    silent: AtomicBool,
    /// Nothing is passed on before.
    held_until: Mutex<Option<Instant>>,
}

/// How one direction comes to its end.
enum Ended {
    /// In order: the end was passed on, or swallowed. The other direction goes on.
    Alone,
    /// Together with the other one.
    Both(Mishap),
}

impl Link {
    async fn carry<R: AsyncRead + Unpin, W: Sink>(
        &self,
        (mut near_in, mut near_out): (R, W),
        (mut far_in, mut far_out): (R, W),
        plan: Plan,
        mut orders: watch::Receiver<Option<Mishap>>,
    ) {
        let mishap = {
            let there = self.pass(&mut near_in, &mut far_out, plan.there);
            let back = self.pass(&mut far_in, &mut near_out, plan.back);
            let (mut there, mut back) = (pin!(there), pin!(back));
            let (mut there_ended, mut back_ended) = (false, false);
            loop {
                let ended = tokio::select! {
                    ended = &mut there, if !there_ended => { there_ended = true; Some(ended) }
                    ended = &mut back, if !back_ended => { back_ended = true; Some(ended) }
                    mishap = next_order(&mut orders) => self.happens(mishap),
                };
                match ended {
                    Some(Ended::Both(mishap)) => break mishap,
                    Some(Ended::Alone) if there_ended && back_ended => break Mishap::Close,
                    _ => {}
                }
            }
        };
        if mishap == Mishap::Reset {
            near_out.reset();
            far_out.reset();
        }
    }

    /// Passes on one direction.
    async fn pass<R: AsyncRead + Unpin, W: Sink>(&self, from: &mut R, to: &mut W, mut way: Way) -> Ended {
        let (mut passed, mut buffer, mut silent) = (0, vec![0; 64 << 10], false);
        loop {
            if let Some((_, mishap)) = way.mishap.take_if(|(after, _)| *after == passed) {
                match mishap {
                    Mishap::HalfClose => {
                        self.happens(mishap);
                        to.shutdown().await.ok();
                        return Ended::Alone;
                    }
                    Mishap::Stall(time) => tokio::time::sleep(time).await,
                    _ => match self.happens(mishap) {
                        Some(ended) => return ended,
                        None => silent |= mishap == Mishap::Silence,
                    },
                }
            }
            let room = way.mishap.map_or(u64::MAX, |(after, _)| after - passed);
            let room = room.min(buffer.len() as u64) as usize;
            let Ok(count @ 1..) = from.read(&mut buffer[..room]).await else {
                if !silent && !self.is_silent() {
                    to.shutdown().await.ok();
                }
                return Ended::Alone;
            };
            self.wait().await;
            if silent || self.is_silent() {
                continue;
            }
            if self.write(to, &buffer[..count], &mut way).await.is_err() {
                return Ended::Both(Mishap::Close);
            }
            passed += count as u64;
        }
    }

    /// What a mishap means for the whole link.
    fn happens(&self, mishap: Mishap) -> Option<Ended> {
        if mishap.is_cut() {
            self.counts.cuts.fetch_add(1, Ordering::SeqCst);
        }
        match mishap {
            Mishap::Reset | Mishap::Close => return Some(Ended::Both(mishap)),
            Mishap::SilenceBoth => self.silent.store(true, Ordering::SeqCst),
            Mishap::StallBoth(time) => {
                *self.held_until.lock().expect("a lock") = Some(Instant::now() + time);
            }
            Mishap::HalfClose | Mishap::Silence | Mishap::Stall(_) => {}
        }
        None
    }

    async fn write<W: Sink>(&self, to: &mut W, mut bytes: &[u8], way: &mut Way) -> io::Result<()> {
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(way.next_piece(bytes.len()));
            to.write_all(piece).await?;
            bytes = rest;
            if !way.pause.is_zero() {
                tokio::time::sleep(way.pause).await;
            }
        }
        Ok(())
    }

    fn is_silent(&self) -> bool {
        self.silent.load(Ordering::SeqCst)
    }

    /// Waits until the link is held up no more.
    async fn wait(&self) {
        let until = *self.held_until.lock().expect("a lock");
        if let Some(until) = until {
            tokio::time::sleep_until(until.into()).await;
        }
    }
}

/// The next order.
async fn next_order(orders: &mut watch::Receiver<Option<Mishap>>) -> Mishap {
    while orders.changed().await.is_ok() {
        if let Some(mishap) = *orders.borrow_and_update() {
            return mishap;
        }
    }
    // Nobody gives any more.
    std::future::pending().await
}
