//! Links that break again and again, at any byte and in every way, while everything that there is flows over them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fluxar::{Client, Config, Hub, Peer, Reconnect, Stats, Tokio};
use fluxar_tests::net::{Flavor, Net, no_tasks_left, runtime};
use fluxar_tests::plan::Plan;
use fluxar_tests::proxy::Proxy;
use fluxar_tests::random::Random;
use fluxar_tests::site::Site;
use fluxar_tests::traffic::{Taking, Traffic, relay};
use tokio::task::JoinHandle;

/// What a run takes at most: what takes longer hangs.
const WATCHDOG: Duration = Duration::from_secs(240);

/// A run of the test.
#[derive(Clone, Copy, Debug)]
struct Run {
    flavor: Flavor,
    net: Net,
    clients: usize,
    cuts: usize,
    /// Whether the server keeps few sessions without a link, and not for long.
    losses: bool,
}

fn quick(config: &mut Config) {
    // A dead link is noticed soon.
    config.limits.heartbeat_ms = 100;
    config.handshake_timeout = Duration::from_millis(1500);
    // On a busy machine some wait long for their turn: whatever is sent again then is not for want of an answer.
    config.ack_timeout = WATCHDOG;
}

/// Nothing is left of all the traffic.
fn is_quiet(stats: &Stats) -> bool {
    let exchanges = [
        stats.calls_in_flight,
        stats.requests_running,
        stats.streams_open,
        stats.streams_serving,
        stats.subscriptions,
        stats.subscribers,
        stats.kept_messages,
    ];
    let bytes = [
        stats.stream_queued_bytes,
        stats.stream_held_bytes,
        stats.publish_bytes,
        stats.delivery_bytes,
        stats.held_publication_bytes,
        stats.queued_bytes,
        stats.request_bytes,
        stats.update_bytes,
    ];
    exchanges.iter().chain(&bytes).all(|number| *number == 0)
}

/// A server, and clients that reach it only by way of a proxy.
struct Scene {
    site: Site,
    proxy: Proxy,
    clients: Vec<Client>,
    flows: Vec<JoinHandle<bool>>,
    traffic: Arc<Traffic>,
    listening: Vec<Taking>,
}

impl Scene {
    async fn open(run: &Run, random: &mut Random) -> Self {
        let (traffic, hub) = (Traffic::new(run.losses), Hub::new(Tokio));
        let site = Site::with(run.net, |builder| {
            let (flowing, over_there, random) = (traffic.clone(), hub.clone(), Mutex::new(random.fork()));
            let builder = builder
                .configure(quick)
                .hub(hub.clone())
                .handle("once", traffic.once())
                .handle("follow", traffic.follow())
                .handle_stream("relay", relay)
                .on_connect(move |peer| {
                    let random = random.lock().unwrap().fork();
                    let flow = flowing.clone().flow(peer, over_there.clone(), random);
                    async move {
                        flow.await;
                    }
                });
            match run.losses {
                true => builder.resume_for(Duration::from_millis(25)).max_detached(2),
                false => builder,
            }
        })
        .await;
        let mut listening = vec![traffic.listen(&hub).await];
        let mut plans = random.fork();
        let are_there = Arc::new(AtomicBool::new(false));
        let first = are_there.clone();
        let proxy = Proxy::open(site.url(), move |_| {
            let plan = Plan::random(&mut plans, 1 << 19);
            // Where the first handshake of a client is cut, it has no session yet, and the server may have one for nobody.
            if first.load(Ordering::SeqCst) { plan } else { plan.later(1000) }
        })
        .await;
        let (mut clients, mut flows) = (Vec::new(), Vec::new());
        for _ in 0..run.clients {
            let patience =
                Reconnect::default().first(Duration::from_millis(2)).max(Duration::from_millis(20));
            // Before anybody can publish there: a hub without subscriptions takes what comes, for nobody.
            let hub = Hub::new(Tokio);
            listening.push(traffic.listen(&hub).await);
            let connect = Client::connect(proxy.url())
                .configure(quick)
                .hub(hub)
                .reconnect(patience)
                .handle("once", traffic.once())
                .handle("follow", traffic.follow())
                .handle_stream("relay", relay);
            let client = connect.build().await.unwrap();
            let flow = traffic.clone().flow(client.peer(), client.hub().clone(), random.fork());
            flows.push(tokio::spawn(flow));
            clients.push(client);
        }
        are_there.store(true, Ordering::SeqCst);
        Self { site, proxy, clients, flows, traffic, listening }
    }

    /// Lets it flow until so many links were cut, and to its end.
    async fn run(&mut self, cuts: usize, losses: bool) {
        while self.proxy.cuts() < cuts {
            self.traffic.check();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.proxy.calm();
        self.traffic.enough();
        for flow in self.flows.drain(..) {
            assert!(flow.await.unwrap() || losses, "a client has lost its session");
        }
        self.traffic.settled().await;
    }

    /// Nothing is left over: at first of the traffic, and then of the connections.
    async fn end(mut self, losses: bool) {
        self.traffic.unfollow();
        self.listening.clear();
        let (handle, count) = (self.site.handle().clone(), self.clients.len());
        // An offer that comes late, after another one has succeeded, begins a session that nobody knows of.
        let strays = if losses { 0 } else { self.traffic.strays() };
        assert!(strays as u64 <= handle.stats().resumes_refused, "{strays}");
        self.traffic.until("the others are gone", || handle.peers().len() == count + strays).await;
        let is_known = |peer: &Peer| peer.stats().calls_in_flight == 0;
        let known = || handle.peers().into_iter().filter(is_known).collect::<Vec<_>>();
        self.traffic.until("the clients' calls are done", || known().len() == count).await;
        let peers = known();
        let all =
            || peers.iter().map(|peer| peer.stats()).chain(self.clients.iter().map(|client| client.stats()));
        self.traffic.until("all is quiet", || all().all(|stats| is_quiet(&stats))).await;
        for client in self.clients.drain(..) {
            client.shut_down().await;
        }
        self.traffic.until("nobody is left", || handle.peers().len() == strays).await;
        let stats = handle.stats();
        assert_eq!((stats.detached, stats.handshakes, stats.connections), (strays, 0, 0));
        self.site.close().await;
    }
}

fn run(run: Run) {
    let since = Instant::now();
    let runtime = runtime(run.flavor);
    runtime.block_on(async {
        tokio::time::timeout(WATCHDOG, async {
            let mut random = Random::new();
            let mut scene = Scene::open(&run, &mut random).await;
            scene.run(run.cuts, run.losses).await;
            let (sums, links) = (&scene.traffic.sums, scene.proxy.links());
            let stats = scene.site.handle().stats();
            println!(
                "{} cuts of {links} links, {:?}: {sums:?}, {stats:?}",
                scene.proxy.cuts(),
                since.elapsed()
            );
            let [calls, items, streams, published] =
                [&sums.calls, &sums.items, &sums.streams, &sums.published]
                    .map(|sum| sum.load(Ordering::Relaxed));
            let cuts = run.cuts as u64;
            assert!(calls > cuts / 10 && items > cuts && streams > cuts / 100 && published > cuts);
            if !run.losses {
                assert!(stats.resumed > cuts / 3);
                // Only sessions that nobody knows of run out of time: those of offers that came late.
                assert!(stats.evicted == 0 && stats.expired <= stats.resumes_refused);
            } else {
                assert!(stats.resumed > 0 && stats.expired > 0 && stats.evicted > 0);
                assert!(
                    sums.failed_calls.load(Ordering::Relaxed) > 0
                        && sums.failed_streams.load(Ordering::Relaxed) > 0
                );
            }
            scene.end(run.losses).await;
        })
        .await
        .expect("the test hangs");
        no_tasks_left().await;
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
}

// spec: §8.8, §9.2, §9.3, §9.6, §9.7, §9.8, §10.9, §11.2, §12.8, §12.9
#[test]
fn a_thousand_cuts_change_nothing() {
    run(Run { flavor: Flavor::Multi, net: Net::Tcp, clients: 8, cuts: 1000, losses: false });
}

// spec: §9.7, §9.8
#[test]
fn cuts_of_unix_sockets_change_nothing_either() {
    run(Run { flavor: Flavor::Current, net: Net::Unix, clients: 4, cuts: 200, losses: false });
}

// spec: §8.8, §9.9, §10.9, §11.3, §12.8
#[test]
fn what_is_lost_with_a_session_is_told() {
    run(Run { flavor: Flavor::Multi, net: Net::Tcp, clients: 6, cuts: 300, losses: true });
}
