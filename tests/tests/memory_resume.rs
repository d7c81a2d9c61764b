//! What sessions without a link can make a server hold, counted by its allocator. One test at a time: they share that
//! count.

use std::time::Duration;

use fluxar::{Client, HandlerError, StreamRequest};
use fluxar_tests::memory::{MIB, Meter, alone, settled};
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::process::open_files;
use fluxar_tests::resume::{Owner, said};
use fluxar_tests::site::Site;
use fluxar_tests::wire::{Message, Wire};
use futures_util::future::join_all;
use peak_alloc::PeakAlloc;

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

/// Sends for ever.
async fn forever(mut request: StreamRequest) -> Result<(), HandlerError> {
    let text = "x".repeat(10_000);
    loop {
        request.send(&text).await?;
    }
}

// spec: §9.1, §15.3, §17.2
#[test]
fn sessions_that_nobody_comes_back_for_are_few_and_end() {
    alone(|| async {
        let site =
            Site::with(Net::Tcp, |builder| builder.max_detached(200).resume_for(Duration::from_millis(1500)))
                .await;
        let client = warm_up(&site).await;
        let visit = async |_| {
            let mut owner = Owner::new(site.url()).await;
            owner.works().await;
            owner.wire.finish().await;
            owner.wire.ended().await;
        };
        join_all((0..100).map(visit)).await;
        eventually("the first are over", || site.handle().stats().detached == 0).await;
        let (before, files) = (settled(|| MEMORY.current_usage()).await, settled(open_files).await);
        let (peak, ()) = MEMORY
            .peak_of(async {
                for _ in 0..100 {
                    join_all((0..50).map(visit)).await;
                    assert!(site.handle().stats().detached <= 200);
                }
            })
            .await;
        assert!(peak < 12 * MIB, "{peak} bytes for 200 sessions of 5,000");
        let stats = site.handle().stats();
        assert!(stats.evicted >= 4000, "{stats:?}");
        assert_eq!(client.call::<u8>("echo", &1).await, Ok(1));
        eventually("all are over", || site.handle().stats().detached == 0).await;
        assert_eq!(site.handle().stats().expired + site.handle().stats().evicted, 5100);
        assert_eq!((site.handle().stats().detached_bytes, site.handle().peers().len()), (0, 1));
        assert!(open_files() <= files);
        MEMORY.back_to(before, MIB / 2).await;
    });
}

// spec: §9.4, §15.3, §17.2
#[test]
fn who_never_says_what_it_has_handled_fills_a_store_and_no_more() {
    alone(|| async {
        let site = Site::with(Net::Tcp, |builder| {
            let small = |config: &mut fluxar::Config| config.resume_bytes = MIB;
            builder.configure(small).handle_stream("forever", forever)
        })
        .await;
        let client = warm_up(&site).await;
        let before = settled(|| MEMORY.current_usage()).await;
        let (peak, owners) = MEMORY
            .peak_of(async {
                let mut owners = Vec::new();
                for _ in 0..10 {
                    let mut owner = Owner::new(site.url()).await;
                    let stream = Message::stream("forever");
                    owner.wire.send(&stream).await;
                    // All the credit that it could wish for.
                    owner.wire.send(&Message::credit(stream.id, 1 << 30)).await;
                    let mut bytes = 0;
                    while bytes < MIB - 20_000 {
                        bytes += owner.receive().await.payload.as_bytes().len();
                    }
                    // What is not counted still comes and goes.
                    owner.wire.ping().await;
                    owners.push(owner);
                }
                assert_eq!(client.call::<u8>("echo", &1).await, Ok(1));
                settled(|| MEMORY.current_usage() / MIB).await;
                owners
            })
            .await;
        // A store of a mebibyte and a message each, what waits to be sent, and what the sockets had room for.
        assert!(peak < 10 * 3 * MIB + 2 * MIB, "{peak} bytes");
        for mut owner in owners {
            // One that says it goes on.
            let handled = owner.handled;
            owner.wire.send(&Message::handled(handled)).await;
            let mut bytes = 0;
            while bytes < MIB / 2 {
                bytes += owner.receive().await.payload.as_bytes().len();
            }
            owner.leave().await;
        }
        eventually("all are gone", || site.handle().peers().len() == 1).await;
        MEMORY.back_to(before, MIB).await;
    });
}

// spec: §9.4, §15.3, §17.2
#[test]
fn full_stores_without_a_link_are_held_within_their_limit() {
    alone(|| async {
        let site = Site::with(Net::Tcp, |builder| {
            let small = |config: &mut fluxar::Config| config.resume_bytes = MIB;
            builder.configure(small).max_detached_bytes(5 * MIB).handle_stream("forever", forever)
        })
        .await;
        let client = warm_up(&site).await;
        let before = settled(|| MEMORY.current_usage()).await;
        let (peak, ()) = MEMORY
            .peak_of(async {
                for round in 0..40 {
                    let mut owner = Owner::new(site.url()).await;
                    let stream = Message::stream("forever");
                    owner.wire.send(&stream).await;
                    owner.wire.send(&Message::credit(stream.id, 1 << 30)).await;
                    let mut bytes = 0;
                    while bytes < MIB - 20_000 {
                        bytes += owner.receive().await.payload.as_bytes().len();
                    }
                    let gone = || site.handle().stats().evicted as usize + site.handle().stats().detached;
                    owner.wire.finish().await;
                    owner.wire.ended().await;
                    eventually("it is gone", || gone() > round).await;
                    let stats = site.handle().stats();
                    assert!(stats.detached_bytes <= 5 * MIB, "{stats:?}");
                    assert!((1..=5).contains(&stats.detached), "{stats:?}");
                }
            })
            .await;
        assert!(site.handle().stats().evicted >= 35);
        assert!(peak < 16 * MIB, "{peak} bytes");
        assert_eq!(client.call::<u8>("echo", &1).await, Ok(1));
        drop(client);
        site.close().await;
        MEMORY.back_to(before, MIB).await;
    });
}

// spec: §6.9, §9.8, §9.9, §17.2
#[test]
fn floods_of_resume_offers_leave_nothing_behind() {
    alone(|| async {
        let patience = Duration::from_millis(500);
        let site =
            Site::with(Net::Tcp, |builder| builder.configure(|config| config.handshake_timeout = patience))
                .await;
        let client = warm_up(&site).await;
        let mut owner = Owner::new(site.url()).await;
        owner.works().await;
        // Unknown, wrong, and right without a confirmation; and they leave in all the ways that there are.
        let attempt = async |number: usize| {
            let mut ticket = owner.ticket.clone();
            ticket.pass.id.0[0] ^= u8::from(number.is_multiple_of(3));
            ticket.pass.secret.as_mut().unwrap().0[0] ^= u8::from(number % 3 == 1);
            let mut wire = Wire::connect(site.url()).await;
            let answer = wire.shake_hands_with(ticket.offer(owner.handled)).await;
            assert_eq!(said(&answer).resumed.is_some(), number % 3 == 2);
            match number % 2 {
                // A fresh session that is left in order ends at once.
                _ if number % 3 < 2 => wire.leave().await,
                0 => drop(wire),
                _ => {
                    wire.finish().await;
                    wire.ended().await;
                }
            }
        };
        join_all((0..100).map(attempt)).await;
        let links = || (site.handle().stats().handshakes, site.handle().peers().len());
        eventually("the first are gone", || links() == (0, 2)).await;
        let (before, files) = (settled(|| MEMORY.current_usage()).await, settled(open_files).await);
        let (peak, ()) = MEMORY
            .peak_of(async {
                for round in 0..60 {
                    join_all((0..50).map(|number| attempt(round * 50 + number))).await;
                }
            })
            .await;
        assert!(peak < 4 * MIB, "{peak} bytes for 50 at a time");
        eventually("all are gone", || links() == (0, 2)).await;
        eventually("the files are closed", || open_files() <= files).await;
        MEMORY.back_to(before, MIB / 2).await;
        owner.works().await;
        assert_eq!(owner.come_back().await, 2);
        owner.works().await;
        owner.leave().await;
        assert_eq!(client.call::<u8>("echo", &1).await, Ok(1));
    });
}

/// What the tests above rest on: a session is worth resuming here.
#[test]
fn a_session_is_kept_for_its_owner() {
    alone(|| async {
        let site = Site::open(Net::Tcp).await;
        let mut owner = Owner::new(site.url()).await;
        owner.works().await;
        owner.wire.finish().await;
        owner.wire.ended().await;
        eventually("it waits", || site.handle().stats().detached == 1).await;
        assert!(site.handle().stats().detached_bytes > 0);
        assert_eq!(owner.come_back().await, 1);
        owner.works().await;
        assert_eq!((site.handle().stats().detached, site.handle().stats().resumed), (0, 1));
        owner.leave().await;
    });
}
