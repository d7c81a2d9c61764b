//! Streams through the public API, over real sockets.

use fluxar::{Code, Error, StreamRequest};
use fluxar_tests::matrix;
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::site::Site;
use futures_util::{SinkExt, StreamExt, stream};

matrix! {
    items_come_in_order_and_then_the_end
    an_upload_gets_its_final_value
    halves_live_in_different_tasks
    a_stream_that_is_dropped_stops_its_handler
    an_error_of_the_handler_comes_behind_its_items
    a_slow_reader_holds_the_sender_up
    an_unknown_method_is_refused
    items_that_are_fed_go_when_they_are_flushed_or_the_stream_ends
}

async fn count(mut request: StreamRequest) -> Result<u64, fluxar::HandlerError> {
    let count: u64 = request.payload()?;
    for number in 0..count {
        request.send(&number).await?;
    }
    Ok(count)
}

async fn sum(mut request: StreamRequest) -> Result<u64, fluxar::HandlerError> {
    let mut sum = 0;
    while let Some(number) = request.next::<u64>().await {
        sum += number?;
    }
    Ok(sum)
}

async fn echo(mut request: StreamRequest) -> Result<(), fluxar::HandlerError> {
    let (mut sender, mut receiver) = request.split::<u64>()?;
    sender.send_all(&mut receiver).await?;
    Ok(())
}

async fn site(net: Net) -> Site {
    Site::with(net, |builder| {
        builder
            .handle_stream("count", count)
            .handle_stream("sum", sum)
            .handle_stream("echo", echo)
            .handle_stream("forever", |mut request: StreamRequest| async move {
                for number in 0_u64.. {
                    request.send(&number).await?;
                }
                Ok(())
            })
            .handle_stream("fail", |mut request: StreamRequest| async move {
                request.send(&1).await?;
                request.send(&2).await?;
                Err::<(), _>(Error::not_found("no third").into())
            })
    })
    .await
}

// spec: §11.1, §11.2, §11.3
async fn items_come_in_order_and_then_the_end(net: Net) {
    let site = site(net).await;
    let client = site.client().await;
    let mut numbers = client.stream::<u64>("count", &100_000).await.unwrap();
    for number in 0..100_000 {
        assert_eq!(numbers.next().await, Some(Ok(number)));
    }
    assert_eq!(numbers.next().await, None);
    assert_eq!(numbers.finish::<u64>().await, Ok(100_000));
    let peer = site.peer().await;
    eventually("no stream is left", || peer.stats().streams_serving == 0).await;
}

// spec: §11.3
async fn an_upload_gets_its_final_value(net: Net) {
    let site = site(net).await;
    let client = site.client().await;
    let mut upload = client.stream::<()>("sum", &()).await.unwrap();
    for number in 0..50_000_u64 {
        upload.send(&number).await.unwrap();
    }
    assert_eq!(upload.finish::<u64>().await, Ok(50_000 * 49_999 / 2));
}

// spec: §11.10
async fn halves_live_in_different_tasks(net: Net) {
    let site = site(net).await;
    let client = site.client().await;
    let (mut sender, receiver) = client.stream::<u64>("echo", &()).await.unwrap().split();
    let sending = tokio::spawn(async move {
        sender.send_all(&mut stream::iter((0..20_000_u64).map(Ok))).await.unwrap();
        SinkExt::<u64>::close(&mut sender).await.unwrap();
    });
    let received: Vec<u64> = receiver.map(Result::unwrap).collect().await;
    assert_eq!(received, (0..20_000).collect::<Vec<_>>());
    sending.await.unwrap();
}

// spec: §11.4
async fn a_stream_that_is_dropped_stops_its_handler(net: Net) {
    let site = site(net).await;
    let client = site.client().await;
    let mut numbers = client.stream::<u64>("forever", &()).await.unwrap();
    assert_eq!(numbers.next().await, Some(Ok(0)));
    let peer = site.peer().await;
    assert_eq!(peer.stats().streams_serving, 1);
    drop(numbers);
    eventually("the handler has stopped", || peer.stats().streams_serving == 0).await;
    eventually("nothing is open", || client.stats().streams_open == 0).await;
}

// spec: §11.3
async fn an_error_of_the_handler_comes_behind_its_items(net: Net) {
    let site = site(net).await;
    let client = site.client().await;
    let mut numbers = client.stream::<u64>("fail", &()).await.unwrap();
    assert_eq!(numbers.next().await, Some(Ok(1)));
    assert_eq!(numbers.next().await, Some(Ok(2)));
    let error = numbers.next().await.unwrap().unwrap_err();
    assert_eq!((error.code, &*error.message), (Code::NOT_FOUND, "no third"));
    assert_eq!(numbers.next().await, None);
}

// spec: §11.5
async fn a_slow_reader_holds_the_sender_up(net: Net) {
    let site = site(net).await;
    let client = site.client().await;
    let mut numbers = client.stream::<u64>("forever", &()).window(4096).await.unwrap();
    let peer = site.peer().await;
    // Woken when half of the buffer is free, it fills it again.
    eventually("the sender waits", || peer.stats().stream_queued_bytes > 32 << 10).await;
    eventually("something has come", || client.stats().stream_held_bytes > 0).await;
    let held = client.stats().stream_held_bytes;
    assert!(held <= 4096 + (16 << 10), "{held}");
    for number in 0..50_000 {
        assert_eq!(numbers.next().await, Some(Ok(number)));
    }
}

// spec: §5.16
async fn an_unknown_method_is_refused(net: Net) {
    let site = site(net).await;
    let client = site.client().await;
    let mut numbers = client.stream::<u64>("nowhere", &()).await.unwrap();
    let error = numbers.next().await.unwrap().unwrap_err();
    assert_eq!((error.code, error.is_retry_safe()), (Code::UNIMPLEMENTED, true));
    assert_eq!(numbers.next().await, None);
}

// spec: §11.2
async fn items_that_are_fed_go_when_they_are_flushed_or_the_stream_ends(net: Net) {
    let site = Site::with(net, |builder| {
        builder.handle_stream("sizes", |mut request: StreamRequest| async move {
            // Whatever comes is answered with its length; the last answer is only fed.
            while let Some(item) = request.next::<String>().await {
                request.feed(&item?.len()).await?;
                request.flush().await?;
            }
            request.feed(&"the end").await?;
            Ok(())
        })
    })
    .await;
    let client = site.client().await;
    let mut stream = client.stream::<fluxar::Raw>("sizes", &()).await.unwrap();
    let sizes = [3, 1_000, 5, 100_000, 7, 1_023, 1_025, 0];
    for size in sizes {
        stream.feed(&"x".repeat(size)).await.unwrap();
    }
    stream.flush().await.unwrap();
    for size in sizes {
        assert_eq!(stream.next().await.unwrap().unwrap().decode(), Ok(size));
    }
    // Of many that are fed, those beyond 16 KiB go by themselves, and the rest with the end.
    for _ in 0..1_000 {
        stream.feed(&"x".repeat(100)).await.unwrap();
    }
    stream.end().await.unwrap();
    for _ in 0..1_000 {
        assert_eq!(stream.next().await.unwrap().unwrap().decode(), Ok(100));
    }
    assert_eq!(stream.next().await.unwrap().unwrap().decode(), Ok("the end".to_owned()));
    assert_eq!(stream.next().await, None);
}
