//! What goes on when a client comes back: all of it where its session does, and what is safe to repeat where that is lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fluxar::{
    Client, ClientBuilder, Code, Fate, MemoryStore, Message, Qos, Reconnect, Request, ServerBuilder, State,
    States, StreamRequest,
};
use fluxar_proto::message::{Id, Kind, Meta};
use fluxar_tests::mortal::Mortal;
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::plan::Mishap;
use fluxar_tests::proxy::Proxy;
use fluxar_tests::signal::Counter;
use fluxar_tests::site::Site;
use fluxar_tests::verbs::Terms;
use fluxar_tests::wire::{self, Trap, Wire};
use fluxar_tests::{matrix, schedulers};
use tokio::sync::watch;

matrix! {
    nothing_is_missing_after_a_cut
    what_is_open_goes_on_over_many_cuts
    a_lost_session_is_told_and_what_may_go_on_does
}

schedulers! {
    calls_that_are_idempotent_are_made_again
    messages_without_an_answer_are_published_again
    subscriptions_are_subscribed_again
    handlers_for_a_lost_session_are_withdrawn
    a_store_holds_on_over_a_lost_session
}

/// Tries again soon, and for ever.
fn connect(url: &str) -> ClientBuilder {
    let soon = Reconnect::default().first(Duration::from_millis(1)).max(Duration::from_millis(20));
    Client::connect(url).reconnect(soon)
}

/// What `wanted` has to say to the first state that it has something to say to.
async fn until<T>(states: &mut States, mut wanted: impl FnMut(State) -> Option<T>) -> T {
    loop {
        let state = states.next().await.expect("the connection lives");
        if let Some(found) = wanted(state) {
            return found;
        }
    }
}

fn connected(state: State) -> Option<()> {
    (state == State::Connected).then_some(())
}

fn resumed(state: State) -> Option<u64> {
    assert!(!matches!(state, State::Lost { .. }), "the session goes on");
    if let State::Resumed { resent } = state { Some(resent) } else { None }
}

fn lost(state: State) -> Option<(usize, usize, usize)> {
    assert!(!matches!(state, State::Resumed { .. }), "the session is lost");
    match state {
        State::Lost { calls, streams, subscriptions } => Some((calls, streams, subscriptions)),
        _ => None,
    }
}

/// A gate that handlers wait for, and what they count.
#[derive(Clone)]
struct Gate {
    open: watch::Sender<bool>,
    entered: Counter,
}

impl Gate {
    fn new() -> Self {
        Self { open: watch::Sender::new(false), entered: Counter::new() }
    }

    async fn pass(&self) {
        self.entered.add();
        self.open.subscribe().wait_for(|open| *open).await.expect("the sender is here");
    }

    fn open(&self) {
        self.open.send_replace(true);
    }
}

/// Adds a call that waits for the gate, and a stream that tells its sum after each number.
fn gated(builder: ServerBuilder, gate: &Gate) -> ServerBuilder {
    let gate = gate.clone();
    builder
        .handle("wait", move |request: Request| {
            let gate = gate.clone();
            async move {
                gate.pass().await;
                Ok(request.raw())
            }
        })
        .handle_stream("sum", |mut request: StreamRequest| async move {
            let mut sum = 0;
            while let Some(number) = request.next::<u64>().await {
                sum += number?;
                request.send(&sum).await?;
            }
            Ok(sum)
        })
}

// spec: §9.7
async fn nothing_is_missing_after_a_cut(net: Net) {
    let gate = Gate::new();
    let site = Site::with(net, |builder| gated(builder, &gate)).await;
    let proxy = Proxy::clear(site.url()).await;
    let client = connect(proxy.url()).build().await.unwrap();
    let mut states = client.states();
    let mut messages = client.messages("news").await.unwrap();
    let call = client.call::<u32>("wait", &7).start().await.unwrap();
    gate.entered.reached(1).await;
    let mut stream = client.stream::<u64>("sum", &()).await.unwrap();
    stream.send(&1).await.unwrap();
    assert_eq!(stream.next().await.unwrap(), Ok(1));

    proxy.shut(true);
    proxy.strike(Mishap::Reset);
    eventually("it is noticed", || !client.state().is_connected()).await;
    // Nobody can get through; what is done meanwhile on either side waits.
    stream.send(&2).await.unwrap();
    let publications = tokio::spawn({
        let peer = client.peer();
        async move {
            let once = peer.publish("other", &1).qos(Qos::AtLeastOnce).await;
            (once, peer.publish("other", &2).qos(Qos::ExactlyOnce).await)
        }
    });
    site.handle().hub().publish("news", &41).qos(Qos::ExactlyOnce).await.unwrap();
    gate.open();
    proxy.shut(false);
    until(&mut states, resumed).await;

    assert_eq!(call.await, Ok(7));
    assert_eq!(stream.next().await.unwrap(), Ok(3));
    let accepted = Ok(Fate::Accepted { attempts: 1 });
    assert_eq!(publications.await.unwrap(), (accepted.clone(), accepted));
    let message = messages.next().await.unwrap();
    assert_eq!((message.payload::<u32>(), message.is_duplicate()), (Ok(41), false));
    assert_eq!((gate.entered.get(), client.state().is_connected()), (1, true));
}

// spec: §9.7
async fn what_is_open_goes_on_over_many_cuts(net: Net) {
    let gate = Gate::new();
    let site = Site::with(net, |builder| gated(builder, &gate)).await;
    let proxy = Proxy::clear(site.url()).await;
    let client = connect(proxy.url()).build().await.unwrap();
    let mut states = client.states();
    let (mut sender, mut receiver) = client.stream::<u64>("sum", &()).await.unwrap().split();
    let mut sum = 0;
    for round in 1..=20 {
        sender.send(&round).await.unwrap();
        proxy.strike(if round % 2 == 0 { Mishap::Reset } else { Mishap::Close });
        sum += round;
        assert_eq!(receiver.next().await.unwrap(), Ok(sum));
        until(&mut states, resumed).await;
    }
    sender.end().await.unwrap();
    assert!(receiver.next().await.is_none());
    assert_eq!(site.handle().peers().len(), 1);
}

// spec: §9.9, §10.9
async fn a_lost_session_is_told_and_what_may_go_on_does(net: Net) {
    let gate = Gate::new();
    let server = Mortal::birth(net, |builder| gated(builder, &gate)).await;
    let client = connect(server.url()).build().await.unwrap();
    let mut states = client.states();
    let mut messages = client.messages("news").await.unwrap();
    let call = client.call::<u32>("wait", &7).start().await.unwrap();
    gate.entered.reached(1).await;
    let mut stream = client.stream::<u64>("sum", &()).await.unwrap();
    stream.send(&1).await.unwrap();
    assert_eq!(stream.next().await.unwrap(), Ok(1));

    let server = Mortal::at(&server.die(), |builder| builder).await;
    assert_eq!(until(&mut states, lost).await, (1, 1, 1));
    until(&mut states, connected).await;
    let error = call.await.unwrap_err();
    assert_eq!((error.code, error.processed), (Code::UNAVAILABLE, None), "{error}");
    assert_eq!(stream.next().await.unwrap().unwrap_err().code, Code::UNAVAILABLE);
    eventually("it is subscribed again", || server.handle().hub().stats().subscriptions == 1).await;
    server.handle().hub().publish("news", &42).await.unwrap();
    assert_eq!(messages.next().await.unwrap().payload::<u32>(), Ok(42));
    assert!(messages.error().is_none());
}

// spec: §16.4
async fn calls_that_are_idempotent_are_made_again(net: Net) {
    let (gate, opened) = (Gate::new(), Gate::new());
    opened.open();
    let server = Mortal::birth(net, |builder| gated(builder, &gate)).await;
    let client = connect(server.url()).build().await.unwrap();
    let mut states = client.states();
    let peer = client.peer();
    let again = tokio::spawn(async move { peer.call::<u32>("wait", &1).idempotent().await });
    let peer = client.peer();
    let once = tokio::spawn(async move { peer.call::<u32>("wait", &2).await });
    gate.entered.reached(2).await;
    let _server = Mortal::at(&server.die(), |builder| gated(builder, &opened)).await;
    assert_eq!(until(&mut states, lost).await, (1, 0, 0));
    assert_eq!(again.await.unwrap(), Ok(1));
    let error = once.await.unwrap().unwrap_err();
    assert_eq!((error.code, error.processed), (Code::UNAVAILABLE, None), "{error}");
    assert_eq!((gate.entered.get(), opened.entered.get()), (2, 1));
}

// spec: §12.8, §12.17
async fn messages_without_an_answer_are_published_again(_: Net) {
    let trap = Trap::open().await;
    let terms = Terms::topics();
    let (client, mut wire) = tokio::join!(connect(&trap.url()).build(), trap.with(terms.clone()));
    let client = client.unwrap();
    let mut states = client.states();
    let peer = client.peer();
    let fate = tokio::spawn(async move { peer.publish("a", &5).qos(Qos::ExactlyOnce).await });
    let first = wire.receive().await;
    assert_eq!((first.kind, first.says("qos"), first.says("attempt")), (Kind::Message, Some(2), None));
    drop(wire);
    let mut wire = trap.with(terms).await;
    assert_eq!(until(&mut states, lost).await, (0, 0, 0));
    let second = wire.receive().await;
    assert_eq!((second.id, second.says("attempt")), (first.id, Some(2)));
    assert_eq!(Meta::decode(&second.meta).unwrap().get_bool("dup"), Some(true));
    wire.send(&wire::Message::ack(first.id)).await;
    assert_eq!(fate.await.unwrap(), Ok(Fate::Accepted { attempts: 2 }));
}

// spec: §9.9
async fn subscriptions_are_subscribed_again(_: Net) {
    let trap = Trap::open().await;
    let terms = Terms::topics();
    let (client, mut wire) = tokio::join!(connect(&trap.url()).build(), trap.with(terms.clone()));
    let client = client.unwrap();
    let (messages, first) = tokio::join!(client.messages("a.*"), confirm(&mut wire));
    let mut messages = messages.unwrap();
    for number in 0..3_u32 {
        drop(wire);
        wire = trap.with(terms.clone()).await;
        let again = confirm(&mut wire).await;
        assert_ne!(again, first);
        let delivery = wire::Message::delivery(again).with("topic", "a.b").payload(&number);
        wire.send(&delivery).await;
        assert_eq!(messages.next().await.unwrap().payload::<u32>(), Ok(number));
    }
    // It ends under the name that it has now.
    drop(messages);
    assert_eq!(wire.receive().await.kind, Kind::Unsubscribe);
}

/// Confirms the subscription that comes next.
async fn confirm(wire: &mut Wire) -> Id {
    let subscription = wire.receive().await;
    assert_eq!((subscription.kind, subscription.target.as_deref()), (Kind::Subscribe, Some("a.*")));
    wire.send(&wire::Message::confirmation(subscription.id)).await;
    subscription.id
}

// spec: §8.8
async fn handlers_for_a_lost_session_are_withdrawn(_: Net) {
    let (started, dropped) = (Counter::new(), Counter::new());
    let (starts, drops) = (started.clone(), dropped.clone());
    let trap = Trap::open().await;
    let building = connect(&trap.url()).handle("hang", move |_| {
        let guard = drops.guard();
        starts.add();
        async move {
            std::future::pending::<()>().await;
            drop(guard);
            Ok(())
        }
    });
    let (client, mut wire) = tokio::join!(building.build(), trap.established());
    let client = client.unwrap();
    for round in 1..=3 {
        wire.send(&wire::Message::call("hang")).await;
        started.reached(round).await;
        drop(wire);
        wire = trap.established().await;
        dropped.reached(round).await;
    }
    assert_eq!(client.error(), None);
}

// spec: §12.9, §12.17
async fn a_store_holds_on_over_a_lost_session(net: Net) {
    let (ours, theirs) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    let seen = Arc::new(Mutex::new(BTreeMap::<u32, usize>::new()));
    let counting = |builder: ServerBuilder| {
        let theirs = theirs.clone();
        builder.store_by(move |_| Some(theirs.clone()))
    };
    let count = async |server: &Mortal| {
        let seen = seen.clone();
        let handler = move |message: Message| {
            let seen = seen.clone();
            async move {
                *seen.lock().unwrap().entry(message.payload()?).or_default() += 1;
                Ok(())
            }
        };
        server.handle().hub().subscribe("count", handler).await.unwrap();
    };
    let mut server = Mortal::birth(net, counting).await;
    count(&server).await;
    let client = connect(server.url()).store(ours.clone()).build().await.unwrap();
    let mut published = Vec::new();
    for round in 0..10_u32 {
        for number in round * 10..round * 10 + 10 {
            let peer = client.peer();
            published.push(tokio::spawn(async move {
                peer.publish("count", &number).qos(Qos::ExactlyOnce).await
            }));
        }
        for _ in 0..round * 20 {
            tokio::task::yield_now().await;
        }
        let url = server.die();
        server = Mortal::at(&url, counting).await;
        count(&server).await;
    }
    for fate in published {
        assert!(matches!(fate.await.unwrap(), Ok(Fate::Accepted { .. })));
    }
    eventually("all is settled", || ours.unsettled() == 0).await;
    let seen = seen.lock().unwrap();
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    // What a process has handled when it dies, and not noted yet, is handled again by the next one: never more than that.
    assert!(seen.values().all(|times| *times <= 2), "{seen:?}");
}
