//! What peers can make a process hold, counted by its allocator. One test at a time: they share that count.

use std::time::Duration;

use fluxar::{Client, Code, ConnectionError, Raw};
use fluxar_proto::{Timeout, frame};
use fluxar_tests::memory::{MIB, Meter, alone, settled};
use fluxar_tests::net::{Net, WATCHDOG, eventually};
use fluxar_tests::process::open_files;
use fluxar_tests::signal::Counter;
use fluxar_tests::site::Site;
use fluxar_tests::wire::{Message, Wire, rude_connection};
use futures_util::future::join_all;
use peak_alloc::PeakAlloc;
use tokio::net::TcpStream;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// A client of `site` works; whatever was needed once is there.
async fn warm_up(site: &Site) -> Client {
    let client = site.client().await;
    for number in 0..100u32 {
        assert_eq!(client.call::<u32>("echo", &number).await, Ok(number));
    }
    client
}

// spec: §6.9, §17.2
#[test]
fn ten_thousand_half_open_handshakes_leave_nothing_behind() {
    alone(|| async {
        let site = Site::open(Net::Tcp).await;
        let client = warm_up(&site).await;
        let offer = Message::offer().frame();
        let begun: [&[u8]; 4] = [&[], &[0], &offer[..4], &offer[..offer.len() - 1]];
        let half_open = async |number: usize| {
            let mut wire = Wire::connect(site.url()).await;
            wire.send_bytes(begun[number % 4]).await;
            match number % 3 {
                0 => drop(wire),
                1 => {
                    wire.finish().await;
                    wire.ended().await;
                }
                _ => drop(rude_connection(site.url()).await),
            }
        };
        join_all((0..100).map(half_open)).await;
        let quiet = || site.handle().peers().len() == 1;
        eventually("the first are gone", quiet).await;
        tokio::time::timeout(WATCHDOG, settled(open_files)).await.expect("files settle");
        let (before, files) = (MEMORY.current_usage(), open_files());
        for round in 0..100 {
            join_all((0..100).map(|number| half_open(round * 100 + number))).await;
        }
        eventually("the files are closed", || open_files() <= files).await;
        MEMORY.back_to(before, MIB / 4).await;
        assert_eq!(client.call::<u8>("echo", &1).await, Ok(1));
    });
}

// spec: §15.3, §17.2
#[test]
fn silent_links_hold_little_and_not_for_ever() {
    alone(|| async {
        let short = Duration::from_millis(1500);
        let site = Site::with(Net::Tcp, |builder| {
            builder.configure(|config| config.handshake_timeout = short).max_handshakes(300)
        })
        .await;
        let client = warm_up(&site).await;
        let address = site.url().strip_prefix("tcp://").unwrap().to_owned();
        let files = open_files();
        let (peak, silent) = MEMORY.peak_of(join_all((0..1000).map(|_| TcpStream::connect(&address)))).await;
        assert!(peak < 1000 * 8 * 1024, "{peak} bytes for 1,000 links at both ends");
        // One of ours for each, and on the server's side no more than it bears.
        eventually("the oldest are cut", || open_files() <= files + 1000 + 300).await;
        assert_eq!(client.call::<u8>("echo", &1).await, Ok(1));
        assert_eq!(site.client().await.call::<u8>("echo", &1).await, Ok(1));
        eventually("all are cut", || open_files() <= files + 1000).await;
        drop(silent);
        eventually("all are closed", || open_files() <= files).await;
    });
}

// spec: §3.3, §17.2
#[test]
fn announced_lengths_reserve_nothing() {
    alone(|| async {
        let site = Site::open(Net::Tcp).await;
        let client = warm_up(&site).await;
        let mut wires = Vec::new();
        for _ in 0..20 {
            wires.push(site.wire().await);
        }
        let (peak, ()) = MEMORY
            .peak_of(async {
                for wire in &mut wires {
                    // Sixteen megabytes are allowed, and announced; a few bytes come.
                    wire.send_bytes(&frame::prefix(16 << 20)).await;
                    wire.send_bytes(&[0x87; 100]).await;
                }
                let peers = site.handle().peers();
                assert_eq!(peers.len(), 21);
                assert_eq!(client.call::<u8>("echo", &1).await, Ok(1));
                settled(|| MEMORY.current_usage() / MIB).await;
            })
            .await;
        assert!(peak < 20 * 200 * 1024, "{peak} bytes for 20 links that announced {} MiB", 20 * 16);
    });
}

// spec: §8.4, §10.6, §17.2
#[test]
fn a_peer_that_never_reads_costs_what_its_limits_say() {
    alone(|| async {
        let ended = Counter::new();
        let site = Site::with(Net::Tcp, |builder| {
            let ended = ended.clone();
            builder
                .write_timeout(Duration::from_millis(500))
                .configure(|config| {
                    config.limits.max_calls = 32;
                    config.misuse_capacity = 100;
                })
                .handle("large", |_| async { Ok("x".repeat(MIB / 4)) })
                .on_connect(move |peer| {
                    let ended = ended.clone();
                    async move {
                        let why = peer.closed().await;
                        if matches!(why, ConnectionError::TimedOut(Timeout::Write)) {
                            ended.add();
                        }
                    }
                })
        })
        .await;
        let client = warm_up(&site).await;
        let before = MEMORY.current_usage();
        let mut wire = site.wire().await;
        let (peak, ()) = MEMORY
            .peak_of(async {
                let request = Message::call("large");
                for _ in 0..32 {
                    wire.send(&Message::call("large")).await;
                }
                // And all that costs nothing more: pings, updates of nothing, cancels of nothing.
                let mut noise = Vec::new();
                for _ in 0..50 {
                    noise.extend(Message::control("ping").frame());
                    noise.extend(Message::update(request.id).payload(&"x".repeat(100)).frame());
                }
                for _ in 0..100 {
                    if wire.try_send_bytes(&noise).await.is_err() {
                        break;
                    }
                }
                assert_eq!(client.call::<u8>("echo", &1).await, Ok(1));
                ended.reached(1).await;
            })
            .await;
        // As many responses as it may have calls, once as values and once encoded; and the buffers.
        assert!(peak < 32 * MIB / 4 + 8 * MIB, "{peak} bytes");
        drop(wire);
        MEMORY.back_to(before, MIB / 2).await;
        assert_eq!(client.call::<u8>("echo", &1).await, Ok(1));
    });
}

// spec: §10.3, §15.3, §17.2
#[test]
fn floods_of_updates_are_held_within_their_limits() {
    alone(|| async {
        let site = Site::open(Net::Tcp).await;
        let client = warm_up(&site).await;
        let mut wire = site.wire().await;
        let calls: Vec<_> = (0..50).map(|_| Message::call("never")).collect();
        for call in &calls {
            wire.send(call).await;
        }
        let (peak, ()) = MEMORY
            .peak_of(async {
                for round in 0..20 {
                    for call in &calls {
                        wire.send(&Message::update(call.id).payload(&"x".repeat(40_000))).await;
                    }
                    assert_eq!(client.call::<u32>("echo", &round).await, Ok(round));
                }
                wire.ping().await;
            })
            .await;
        // 40 MB were sent, of which 4 MiB may be held.
        assert!(peak < 4 * MIB + 3 * MIB, "{peak} bytes");
        let peer = site.handle().peers().remove(1);
        assert!(peer.stats().updates_dropped > 800, "{:?}", peer.stats());
    });
}

// spec: §10.7, §17.2
#[test]
fn floods_of_refusals_are_cut_off_before_they_cost() {
    alone(|| async {
        let site = Site::open(Net::Tcp).await;
        let client = warm_up(&site).await;
        let flood: Vec<u8> = (0..30_000).flat_map(|_| Message::call("no such method").frame()).collect();
        let before = MEMORY.current_usage();
        let (peak, ()) = MEMORY
            .peak_of(async {
                for _ in 0..5 {
                    let mut wire = site.wire().await;
                    // It may be cut off before all is sent.
                    wire.try_send_bytes(&flood).await.ok();
                    assert_eq!(wire.closed_for().await, Code::RESOURCE_EXHAUSTED);
                }
            })
            .await;
        assert!(peak < 4 * MIB, "{peak} bytes");
        MEMORY.back_to(before, MIB / 2).await;
        assert_eq!(client.call::<u8>("echo", &1).await, Ok(1));
    });
}

#[test]
fn a_long_life_leaves_nothing_behind() {
    alone(|| async {
        // Giving up is part of life here.
        let patient = |config: &mut fluxar::Config| config.misuse_capacity = 1_000_000;
        let site = Site::with(Net::Tcp, |builder| builder.configure(patient)).await;
        let client = warm_up(&site).await;
        let work = async |rounds: u32| {
            for round in 0..rounds {
                let calls = (0..50u32).map(|number| {
                    let call = client.call::<u32>("echo", &number);
                    async move {
                        match number % 5 {
                            0 => drop(call.start().await),
                            1 => drop(call.timeout(Duration::from_micros(100)).await),
                            _ => assert_eq!(call.await, Ok(number)),
                        }
                    }
                });
                join_all(calls).await;
                let mut counting = client.call::<u32>("count", &20).start().await.unwrap();
                assert_eq!(counting.next_update::<u32>().await, Some(Ok(0)));
                client.ping().await.unwrap();
                let large = "x".repeat(1000 * (round as usize % 300));
                assert!(client.call::<String>("echo", &large).await == Ok(large));
            }
        };
        work(30).await;
        let before = settled(|| MEMORY.current_usage()).await;
        work(200).await;
        MEMORY.back_to(before, MIB / 4).await;
        let stats = client.stats();
        assert_eq!((stats.calls_in_flight, stats.requests_running), (0, 0));
    });
}

#[test]
fn connections_that_end_give_everything_back() {
    alone(|| async {
        let site = Site::open(Net::Tcp).await;
        let _client = warm_up(&site).await;
        let visit = async |number: usize| {
            let client = site.client().await;
            let text = "x".repeat(number % 5 * 50_000);
            assert!(client.call::<String>("echo", &text).await == Ok(text));
            let open = client.call::<Raw>("never", &()).start().await;
            if number.is_multiple_of(2) {
                drop(client)
            } else {
                client.shut_down().await;
            }
            drop(open);
        };
        join_all((0..50).map(visit)).await;
        eventually("the first are gone", || site.handle().peers().len() == 1).await;
        let (files, before) = (settled(open_files).await, settled(|| MEMORY.current_usage()).await);
        for round in 0..10 {
            join_all((0..50).map(|number| visit(round * 50 + number))).await;
        }
        eventually("the rest are gone", || site.handle().peers().len() == 1).await;
        eventually("the files are closed", || open_files() <= files).await;
        MEMORY.back_to(before, MIB / 4).await;
    });
}

/// What the tests above rest on.
#[test]
fn the_allocator_counts() {
    alone(|| async {
        let (peak, kept) = MEMORY.peak_of(async { vec![0u8; 3 * MIB] }).await;
        assert!(peak.abs_diff(3 * MIB) < MIB / 8, "{peak}");
        let before = MEMORY.current_usage();
        drop(kept);
        assert!(MEMORY.current_usage() + 3 * MIB <= before + MIB / 8);
    });
}
