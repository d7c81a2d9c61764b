//! Calls, streams and messages in both directions of a connection, with a record of what was asked for and what became
//! of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fluxar::{
    Code, Error, Fate, HandlerError, Hub, Messages, Peer, PublishError, Qos, Request, StreamRequest,
};
use futures_util::future::{BoxFuture, join_all};
use tokio::task::JoinHandle;

use crate::net::eventually;
use crate::random::Random;

/// Something that was asked for: by whom, and which of that one's.
type Which = (u64, u64);

/// Traffic, and what is known of it.
#[derive(Debug)]
pub struct Traffic {
    /// Whether sessions may be lost, and what was under way with them.
    losses: bool,
    enough: AtomicBool,
    next: AtomicU64,
    /// How often a call's handler ran, or a message arrived.
    seen: Mutex<BTreeMap<Which, u32>>,
    /// Messages that have to arrive, and how they were published.
    due: Mutex<BTreeMap<Which, Qos>>,
    /// Who takes what the other side's hub has for it.
    taking: Mutex<Vec<Taking>>,
    flows: AtomicUsize,
    strays: AtomicUsize,
    failed: AtomicBool,
    /// What the traffic came to.
    pub sums: Sums,
}

/// How much of everything there was.
#[derive(Debug, Default)]
pub struct Sums {
    /// Calls that succeeded.
    pub calls: AtomicU64,
    /// Calls that did not.
    pub failed_calls: AtomicU64,
    /// Items that came back on streams.
    pub items: AtomicU64,
    /// Streams that came to their end in order.
    pub streams: AtomicU64,
    /// Streams that did not.
    pub failed_streams: AtomicU64,
    /// Messages that were accepted.
    pub published: AtomicU64,
    /// Messages that were not, as far as their publisher knows.
    pub unpublished: AtomicU64,
}

fn one_more(sum: &AtomicU64) {
    sum.fetch_add(1, Ordering::Relaxed);
}

/// Something to carry, mostly little.
fn filler(random: &mut Random) -> String {
    let longest = [1, 1, 10, 10, 10, 100, 100, 100, 1000, 1000, 10_000, 50_000][random.below(12) as usize];
    "x".repeat(random.below(longest) as usize)
}

impl Traffic {
    /// None yet. Where there are no `losses`, everything has to succeed.
    pub fn new(losses: bool) -> Arc<Self> {
        Arc::new(Self {
            losses,
            enough: AtomicBool::new(false),
            next: AtomicU64::new(0),
            seen: Mutex::default(),
            due: Mutex::default(),
            taking: Mutex::default(),
            flows: AtomicUsize::new(0),
            strays: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            sums: Sums::default(),
        })
    }

    /// Begins nothing new from now on.
    pub fn enough(&self) {
        self.enough.store(true, Ordering::SeqCst);
    }

    /// Messages that have to arrive, and did not yet.
    ///
    /// # Panics
    ///
    /// Where another thread has.
    pub fn missing(&self) -> usize {
        let seen = self.seen.lock().expect("a lock");
        self.due.lock().expect("a lock").keys().filter(|which| !seen.contains_key(*which)).count()
    }

    /// Checks how often each message has arrived: at least once, and exactly once where that was asked for and no session
    /// was lost.
    ///
    /// # Panics
    ///
    /// Where that is not so.
    pub fn settle(&self) {
        assert_eq!(self.missing(), 0, "messages have not arrived");
        let seen = self.seen.lock().expect("a lock");
        for (which, qos) in &*self.due.lock().expect("a lock") {
            let once = *qos == Qos::ExactlyOnce && !self.losses;
            assert!(!once || seen[which] == 1, "{which:?} has arrived {} times", seen[which]);
        }
    }

    fn see(&self, which: Which) -> u32 {
        let mut seen = self.seen.lock().expect("a lock");
        let times = seen.entry(which).or_default();
        *times += 1;
        *times
    }

    fn times(&self, which: Which) -> u32 {
        self.seen.lock().expect("a lock").get(&which).copied().unwrap_or(0)
    }

    /// Whether there is more to do with a peer.
    fn goes_on(&self, peer: &Peer) -> bool {
        !self.enough.load(Ordering::SeqCst) && !self.failed.load(Ordering::SeqCst) && peer.error().is_none()
    }

    /// Whether an error may be: the session was lost.
    fn excused(&self, error: &Error) -> bool {
        self.losses && error.code == Code::UNAVAILABLE
    }

    /// The handler of `once`: takes note of each call, which must not come twice.
    pub fn once(
        self: &Arc<Self>,
    ) -> impl Fn(Request) -> BoxFuture<'static, Result<u64, HandlerError>> + use<> {
        let this = self.clone();
        move |request| {
            let this = this.clone();
            Box::pin(async move {
                let (caller, number, _filler): (u64, u64, String) = request.payload()?;
                assert_eq!(this.see((caller, number)), 1, "call {number} of {caller} was made twice");
                match number % 4 {
                    0 => tokio::time::sleep(Duration::from_millis(number % 7)).await,
                    1 => {
                        for update in 0..3 {
                            request.update(&update).await?;
                        }
                    }
                    _ => {}
                }
                Ok(number + 1)
            })
        }
    }

    /// Calls `once`, one call after the other.
    async fn call(self: Arc<Self>, peer: Peer, mut random: Random) {
        let caller = self.next.fetch_add(1, Ordering::Relaxed);
        for number in 0.. {
            if !self.goes_on(&peer) {
                return;
            }
            let argument = (caller, number, filler(&mut random));
            let outcome = peer.call::<u64>("once", &argument).await;
            let ran = self.times((caller, number));
            match outcome {
                Ok(result) => {
                    assert_eq!((result, ran), (number + 1, 1), "call {number} of {caller}");
                    one_more(&self.sums.calls);
                }
                Err(error) => {
                    assert!(self.excused(&error), "call {number} of {caller}: {error}");
                    let most = if error.processed == Some(false) { 0 } else { 1 };
                    assert!(ran <= most, "call {number} of {caller} ran {ran} times: {error}");
                    one_more(&self.sums.failed_calls);
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Opens streams, one after the other, and checks what comes back on them.
    async fn stream(self: Arc<Self>, peer: Peer, mut random: Random) {
        while self.goes_on(&peer) {
            match self.one_stream(&peer, &mut random).await {
                Ok(()) => one_more(&self.sums.streams),
                Err(error) => {
                    assert!(self.excused(&error), "a stream: {error}");
                    one_more(&self.sums.failed_streams);
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    async fn one_stream(&self, peer: &Peer, random: &mut Random) -> Result<(), Error> {
        let count = random.below(300);
        let fillers: Vec<_> = (0..count).map(|_| filler(random)).collect();
        let opening = peer.stream::<(u64, String)>("relay", &());
        let window = [1000, 60_000, 1 << 20][random.below(3) as usize];
        let (mut sender, mut receiver) = opening.window(window).await?.split();
        let sending = async {
            for (number, filler) in fillers.iter().enumerate() {
                sender.send(&(number, filler)).await?;
            }
            sender.end().await
        };
        let receiving = async {
            for (number, filler) in fillers.iter().enumerate() {
                let Some(item) = receiver.next().await else {
                    panic!("{number} of {count} items came, and an end in order");
                };
                let (got, text) = item?;
                assert_eq!((got, text.len()), (number as u64, filler.len()), "an item");
                one_more(&self.sums.items);
            }
            match receiver.next().await {
                None => Ok(()),
                Some(Err(error)) => Err(error),
                Some(Ok(_)) => panic!("more items than were sent"),
            }
        };
        let (sent, received) = tokio::join!(sending, receiving);
        received?;
        // Everything came back, so that there was nothing to fail.
        sent?;
        assert_eq!(receiver.last::<u64>(), Some(Ok(count)));
        Ok(())
    }

    /// Publishes to the peer itself, some messages at a time.
    async fn publish(self: Arc<Self>, peer: Peer, qos: Qos, mut random: Random) {
        let publisher = self.next.fetch_add(1, Ordering::Relaxed);
        for round in 0.. {
            if !self.goes_on(&peer) {
                return;
            }
            let some = (round * 4..round * 4 + 4).map(|number| (number, filler(&mut random)));
            let (this, peer) = (&self, &peer);
            join_all(some.map(|(number, filler)| async move {
                let message = (publisher, number, filler);
                let fate = peer.publish("traffic.up", &message).qos(qos).await;
                this.published((publisher, number), qos, fate);
            }))
            .await;
            tokio::task::yield_now().await;
        }
    }

    fn published(&self, which: Which, qos: Qos, fate: Result<Fate, PublishError>) {
        match fate {
            Ok(Fate::Accepted { attempts }) => {
                assert!(attempts == 1 || self.losses, "{which:?} was published {attempts} times");
                one_more(&self.sums.published);
                self.due.lock().expect("a lock").insert(which, qos);
            }
            Ok(other) => panic!("{which:?}: {other:?}"),
            Err(error) => {
                assert!(self.losses, "{which:?}: {error}");
                one_more(&self.sums.unpublished);
            }
        }
    }

    /// Publishes on a hub what the other side has subscribed to as `topic`.
    async fn deliver(self: Arc<Self>, hub: Hub, peer: Peer, topic: String, qos: Qos, mut random: Random) {
        let publisher = self.next.fetch_add(1, Ordering::Relaxed);
        for number in 0.. {
            if !self.goes_on(&peer) {
                return;
            }
            let message = (publisher, number, filler(&mut random));
            hub.publish(&topic, &message).qos(qos).await.expect("a hub that takes messages");
            // Who has lost its session meanwhile, has lost its subscription.
            if !self.losses {
                self.due.lock().expect("a lock").insert((publisher, number), qos);
            }
            one_more(&self.sums.published);
            // Hubs take faster than anybody can read.
            let pause = Duration::from_millis(random.below(30));
            tokio::time::sleep(pause).await;
            while !self.losses
                && number >= 8
                && self.times((publisher, number - 8)) == 0
                && self.goes_on(&peer)
            {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Takes what comes, until it is dropped.
    async fn take(self: Arc<Self>, mut messages: Messages) {
        let _alarm = Alarm(&self);
        while let Some(message) = messages.next().await {
            let (publisher, number, _filler): (u64, u64, String) = message.payload().expect("a message");
            // Accepted before anybody else is told.
            self.see((publisher, number));
            let told = message.ack().await;
            assert!(told.is_ok() || self.losses, "{told:?}");
        }
        assert!(self.losses, "a subscription has ended: {:?}", messages.error());
    }

    /// Subscribes at the own hub to what the other side publishes there, and takes what comes until this is dropped.
    ///
    /// # Panics
    ///
    /// Where the hub refuses.
    pub async fn listen(self: &Arc<Self>, hub: &Hub) -> Taking {
        let messages = hub.messages("traffic.up").await.expect("a subscription");
        Taking(tokio::spawn(self.clone().take(messages)))
    }

    /// The handler of `follow`: subscribes at the caller's hub to a topic, and takes what comes.
    pub fn follow(
        self: &Arc<Self>,
    ) -> impl Fn(Request) -> BoxFuture<'static, Result<(), HandlerError>> + use<> {
        let this = self.clone();
        move |request| {
            let this = this.clone();
            Box::pin(async move {
                let messages = request.peer().messages(&request.payload::<String>()?).await?;
                let taking = Taking(tokio::spawn(this.clone().take(messages)));
                this.taking.lock().expect("a lock").push(taking);
                Ok(())
            })
        }
    }

    /// Unsubscribes from what there is at the other sides' hubs.
    ///
    /// # Panics
    ///
    /// Where another thread has.
    pub fn unfollow(&self) {
        self.taking.lock().expect("a lock").clear();
    }

    /// Does all of it with a peer that has the handlers, until it is [enough](Self::enough) or the peer is gone. Whether it
    /// could begin: a server may have a session that nobody knows of, where an offer comes late.
    ///
    /// # Panics
    ///
    /// Where anything becomes of it that must not.
    pub async fn flow(self: Arc<Self>, peer: Peer, hub: Hub, mut random: Random) -> bool {
        let topic = format!("traffic.down.{}", self.next.fetch_add(1, Ordering::Relaxed));
        self.strays.fetch_add(1, Ordering::SeqCst);
        let followed = peer.call::<()>("follow", &topic).await;
        let _flow = Flow::new(&self);
        self.strays.fetch_sub(1, Ordering::SeqCst);
        if let Err(error) = followed {
            assert_eq!(error.code, Code::UNAVAILABLE, "follow: {error}");
            if !self.losses || peer.error().is_some() {
                return false;
            }
        }
        let mut tasks = Vec::new();
        for _ in 0..3 {
            tasks.push(tokio::spawn(self.clone().call(peer.clone(), random.fork())));
        }
        for _ in 0..2 {
            tasks.push(tokio::spawn(self.clone().stream(peer.clone(), random.fork())));
        }
        for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
            tasks.push(tokio::spawn(self.clone().publish(peer.clone(), qos, random.fork())));
            let (hub, topic) = (hub.clone(), topic.clone());
            let delivering = self.clone().deliver(hub, peer.clone(), topic, qos, random.fork());
            tasks.push(tokio::spawn(delivering));
        }
        for task in tasks {
            if let Err(error) = task.await {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        true
    }

    /// How many peers there are that have not answered yet: where nobody knows of them, they never will.
    pub fn strays(&self) -> usize {
        self.strays.load(Ordering::SeqCst)
    }

    /// Waits until everything that was begun has come to its end, and every message has arrived.
    ///
    /// # Panics
    ///
    /// Where that never comes, and where anything has failed.
    pub async fn settled(&self) {
        self.until("the last flow has ended", || self.flows.load(Ordering::SeqCst) == 0).await;
        self.until("every message has arrived", || self.missing() == 0).await;
        self.settle();
    }

    /// Waits until `condition` holds.
    ///
    /// # Panics
    ///
    /// Where it never does, and where anything fails before.
    pub async fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        eventually(what, || {
            self.check();
            condition()
        })
        .await;
    }

    /// Checks that nothing has failed so far.
    ///
    /// # Panics
    ///
    /// Where something has.
    pub fn check(&self) {
        assert!(!self.failed.load(Ordering::SeqCst), "something has failed, see above");
    }
}

/// Sees to it that nothing fails unnoticed.
struct Alarm<'a>(&'a Traffic);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.0.failed.fetch_or(std::thread::panicking(), Ordering::SeqCst);
    }
}

/// Counts a flow while it lasts.
struct Flow<'a>(Alarm<'a>);

impl<'a> Flow<'a> {
    fn new(traffic: &'a Traffic) -> Self {
        traffic.flows.fetch_add(1, Ordering::SeqCst);
        Self(Alarm(traffic))
    }
}

impl Drop for Flow<'_> {
    fn drop(&mut self) {
        self.0.0.flows.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Somebody takes messages until this is dropped.
#[derive(Debug)]
pub struct Taking(JoinHandle<()>);

impl Drop for Taking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The handler of `relay`: gives back what it gets, which has to come in order and once, and in the end how much that was.
///
/// # Errors
///
/// Where the stream ends otherwise.
pub async fn relay(mut request: StreamRequest) -> Result<u64, HandlerError> {
    let (mut sender, mut receiver) = request.split::<(u64, String)>()?;
    let mut count = 0;
    while let Some(item) = receiver.next().await {
        let item = item?;
        assert_eq!(item.0, count, "an item came twice, or too early");
        count += 1;
        sender.send(&item).await?;
    }
    Ok(count)
}
