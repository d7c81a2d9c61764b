//! Everything at once, at random, in both directions; and then silence.

use std::pin::pin;
use std::time::{Duration, Instant};

use fluxar::{Code, Config, Error, HandlerError, Peer, Raw, Request};
use fluxar_tests::matrix;
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::random::Random;
use fluxar_tests::signal::Counter;
use fluxar_tests::site::Site;
use futures_util::future::{BoxFuture, join_all};

matrix! {
    a_storm_passes
    connections_come_and_go_in_a_storm
}

/// How long a storm lasts.
const STORM: Duration = Duration::from_millis(1000);

/// Gives back what it got, after some updates and some time, or fails; and may ask its caller first.
fn whatever(ended: Counter) -> impl Fn(Request) -> BoxFuture<'static, Result<Raw, HandlerError>> {
    move |request| {
        let guard = ended.guard();
        Box::pin(async move {
            let _guard = guard;
            let (kind, number, text): (u8, u64, String) = request.payload()?;
            match kind % 8 {
                0 => tokio::task::yield_now().await,
                1 => tokio::time::sleep(Duration::from_micros(number % 2000)).await,
                2 => {
                    for update in 0..number % 100 {
                        request.update(&update).await?;
                    }
                }
                3 => return Err(Error::new(Code(2000 + kind as u32), text).into()),
                4 => {
                    let peer = request.peer();
                    let nested = peer
                        .call::<Raw>("whatever", &(0u8, number, &text))
                        .timeout(Duration::from_millis(20));
                    nested.await?;
                }
                // A panic, without the message of one.
                5 => std::panic::resume_unwind(Box::new("as bad as it gets")),
                6 => {
                    while let Some(update) = request.next_update::<u64>().await {
                        if update? == number {
                            break;
                        }
                    }
                }
                _ => {}
            }
            Ok(request.raw())
        })
    }
}

/// Calls in all the ways that there are, until the storm is over.
async fn rage(peer: Peer, mut random: Random, until: Instant) -> u64 {
    let mut calls = 0;
    while Instant::now() < until {
        calls += 1;
        let (kind, number) = (random.below(8) as u8, random.number());
        let text = "x".repeat([0, 10, 100, 5000, 70_000][random.below(5) as usize]);
        let argument = (kind, number, text);
        let call = peer.call::<(u8, u64, String)>("whatever", &argument);
        let time = Duration::from_micros(random.below(5000));
        let result = match random.below(4) {
            0 => call.timeout(time).await,
            1 => match tokio::time::timeout(time, call.into_future()).await {
                Ok(result) => result,
                Err(_) => continue,
            },
            2 => {
                let mut call = pin!(call.into_future());
                tokio::select! {
                    biased;
                    result = &mut call => result,
                    () = tokio::task::yield_now() => continue,
                }
            }
            _ => match call.timeout(Duration::from_millis(50)).start().await {
                Ok(mut open) => {
                    for update in [1, 2, number] {
                        open.update(&update).await.ok();
                    }
                    if random.below(2) == 0 {
                        while let Some(update) = open.next_update::<u64>().await {
                            assert!(update.unwrap() < 100);
                        }
                    }
                    open.await
                }
                Err(error) => Err(error),
            },
        };
        match result {
            Ok(answer) => assert!(answer == argument, "{kind}: somebody else's answer"),
            Err(error) => {
                let expected = [
                    Code::DEADLINE_EXCEEDED,
                    Code::RESOURCE_EXHAUSTED,
                    Code::INTERNAL,
                    Code::UNAVAILABLE,
                    Code(2003),
                ];
                assert!(expected.contains(&error.code), "{error}");
                assert!(error.code != Code(2003) || error.message.len() == argument.2.len());
            }
        }
    }
    calls
}

fn weatherproof(config: &mut Config) {
    config.limits.max_calls = 50;
    config.send_buffer = 100_000;
    // Giving up is what a storm is made of.
    config.misuse_capacity = 10_000_000;
}

async fn a_storm_passes(net: Net) {
    let mut random = Random::new();
    let ended = Counter::new();
    let site = Site::with(net, |builder| {
        builder.configure(weatherproof).handle("whatever", whatever(ended.clone()))
    })
    .await;
    let connect = site.connect().configure(weatherproof).handle("whatever", whatever(ended.clone()));
    let client = connect.build().await.unwrap();
    let peer = site.peer().await;
    let until = Instant::now() + STORM;
    let tasks: Vec<_> = (0..60)
        .map(|task| {
            let side = if task % 2 == 0 { client.peer() } else { peer.clone() };
            tokio::spawn(rage(side, random.fork(), until))
        })
        .collect();
    let calls: u64 = join_all(tasks).await.into_iter().map(Result::unwrap).sum();
    eventually("all is quiet", || {
        [client.stats(), peer.stats()].iter().all(|s| s.calls_in_flight == 0 && s.requests_running == 0)
    })
    .await;
    let (here, there) = (client.stats(), peer.stats());
    assert_eq!(ended.get() as u64, here.calls_served + there.calls_served, "every handler has ended");
    assert!(calls > 100 && here.calls_served > 10 && there.calls_served > 10, "{calls}: {here:?} {there:?}");
    assert_eq!((client.error(), peer.error()), (None, None));
    assert_eq!(client.call::<u8>("echo", &1).await, Ok(1));
}

async fn connections_come_and_go_in_a_storm(net: Net) {
    let mut random = Random::new();
    let ended = Counter::new();
    let site = Site::with(net, |builder| {
        builder.configure(weatherproof).handle("whatever", whatever(ended.clone()))
    })
    .await;
    let until = Instant::now() + STORM;
    let visitors: Vec<_> = (0..8)
        .map(|_| {
            let (url, ended, mut random) = (site.url().to_owned(), ended.clone(), random.fork());
            tokio::spawn(async move {
                while Instant::now() < until {
                    let connect = fluxar::Client::connect(&url).configure(weatherproof);
                    let client = connect.handle("whatever", whatever(ended.clone())).build().await.unwrap();
                    let leave = Instant::now() + Duration::from_millis(random.below(100));
                    let rages: Vec<_> = (0..4).map(|_| rage(client.peer(), random.fork(), leave)).collect();
                    let half = Duration::from_millis(random.below(50));
                    match random.below(3) {
                        0 => drop(join_all(rages).await),
                        1 => {
                            // Leaves while calls are open.
                            tokio::time::timeout(half, join_all(rages)).await.ok();
                        }
                        _ => {
                            let closing = async {
                                tokio::time::sleep(half).await;
                                client.close();
                            };
                            tokio::join!(join_all(rages), closing);
                        }
                    }
                }
            })
        })
        .collect();
    let server_side = async {
        while Instant::now() < until {
            let peers = site.handle().peers();
            let soon = Instant::now() + Duration::from_millis(50);
            join_all(peers.into_iter().map(|peer| rage(peer, random.fork(), soon))).await;
            tokio::task::yield_now().await;
        }
    };
    server_side.await;
    for visitor in visitors {
        visitor.await.unwrap();
    }
    eventually("all are gone", || site.handle().peers().is_empty()).await;
    let client = site.client().await;
    assert_eq!(client.call::<u8>("echo", &1).await, Ok(1));
}
