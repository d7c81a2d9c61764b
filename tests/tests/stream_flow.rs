//! Streams under load: halves in tasks of their own, slots, windows, and what goes on beside them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fluxar::{Client, Error, HandlerError, Raw, ServerBuilder, Stream, StreamRequest};
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::random::Random;
use fluxar_tests::signal::Counter;
use fluxar_tests::site::Site;
use fluxar_tests::{matrix, schedulers};
use futures_util::future::{join_all, ready};
use futures_util::stream::{FusedStream, iter};
use futures_util::{SinkExt, StreamExt, TryStreamExt};

matrix! {
    halves_in_many_tasks_lose_no_wake_up
    large_items_pass
}

schedulers! {
    streams_are_what_futures_call_streams_and_sinks
    streams_wait_in_line_for_slots
    streams_go_both_ways_at_once
    a_handler_opens_streams_to_its_opener
    streams_one_after_another_cost_no_budget
    an_upload_that_is_refused_again_and_again_costs_no_budget
    a_stream_that_nobody_reads_stays_at_its_window
    calls_go_on_beside_a_stream_that_nobody_reads
    what_is_dropped_before_it_is_ready_has_not_happened
    a_pause_holds_the_sender_up_until_resume
}

async fn echo(mut request: StreamRequest) -> Result<(), HandlerError> {
    let (mut sender, mut receiver) = request.split::<Raw>()?;
    sender.send_all(&mut receiver).await?;
    Ok(())
}

async fn count(mut request: StreamRequest) -> Result<u64, HandlerError> {
    let count: u64 = request.payload()?;
    for number in 0..count {
        request.send(&number).await?;
    }
    Ok(count)
}

async fn sum(mut request: StreamRequest) -> Result<u64, HandlerError> {
    let mut sum = 0;
    while let Some(number) = request.next::<u64>().await {
        sum += number?;
    }
    Ok(sum)
}

async fn forever(mut request: StreamRequest) -> Result<(), HandlerError> {
    let text: String = request.payload()?;
    loop {
        request.send(&text).await?;
    }
}

async fn idle(_request: StreamRequest) -> Result<(), HandlerError> {
    std::future::pending().await
}

fn handlers(builder: ServerBuilder) -> ServerBuilder {
    let builder = builder.handle_stream("echo", echo).handle_stream("count", count);
    builder.handle_stream("sum", sum).handle_stream("idle", idle)
}

async fn site(net: Net) -> Site {
    Site::with(net, handlers).await
}

async fn nothing_left(site: &Site, client: &Client) {
    let peer = site.peer().await;
    eventually("no stream is left", || {
        [client.stats(), peer.stats()].iter().all(|stats| stats.streams_open + stats.streams_serving == 0)
    })
    .await;
    assert_eq!((client.error(), peer.error()), (None, None));
}

// spec: §11.10
async fn halves_in_many_tasks_lose_no_wake_up(net: Net) {
    let mut random = Random::new();
    let narrow = |config: &mut fluxar::Config| {
        config.limits.stream_window = 300;
        config.max_stream_window = 1000;
        config.stream_buffer = 200;
    };
    let site = Site::with(net, |builder| handlers(builder).configure(narrow)).await;
    let client = site.connect().configure(narrow).build().await.unwrap();
    let tasks = (0..20).map(|_| {
        let (peer, mut random) = (client.peer(), random.fork());
        tokio::spawn(async move {
            let stream = peer.stream::<(u64, String)>("echo", &()).window(100).await.unwrap();
            let (mut sender, mut receiver) = stream.split();
            let mut other = random.fork();
            let count = 300;
            let sending = tokio::spawn(async move {
                for number in 0..count {
                    let text = "x".repeat(random.below(150) as usize);
                    sender.send(&(number, text)).await.unwrap();
                    if random.below(4) == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                sender.end().await.unwrap();
            });
            for number in 0..count {
                match other.below(8) {
                    0 => tokio::task::yield_now().await,
                    1 => {
                        receiver.pause();
                        receiver.resume();
                    }
                    _ => {}
                }
                assert_eq!(receiver.next().await.unwrap().unwrap().0, number);
            }
            assert_eq!(receiver.next().await, None);
            sending.await.unwrap();
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    nothing_left(&site, &client).await;
}

// spec: §5.13, §11.5
async fn large_items_pass(net: Net) {
    let site = site(net).await;
    let client = site.client().await;
    for (count, mib) in [(8_u8, 1), (3, 10)] {
        let (mut sender, mut receiver) =
            client.stream::<Raw>("echo", &()).window(1000).await.unwrap().split();
        let sending = async {
            for number in 0..count {
                let item = Raw::encode(&(number, "x".repeat(mib << 20))).unwrap();
                sender.send(&item).await.unwrap();
            }
            // One that is too large fails here, and the stream goes on.
            let error = sender.send(&"x".repeat(17 << 20)).await.unwrap_err();
            assert_eq!(error.code, fluxar::Code::MESSAGE_TOO_LARGE);
            sender.end().await.unwrap();
        };
        let receiving = async {
            for number in 0..count {
                let item = receiver.next().await.unwrap().unwrap();
                let (got, text): (u8, String) = item.decode().unwrap();
                assert_eq!((got, text.len()), (number, mib << 20));
            }
            assert!(receiver.next().await.is_none());
        };
        tokio::join!(sending, receiving);
    }
    nothing_left(&site, &client).await;
}

// spec: §11.2, §11.3
async fn streams_are_what_futures_call_streams_and_sinks(net: Net) {
    let site = site(net).await;
    let client = site.client().await;
    let numbers = || iter(0..1000_u64);
    // What is forwarded to the end is ended.
    let mut upload = client.stream::<()>("sum", &()).await.unwrap();
    numbers().map(Ok).forward(&mut upload).await.unwrap();
    assert_eq!(SinkExt::<u64>::close(&mut upload).await, Ok(()), "it may be closed twice");
    assert_eq!(upload.send(&1).await.unwrap_err().code, fluxar::Code::FAILED_PRECONDITION);
    assert_eq!(upload.finish::<u64>().await, Ok(499_500));

    let (mut sender, receiver) = client.stream::<u64>("echo", &()).await.unwrap().split();
    let sending = async {
        for number in 0..10_u64 {
            sender.feed(&number).await.unwrap();
        }
        SinkExt::<u64>::flush(&mut sender).await.unwrap();
        SinkExt::send(&mut sender, 10_u64).await.unwrap();
        sender.send_all(&mut iter((11..1000).map(Ok))).await.unwrap();
        sender.end().await.unwrap();
    };
    let even = receiver.try_filter(|number| ready(number % 2 == 0)).try_collect::<Vec<_>>();
    let ((), even) = tokio::join!(sending, even);
    assert_eq!(even.unwrap(), (0..1000).step_by(2).collect::<Vec<_>>());

    let mut stream = client.stream::<u64>("count", &3).await.unwrap();
    let mut got = Vec::new();
    while !stream.is_terminated() {
        got.extend(StreamExt::next(&mut stream).await.map(Result::unwrap));
    }
    assert_eq!((got, StreamExt::next(&mut stream).await), (vec![0, 1, 2], None));
    drop(stream);
    // An adaptor in between, as for any other stream.
    let stream = client.stream::<u64>("count", &100).await.unwrap();
    let chunks: Vec<Vec<_>> = stream.take(40).chunks(20).collect().await;
    assert_eq!(chunks.iter().map(Vec::len).collect::<Vec<_>>(), [20, 20]);
    nothing_left(&site, &client).await;
}

// spec: §11.8
async fn streams_wait_in_line_for_slots(net: Net) {
    let order = Arc::new(Mutex::new(Vec::new()));
    let site = Site::with(net, |builder| {
        let order = order.clone();
        builder.configure(|config| config.limits.max_streams = 1).handle_stream(
            "note",
            move |request: StreamRequest| {
                order.lock().unwrap().push(request.payload::<u32>().unwrap());
                async { Ok(()) }
            },
        )
    })
    .await;
    let client = site.client().await;
    let opened = Counter::new();
    let openings = (0..1000_u32).map(|number| {
        let (client, opened) = (&client, &opened);
        async move {
            let mut stream = client.stream::<u64>("note", &number).await.unwrap();
            opened.add();
            match number % 7 {
                // Whoever cancels must expect that the handler lives a little longer than the stream (§11.8).
                0 => assert_eq!(stream.next().await, None),
                _ => assert_eq!(stream.finish::<Option<u8>>().await, Ok(None)),
            }
        }
    });
    // And some leave the line.
    let leaving = (0..50).map(|_| async {
        let opening = client.stream::<u64>("note", &u32::MAX);
        let _ = tokio::time::timeout(Duration::from_millis(1), opening.into_future()).await;
    });
    tokio::join!(join_all(openings), join_all(leaving));
    let mut noted = order.lock().unwrap().clone();
    noted.retain(|number| *number != u32::MAX);
    assert!(noted.is_sorted(), "{noted:?}");
    assert_eq!((opened.get(), noted.len()), (1000, 1000));
    nothing_left(&site, &client).await;
}

// spec: §11.1, §11.8
async fn streams_go_both_ways_at_once(net: Net) {
    let site = site(net).await;
    let client = site.connect().handle_stream("echo", echo).handle_stream("count", count);
    let client = client.build().await.unwrap();
    let peer = site.peer().await;
    let work = |from: fluxar::Peer| async move {
        let mut numbers = from.stream::<u64>("count", &5000).await.unwrap();
        for number in 0..5000 {
            assert_eq!(numbers.next().await, Some(Ok(number)));
        }
        assert_eq!(numbers.finish::<u64>().await, Ok(5000));
        let (mut sender, receiver) = from.stream::<u64>("echo", &()).await.unwrap().split();
        let sending = async {
            sender.send_all(&mut iter((0..5000_u64).map(Ok))).await.unwrap();
            sender.end().await.unwrap();
        };
        let (received, ()) = tokio::join!(receiver.map(Result::unwrap).collect::<Vec<_>>(), sending);
        assert!(received.iter().copied().eq(0..5000));
    };
    let sides = (0..10).map(|number| if number % 2 == 0 { client.peer() } else { peer.clone() });
    join_all(sides.map(|side| tokio::spawn(work(side)))).await.into_iter().for_each(|done| done.unwrap());
    nothing_left(&site, &client).await;
}

// spec: §11.1
async fn a_handler_opens_streams_to_its_opener(net: Net) {
    let site = Site::with(net, |builder| {
        builder.handle_stream("double", |mut request: StreamRequest| async move {
            let mut back: Stream<u64> = request.peer().stream("source", &request.raw()).await?;
            while let Some(number) = back.next().await {
                request.send(&(2 * number?)).await?;
            }
            Ok(back.finish::<u64>().await?)
        })
    })
    .await;
    let client = site.connect().handle_stream("source", count).build().await.unwrap();
    let doubles = (0..20).map(|_| async {
        let mut doubled = client.stream::<u64>("double", &500).await.unwrap();
        for number in 0..500 {
            assert_eq!(doubled.next().await, Some(Ok(2 * number)));
        }
        assert_eq!(doubled.finish::<u64>().await, Ok(500));
    });
    join_all(doubles).await;
    nothing_left(&site, &client).await;
}

// spec: §10.7, §11.3
async fn streams_one_after_another_cost_no_budget(net: Net) {
    let strict = |config: &mut fluxar::Config| (config.misuse_capacity, config.misuse_per_second) = (10, 0);
    let site = Site::with(net, |builder| handlers(builder).configure(strict)).await;
    let client = site.connect().configure(strict).build().await.unwrap();
    for round in 0..10_000_u64 {
        let count = round % 4;
        let mut numbers = client.stream::<u64>("count", &count).await.unwrap();
        for number in 0..count {
            assert_eq!(numbers.next().await, Some(Ok(number)));
        }
        match round % 3 {
            0 => drop(numbers.finish::<u64>().await.unwrap()),
            // Read to the end, and dropped.
            _ => assert_eq!(numbers.next().await, None),
        }
    }
    nothing_left(&site, &client).await;
}

// spec: §10.7, §11.3
async fn an_upload_that_is_refused_again_and_again_costs_no_budget(net: Net) {
    let strict = |config: &mut fluxar::Config| (config.misuse_capacity, config.misuse_per_second) = (10, 0);
    let site = Site::with(net, |builder| {
        builder.configure(strict).handle_stream("no", |request: StreamRequest| async move {
            drop(request);
            Err::<(), _>(Error::permission_denied("not you").into())
        })
    })
    .await;
    let client = site.connect().configure(strict).build().await.unwrap();
    for _ in 0..2000 {
        let mut upload = client.stream::<u64>("no", &()).await.unwrap();
        upload.send(&1).await.ok();
        assert_eq!(upload.next().await.unwrap().unwrap_err().code, fluxar::Code::PERMISSION_DENIED);
    }
    nothing_left(&site, &client).await;
}

// spec: §11.5
async fn a_stream_that_nobody_reads_stays_at_its_window(net: Net) {
    let site = Site::with(net, |builder| handlers(builder).handle_stream("forever", forever)).await;
    let client = site.client().await;
    let peer = site.peer().await;
    for (size, window) in [(1, 1000), (100, 4096), (5000, 64 << 10), (100_000, 256 << 10)] {
        let text = "x".repeat(size);
        let mut unread: Stream<String> = client.stream("forever", &text).window(window).await.unwrap();
        assert_eq!(unread.next().await, Some(Ok(text.clone())));
        eventually("the sender is held up", || peer.stats().stream_queued_bytes > 32 << 10).await;
        client.ping().await.unwrap();
        let held = client.stats().stream_held_bytes;
        // Its window and one message, of the one item that was taken before.
        let message = size.max(16 << 10) + 100;
        assert!(held <= window as usize + 2 * message, "{held} bytes with a window of {window}");
        assert!(held + message >= window as usize / 2, "{held} bytes with a window of {window}");
        let queued = peer.stats().stream_queued_bytes;
        assert!(queued <= (64 << 10) + size + 100, "{queued} bytes of items of {size}");
        for _ in 0..1000 {
            assert_eq!(unread.next().await.unwrap().unwrap().len(), size);
        }
        drop(unread);
        eventually("all is given back", || {
            (client.stats().stream_held_bytes, peer.stats().stream_queued_bytes) == (0, 0)
        })
        .await;
    }
    nothing_left(&site, &client).await;
}

// spec: §11.5, §2.4
async fn calls_go_on_beside_a_stream_that_nobody_reads(net: Net) {
    let site = site(net).await;
    let client = site.client().await;
    let mut stuck = Vec::new();
    for _ in 0..20 {
        let mut upload = client.stream::<u64>("idle", &()).await.unwrap();
        let text = "x".repeat(20_000);
        while tokio::time::timeout(Duration::from_millis(10), upload.send(&text)).await.is_ok() {}
        stuck.push((upload, client.stream::<u64>("count", &1_000_000).await.unwrap()));
    }
    let peer = site.peer().await;
    eventually("all are full", || client.stats().stream_held_bytes > 20 * 100_000).await;
    for number in 0..500_u32 {
        assert_eq!(client.call::<u32>("echo", &number).await, Ok(number));
    }
    let large = "x".repeat(3 << 20);
    assert!(client.call::<String>("echo", &large).await == Ok(large));
    let mut beside = client.stream::<u64>("count", &10_000).await.unwrap();
    for number in 0..10_000 {
        assert_eq!(beside.next().await, Some(Ok(number)));
    }
    drop((beside, stuck));
    eventually("no handler is left", || peer.stats().streams_serving == 0).await;
    nothing_left(&site, &client).await;
}

// spec: §11.2, §11.5
async fn what_is_dropped_before_it_is_ready_has_not_happened(net: Net) {
    let narrow = |config: &mut fluxar::Config| {
        config.limits.stream_window = 500;
        config.stream_buffer = 300;
    };
    let site = Site::with(net, |builder| handlers(builder).configure(narrow)).await;
    let client = site.connect().configure(narrow).build().await.unwrap();
    let (mut sender, mut receiver) = client.stream::<(u64, String)>("echo", &()).await.unwrap().split();
    let (mut sent, mut received, mut given_up) = (0, 0, 0);
    let mut random = Random::new();
    while received < 2000 {
        let item = (sent, "x".repeat(random.below(100) as usize));
        // One future of each round is dropped, wherever it stands; or both, where neither is ready.
        tokio::select! {
            done = sender.send(&item), if sent < 2000 => {
                done.unwrap();
                sent += 1;
            }
            next = receiver.next() => {
                assert_eq!(next.unwrap().unwrap().0, received);
                received += 1;
            }
            () = tokio::task::yield_now() => given_up += 1,
        }
    }
    assert_eq!((sent, received), (2000, 2000));
    assert!(given_up > 0);
    sender.end().await.unwrap();
    assert_eq!(receiver.next().await, None);
    drop((sender, receiver));
    // A `finish` that is dropped gives the stream up.
    let upload = client.stream::<u64>("idle", &()).await.unwrap();
    let finishing = tokio::time::timeout(Duration::from_millis(5), upload.finish::<u64>());
    assert!(finishing.await.is_err());
    // An opening that is dropped opens nothing, and leaves no hole.
    for _ in 0..100 {
        tokio::select! {
            biased;
            () = ready(()) => {}
            _ = client.stream::<u64>("idle", &()).into_future() => unreachable!("it was not polled"),
        }
    }
    nothing_left(&site, &client).await;
    assert_eq!(client.stats().streams_opened, 2);
}

// spec: §11.6
async fn a_pause_holds_the_sender_up_until_resume(net: Net) {
    let site = Site::with(net, |builder| {
        handlers(builder).handle_stream("gate", |mut request: StreamRequest| async move {
            request.pause();
            request.send("closed").await?;
            assert_eq!(request.next::<String>().await, Some(Ok("open".into())));
            request.resume();
            let rest: Option<Result<u64, _>> = request.next().await;
            Ok(rest.transpose()?)
        })
    })
    .await;
    let client = site.client().await;
    let mut gate = client.stream::<String>("gate", &()).await.unwrap();
    assert_eq!(gate.next().await, Some(Ok("closed".into())));
    // What is sent from here on waits here, unless nobody says that it may come.
    gate.send("open").await.unwrap();
    let peer = site.peer().await;
    client.ping().await.unwrap();
    assert_eq!((client.stats().stream_queued_bytes > 0, peer.stats().stream_held_bytes), (true, 0));
    gate.cancel();
    drop(gate);
    // The opener's own pause.
    let mut numbers = client.stream::<u64>("count", &100_000).window(1000).await.unwrap();
    assert_eq!(numbers.next().await, Some(Ok(0)));
    numbers.pause();
    client.ping().await.unwrap();
    let held = client.stats().stream_held_bytes;
    client.ping().await.unwrap();
    assert_eq!(client.stats().stream_held_bytes, held);
    numbers.resume();
    for number in 1..100_000 {
        assert_eq!(numbers.next().await, Some(Ok(number)));
    }
    drop(numbers);
    nothing_left(&site, &client).await;
}
