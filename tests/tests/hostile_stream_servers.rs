//! Clients against hostile servers that have streams: whoever waits is told what went wrong.

use std::time::Duration;

use fluxar::{Client, Code, Error, HandlerError, Stream, StreamRequest};
use fluxar_proto::message::{Id, Kind, verb};
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::schedulers;
use fluxar_tests::streaming::{end_of, next_on};
use fluxar_tests::verbs::Terms;
use fluxar_tests::wire::{Message, Trap, Wire, fresh_id};

schedulers! {
    what_a_server_may_not_send_ends_the_connection
    data_beyond_the_window_of_the_opening_ends_the_connection
    more_credit_than_there_may_be_ends_the_connection
    what_comes_for_nobody_is_dropped
    a_server_that_cancels_is_answered
    a_server_that_answers_no_cancel_keeps_its_own_slots
    a_server_that_grants_nothing_holds_its_own_stream_up
    a_server_without_streams_gets_none
    a_server_that_opens_streams_for_nobody_is_cut_off
}

/// A client and its scripted server, which has streams.
async fn met(terms: Terms) -> (Client, Wire) {
    met_with(terms, Client::connect).await
}

async fn met_with(terms: Terms, connect: impl FnOnce(String) -> fluxar::ClientBuilder) -> (Client, Wire) {
    let trap = Trap::open().await;
    let (client, wire) = tokio::join!(connect(trap.url()).build(), trap.with(terms));
    (client.unwrap(), wire)
}

/// A stream of the client's, and its id.
async fn opened(client: &Client, wire: &mut Wire) -> (Stream<u64>, Id) {
    let stream = client.stream::<u64>("numbers", &()).await.unwrap();
    loop {
        let message = wire.receive().await;
        if (message.kind, message.reference) == (Kind::Stream, None) {
            return (stream, message.id);
        }
    }
}

/// Something that must not be said of the stream with this id.
type Wrong = fn(Id) -> Message;

/// What a client closes the connection for, on whose stream a server sends `messages`; all that waits there learns of it.
async fn verdict(terms: Terms, messages: impl Fn(Id) -> Vec<Message>) -> Code {
    let (client, mut wire) = met(terms).await;
    let (mut stream, id) = opened(&client, &mut wire).await;
    let (mut other, _) = opened(&client, &mut wire).await;
    wire.send_bytes(&messages(id).iter().flat_map(Message::frame).collect::<Vec<u8>>()).await;
    let code = wire.closed_for().await;
    assert_eq!(client.closed().await.code(), code);
    for error in [other.next().await.unwrap().unwrap_err(), other.send(&1).await.unwrap_err()] {
        assert_eq!(error.code, Code::UNAVAILABLE, "{error}");
    }
    // What came before in order is handed on.
    while let Some(item) = stream.next().await {
        if let Err(error) = item {
            assert_eq!(error.code, Code::UNAVAILABLE, "{error}");
        }
    }
    code
}

// spec: §5.15, §11.2, §11.3
async fn what_a_server_may_not_send_ends_the_connection(_: Net) {
    let wrong: [(Wrong, Code); 9] = [
        (|id| Message::item(id).payload(&1), Code::PROTOCOL_VIOLATION),
        (|id| Message::items(id).payload(&[1]), Code::PROTOCOL_VIOLATION),
        (|id| Message::end(id), Code::PROTOCOL_VIOLATION),
        (|id| Message::response(id), Code::PROTOCOL_VIOLATION),
        (|id| Message::cancel(id), Code::PROTOCOL_VIOLATION),
        (|id| Message::stream("x").id(id), Code::PROTOCOL_VIOLATION),
        (|id| Message::item(id).verb(verb::CREDIT).payload("much"), Code::MALFORMED),
        (|id| Message::pause(id).error(Error::unknown("misplaced")), Code::MALFORMED),
        (|id| Message::credit(id, u64::MAX), Code::FLOW_CONTROL),
    ];
    for (wrong, code) in wrong {
        let behind_an_end = |id| vec![Message::item(id).payload(&1), Message::end(id), wrong(id)];
        assert_eq!(verdict(Terms::streams(), behind_an_end).await, code, "{:?}", wrong(fresh_id()));
    }
    for wrong in [
        |id| Message::items(id),
        |id| Message::items(id).payload("no array"),
        |id| Message::item(id).error(Error::unknown("misplaced")),
    ] {
        assert_eq!(verdict(Terms::streams(), |id| vec![wrong(id)]).await, Code::MALFORMED);
    }
}

// spec: §11.5
async fn data_beyond_the_window_of_the_opening_ends_the_connection(_: Net) {
    let (client, mut wire) = met(Terms::streams()).await;
    let mut stream = client.stream::<String>("texts", &()).window(1000).await.unwrap();
    let opening = wire.receive().await;
    let item = Message::item(opening.id).payload(&"x".repeat(999)).frame();
    // The first takes the credit below zero, unless somebody reads.
    wire.send_bytes(&item).await;
    eventually("it is there", || client.stats().stream_held_bytes > 1000).await;
    wire.send_bytes(&item).await;
    assert_eq!(wire.closed_for().await, Code::FLOW_CONTROL);
    assert_eq!(stream.next().await, Some(Ok("x".repeat(999))));
    assert_eq!(stream.next().await.unwrap().unwrap_err().code, Code::UNAVAILABLE);
}

// spec: §11.5
async fn more_credit_than_there_may_be_ends_the_connection(_: Net) {
    for window in [0, 1000, i32::MAX as u32] {
        let rest = u64::from(i32::MAX as u32 - window);
        let terms = || Terms::streams().limit("stream_window", window);
        let floods = |id| vec![Message::credit(id, rest), Message::credit(id, 0), Message::credit(id, 1)];
        assert_eq!(verdict(terms(), floods).await, Code::FLOW_CONTROL);
        let many = |id| (0..33).map(|_| Message::credit(id, 1 << 26)).collect();
        assert_eq!(verdict(terms(), many).await, Code::FLOW_CONTROL);
    }
}

// spec: §5.15
async fn what_comes_for_nobody_is_dropped(_: Net) {
    let (client, mut wire) = met(Terms::streams()).await;
    let (mut stream, id) = opened(&client, &mut wire).await;
    stream.cancel();
    assert_eq!(next_on(&mut wire, id).await.does(), Some(verb::CANCEL));
    let late = [
        Message::item(id).payload(&1),
        Message::items(id).payload("no array"),
        Message::pause(id).error(Error::unknown("misplaced")),
        Message::item(fresh_id()).payload(&1),
        Message::end(fresh_id()),
    ];
    for message in &late {
        wire.send(message).await;
    }
    wire.ping().await;
    assert_eq!((client.stats().dropped, client.stats().streams_open), (late.len() as u64, 1));
    wire.send(&Message::failure(id, Error::cancelled(""))).await;
    wire.send(&Message::end(id)).await;
    wire.ping().await;
    assert_eq!((client.stats().dropped, client.stats().streams_open), (late.len() as u64 + 1, 0));
    assert_eq!(stream.next().await.unwrap().unwrap_err().code, Code::CANCELLED);
    assert_eq!(client.error(), None);
}

// spec: §11.4
async fn a_server_that_cancels_is_answered(_: Net) {
    let (client, mut wire) = met(Terms::streams()).await;
    for reason in [None, Some(Error::new(Code(4242), "too slow"))] {
        let (mut stream, id) = opened(&client, &mut wire).await;
        let cancel = Message { error: reason.clone(), ..Message::abandon(id) };
        wire.send(&Message::item(id).payload(&1)).await;
        wire.send(&cancel).await;
        let answer = end_of(&mut wire, id).await.unwrap();
        assert_eq!(answer.code, Code::CANCELLED);
        assert_eq!(stream.next().await, Some(Ok(1)));
        let error = stream.next().await.unwrap().unwrap_err();
        let sent = stream.send(&1).await.unwrap_err();
        for error in [error, sent] {
            assert_eq!(error.code, reason.as_ref().map_or(Code::CANCELLED, |reason| reason.code));
        }
    }
    assert_eq!(client.stats().streams_open, 0);
    // A server that cancels what it likes is borne for so long.
    let flood: Vec<u8> = (0..40_000).flat_map(|_| Message::abandon(fresh_id()).frame()).collect();
    wire.try_send_bytes(&flood).await.ok();
    assert_eq!(wire.closed_for().await, Code::RESOURCE_EXHAUSTED);
}

// spec: §11.4, §11.8
async fn a_server_that_answers_no_cancel_keeps_its_own_slots(_: Net) {
    let (client, mut wire) = met(Terms::streams().limit("max_streams", 3)).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let (stream, id) = opened(&client, &mut wire).await;
        drop(stream);
        ids.push(id);
    }
    assert_eq!(client.stats().streams_open, 3);
    let limit = Duration::from_millis(20);
    let error = client.stream::<u64>("numbers", &()).timeout(limit).await.unwrap_err();
    assert_eq!((error.code, error.processed), (Code::DEADLINE_EXCEEDED, Some(false)));
    let waiting = tokio::spawn({
        let peer = client.peer();
        async move { peer.stream::<u64>("numbers", &()).await.map(drop) }
    });
    // Anything that closes the stream is an answer.
    wire.send(&Message::abandon(ids[1])).await;
    waiting.await.unwrap().unwrap();
    for id in [ids[0], ids[2]] {
        wire.send(&Message::end(id)).await;
    }
    eventually("two are free", || client.stats().streams_open <= 1).await;
}

// spec: §11.5
async fn a_server_that_grants_nothing_holds_its_own_stream_up(_: Net) {
    let (client, mut wire) = met(Terms::streams().limit("stream_window", 0)).await;
    let (mut stream, id) = opened(&client, &mut wire).await;
    let text = "x".repeat(20_000);
    while tokio::time::timeout(Duration::from_millis(50), stream.send(&text)).await.is_ok() {}
    assert!(client.stats().stream_queued_bytes <= (64 << 10) + 20_100);
    // Everything else goes on beside it, and one byte lets one message through.
    wire.ping().await;
    wire.send(&Message::credit(id, 1)).await;
    assert_eq!(next_on(&mut wire, id).await.decode::<String>(), text);
    let out = client.stats().messages_out;
    wire.ping().await;
    assert_eq!(client.stats().messages_out, out + 1, "the ping's reply");
    // The end with an error waits for nobody.
    stream.fail(Error::aborted("too slow"));
    assert_eq!(end_of(&mut wire, id).await.unwrap().code, Code::ABORTED);
}

// spec: §6.6, §11.8
async fn a_server_without_streams_gets_none(_: Net) {
    for (terms, code) in [
        (Terms::default(), Code::UNIMPLEMENTED),
        (Terms::streams().limit("max_streams", 0), Code::RESOURCE_EXHAUSTED),
    ] {
        let (client, mut wire) = met(terms).await;
        let error = client.stream::<u64>("numbers", &()).await.unwrap_err();
        assert_eq!((error.code, error.processed), (code, Some(false)));
        wire.ping().await;
    }
}

// spec: §10.7, §11.8
async fn a_server_that_opens_streams_for_nobody_is_cut_off(_: Net) {
    let (client, mut wire) = met_with(Terms::streams(), |url| {
        let few = |config: &mut fluxar::Config| {
            config.limits.max_streams = 4;
            config.misuse_capacity = 200;
            config.misuse_per_second = 0;
        };
        let client = Client::connect(url).configure(few);
        client.handle_stream("idle", |_: StreamRequest| std::future::pending::<Result<(), HandlerError>>())
    })
    .await;
    let unknown = Message::stream("no such method");
    wire.send(&unknown).await;
    assert_eq!(end_of(&mut wire, unknown.id).await.unwrap().code, Code::UNIMPLEMENTED);
    let flood: Vec<u8> = (0..250).flat_map(|_| Message::stream("idle").frame()).collect();
    wire.send_bytes(&flood).await;
    assert_eq!(wire.closed_for().await, Code::RESOURCE_EXHAUSTED);
    assert_eq!(client.closed().await.code(), Code::RESOURCE_EXHAUSTED);
    let stats = client.stats();
    assert_eq!((stats.streams_served, stats.refused), (5, 199));
}
