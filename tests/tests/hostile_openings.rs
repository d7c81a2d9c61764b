//! Servers against clients that open streams without end, or without doing what keeps them going.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fluxar::{Code, ConnectionError, Error, ServerBuilder, StreamRequest};
use fluxar_proto::message::{Id, verb};
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::schedulers;
use fluxar_tests::signal::Counter;
use fluxar_tests::streaming::{Streams, end_of};
use fluxar_tests::wire::{Message, fresh_id};

schedulers! {
    openings_beyond_the_limit_are_refused_and_no_more
    openings_that_hold_too_much_are_refused
    openings_that_are_cancelled_are_cut_off
    openings_that_are_refused_are_cut_off
    whoever_opens_and_ends_for_ever_runs_no_more_than_its_slots
    whoever_opens_and_never_reads_is_cut_off
    whoever_never_grants_holds_up_itself
}

// spec: §11.8, §15.1
// limit: max_streams
async fn openings_beyond_the_limit_are_refused_and_no_more(net: Net) {
    let five = |builder: ServerBuilder| builder.configure(|config| config.limits.max_streams = 5);
    let streams = Streams::open(net, five).await;
    let mut wire = streams.wire().await;
    let openings: Vec<_> = (0..8).map(|_| Message::stream("idle")).collect();
    wire.send_bytes(&openings.iter().flat_map(Message::frame).collect::<Vec<u8>>()).await;
    for opening in &openings[5..] {
        let error = end_of(&mut wire, opening.id).await.unwrap();
        assert_eq!((error.code, error.processed), (Code::RESOURCE_EXHAUSTED, Some(false)));
        // What follows an opening that was refused concerns nobody.
        wire.send(&Message::item(opening.id).payload(&1)).await;
    }
    let peer = streams.peer().await;
    wire.ping().await;
    let stats = peer.stats();
    assert_eq!((stats.streams_serving, stats.refused, stats.dropped), (5, 3, 3));
    // Ended by its opener alone, a stream keeps its slot; ended by both, it does not.
    wire.send(&Message::end(openings[0].id)).await;
    wire.ping().await;
    assert_eq!(peer.stats().streams_serving, 5);
    wire.send(&Message::abandon(openings[1].id)).await;
    wire.send(&Message::failure(openings[2].id, Error::aborted("enough"))).await;
    eventually("two slots are free", || peer.stats().streams_serving == 3).await;
    let late = Message::stream("sink");
    wire.send(&late).await;
    wire.send(&Message::end(late.id)).await;
    assert_eq!(end_of(&mut wire, late.id).await, None);
    drop(wire);
    streams.unharmed().await;
}

// spec: §11.8, §10.8
async fn openings_that_hold_too_much_are_refused(net: Net) {
    let little = |builder: ServerBuilder| builder.configure(|config| config.request_bytes = 100_000);
    let streams = Streams::open(net, little).await;
    let mut wire = streams.wire().await;
    let first = Message::stream("idle").payload(&"x".repeat(200_000));
    let second = Message::stream("idle").payload(&"x".repeat(10));
    wire.send(&first).await;
    wire.send(&second).await;
    let error = end_of(&mut wire, second.id).await.unwrap();
    assert_eq!((error.code, error.processed), (Code::RESOURCE_EXHAUSTED, Some(false)));
    // Calls are counted apart.
    let call = Message::call("echo").payload(&"x".repeat(50_000));
    wire.send(&call).await;
    assert_eq!(wire.response_to(call.id).await.error, None);
    let peer = streams.peer().await;
    wire.send(&Message::abandon(first.id)).await;
    eventually("the bytes are given back", || peer.stats().streams_serving == 0).await;
    wire.send(&second).await;
    wire.ping().await;
    assert_eq!(peer.stats().streams_serving, 1);
    drop(wire);
    streams.unharmed().await;
}

/// How many handlers run, and how many ran at once at most.
#[derive(Clone, Default)]
struct Crowd(Arc<Mutex<(usize, usize)>>);

impl Crowd {
    fn enter(&self) -> Self {
        let mut crowd = self.0.lock().unwrap();
        crowd.0 += 1;
        crowd.1 = crowd.1.max(crowd.0);
        self.clone()
    }

    fn most(&self) -> usize {
        self.0.lock().unwrap().1
    }
}

fn crowded(crowd: &Crowd, builder: ServerBuilder) -> ServerBuilder {
    struct Inside(Crowd);
    impl Drop for Inside {
        fn drop(&mut self) {
            self.0.0.lock().unwrap().0 -= 1;
        }
    }
    let crowd = crowd.clone();
    builder
        .configure(|config| {
            config.misuse_capacity = 200;
            config.misuse_per_second = 0;
            config.limits.max_streams = 10;
        })
        .handle_stream("work", move |mut request: StreamRequest| {
            let inside = Inside(crowd.enter());
            async move {
                let _inside = inside;
                while let Some(item) = request.next::<u64>().await {
                    item?;
                }
                Ok(())
            }
        })
}

// spec: §10.7, §11.4, §11.8
async fn openings_that_are_cancelled_are_cut_off(net: Net) {
    let crowd = Crowd::default();
    let streams = Streams::open(net, |builder| crowded(&crowd, builder)).await;
    let floods: [fn(Id) -> Message; 2] =
        [|id| Message::abandon(id), |id| Message::abandon(id).error(Error::aborted("enough"))];
    for flood in floods {
        let mut wire = streams.wire().await;
        let flood: Vec<u8> = (0..250)
            .flat_map(|_| {
                let opening = Message::stream("work");
                let item = Message::item(opening.id).payload(&1);
                [opening.frame(), item.frame(), flood(opening.id).frame()].concat()
            })
            .collect();
        // It may be cut off before all is sent.
        wire.try_send_bytes(&flood).await.ok();
        assert_eq!(wire.closed_for().await, Code::RESOURCE_EXHAUSTED);
        drop(wire);
        assert!((1..=10).contains(&crowd.most()), "{} handlers ran at once", crowd.most());
    }
    // Cancels of nothing cost as much.
    let mut wire = streams.wire().await;
    let flood: Vec<u8> = (0..250).flat_map(|_| Message::abandon(fresh_id()).frame()).collect();
    wire.send_bytes(&flood).await;
    assert_eq!(wire.closed_for().await, Code::RESOURCE_EXHAUSTED);
    drop(wire);
    eventually("no handler is left", || crowd.0.lock().unwrap().0 == 0).await;
    streams.unharmed().await;
}

// spec: §10.7, §11.8
async fn openings_that_are_refused_are_cut_off(net: Net) {
    let crowd = Crowd::default();
    let streams = Streams::open(net, |builder| crowded(&crowd, builder)).await;
    let floods: [fn() -> Message; 4] = [
        || Message::stream("no such method"),
        || Message::stream("work").timeout_ms(0),
        || Message { meta: (&b"\xa1\x66window\x20"[..]).into(), ..Message::stream("work") },
        // All but ten find no slot.
        || Message::stream("work"),
    ];
    for opening in floods {
        let mut wire = streams.wire().await;
        let flood: Vec<u8> = (0..250).flat_map(|_| opening().frame()).collect();
        wire.send_bytes(&flood).await;
        assert_eq!(wire.closed_for().await, Code::RESOURCE_EXHAUSTED, "{:?}", opening());
    }
    assert_eq!(crowd.most(), 10);
    eventually("no handler is left", || crowd.0.lock().unwrap().0 == 0).await;
    streams.unharmed().await;
}

// spec: §11.8, §11.3
async fn whoever_opens_and_ends_for_ever_runs_no_more_than_its_slots(net: Net) {
    let crowd = Crowd::default();
    let streams = Streams::open(net, |builder| crowded(&crowd, builder)).await;
    let ends: [fn(Id) -> Message; 2] =
        [|id| Message::end(id), |id| Message::failure(id, Error::aborted("enough"))];
    for end in ends {
        let mut wire = streams.wire().await;
        // As fast as slots become free; that is what they are for.
        for _ in 0..100 {
            let some: Vec<Message> = (0..10).map(|_| Message::stream("work")).collect();
            let frames = some.iter().flat_map(|opening| [opening.frame(), end(opening.id).frame()].concat());
            wire.send_bytes(&frames.collect::<Vec<u8>>()).await;
            wire.ping().await;
            let peer = streams.peer().await;
            eventually("the slots are free", || peer.stats().streams_serving == 0).await;
        }
        wire.ping().await;
    }
    assert_eq!(streams.0.site.handle().peers()[0].error(), None);
    assert!(crowd.most() <= 10, "{} handlers ran at once", crowd.most());
    streams.unharmed().await;
}

// spec: §8.4, §15.3, §17.2
async fn whoever_opens_and_never_reads_is_cut_off(net: Net) {
    let why = Counter::new();
    let streams = Streams::open(net, |builder| {
        let why = why.clone();
        builder.write_timeout(Duration::from_millis(500)).on_connect(move |peer| {
            let why = why.clone();
            async move {
                if peer.closed().await == ConnectionError::TimedOut(fluxar_proto::Timeout::Write) {
                    why.add();
                }
            }
        })
    })
    .await;
    let mut wire = streams.wire().await;
    for _ in 0..100 {
        let opening = Message::stream("forever");
        wire.send(&opening).await;
        wire.send(&Message::credit(opening.id, 1 << 30)).await;
    }
    let peer = streams.peer().await;
    // Whoever is called up when half of the room is free fills it again.
    eventually("all is full", || peer.stats().stream_queued_bytes > 100 * (32 << 10)).await;
    // At most what may be queued, and an item, for each.
    let queued = peer.stats().stream_queued_bytes;
    assert!(queued <= 100 * ((64 << 10) + 2000), "{queued}");
    why.reached(1).await;
    eventually("the handlers have ended", || peer.stats().streams_serving == 0).await;
    assert_eq!(peer.stats().stream_queued_bytes, 0);
    drop(wire);
    streams.unharmed().await;
}

// spec: §11.5, §8.4
async fn whoever_never_grants_holds_up_itself(net: Net) {
    let streams = Streams::open(net, |builder| builder).await;
    let mut wire = streams.wire().await;
    let openings: Vec<_> = (0..100).map(|_| Message::stream("forever")).collect();
    for opening in &openings {
        let mut opening = opening.clone();
        opening.meta = (&b"\xa1\x66window\x19\x07\xd0"[..]).into();
        wire.send(&opening).await;
    }
    // Each gets its 2,000 bytes, and at most a message more.
    let peer = streams.peer().await;
    let mut got: HashMap<_, _> = openings.iter().map(|opening| (opening.id, 0)).collect();
    while got.values().any(|got| *got < 2000) {
        let message = wire.receive().await;
        assert!(matches!(message.does(), None | Some(verb::ITEMS)), "{message:?}");
        *got.get_mut(&message.reference.unwrap()).unwrap() += message.frame().len() - 4;
    }
    assert!(got.values().all(|got| *got < 2000 + (17 << 10)), "{got:?}");
    wire.ping().await;
    let out = peer.stats().bytes_out;
    // Everything else goes on beside them, and nothing more comes of them.
    for number in 0..50_u32 {
        let call = Message::call("echo").payload(&number);
        wire.send(&call).await;
        let response = wire.receive().await;
        assert_eq!((response.reference, response.decode::<u32>()), (Some(call.id), number));
    }
    assert!(peer.stats().bytes_out - out < 50 * 100);
    assert_eq!(peer.error(), None);
    drop(wire);
    eventually("the handlers have ended", || peer.stats().streams_serving == 0).await;
    streams.unharmed().await;
}
