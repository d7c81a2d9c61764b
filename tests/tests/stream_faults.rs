//! Streams that do not end as somebody planned: what each side is told, and that nobody waits for ever.

use std::time::{Duration, Instant};

use fluxar::{Client, Code, Error, HandlerError, StreamRequest};
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::schedulers;
use fluxar_tests::signal::Counter;
use fluxar_tests::site::Site;
use tokio::sync::mpsc;

schedulers! {
    a_receiver_that_is_dropped_cancels_the_stream
    a_sender_that_is_dropped_fails_an_upload
    a_sender_that_never_sent_may_be_dropped
    a_handler_is_dropped_where_it_stands
    a_request_that_is_dropped_leaves_the_end_to_the_handler
    a_handler_that_panics_ends_the_stream
    a_handler_that_returns_early_tells_who_still_sends
    halves_that_outlive_their_handler_are_told
    halves_that_outlive_their_opener_are_told
    an_error_comes_behind_the_items_that_there_is_room_for
    what_ends_a_stream_from_here_is_told_over_there
    a_deadline_ends_a_stream_on_both_sides
    a_deadline_covers_the_wait_for_a_slot
}

/// Sends for ever.
async fn forever(mut request: StreamRequest) -> Result<(), HandlerError> {
    for number in 0_u64.. {
        request.send(&number).await?;
    }
    Ok(())
}

/// Reads to the end of what comes, and says how much it was.
async fn sum(mut request: StreamRequest) -> Result<u64, HandlerError> {
    let mut sum = 0;
    while let Some(number) = request.next::<u64>().await {
        sum += number?;
    }
    Ok(sum)
}

/// Neither reads nor sends.
async fn idle(_request: StreamRequest) -> Result<(), HandlerError> {
    std::future::pending().await
}

fn handlers(builder: fluxar::ServerBuilder) -> fluxar::ServerBuilder {
    builder.handle_stream("forever", forever).handle_stream("sum", sum).handle_stream("idle", idle)
}

async fn site(net: Net) -> Site {
    Site::with(net, handlers).await
}

/// Nothing is left of any stream, on either side, and the connection goes on.
async fn nothing_left(site: &Site, client: &Client) {
    let peer = site.peer().await;
    eventually("no stream is left", || {
        let (here, there) = (client.stats(), peer.stats());
        let open = [here.streams_open, here.streams_serving, there.streams_open, there.streams_serving];
        let bytes = [here.stream_held_bytes, here.stream_queued_bytes];
        let theirs = [there.stream_held_bytes, there.stream_queued_bytes];
        (open, bytes, theirs) == ([0; 4], [0; 2], [0; 2])
    })
    .await;
    assert_eq!((client.error(), client.call::<u8>("echo", &1).await), (None, Ok(1)));
}

// spec: §11.4
async fn a_receiver_that_is_dropped_cancels_the_stream(net: Net) {
    let site = site(net).await;
    let client = site.client().await;
    let (mut sender, mut receiver) = client.stream::<u64>("forever", &()).await.unwrap().split();
    assert_eq!(receiver.next().await, Some(Ok(0)));
    drop(receiver);
    // The half that is left is told.
    let error = sender.send(&1).await.unwrap_err();
    assert_eq!(error.code, Code::CANCELLED);
    assert_eq!(sender.end().await.unwrap_err().code, Code::CANCELLED);
    eventually("the handler has stopped", || site.handle().peers()[0].stats().streams_serving == 0).await;
    drop(sender);
    nothing_left(&site, &client).await;
}

// spec: §11.3, §11.4
async fn a_sender_that_is_dropped_fails_an_upload(net: Net) {
    let (outcome, mut outcomes) = mpsc::unbounded_channel();
    let site = Site::with(net, |builder| {
        builder.handle_stream("sum", move |request: StreamRequest| {
            let outcome = outcome.clone();
            async move {
                let result = sum(request).await;
                outcome.send(result.as_ref().map_err(|error| error.error().clone()).copied()).unwrap();
                result
            }
        })
    })
    .await;
    let client = site.client().await;
    let (mut sender, mut receiver) = client.stream::<u64>("sum", &()).await.unwrap().split();
    sender.send(&5_u64).await.unwrap();
    // A stream of which nothing has left yet is nobody's loss.
    client.ping().await.unwrap();
    drop(sender);
    // Nobody takes a part for the whole.
    let error = outcomes.recv().await.unwrap().unwrap_err();
    assert_eq!(error.code, Code::CANCELLED);
    assert_eq!(receiver.next().await.unwrap().unwrap_err().code, Code::CANCELLED);
    assert_eq!(receiver.next().await, None);
    drop(receiver);
    nothing_left(&site, &client).await;
}

// spec: §11.3
async fn a_sender_that_never_sent_may_be_dropped(net: Net) {
    let site = site(net).await;
    let client = site.client().await;
    let (sender, mut receiver) = client.stream::<u64>("sum", &()).await.unwrap().split();
    drop(sender);
    assert_eq!(receiver.next().await, None);
    assert_eq!(receiver.last::<u64>(), Some(Ok(0)));
    drop(receiver);
    nothing_left(&site, &client).await;
}

// spec: §11.4
async fn a_handler_is_dropped_where_it_stands(net: Net) {
    let (started, dropped) = (Counter::new(), Counter::new());
    let site = Site::with(net, |builder| {
        let (started, dropped) = (started.clone(), dropped.clone());
        builder.handle_stream("hang", move |request: StreamRequest| {
            started.add();
            let guard = dropped.guard();
            async move {
                let _held = (guard, request);
                std::future::pending::<Result<(), HandlerError>>().await
            }
        })
    })
    .await;
    let client = site.client().await;
    for number in 1..=5 {
        let mut stream = client.stream::<u64>("hang", &()).await.unwrap();
        started.reached(number).await;
        assert_eq!(dropped.get(), number - 1);
        match number {
            1 => stream.cancel(),
            2 => {
                assert!(tokio::time::timeout(Duration::from_millis(5), stream.next()).await.is_err());
            }
            // What was sent is in the handler's hands, unread.
            _ => stream.send(&"x".repeat(number * 10_000)).await.unwrap(),
        }
        drop(stream);
        dropped.reached(number).await;
    }
    nothing_left(&site, &client).await;
}

// spec: §11.3
async fn a_request_that_is_dropped_leaves_the_end_to_the_handler(net: Net) {
    let go = Counter::new();
    let site = Site::with(net, |builder| {
        let go = go.clone();
        builder.handle_stream("later", move |mut request: StreamRequest| {
            let go = go.clone();
            async move {
                request.send(&1).await?;
                drop(request);
                go.reached(1).await;
                Ok("done")
            }
        })
    })
    .await;
    let client = site.client().await;
    let mut stream = client.stream::<u64>("later", &()).await.unwrap();
    assert_eq!(stream.next().await, Some(Ok(1)));
    // Nobody over there will read this, and it is no reason to stop the handler.
    stream.send(&"unread").await.unwrap();
    client.ping().await.unwrap();
    assert_eq!(site.peer().await.stats().streams_serving, 1);
    go.add();
    assert_eq!(stream.finish::<String>().await, Ok("done".into()));
    nothing_left(&site, &client).await;
}

// spec: §11.3, §10.2
async fn a_handler_that_panics_ends_the_stream(net: Net) {
    // Panics without the message of one.
    fn panic() -> ! {
        std::panic::resume_unwind(Box::new("as bad as it gets"))
    }
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic()
        }
    }
    let site = Site::with(net, |builder| {
        builder
            .handle_stream("late", |mut request: StreamRequest| async move {
                request.send(&1).await?;
                if request.next::<u64>().await.is_some() {
                    panic();
                }
                Ok(())
            })
            .handle_stream("early", |request: StreamRequest| {
                if request.remaining().is_none() {
                    panic();
                }
                async { Ok(()) }
            })
            .handle_stream("drop", |_request: StreamRequest| async move {
                let _bomb = Bomb;
                Err::<(), _>(Error::not_found("never told").into())
            })
    })
    .await;
    let client = site.client().await;
    let mut late = client.stream::<u64>("late", &()).await.unwrap();
    assert_eq!(late.next().await, Some(Ok(1)));
    late.send(&2).await.unwrap();
    let mut errors = vec![late.next().await.unwrap().unwrap_err()];
    assert_eq!(late.next().await, None);
    for method in ["early", "drop"] {
        let mut stream = client.stream::<u64>(method, &()).await.unwrap();
        errors.push(stream.next().await.unwrap().unwrap_err());
    }
    drop(late);
    for error in errors {
        assert_eq!((error.code, &*error.message), (Code::INTERNAL, "the handler panicked"));
    }
    nothing_left(&site, &client).await;
}

// spec: §11.11, §11.3
async fn a_handler_that_returns_early_tells_who_still_sends(net: Net) {
    let site = Site::with(net, |builder| {
        builder
            .handle_stream("first", |mut request: StreamRequest| async move {
                request.next::<u64>().await.unwrap_or(Ok(0)).map_err(HandlerError::from)
            })
            .handle_stream("no", |mut request: StreamRequest| async move {
                request.next::<u64>().await;
                Err::<(), _>(Error::permission_denied("not you").into())
            })
    })
    .await;
    let client = site.client().await;
    // Whether the sender is in the midst of it or waits for credit.
    for text in ["x".repeat(10), "x".repeat(50_000)] {
        let (mut sender, mut receiver) = client.stream::<u64>("first", &()).await.unwrap().split();
        sender.send(&77).await.unwrap();
        let error = loop {
            if let Err(error) = sender.send(&text).await {
                break error;
            }
        };
        assert_eq!(error.code, Code::CANCELLED);
        // What it said counts all the same.
        assert_eq!(receiver.next().await, None);
        assert_eq!(receiver.last::<u64>(), Some(Ok(77)));

        let (mut sender, mut receiver) = client.stream::<u64>("no", &()).await.unwrap().split();
        let error = loop {
            if let Err(error) = sender.send(&text).await {
                break error;
            }
        };
        assert_eq!((error.code, &*error.message), (Code::PERMISSION_DENIED, "not you"));
        assert_eq!(receiver.next().await.unwrap().unwrap_err().message, "not you");
    }
    nothing_left(&site, &client).await;
}

// spec: §11.3, §11.11
async fn halves_that_outlive_their_handler_are_told(net: Net) {
    let (told, mut tell) = mpsc::unbounded_channel();
    let go = Counter::new();
    let site = Site::with(net, |builder| {
        let go = go.clone();
        builder.handle_stream("split", move |mut request: StreamRequest| {
            let (told, go) = (told.clone(), go.clone());
            async move {
                let (mut sender, mut receiver) = request.split::<u64>()?;
                let tell = told.clone();
                tokio::spawn(async move {
                    let error = loop {
                        match receiver.next().await {
                            Some(Ok(_)) => {}
                            Some(Err(error)) => break Some(error),
                            None => break None,
                        }
                    };
                    tell.send(("receiver", error)).unwrap();
                });
                tokio::spawn(async move {
                    let text = "x".repeat(10_000);
                    let error = loop {
                        if let Err(error) = sender.send(&text).await {
                            break error;
                        }
                    };
                    told.send(("sender", Some(error))).unwrap();
                });
                let round: usize = request.payload()?;
                go.reached(round).await;
                if round == 1 { Ok(()) } else { Err(Error::aborted("enough").into()) }
            }
        })
    })
    .await;
    let client = site.client().await;
    for round in 1..=2 {
        let stream = client.stream::<String>("split", &round).window(100_000).await.unwrap();
        let peer = site.peer().await;
        // Both halves wait, one for an item and the other for room.
        let full =
            || client.stats().stream_held_bytes > 99_000 && peer.stats().stream_queued_bytes > 32 << 10;
        eventually("the sender waits", full).await;
        go.add();
        for _ in 0..2 {
            let (half, error) = tell.recv().await.unwrap();
            // It was not the opener who ended its direction.
            assert!(error.is_some(), "the {half} takes what it has for all that there is");
        }
        drop(stream);
    }
    nothing_left(&site, &client).await;
}

// spec: §11.4
async fn halves_that_outlive_their_opener_are_told(net: Net) {
    let (told, mut tell) = mpsc::unbounded_channel();
    let site = Site::with(net, |builder| {
        builder.handle_stream("split", move |mut request: StreamRequest| {
            let told = told.clone();
            async move {
                let (_sender, mut receiver) = request.split::<u64>()?;
                tokio::spawn(async move {
                    let mut last = None;
                    while let Some(item) = receiver.next().await {
                        last = Some(item);
                    }
                    told.send(last).unwrap();
                });
                std::future::pending::<Result<(), HandlerError>>().await
            }
        })
    })
    .await;
    let client = site.client().await;
    // The handler goes as well, sooner or later than the half hears of it.
    for number in 0..200_u64 {
        let mut stream = client.stream::<u64>("split", &()).await.unwrap();
        stream.send(&number).await.unwrap();
        // A stream of which nothing has left yet is nobody's loss.
        client.ping().await.unwrap();
        stream.cancel();
        drop(stream);
        let last = tell.recv().await.unwrap();
        assert!(matches!(last, Some(Err(_))), "round {number}: it takes {last:?} for all that there is");
    }
    nothing_left(&site, &client).await;
}

// spec: §11.3
async fn an_error_comes_behind_the_items_that_there_is_room_for(net: Net) {
    let site = Site::with(net, |builder| {
        builder.handle_stream("fail", |mut request: StreamRequest| async move {
            let count: u64 = request.payload()?;
            for number in 0..count {
                request.send(&number).await?;
            }
            Err::<(), _>(Error::aborted("halfway").with_data(&[0x18, 0x2a][..]).into())
        })
    })
    .await;
    let client = site.client().await;
    for (count, window) in [(0, 1000), (1, 1000), (5000, 1 << 20), (5000, 1000), (5000, 0)] {
        let mut stream = client.stream::<u64>("fail", &count).window(window).await.unwrap();
        let mut next = 0;
        let error = loop {
            match stream.next().await.expect("an error") {
                Ok(number) => assert_eq!(std::mem::replace(&mut next, number + 1), number),
                Err(error) => break error,
            }
        };
        assert_eq!((error.code, &*error.message), (Code::ABORTED, "halfway"));
        assert_eq!(error.data.as_deref(), Some(&[0x18, 0x2a][..]));
        assert_eq!(stream.next().await, None);
        assert!(next == count || window < 10_000, "{next} of {count}");
    }
    nothing_left(&site, &client).await;
}

// spec: §11.3, §11.4
async fn what_ends_a_stream_from_here_is_told_over_there(net: Net) {
    let (told, mut tell) = mpsc::unbounded_channel();
    let site = Site::with(net, |builder| {
        builder.handle_stream("hear", move |mut request: StreamRequest| {
            let told = told.clone();
            async move {
                while let Some(item) = request.next::<u64>().await {
                    told.send(item.clone()).unwrap();
                    item?;
                }
                Ok(())
            }
        })
    })
    .await;
    let client = site.client().await;
    let mut stream = client.stream::<u64>("hear", &()).await.unwrap();
    stream.send(&1).await.unwrap();
    stream.send("no number").await.unwrap();
    assert_eq!(tell.recv().await, Some(Ok(1)));
    assert_eq!(tell.recv().await.unwrap().unwrap_err().code, Code::INVALID_ARGUMENT);
    let error = stream.next().await.unwrap().unwrap_err();
    assert_eq!(error.code, Code::INVALID_ARGUMENT);

    let mut stream = client.stream::<u64>("hear", &()).await.unwrap();
    stream.send(&2).await.unwrap();
    client.ping().await.unwrap();
    stream.fail(Error::new(Code(4242), "changed my mind"));
    assert_eq!(tell.recv().await, Some(Ok(2)));
    let error = tell.recv().await.unwrap().unwrap_err();
    assert_eq!((error.code, &*error.message), (Code(4242), "changed my mind"));
    assert_eq!(stream.next().await.unwrap().unwrap_err().code, Code::CANCELLED);
    assert_eq!(stream.send(&3).await.unwrap_err().code, Code::CANCELLED);
    drop(stream);
    nothing_left(&site, &client).await;
}

// spec: §11.7
async fn a_deadline_ends_a_stream_on_both_sides(net: Net) {
    let dropped = Counter::new();
    let site = Site::with(net, |builder| {
        let dropped = dropped.clone();
        builder.handle_stream("slow", move |mut request: StreamRequest| {
            let guard = dropped.guard();
            async move {
                let _guard = guard;
                assert!(request.remaining().unwrap() <= Duration::from_millis(100));
                for number in 0_u64.. {
                    request.send(&number).await?;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Ok(())
            }
        })
    })
    .await;
    let client = site.client().await;
    let since = Instant::now();
    let limit = Duration::from_millis(100);
    let mut stream = client.stream::<u64>("slow", &()).timeout(limit).await.unwrap();
    let error = loop {
        match stream.next().await.expect("an error") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!((error.code, error.processed), (Code::DEADLINE_EXCEEDED, None));
    assert!(since.elapsed() >= limit);
    assert_eq!(stream.next().await, None);
    assert_eq!(stream.send(&1).await.unwrap_err().code, Code::DEADLINE_EXCEEDED);
    dropped.reached(1).await;
    drop(stream);
    // Whoever waits for room to send is told, too.
    let mut stream = client.stream::<u64>("slow", &()).timeout(limit).await.unwrap();
    let text = "x".repeat(50_000);
    let error = loop {
        if let Err(error) = stream.send(&text).await {
            break error;
        }
    };
    assert_eq!(error.code, Code::DEADLINE_EXCEEDED);
    dropped.reached(2).await;
    drop(stream);
    nothing_left(&site, &client).await;
}

// spec: §11.7, §10.5
async fn a_deadline_covers_the_wait_for_a_slot(net: Net) {
    let site =
        Site::with(net, |builder| handlers(builder).configure(|config| config.limits.max_streams = 1)).await;
    let client = site.client().await;
    let held = client.stream::<u64>("idle", &()).await.unwrap();
    let since = Instant::now();
    let limit = Duration::from_millis(50);
    let error = client.stream::<u64>("sum", &()).timeout(limit).await.unwrap_err();
    assert_eq!((error.code, error.processed), (Code::DEADLINE_EXCEEDED, Some(false)));
    assert!(since.elapsed() >= limit);
    drop(held);
    assert_eq!(client.stream::<u64>("sum", &()).await.unwrap().finish::<u64>().await, Ok(0));
    nothing_left(&site, &client).await;
}
