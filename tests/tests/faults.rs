//! Transports that do what they may do, and mostly do not.

use std::time::{Duration, Instant};

use fluxar::{Code, ConnectError, ConnectionError, Error, HandlerError, Raw, Reconnect, Request};
use fluxar_proto::message::{Kind, verb};
use fluxar_runtime::{ClientBuilder, ServerBuilder};
use fluxar_tests::chaos::Chaos;
use fluxar_tests::net::Net;
use fluxar_tests::random::Random;
use fluxar_tests::wire::{Message, Trap, Wire};
use fluxar_tests::{matrix, schedulers};
use futures_util::future::join_all;

matrix! {
    bytes_may_come_and_go_in_pieces_of_any_size
}

schedulers! {
    dialling_has_a_time_limit
    why_a_connection_ends_is_read_even_where_nothing_can_be_written
    what_follows_the_offer_at_once_counts
    a_peer_that_goes_on_sending_hears_the_close
}

// spec: §3.1
async fn bytes_may_come_and_go_in_pieces_of_any_size(net: Net) {
    let mut random = Random::new();
    let echo = |request: Request| async move { Ok::<_, HandlerError>(request.raw()) };
    let server = ServerBuilder::new(Chaos::in_pieces(&mut random))
        .listen(net.url())
        .handle("echo", echo)
        .handle("back", |request: Request| async move {
            let raw = request.raw();
            for number in 0..5u8 {
                request.update(&number).await?;
            }
            Ok(request.peer().call::<Raw>("echo", &raw).await?)
        })
        .build()
        .await
        .unwrap();
    let (url, handle) = (server.url(), server.server_handle());
    let running = tokio::spawn(server.run());
    let client =
        ClientBuilder::new(Chaos::in_pieces(&mut random), url).handle("echo", echo).build().await.unwrap();
    let calls = (0..80).map(|_| {
        let (client, length) = (&client, [0, 1, 10, 100, 1000, 10_000][random.below(6) as usize]);
        let text: String = (0..length).map(|_| char::from(b'a' + random.below(26) as u8)).collect();
        let method = if random.below(2) == 0 { "echo" } else { "back" };
        async move {
            assert!(client.call::<String>(method, &text).await.unwrap() == text, "it came back otherwise");
        }
    });
    join_all(calls).await;
    client.ping().await.unwrap();
    handle.stop();
    running.await.unwrap().unwrap();
    assert_eq!(client.closed().await, ConnectionError::ClosedByPeer(None));
}

// spec: §6.9
async fn dialling_has_a_time_limit(_: Net) {
    let since = Instant::now();
    let connect = ClientBuilder::new(Chaos::never_connecting(), "tcp://127.0.0.1:9")
        .configure(|config| config.handshake_timeout = Duration::from_millis(30));
    let error = connect.build().await.unwrap_err();
    assert!(
        matches!(&error, ConnectError::Io(_, io) if io.kind() == std::io::ErrorKind::TimedOut),
        "{error:?}"
    );
    assert!(since.elapsed() >= Duration::from_millis(30));
}

// spec: §8.7, §8.8
async fn why_a_connection_ends_is_read_even_where_nothing_can_be_written(_: Net) {
    let reason = Error::permission_denied("not any more");
    let trap = Trap::open().await;
    let chaos = Chaos::default();
    let connect = ClientBuilder::new(chaos.clone(), trap.url());
    let (client, mut wire) = tokio::join!(connect.build(), trap.established());
    let client = client.unwrap();
    // From here on the close lies there unread, until the transport fails to take a call.
    chaos.break_writes();
    wire.send(&Message::control(verb::CLOSE).error(reason.clone())).await;
    let error = client.call::<Raw>("late", &()).await.unwrap_err();
    assert!(error.message.contains("not any more"), "{error}");
    assert_eq!(client.closed().await, ConnectionError::ClosedByPeer(Some(reason)));
    // Without a reason, the failure is the reason.
    let trap = Trap::open().await;
    let chaos = Chaos::default();
    let connect = ClientBuilder::new(chaos.clone(), trap.url()).reconnect(Reconnect::off());
    let (client, _wire) = tokio::join!(connect.build(), trap.established());
    let client = client.unwrap();
    chaos.break_writes();
    assert_eq!(client.call::<Raw>("late", &()).await.unwrap_err().code, Code::UNAVAILABLE);
    assert!(matches!(client.closed().await, ConnectionError::Transport(_)));
}

// spec: §6.1
async fn what_follows_the_offer_at_once_counts(net: Net) {
    let site = fluxar_tests::site::Site::open(net).await;
    let mut wire = Wire::connect(site.url()).await;
    let (small, large) =
        (Message::call("echo").payload(&1), Message::call("echo").payload(&"x".repeat(90_000)));
    // Nothing more comes after it that could draw attention to it.
    wire.send_bytes(&[Message::offer().frame(), small.frame(), large.frame()].concat()).await;
    assert_eq!(wire.receive().await.kind, Kind::Hello);
    for _ in 0..2 {
        let response = wire.receive().await;
        if response.reference == Some(small.id) {
            assert_eq!(response.decode::<u8>(), 1);
        } else {
            assert_eq!(response.reference, Some(large.id));
            assert_eq!(response.decode::<String>().len(), 90_000);
        }
    }
}

// spec: §8.7
async fn a_peer_that_goes_on_sending_hears_the_close(net: Net) {
    let site = fluxar_tests::site::Site::open(net).await;
    let mut wire = site.wire().await;
    wire.send_bytes(&[0, 0, 0, 0]).await;
    // Far more than sockets hold: it can be sent only if it is read.
    let mut sent = 0;
    while sent < 12 << 20 {
        wire.try_send_bytes(&[0x55; 64 << 10]).await.expect("what is said after the close is read");
        sent += 64 << 10;
    }
    assert_eq!(wire.closed_for().await, Code::MALFORMED);
}
