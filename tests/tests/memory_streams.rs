//! What peers can make a process hold by streams, counted by its allocator. One test at a time: they share that count.

use std::time::Duration;

use fluxar::{Client, Code, Config, Error, HandlerError, Raw, ServerBuilder, StreamRequest};
use fluxar_tests::memory::{MIB, Meter, alone, settled};
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::site::Site;
use fluxar_tests::verbs::Terms;
use fluxar_tests::wire::{Message, Wire};
use futures_util::SinkExt;
use futures_util::future::join_all;
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

async fn idle(_request: StreamRequest) -> Result<(), HandlerError> {
    std::future::pending().await
}

async fn forever(mut request: StreamRequest) -> Result<(), HandlerError> {
    let text = "x".repeat(1000);
    loop {
        request.send(&text).await?;
    }
}

async fn echo(mut request: StreamRequest) -> Result<u8, HandlerError> {
    let (mut sender, mut receiver) = request.split::<Raw>()?;
    sender.send_all(&mut receiver).await?;
    Ok(7)
}

/// A server with streams, a client at work, and the scripted peer.
async fn scene(change: impl FnOnce(ServerBuilder) -> ServerBuilder) -> (Site, Client, Wire) {
    let site = Site::with(Net::Tcp, |builder| {
        let builder = builder.handle_stream("idle", idle).handle_stream("forever", forever);
        change(builder.handle_stream("echo", echo))
    })
    .await;
    let client = site.client().await;
    for number in 0..50_u32 {
        works(&client, number).await;
    }
    let wire = Wire::with(site.url(), Terms::streams()).await;
    (site, client, wire)
}

async fn works(client: &Client, number: u32) {
    let mut stream = client.stream::<u32>("echo", &()).await.unwrap();
    stream.send(&number).await.unwrap();
    assert_eq!(stream.next().await, Some(Ok(number)));
    assert_eq!(stream.finish::<u8>().await, Ok(7));
}

// spec: §11.5, §17.2
#[test]
fn what_nobody_reads_is_held_within_the_windows() {
    alone(|| async {
        const WINDOW: usize = 128 << 10;
        let (site, client, mut wire) = scene(|builder| {
            builder.configure(|config| {
                config.limits.max_streams = 16;
                config.limits.stream_window = WINDOW as u32;
            })
        })
        .await;
        let before = settled(|| MEMORY.current_usage()).await;
        // In the smallest items that there are, and in those that are taken over with what they came in.
        for items in [
            |id| Message::item(id).payload(&0),
            |id| Message::items(id).payload(&[0_u8; 30]),
            |id| Message::item(id).payload(&"x".repeat(8200)),
            |id| Message::item(id).payload(&"x".repeat(WINDOW / 2 + 1)),
        ] {
            let openings: Vec<_> = (0..16).map(|_| Message::stream("idle")).collect();
            let (peak, ()) = MEMORY
                .peak_of(async {
                    let mut sent = 0;
                    for opening in &openings {
                        wire.send(opening).await;
                        let frame = items(opening.id).frame();
                        let count = WINDOW.div_ceil(frame.len() - 4);
                        for _ in 0..count {
                            wire.send_bytes(&frame).await;
                        }
                        sent += count * frame.len();
                    }
                    wire.ping().await;
                    assert!(sent >= 16 * WINDOW);
                    works(&client, 1).await;
                })
                .await;
            assert!(peak < 16 * WINDOW * 3 / 2 + MIB, "{peak} bytes");
            for opening in &openings {
                wire.send(&Message::abandon(opening.id)).await;
            }
            eventually("no stream is left", || site.handle().peers()[1].stats().streams_serving == 0).await;
            MEMORY.back_to(before, MIB / 4).await;
        }
    });
}

// spec: §11.5, §11.6, §17.2
#[test]
fn a_million_of_what_costs_nothing_leaves_nothing() {
    alone(|| async {
        let (_site, client, mut wire) = scene(|builder| builder).await;
        let opening = Message::stream("idle");
        wire.send(&opening).await;
        wire.ping().await;
        let (credit, pause, resume) =
            (Message::credit(opening.id, 1), Message::pause(opening.id), Message::resume(opening.id));
        let other = Message::stream("idle");
        for some in [vec![credit], vec![pause, resume], vec![Message::item(other.id), Message::end(other.id)]]
        {
            let frames: Vec<u8> = some.iter().flat_map(Message::frame).collect();
            let bytes = frames.repeat(1000 / some.len());
            let (peak, ()) = MEMORY
                .peak_of(async {
                    for _ in 0..350 {
                        wire.send_bytes(&bytes).await;
                    }
                    wire.ping().await;
                    works(&client, 1).await;
                })
                .await;
            assert!(peak < MIB, "{peak} bytes");
        }
    });
}

// spec: §10.7, §11.8, §17.2
#[test]
fn floods_of_openings_leave_nothing() {
    alone(|| async {
        let (site, client, wire) = scene(|builder| builder).await;
        drop(wire);
        let cancelled = || {
            let opening = Message::stream("idle").payload(&"x".repeat(500));
            let reason = Error::aborted("x".repeat(500));
            [opening.frame(), Message::abandon(opening.id).error(reason).frame()].concat()
        };
        let failed = || {
            let opening = Message::stream("echo").payload(&"x".repeat(500));
            [opening.frame(), Message::failure(opening.id, Error::aborted("enough")).frame()].concat()
        };
        let floods: [(&dyn Fn() -> Vec<u8>, bool); 3] =
            [(&cancelled, true), (&|| Message::stream("nowhere").frame(), true), (&failed, false)];
        let before = settled(|| MEMORY.current_usage()).await;
        for (flood, ends) in floods {
            let (peak, ()) = MEMORY
                .peak_of(async {
                    let mut wire = Wire::with(site.url(), Terms::streams()).await;
                    for _ in 0..300 {
                        let some = (0..100).flat_map(|_| flood()).collect::<Vec<u8>>();
                        // It may be cut off before all is sent.
                        if wire.try_send_bytes(&some).await.is_err() {
                            break;
                        }
                    }
                    if ends {
                        assert_eq!(wire.closed_for().await, Code::RESOURCE_EXHAUSTED);
                    }
                    works(&client, 1).await;
                })
                .await;
            assert!(peak < 8 * MIB, "{peak} bytes");
            eventually("only the honest one is left", || site.handle().peers().len() == 1).await;
            MEMORY.back_to(before, MIB / 2).await;
        }
    });
}

// spec: §8.4, §15.3, §17.2
#[test]
fn a_peer_that_never_reads_its_streams_costs_what_the_buffers_say() {
    alone(|| async {
        let (site, client, mut wire) =
            scene(|builder| builder.write_timeout(Duration::from_millis(500))).await;
        let before = settled(|| MEMORY.current_usage()).await;
        let (peak, ()) = MEMORY
            .peak_of(async {
                for _ in 0..256 {
                    let opening = Message::stream("forever");
                    wire.send(&opening).await;
                    wire.send(&Message::credit(opening.id, 1 << 30)).await;
                }
                eventually("it is cut off", || site.handle().peers().len() == 1).await;
                works(&client, 1).await;
            })
            .await;
        // 64 KiB for each, and what batches of them may take more.
        assert!(peak < 256 * (64 << 10) * 2 + 4 * MIB, "{peak} bytes");
        drop(wire);
        MEMORY.back_to(before, MIB / 2).await;
    });
}

#[test]
fn a_long_life_of_streams_leaves_nothing_behind() {
    alone(|| async {
        // Giving up is part of life here.
        let patient = |config: &mut Config| config.misuse_capacity = 1_000_000;
        let (site, client, wire) = scene(|builder| builder.configure(patient)).await;
        drop(wire);
        let work = async |rounds: u32| {
            for round in 0..rounds {
                let streams = (0..60_u32).map(|number| {
                    let client = &client;
                    async move {
                        let method = ["echo", "forever", "idle", "nowhere"][number as usize % 4];
                        let opening = client.stream::<Raw>(method, &number);
                        let mut stream = match number % 3 {
                            0 => opening.timeout(Duration::from_millis(5)).await,
                            _ => opening.await,
                        }
                        .unwrap();
                        match number % 5 {
                            0 => stream.cancel(),
                            1 => stream.fail(Error::aborted("enough")),
                            2 => drop(stream.split().0),
                            3 => {
                                stream.send(&"x".repeat(round as usize * 50 % 20_000)).await.ok();
                                tokio::time::timeout(Duration::from_millis(1), stream.next()).await.ok();
                            }
                            _ => tokio::task::yield_now().await,
                        }
                    }
                });
                join_all(streams).await;
                works(&client, round).await;
            }
        };
        let quiet = || async {
            let peer = site.peer().await;
            eventually("no stream is left", || {
                [client.stats(), peer.stats()].iter().all(|s| s.streams_open + s.streams_serving == 0)
            })
            .await;
        };
        work(30).await;
        quiet().await;
        let before = settled(|| MEMORY.current_usage()).await;
        work(150).await;
        quiet().await;
        MEMORY.back_to(before, MIB / 4).await;
    });
}
