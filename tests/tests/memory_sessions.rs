//! What sessions without a link make a server hold, counted by the allocator. One test at a time: they share that count.

use std::time::Duration;

use fluxar::Raw;
use fluxar_proto::SubscribeOptions;
use fluxar_tests::dialler::Dialler;
use fluxar_tests::memory::{MIB, Meter, alone};
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::site::Site;
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// So many clients have come, worked, and lost their links.
async fn lose(site: &Site, count: usize) {
    for number in 1..=count {
        let mut client = Dialler::connect(site.url()).await;
        let now = client.now();
        client.connection.subscribe(now, "news.>", SubscribeOptions::new()).unwrap();
        let call = client.call("echo", &"x".repeat(1000)).await;
        client.outcome(call).await.unwrap();
        client.cut();
        eventually("it is away", || site.handle().stats().detached == number).await;
    }
}

// spec: §9.1, §17.2
#[test]
fn a_thousand_sessions_without_a_link_hold_little_and_not_for_ever() {
    alone(|| async {
        let site = Site::with(Net::Unix, |builder| builder.resume_for(Duration::from_secs(20))).await;
        lose(&site, 1).await;
        site.handle().peers()[0].shut_down().await;
        eventually("the first is gone", || site.handle().peers().is_empty()).await;
        let before = MEMORY.current_usage();
        lose(&site, 1000).await;
        let each = (MEMORY.current_usage() - before) / 1000;
        println!("{each} bytes for each session without a link");
        assert!(each < 16 * 1024, "{each} bytes for each session without a link");
        for peer in site.handle().peers() {
            peer.close();
        }
        eventually("they are gone", || site.handle().peers().is_empty()).await;
        MEMORY.back_to(before, MIB / 2).await;
    });
}

// spec: §9.4, §17.2
#[test]
fn what_is_meant_for_those_who_are_away_is_bounded() {
    alone(|| async {
        let bound = 8 * MIB;
        let site = Site::with(Net::Unix, |builder| builder.max_detached_bytes(bound)).await;
        lose(&site, 200).await;
        let before = MEMORY.current_usage();
        let text = "x".repeat(100_000);
        let (peak, ()) = MEMORY
            .peak_of(async {
                let mut calls = Vec::new();
                for peer in site.handle().peers() {
                    calls.push(peer.call::<Raw>("never", &text).start().await);
                }
                // 20 MB wait, or would: only the latest of them do.
                let stats = || site.handle().stats();
                eventually("the oldest have gone", || stats().evicted > 100).await;
                eventually("the count is right", || stats().detached + stats().evicted as usize == 200).await;
                assert!(stats().detached_bytes <= bound && stats().detached > 50, "{:?}", stats());
            })
            .await;
        assert!(peak < 2 * bound, "{peak} bytes beyond {before}");
    });
}
