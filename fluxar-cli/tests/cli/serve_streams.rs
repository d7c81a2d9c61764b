//! `fluxar serve`: the streams of the conformance peer beside the library's client.

use std::collections::BTreeMap;
use std::time::Duration;

use fluxar::{Client, Code, Error, Raw};
use tokio::time::timeout;

use crate::support::{Conformance, LONG};

async fn client(url: &str) -> Client {
    Client::connect(url).build().await.unwrap()
}

fn cbor(bytes: &[u8]) -> Raw {
    Raw::new(bytes.to_vec()).unwrap()
}

/// All items, and what the stream ended with.
async fn drain(client: &Client, method: &str, payload: &[u8]) -> (Vec<Raw>, Result<Option<Raw>, Error>) {
    let (mut sender, mut receiver) = client.stream::<Raw>(method, &cbor(payload)).await.unwrap().split();
    sender.end().await.unwrap();
    let mut items = Vec::new();
    while let Some(item) = receiver.next().await {
        match item {
            Ok(item) => items.push(item),
            Err(error) => return (items, Err(error)),
        }
    }
    (items, Ok(receiver.last().transpose().unwrap()))
}

// spec: §11.2, §11.3
#[tokio::test]
async fn count_sends_numbers_or_bytes_and_ends_with_their_number() {
    let peer = Conformance::start();
    let client = client(&peer.url).await;
    let (items, last) = drain(&client, "test.count", b"\xa1\x61n\x18\x1a").await;
    let numbers = items.iter().map(|item| item.decode::<u64>().unwrap()).collect::<Vec<_>>();
    assert_eq!((numbers, last), ((0..26).collect(), Ok(Some(cbor(b"\x18\x1a")))));
    // {"n": 300, "size": 2}
    let (items, last) = drain(&client, "test.count", b"\xa2\x61n\x19\x01\x2c\x64size\x02").await;
    assert_eq!((items.len(), last), (300, Ok(Some(cbor(b"\x19\x01\x2c")))));
    assert_eq!((&items[0], &items[255]), (&cbor(b"\x42\0\0"), &cbor(b"\x42\xff\xff")));
    assert_eq!(items[256], items[0]);
    // {"n": 1, "size": 300}: the head in its shortest form.
    let (items, _) = drain(&client, "test.count", b"\xa2\x61n\x01\x64size\x19\x01\x2c").await;
    assert_eq!(items[0].as_bytes()[..3], *b"\x59\x01\x2c");
    let (items, last) = drain(&client, "test.count", b"\xa1\x61n\0").await;
    assert_eq!((items, last), (vec![], Ok(Some(cbor(b"\0")))));
}

// spec: §11.2, §5.13
#[tokio::test]
async fn count_says_so_where_an_item_is_too_large() {
    let peer = Conformance::start();
    let small = Client::connect(&peer.url).configure(|config| config.limits.max_message = 1024);
    let small = small.build().await.unwrap();
    // {"n": 3, "size": 1000}
    let (items, last) = drain(&small, "test.count", b"\xa2\x61n\x03\x64size\x19\x03\xe8").await;
    assert_eq!((items, last.unwrap_err().code), (vec![], Code::MESSAGE_TOO_LARGE));
    // {"n": 3, "size": 2^40}: not even tried.
    let (items, last) = drain(&small, "test.count", b"\xa2\x61n\x03\x64size\x1b\0\0\x01\0\0\0\0\0").await;
    assert_eq!((items, last.unwrap_err().code), (vec![], Code::MESSAGE_TOO_LARGE));
    let (_, last) = drain(&small, "test.count", b"\xa1\x61n\x61x").await;
    assert_eq!(last.unwrap_err().code, Code::INVALID_ARGUMENT);
}

// spec: §11.3
#[tokio::test]
async fn sum_adds_integers_of_any_size() {
    let peer = Conformance::start();
    let client = client(&peer.url).await;
    let sum = async |items: &[&[u8]]| {
        let mut stream = client.stream::<()>("test.sum", &()).await.unwrap();
        for item in items {
            stream.send(&cbor(item)).await.unwrap();
        }
        stream.finish::<i64>().await
    };
    assert_eq!(sum(&[]).await, Ok(0));
    // In the shortest form and in a longer one.
    assert_eq!(sum(&[b"\x01", b"\x38\x63", b"\x19\0\x05"]).await, Ok(-94));
    // What lies between may be out of range.
    assert_eq!(
        sum(&[
            &[0x1b, 255, 255, 255, 255, 255, 255, 255, 255],
            &[0x3b, 255, 255, 255, 255, 255, 255, 255, 255]
        ])
        .await,
        Ok(-1)
    );
    let error = sum(&[&[0x1b, 128, 0, 0, 0, 0, 0, 0, 0]]).await.unwrap_err();
    assert_eq!(error.code, Code::OUT_OF_RANGE);
    for item in [&b"\x61x"[..], b"\xf9\x3c\0", b"\xf6", b"\xc1\x01"] {
        assert_eq!(sum(&[item]).await.unwrap_err().code, Code::INVALID_ARGUMENT, "{item:x?}");
    }
}

// spec: §11.2, §11.3
#[tokio::test]
async fn echo_sends_back_items_and_final_value_byte_for_byte() {
    let peer = Conformance::start();
    let client = client(&peer.url).await;
    let items = [&b"\xf6"[..], b"\x18\x01", b"\x9f\xff", b"\x62\xc3\x28", b"\xf9\x7e\x01"].map(cbor);
    let (mut sender, mut receiver) = client.stream::<Raw>("test.echo", &()).await.unwrap().split();
    for item in &items {
        sender.send(item).await.unwrap();
    }
    sender.end_with(&cbor(b"\x5f\x41\x01\xff")).await.unwrap();
    for item in items {
        assert_eq!(receiver.next().await, Some(Ok(item)));
    }
    assert_eq!(receiver.next().await, None);
    assert_eq!(receiver.last::<Raw>(), Some(Ok(cbor(b"\x5f\x41\x01\xff"))));
    assert_eq!(drain(&client, "test.echo", b"\xf6").await, (vec![], Ok(None)));
}

// spec: §11.5
#[tokio::test]
async fn echo_takes_no_more_than_it_can_send_back() {
    let peer = Conformance::start();
    let client = client(&peer.url).await;
    let opening = client.stream::<Raw>("test.echo", &()).window(1024);
    let (mut sender, mut receiver) = opening.await.unwrap().split();
    let item = Raw::encode(&"x".repeat(10_000)).unwrap();
    // Nothing is read here: so the sender comes to a halt when all buffers on the way are full.
    let mut sent = 0;
    let pass = Raw::encode(&[("ms", 200)].into_iter().collect::<BTreeMap<_, _>>()).unwrap();
    while let Ok(sending) = tokio::select! {
        biased;
        sending = sender.send(&item) => Ok(sending),
        slept = client.call::<()>("test.sleep", &pass) => Err(slept),
    } {
        sending.unwrap();
        sent += 1;
        assert!(sent < 1_000, "nothing holds it up");
    }
    // And goes on where it is read again.
    for _ in 0..sent {
        assert_eq!(receiver.next().await, Some(Ok(item.clone())));
    }
}

// spec: §11.4, §11.7
#[tokio::test]
async fn never_waits_for_cancel_or_deadline_and_cancels_are_counted() {
    let peer = Conformance::start();
    let (one, other) = (client(&peer.url).await, client(&peer.url).await);
    for _ in 0..3 {
        let stream = one.stream::<Raw>("test.never", &()).await.unwrap();
        // Behind it: so the peer has it.
        one.call::<Raw>("test.echo", &()).await.unwrap();
        drop(stream);
    }
    let call = one.call::<Raw>("test.never", &()).start().await.unwrap();
    one.call::<Raw>("test.echo", &()).await.unwrap();
    drop(call);
    assert_eq!(one.call::<u64>("test.cancelled", &()).await, Ok(4));
    assert_eq!(other.call::<u64>("test.cancelled", &()).await, Ok(0));
    let mut late = other.stream::<Raw>("test.never", &()).timeout(Duration::from_millis(50)).await.unwrap();
    let ended = timeout(LONG, late.next()).await.unwrap().unwrap();
    assert_eq!(ended.unwrap_err().code, Code::DEADLINE_EXCEEDED);
}

// spec: §11.1
#[tokio::test]
async fn reject_refuses() {
    let peer = Conformance::start();
    let client = client(&peer.url).await;
    let (items, last) = drain(&client, "test.reject", b"\xf6").await;
    let error = last.unwrap_err();
    assert_eq!((items, error.code, error.processed), (vec![], Code::PERMISSION_DENIED, Some(false)));
    let (_, last) = drain(&client, "nope", b"\xf6").await;
    assert_eq!(last.unwrap_err().code, Code::UNIMPLEMENTED);
}
