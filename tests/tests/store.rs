//! Messages that outlive their connections, with a store at both ends.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use fluxar::{
    Client, Code, Fate, Id, MemoryStore, Message, PublishError, Qos, Reconnect, Store, StoreError,
    StoreFuture, Stored,
};
use fluxar_tests::matrix;
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::random::Random;
use fluxar_tests::site::Site;

matrix! {
    exactly_once_holds_over_many_connections
    at_least_once_holds_over_many_connections
    what_was_left_goes_first_and_in_order
    what_was_acknowledged_is_only_released
    a_message_that_still_waits_is_not_handled_twice
    a_store_that_fails_is_not_relied_on
    what_is_settled_leaves_nothing_behind
}

/// What arrived, and how often.
type Seen = Arc<Mutex<BTreeMap<u32, usize>>>;

/// A server that counts what is published on `count`, and remembers for its only client what it has accepted.
async fn counting(net: Net, store: &Arc<MemoryStore>) -> (Site, Seen) {
    let (seen, store) = (Seen::default(), store.clone());
    let site = Site::with(net, |builder| builder.store_by(move |_| Some(store.clone()))).await;
    let count = seen.clone();
    let handler = move |message: Message| {
        let count = count.clone();
        async move {
            *count.lock().unwrap().entry(message.payload()?).or_default() += 1;
            Ok(())
        }
    };
    site.handle().hub().subscribe("count", handler).await.unwrap();
    (site, seen)
}

async fn client_with(site: &Site, store: &Arc<MemoryStore>) -> Client {
    site.connect().store(store.clone()).reconnect(Reconnect::off()).build().await.unwrap()
}

/// Publishes numbers over `rounds` connections that are cut at any time, and over more of them until more than a hundred
/// numbers were not lost before they were sent: on a busy machine many are.
async fn publish_and_cut(site: &Site, store: &Arc<MemoryStore>, qos: Qos, rounds: usize) -> Vec<u32> {
    let mut random = Random::new();
    let (mut next, mut published) = (0_u32, Vec::new());
    for round in 0.. {
        if round >= rounds && published.len() > 100 {
            break;
        }
        assert!(round < 100 * rounds, "hardly anything is ever sent");
        let client = Arc::new(client_with(site, store).await);
        let tasks = (0..random.below(6)).map(|_| {
            let (client, number) = (client.clone(), next);
            next += 1;
            tokio::spawn(async move {
                match client.publish("count", &number).qos(qos).await {
                    Ok(Fate::Accepted { .. }) | Err(PublishError::Lost { .. }) => Some(number),
                    Err(PublishError::NotSent(error)) => {
                        assert!(error.is_retry_safe(), "{error}");
                        None
                    }
                    other => panic!("{other:?}"),
                }
            })
        });
        let tasks: Vec<_> = tasks.collect();
        for _ in 0..random.below(60) {
            tokio::task::yield_now().await;
        }
        // From either side.
        match site.handle().peers().first() {
            Some(peer) if random.below(2) == 0 => peer.hang_up(),
            _ => client.hang_up(),
        }
        for task in tasks {
            published.extend(task.await.unwrap());
        }
    }
    let _last = client_with(site, store).await;
    eventually("all is settled", || store.unsettled() == 0).await;
    published
}

// spec: §12.9, §12.17
async fn exactly_once_holds_over_many_connections(net: Net) {
    let (ours, theirs) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    let (site, seen) = counting(net, &theirs).await;
    let published = publish_and_cut(&site, &ours, Qos::ExactlyOnce, 200).await;
    let once: BTreeMap<u32, usize> = published.into_iter().map(|number| (number, 1)).collect();
    eventually("all is handled", || seen.lock().unwrap().len() >= once.len()).await;
    assert_eq!(*seen.lock().unwrap(), once);
    eventually("nothing is remembered", || theirs.accepted() == 0).await;
}

// spec: §12.8, §12.17
async fn at_least_once_holds_over_many_connections(net: Net) {
    let (ours, theirs) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    let (site, seen) = counting(net, &theirs).await;
    let published = publish_and_cut(&site, &ours, Qos::AtLeastOnce, 100).await;
    eventually("all is handled", || seen.lock().unwrap().len() >= published.len()).await;
    let seen: Vec<u32> = seen.lock().unwrap().keys().copied().collect();
    assert_eq!(seen, published);
}

fn stored(id: u8, number: u8, attempts: u32) -> Stored {
    Stored {
        id: Id::from_bytes([id; 16]),
        topic: "count".into(),
        payload: fluxar::Payload::new(vec![number].into()).unwrap(),
        meta: Default::default(),
        qos: Qos::ExactlyOnce,
        retain: false,
        attempts,
        acknowledged: false,
    }
}

// spec: §12.17
async fn what_was_left_goes_first_and_in_order(net: Net) {
    let site = Site::open(net).await;
    let mut messages = site.handle().hub().messages("count").await.unwrap();
    let store = Arc::new(MemoryStore::new());
    for number in 0..5 {
        store.save(stored(number + 1, number, 2)).await.unwrap();
    }
    let client = client_with(&site, &store).await;
    let fate = client.publish("count", &5).qos(Qos::ExactlyOnce).await;
    assert_eq!(fate, Ok(Fate::Accepted { attempts: 1 }));
    for number in 0..=5 {
        assert_eq!(messages.next().await.unwrap().payload::<u32>().unwrap(), number);
    }
    eventually("all is settled", || store.unsettled() == 0).await;
}

// spec: §12.9, §12.17
async fn what_was_acknowledged_is_only_released(net: Net) {
    let theirs = Arc::new(MemoryStore::new());
    let (site, seen) = counting(net, &theirs).await;
    let ours = Arc::new(MemoryStore::new());
    let left = stored(7, 7, 1);
    theirs.accept(left.id).await.unwrap();
    ours.save(left.clone()).await.unwrap();
    ours.acknowledged(left.id).await.unwrap();
    let _client = client_with(&site, &ours).await;
    eventually("it is settled", || ours.unsettled() == 0 && theirs.accepted() == 0).await;
    assert!(seen.lock().unwrap().is_empty());
    // One that was accepted, but whose sender does not know that, is not handled again either.
    theirs.accept(left.id).await.unwrap();
    ours.save(left).await.unwrap();
    let _client = client_with(&site, &ours).await;
    eventually("it is settled", || ours.unsettled() == 0 && theirs.accepted() == 0).await;
    assert!(seen.lock().unwrap().is_empty());
}

// spec: §12.9, §12.17
async fn a_message_that_still_waits_is_not_handled_twice(net: Net) {
    let (ours, theirs) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    let kept = theirs.clone();
    let site = Site::with(net, |builder| builder.store_by(move |_| Some(kept.clone()))).await;
    // The hub cannot hold the second one before the first was taken and answered.
    let hub = site.handle().hub();
    let mut messages = hub.messages("count").buffer(1, 1 << 20).await.unwrap();
    for number in [1, 2] {
        ours.save(stored(number, number, 1)).await.unwrap();
    }
    let first = client_with(&site, &ours).await;
    eventually("one waits", || hub.stats().waiting == 1).await;
    first.hang_up();
    first.closed().await;
    let _second = client_with(&site, &ours).await;
    // It comes a second time while it still waits from the first.
    eventually("both connections are known", || hub.stats().published >= 2).await;
    let mut got = Vec::new();
    for _ in [1, 2] {
        let message = messages.next().await.unwrap();
        message.ack().await.unwrap();
        got.push(message.payload::<u32>().unwrap());
    }
    assert_eq!(got, [1, 2]);
    eventually("all is settled", || ours.unsettled() == 0 && theirs.accepted() == 0).await;
    assert_eq!((hub.stats().published, hub.stats().delivered), (2, 2));
}

/// Fails so often before it works.
#[derive(Debug, Default)]
struct Failing {
    saves: AtomicUsize,
    accepts: AtomicUsize,
    store: MemoryStore,
}

impl Failing {
    fn fails(left: &AtomicUsize) -> Result<(), StoreError> {
        let fails = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if fails { Err("no space left".into()) } else { Ok(()) }
    }
}

impl Store for Failing {
    fn save(&self, message: Stored) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            Self::fails(&self.saves)?;
            self.store.save(message).await
        })
    }

    fn attempted(&self, id: Id, attempts: u32) -> StoreFuture<'_, ()> {
        self.store.attempted(id, attempts)
    }

    fn acknowledged(&self, id: Id) -> StoreFuture<'_, ()> {
        self.store.acknowledged(id)
    }

    fn remove(&self, id: Id) -> StoreFuture<'_, ()> {
        self.store.remove(id)
    }

    fn load(&self) -> StoreFuture<'_, Vec<Stored>> {
        self.store.load()
    }

    fn accept(&self, id: Id) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            Self::fails(&self.accepts)?;
            self.store.accept(id).await
        })
    }

    fn is_accepted(&self, id: Id) -> StoreFuture<'_, bool> {
        self.store.is_accepted(id)
    }

    fn forget(&self, id: Id) -> StoreFuture<'_, ()> {
        self.store.forget(id)
    }
}

// spec: §12.17
async fn a_store_that_fails_is_not_relied_on(net: Net) {
    let theirs = Arc::new(Failing { accepts: 1.into(), ..Failing::default() });
    let kept = theirs.clone();
    let site = Site::with(net, |builder| builder.store_by(move |_| Some(kept.clone()))).await;
    let ours = Arc::new(Failing { saves: 1.into(), ..Failing::default() });
    let client = site.connect().store(ours.clone()).build().await.unwrap();
    // What is not saved is not sent.
    let error = client.publish("count", &1).qos(Qos::ExactlyOnce).await.unwrap_err();
    assert!(matches!(&error, PublishError::NotSent(why) if why.code == Code::UNAVAILABLE), "{error}");
    assert_eq!(site.handle().hub().stats().published, 0);
    // What cannot be remembered is not acknowledged, and comes again.
    let fate = client.publish("count", &2).qos(Qos::ExactlyOnce).await;
    assert_eq!(fate, Ok(Fate::Accepted { attempts: 2 }));
    eventually("all is settled", || ours.store.unsettled() == 0 && theirs.store.accepted() == 0).await;
}

// spec: §12.17
async fn what_is_settled_leaves_nothing_behind(net: Net) {
    let (ours, theirs) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    let (site, seen) = counting(net, &theirs).await;
    let client = client_with(&site, &ours).await;
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        for number in 0..20 {
            client.publish("count", &number).qos(qos).await.unwrap();
        }
    }
    eventually("all is settled", || ours.unsettled() == 0 && theirs.accepted() == 0).await;
    eventually("all is handled", || seen.lock().unwrap().values().all(|count| *count == 3)).await;
    // Refused for good, it is not tried again either.
    let error = client.publish("a b", &1).qos(Qos::ExactlyOnce).await.unwrap_err();
    assert!(matches!(error, PublishError::NotSent(_)), "{error}");
    assert_eq!(ours.unsettled(), 0);
}
