//! Links that are dead although their sockets say nothing, and links that are too busy to be asked whether they live.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fluxar::{Client, Config, Reconnect, Request, State, States};
use fluxar_proto::message::{Kind, verb};
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::plan::{Mishap, Plan};
use fluxar_tests::proxy::Proxy;
use fluxar_tests::site::Site;
use fluxar_tests::verbs::Terms;
use fluxar_tests::wire::{Message, Wire};
use fluxar_tests::{matrix, schedulers};
use tokio::sync::Notify;

matrix! {
    a_silent_link_is_noticed_and_the_session_goes_on
    silence_in_one_direction_is_noticed_by_either_side
    a_link_that_stalls_for_less_than_three_intervals_lives
}

schedulers! {
    a_busy_link_is_not_pinged
    a_quiet_link_is_pinged_once_an_interval
}

/// How often a quiet link is asked whether it lives.
const INTERVAL: Duration = Duration::from_millis(100);

fn lively(config: &mut Config) {
    config.limits.heartbeat_ms = INTERVAL.as_millis() as u32;
}

/// A server behind a proxy, and a client; a call that is answered once it may be.
struct Scene {
    site: Site,
    proxy: Proxy,
    client: Client,
    may: Arc<Notify>,
}

impl Scene {
    async fn open(net: Net, plan: impl FnMut(usize) -> Plan + Send + 'static) -> Self {
        let may = Arc::new(Notify::new());
        let site = Site::with(net, |builder| {
            let may = may.clone();
            builder.configure(lively).handle("wait", move |request: Request| {
                let may = may.clone();
                async move {
                    may.notified().await;
                    Ok(request.raw())
                }
            })
        })
        .await;
        let proxy = Proxy::open(site.url(), plan).await;
        let soon = Reconnect::default().first(Duration::from_millis(2)).max(Duration::from_millis(10));
        let connect = Client::connect(proxy.url()).configure(lively).reconnect(soon);
        let client = connect.build().await.unwrap();
        Self { site, proxy, client, may }
    }

    /// What becomes of the link from now on.
    async fn states(&self) -> States {
        let mut states = self.client.states();
        assert_eq!(states.next().await, Some(State::Connected));
        states
    }

    /// Nothing is left of the links that were silent.
    async fn end(self) {
        eventually("the silent links have ended", || self.proxy.alive() == 1).await;
        assert_eq!(self.site.handle().peers().len(), 1);
        self.client.shut_down().await;
        eventually("all have ended", || self.proxy.alive() == 0).await;
    }
}

/// How long it takes until the client misses its link, and until it has another one.
async fn resumed(states: &mut States) -> (Duration, Duration) {
    let (since, mut missed) = (Instant::now(), None);
    loop {
        match states.next().await.expect("it goes on") {
            State::Reconnecting { .. } => {
                missed.get_or_insert_with(|| since.elapsed());
            }
            State::Resumed { .. } => return (missed.expect("first it misses it"), since.elapsed()),
            state => panic!("{state:?}"),
        }
    }
}

// spec: §8.4, §8.8, §9.8
async fn a_silent_link_is_noticed_and_the_session_goes_on(net: Net) {
    let scene = Scene::open(net, |_| Plan::default()).await;
    let mut states = scene.states().await;
    for round in 0..3u32 {
        let peer = scene.client.peer();
        let call = tokio::spawn(async move { peer.call::<u32>("wait", &round).await });
        let there = scene.site.peer().await;
        eventually("the call runs", || there.stats().requests_running == 1).await;
        scene.proxy.strike(Mishap::SilenceBoth);
        // The answer goes where nobody hears it.
        scene.may.notify_one();
        let (missed, back) = resumed(&mut states).await;
        // What was last received is at most one interval old.
        assert!(missed > INTERVAL + INTERVAL / 2, "{missed:?}");
        assert!(back < INTERVAL * 40, "{missed:?}, {back:?}");
        assert_eq!(call.await.unwrap(), Ok(round));
        assert_eq!(scene.client.call::<u32>("echo", &round).await, Ok(round));
    }
    assert_eq!((scene.proxy.cuts(), scene.proxy.links()), (3, 4));
    scene.end().await;
}

// spec: §8.4, §8.8
async fn silence_in_one_direction_is_noticed_by_either_side(net: Net) {
    // Not in the handshake, which has a time of its own.
    let plan = |number| match number {
        0 => Plan::there(2000, Mishap::Silence),
        1 => Plan::back(2000, Mishap::Silence),
        _ => Plan::default(),
    };
    let scene = Scene::open(net, plan).await;
    let mut states = scene.states().await;
    for _ in 0..2 {
        let peer = scene.client.peer();
        let calls = tokio::spawn(async move {
            for number in 0..30u32 {
                let text = "x".repeat(200);
                assert_eq!(peer.call::<(u32, String)>("echo", &(number, &text)).await, Ok((number, text)));
            }
        });
        let (_, back) = resumed(&mut states).await;
        assert!(back < INTERVAL * 40, "{back:?}");
        calls.await.unwrap();
    }
    assert_eq!(scene.proxy.links(), 3);
    scene.end().await;
}

// spec: §8.4
async fn a_link_that_stalls_for_less_than_three_intervals_lives(net: Net) {
    let scene = Scene::open(net, |_| Plan::default()).await;
    for _ in 0..3 {
        scene.proxy.strike(Mishap::StallBoth(INTERVAL));
        assert_eq!(scene.client.call::<u32>("echo", &1).await, Ok(1));
    }
    assert!(scene.client.state().is_connected());
    scene.end().await;
}

/// How many pings come, while something is done.
fn pings(messages: &[Message]) -> usize {
    let is_ping =
        |message: &&Message| message.kind == Kind::Control && message.target.as_deref() == Some(verb::PING);
    messages.iter().filter(is_ping).count()
}

/// Long enough that a busy machine does not make a busy link a quiet one.
const LONG: u32 = 800;

// spec: §8.4
async fn a_busy_link_is_not_pinged(net: Net) {
    let site = Site::open(net).await;
    let mut wire = Wire::with(site.url(), Terms::default().limit("heartbeat_ms", LONG)).await;
    let (since, mut heard) = (Instant::now(), Vec::new());
    while since.elapsed() < Duration::from_millis(u64::from(LONG)) * 5 / 2 {
        let call = Message::call("echo").payload(&1);
        wire.send(&call).await;
        loop {
            heard.push(wire.receive().await);
            if heard.last().unwrap().reference == Some(call.id) {
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(heard.len() > 10, "the link was not busy");
    assert_eq!(pings(&heard), 0);
}

// spec: §8.4
async fn a_quiet_link_is_pinged_once_an_interval(net: Net) {
    let site = Site::open(net).await;
    let mut wire = Wire::with(site.url(), Terms::default().limit("heartbeat_ms", LONG / 4)).await;
    let (since, mut heard) = (Instant::now(), Vec::new());
    while pings(&heard) < 5 {
        let message = wire.receive().await;
        // Who answers lives, whatever else it says.
        wire.send(&Message::continuation(Kind::Control, message.id)).await;
        heard.push(message);
    }
    assert!(since.elapsed() >= Duration::from_millis(u64::from(LONG)) * 5 / 4, "{:?}", since.elapsed());
    assert_eq!(heard.len(), 5, "there is nothing else to say: {heard:?}");
}
