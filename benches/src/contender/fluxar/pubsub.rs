//! Messages that carry a byte string. Each is serialized from a slice by the publisher, and decoded into memory of its own
//! and accepted by every subscriber.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ::fluxar::{Client, Messages, Qos, Server};
use serde_bytes::{ByteBuf, Bytes};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::connect;
use crate::Error;
use crate::load::{Load, Measured, Mode, check, payload};
use crate::meter::{Tally, tallied};

/// The server's own application takes these.
const DIRECT: &str = "bench.direct";

/// The server relays these.
const RELAYED: &str = "bench.relayed";

/// How many of the first have come, and when that was, in nanoseconds of the server's clock.
const RECEIVED: &str = "bench.received";

/// So many publications wait for their acknowledgement at once: as many as a peer takes by default.
const IN_FLIGHT: usize = 256;

/// Nobody acknowledges what is delivered at most once: the publisher goes on when so many fewer are under way than a queue
/// of the hub holds by default, for otherwise it would be measured how fast messages can be dropped.
const UNDER_WAY: usize = 896;

/// Such messages are published so many at a time.
const AT_A_TIME: usize = 64;

pub(super) async fn handle(server: &Server) -> Result<(), Error> {
    let received = Arc::new(AtomicU64::new(0));
    let messages = server.messages(DIRECT).await?;
    tokio::spawn(consume(messages, received.clone(), None));
    let began = Instant::now();
    server.handle(RECEIVED, move |_| {
        let received = received.load(Relaxed);
        let nanos = began.elapsed().as_nanos() as u64;
        async move { Ok((received, nanos)) }
    });
    Ok(())
}

/// Takes and accepts messages, and says so to who waits for that.
async fn consume(
    mut messages: Messages,
    count: Arc<AtomicU64>,
    taken: Option<Arc<Taken>>,
) -> Result<(), Error> {
    let mut first = None;
    while let Some(message) = messages.next().await {
        let payload: ByteBuf = message.payload()?;
        check(first.get_or_insert_with(|| payload.clone()), &payload)?;
        message.ack().await?;
        count.fetch_add(1, Relaxed);
        if let Some(taken) = &taken {
            taken.note();
        }
    }
    Err("the subscription has ended".into())
}

/// What tells the publisher to go on.
struct Taken {
    subscribers: u64,
    count: AtomicU64,
    room: Semaphore,
}

impl Taken {
    fn new(subscribers: usize) -> Self {
        Self {
            subscribers: subscribers as u64,
            count: AtomicU64::new(0),
            room: Semaphore::new(UNDER_WAY / AT_A_TIME),
        }
    }

    /// A subscriber has taken a message.
    fn note(&self) {
        let taken = self.count.fetch_add(1, Relaxed) + 1;
        if taken.is_multiple_of(self.subscribers * AT_A_TIME as u64) {
            self.room.add_permits(1);
        }
    }

    /// Waits until some more may be published.
    async fn room(&self) -> Result<(), Error> {
        self.room.acquire().await?.forget();
        Ok(())
    }
}

pub(super) async fn direct(client: Arc<Client>, mode: Mode, load: Load) -> Result<Measured, Error> {
    let sent = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    publish(&mut tasks, &client, DIRECT, mode, load, &sent, None);
    let tally = async || {
        let (received, nanos) = client.call(RECEIVED, &()).await?;
        Ok(Tally { sent: sent.load(Relaxed), received, at: Duration::from_nanos(nanos) })
    };
    tokio::select! {
        measured = tallied(load, tally) => measured,
        Some(ended) = tasks.join_next() => Err(ended?.err().unwrap_or_else(|| "the publisher has ended".into())),
    }
}

pub(super) async fn relayed(
    client: Arc<Client>,
    server: SocketAddr,
    mode: Mode,
    subscribers: usize,
    load: Load,
) -> Result<Measured, Error> {
    let [sent, received] = [Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0))];
    let taken = (mode == Mode::AtMostOnce).then(|| Arc::new(Taken::new(subscribers)));
    let mut tasks = JoinSet::new();
    let mut connections = Vec::with_capacity(subscribers);
    for _ in 0..subscribers {
        let subscriber = connect(server).await?;
        tasks.spawn(consume(subscriber.messages(RELAYED).await?, received.clone(), taken.clone()));
        connections.push(subscriber);
    }
    publish(&mut tasks, &client, RELAYED, mode, load, &sent, taken);
    let began = Instant::now();
    let tally = async || {
        let [sent, received] = [&sent, &received].map(|count| count.load(Relaxed));
        Ok(Tally { sent: sent * subscribers as u64, received, at: began.elapsed() })
    };
    tokio::select! {
        measured = tallied(load, tally) => measured,
        Some(ended) = tasks.join_next() => Err(ended?.err().unwrap_or_else(|| "a task has ended".into())),
    }
}

/// Publishes for ever: from one task where nobody acknowledges anything, from one for each message in flight elsewhere.
fn publish(
    tasks: &mut JoinSet<Result<(), Error>>,
    client: &Arc<Client>,
    topic: &'static str,
    mode: Mode,
    load: Load,
    sent: &Arc<AtomicU64>,
    taken: Option<Arc<Taken>>,
) {
    let (qos, publishers) = match mode {
        Mode::AtMostOnce => (Qos::AtMostOnce, 1),
        Mode::AtLeastOnce => (Qos::AtLeastOnce, IN_FLIGHT),
        Mode::ExactlyOnce => (Qos::ExactlyOnce, IN_FLIGHT),
    };
    for _ in 0..publishers {
        let (client, sent, taken) = (client.clone(), sent.clone(), taken.clone());
        tasks.spawn(async move {
            let payload = payload(load.payload);
            loop {
                if let Some(taken) = &taken {
                    taken.room().await?;
                }
                for _ in 0..if taken.is_some() { AT_A_TIME } else { 1 } {
                    client.publish(topic, Bytes::new(&payload)).qos(qos).await?;
                    sent.fetch_add(1, Relaxed);
                }
            }
        });
    }
}
