//! Messages that go by way of a durable store keep the order in which the application published them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use fluxar::{Fate, Id, MemoryStore, Message, Qos, Store, StoreFuture, Stored};
use fluxar_tests::matrix;
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::site::Site;
use futures_util::FutureExt;

matrix! {
    what_is_published_at_once_keeps_its_order
    a_save_that_takes_long_is_overtaken_by_none
    a_save_that_fails_holds_up_none
}

type Seen = Arc<Mutex<Vec<u32>>>;

/// A server that notes what is published on `x`.
async fn noting(net: Net) -> (Site, Seen) {
    let (site, seen) = (Site::open(net).await, Seen::default());
    let note = seen.clone();
    let handler = move |message: Message| {
        let note = note.clone();
        async move {
            note.lock().unwrap().push(message.payload()?);
            Ok(())
        }
    };
    site.handle().hub().subscribe("x", handler).await.unwrap();
    (site, seen)
}

/// Some saves wait until they are let go, or fail then.
#[derive(Debug, Default)]
struct Slow {
    store: MemoryStore,
    gates: Mutex<BTreeMap<u32, tokio::sync::oneshot::Receiver<bool>>>,
}

impl Store for Slow {
    fn save(&self, message: Stored) -> StoreFuture<'_, ()> {
        let gate = self.gates.lock().unwrap().remove(&u32::from(message.payload.as_bytes()[0]));
        Box::pin(async move {
            if let Some(gate) = gate
                && !gate.await.unwrap()
            {
                return Err("the disk is full".into());
            }
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
        self.store.accept(id)
    }

    fn is_accepted(&self, id: Id) -> StoreFuture<'_, bool> {
        self.store.is_accepted(id)
    }

    fn forget(&self, id: Id) -> StoreFuture<'_, ()> {
        self.store.forget(id)
    }
}

// spec: §12.6, §12.17
async fn what_is_published_at_once_keeps_its_order(net: Net) {
    let (site, seen) = noting(net).await;
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        seen.lock().unwrap().clear();
        let client = site.connect().store(Arc::new(MemoryStore::new())).build().await.unwrap();
        let publish = (0..300_u32).map(|number| client.publish("x", &number).qos(qos).into_future());
        let fates = futures_util::future::join_all(publish).await;
        assert!(fates.iter().all(|fate| *fate == Ok(Fate::Accepted { attempts: 1 })));
        eventually("all are handled", || seen.lock().unwrap().len() == 300).await;
        assert_eq!(*seen.lock().unwrap(), (0..300).collect::<Vec<_>>());
    }
}

async fn slow(site: &Site, gated: &[u32]) -> (fluxar::Client, Vec<tokio::sync::oneshot::Sender<bool>>) {
    let store = Slow::default();
    let mut gates = Vec::new();
    for number in gated {
        let (open, gate) = tokio::sync::oneshot::channel();
        store.gates.lock().unwrap().insert(*number, gate);
        gates.push(open);
    }
    (site.connect().store(Arc::new(store)).build().await.unwrap(), gates)
}

// spec: §12.6, §12.17
async fn a_save_that_takes_long_is_overtaken_by_none(net: Net) {
    let (site, seen) = noting(net).await;
    let (client, gates) = slow(&site, &[0, 3]).await;
    let publish = (0..6_u32).map(|number| client.publish("x", &number).qos(Qos::AtLeastOnce).into_future());
    let mut publish = futures_util::future::join_all(publish);
    assert!((&mut publish).now_or_never().is_none());
    // What is not kept is not held up.
    client.publish("x", &9).await.unwrap();
    eventually("it came", || *seen.lock().unwrap() == [9]).await;
    for gate in gates.into_iter().rev() {
        gate.send(true).unwrap();
    }
    assert!(publish.await.iter().all(Result::is_ok));
    eventually("all are handled", || seen.lock().unwrap().len() == 7).await;
    assert_eq!(*seen.lock().unwrap(), [9, 0, 1, 2, 3, 4, 5]);
}

// spec: §12.17
async fn a_save_that_fails_holds_up_none(net: Net) {
    let (site, seen) = noting(net).await;
    let (client, gates) = slow(&site, &[0, 2]).await;
    let publish = (0..4_u32).map(|number| client.publish("x", &number).qos(Qos::AtLeastOnce).into_future());
    let publish = futures_util::future::join_all(publish);
    for gate in gates.into_iter().rev() {
        gate.send(false).unwrap();
    }
    let fates: Vec<bool> = publish.await.iter().map(Result::is_ok).collect();
    assert_eq!(fates, [false, true, false, true]);
    eventually("the others are handled", || *seen.lock().unwrap() == [1, 3]).await;
}
