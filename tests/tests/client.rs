//! The side that dials, and what a hostile server can do to it.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use fluxar::{Client, Code, ConnectError, ConnectionError, Error, Raw};
use fluxar_proto::message::{Id, Kind, verb};
use fluxar_proto::{HelloError, Timeout, Violation, frame};
use fluxar_tests::net::{Net, socket_path};
use fluxar_tests::schedulers;
use fluxar_tests::site::Site;
use fluxar_tests::wire::{Message, Trap, Wire, framed, fresh_id};

schedulers! {
    nobody_there_is_an_error_that_names_the_address
    a_server_that_says_nothing_is_given_up
    a_build_that_is_dropped_closes_the_connection
    a_refused_offer_says_why
    a_server_that_closes_in_the_handshake_says_why
    a_server_that_vanishes_in_the_handshake_is_lost
    an_answer_to_something_else_is_a_violation
    an_answer_with_a_verb_is_a_violation
    something_else_than_an_answer_is_a_violation
    an_answer_that_chooses_what_was_not_offered_is_a_violation
    a_server_that_asks_for_a_proof_is_told_that_there_is_none
    an_answer_that_is_none_is_malformed
    garbage_for_an_answer_is_malformed
    a_second_answer_is_a_violation
    what_follows_the_answer_in_one_piece_counts
    an_answer_byte_by_byte_is_an_answer
    a_response_twice_is_dropped
    a_response_to_what_nobody_asked_is_dropped
    a_response_with_an_error_beside_its_payload_is_malformed
    a_cancel_from_the_callee_is_a_violation
    the_server_calls_more_than_the_client_takes
    the_servers_messages_obey_the_clients_limits
    an_unknown_code_is_shown_as_it_is
}

/// What comes of connecting to a server that follows `script`, and of the script itself.
async fn against<T>(script: impl AsyncFnOnce(&mut Wire) -> T) -> (Result<Client, ConnectError>, T, Wire) {
    let trap = Trap::open().await;
    let connect = Client::connect(trap.url()).build();
    let (client, (result, wire)) = tokio::join!(connect, async {
        let mut wire = trap.accept().await;
        (script(&mut wire).await, wire)
    });
    (client, result, wire)
}

/// Why the handshake failed with a server that follows `script` after it has got the offer.
async fn failure(script: impl AsyncFnOnce(&mut Wire, Message)) -> (ConnectionError, Wire) {
    let (client, (), wire) = against(async |wire: &mut Wire| {
        let offer = wire.receive().await;
        script(wire, offer).await;
    })
    .await;
    match client {
        Err(ConnectError::Handshake(error)) => (error, wire),
        other => panic!("{other:?}"),
    }
}

async fn nobody_there_is_an_error_that_names_the_address(_: Net) {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("tcp://127.0.0.1:{port}");
    let error = Client::connect(&url).build().await.unwrap_err();
    assert!(
        matches!(&error, ConnectError::Io(_, io) if io.kind() == ErrorKind::ConnectionRefused),
        "{error:?}"
    );
    assert!(error.to_string().starts_with(&url), "{error}");
    let url = format!("unix://{}", socket_path().display());
    let error = Client::connect(&url).build().await.unwrap_err();
    assert!(matches!(&error, ConnectError::Io(_, io) if io.kind() == ErrorKind::NotFound), "{error:?}");
}

// spec: §6.9, §6.13
async fn a_server_that_says_nothing_is_given_up(_: Net) {
    let trap = Trap::open().await;
    let since = Instant::now();
    let short = |config: &mut fluxar::Config| config.handshake_timeout = Duration::from_millis(50);
    let connect = Client::connect(trap.url()).configure(short).build();
    let (client, mut wire) = tokio::join!(connect, trap.accept());
    let error = client.unwrap_err();
    assert!(since.elapsed() >= Duration::from_millis(50));
    assert!(
        matches!(error, ConnectError::Handshake(ConnectionError::TimedOut(Timeout::Handshake))),
        "{error:?}"
    );
    assert_eq!(wire.receive().await.kind, Kind::Hello);
    assert_eq!(wire.closed_for().await, Code::DEADLINE_EXCEEDED);
    // An answer that goes on and on is not one either.
    let trap = Trap::open().await;
    let connect = Client::connect(trap.url()).configure(short).build();
    let (client, closed) = tokio::join!(connect, async {
        let mut wire = trap.accept().await;
        wire.send_bytes(&frame::prefix(60_000)).await;
        let trickle = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(5));
            loop {
                ticks.tick().await;
                if wire.try_send_bytes(&[0x87]).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(Duration::from_millis(200), trickle).await.unwrap_err();
        wire.closed_for().await
    });
    assert_eq!(closed, Code::DEADLINE_EXCEEDED);
    assert!(client.is_err());
}

// spec: §8.7
async fn a_build_that_is_dropped_closes_the_connection(_: Net) {
    let trap = Trap::open().await;
    let connecting = tokio::spawn(Client::connect(trap.url()).build());
    let mut wire = trap.accept().await;
    assert_eq!(wire.receive().await.kind, Kind::Hello);
    connecting.abort();
    assert!(connecting.await.unwrap_err().is_cancelled());
    assert_eq!(wire.closed().await, None);
}

// spec: §6.8
async fn a_refused_offer_says_why(_: Net) {
    let refusal = Error::new(Code::RESOURCE_EXHAUSTED, "full house")
        .with_data(&[0x82, 0x01, 0x02][..])
        .with_retry_after_ms(1500);
    let (error, mut wire) = failure(async |wire, offer| {
        wire.send(&Message::continuation(Kind::Hello, offer.id).error(refusal.clone())).await;
    })
    .await;
    assert_eq!(error, ConnectionError::Refused(refusal));
    assert_eq!(wire.next().await, None, "nothing is said to a refusal");
}

// spec: §6.8, §8.7
async fn a_server_that_closes_in_the_handshake_says_why(_: Net) {
    for reason in [None, Some(Error::new(Code(4000), "not you"))] {
        let (error, mut wire) = failure(async |wire, _| {
            let close = Message::control(verb::CLOSE);
            wire.send(&Message { error: reason.clone(), ..close }).await;
        })
        .await;
        assert_eq!(error, ConnectionError::ClosedByPeer(reason));
        assert_eq!(wire.next().await, None, "a close is not answered");
    }
}

// spec: §3.4, §6.13
async fn a_server_that_vanishes_in_the_handshake_is_lost(_: Net) {
    for sent in [&[][..], &[0, 0], &[0, 0, 0, 50, 0x87, 0x01]] {
        let (error, _) = failure(async |wire, _| {
            wire.send_bytes(sent).await;
            wire.finish().await;
        })
        .await;
        assert_eq!(error, ConnectionError::LinkLost { unread: sent.len() });
    }
}

async fn violates(script: impl AsyncFnOnce(&mut Wire, Message)) {
    let (error, mut wire) = failure(script).await;
    assert!(
        matches!(error, ConnectionError::Violation(Violation::WrongAnswer | Violation::HelloExpected)),
        "{error:?}"
    );
    assert_eq!(wire.closed_for().await, Code::PROTOCOL_VIOLATION);
}

// spec: §6.1, §6.4
async fn an_answer_to_something_else_is_a_violation(_: Net) {
    violates(async |wire, _| wire.send(&Message::answer(fresh_id())).await).await;
    // Its own offer is no answer either.
    violates(async |wire, offer| wire.send(&offer).await).await;
}

// spec: §6.1
async fn an_answer_with_a_verb_is_a_violation(_: Net) {
    violates(async |wire, offer| wire.send(&Message::answer(offer.id).verb(verb::PROOF)).await).await;
}

// spec: §6.1, §6.13
async fn something_else_than_an_answer_is_a_violation(_: Net) {
    violates(async |wire, _| wire.send(&Message::call("early")).await).await;
    violates(async |wire, _| wire.send(&Message::control(verb::PING)).await).await;
    violates(async |wire, offer| wire.send(&Message::response(offer.id)).await).await;
    violates(async |wire, offer| wire.send(&Message::continuation(Kind::Control, offer.id)).await).await;
}

// spec: §6.4, §6.5
async fn an_answer_that_chooses_what_was_not_offered_is_a_violation(_: Net) {
    let unasked: [&[u8]; 5] = [
        b"\xa1\x67version\x02",
        b"\xa1\x67version\x00",
        b"\xa2\x67version\x01\x64caps\xa1\x68features\x81\x65lanes",
        b"\xa2\x67version\x01\x64caps\xa1\x68compress\x64zstd",
        b"\xa2\x67version\x01\x63psk\xa1\x65nonce\x40",
    ];
    for answer in unasked {
        violates(async |wire, offer| wire.send(&Message::answer(offer.id).raw(answer)).await).await;
    }
    // Nor what this client alone did not offer.
    let trap = Trap::open().await;
    let connect = Client::connect(trap.url()).configure(|config| config.resume = false);
    let (client, closed) = tokio::join!(connect.build(), async {
        let mut wire = trap.accept().await;
        let offer = wire.receive().await;
        let answer = &b"\xa2\x67version\x01\x64caps\xa1\x68features\x81\x66resume"[..];
        wire.send(&Message::answer(offer.id).raw(answer)).await;
        wire.closed_for().await
    });
    assert!(client.is_err());
    assert_eq!(closed, Code::PROTOCOL_VIOLATION);
}

// spec: §6.10
async fn a_server_that_asks_for_a_proof_is_told_that_there_is_none(_: Net) {
    let why = Error::unauthenticated("who are you?");
    let refusal = why.clone();
    let (error, _) = failure(async |wire, offer| {
        let ask = &b"\xa2\x67version\x01\x64next\x65proof"[..];
        let ask = Message::answer(offer.id).raw(ask);
        let asked = ask.id;
        wire.send(&ask).await;
        let proof = wire.receive().await;
        assert_eq!((proof.reference, proof.target.as_deref()), (Some(asked), Some("proof")));
        assert_eq!(proof.payload.as_bytes(), b"\xa0");
        wire.send(&Message::continuation(Kind::Hello, proof.id).error(refusal)).await;
    })
    .await;
    assert_eq!(error, ConnectionError::Refused(why));
}

// spec: §6.2, §6.7
async fn an_answer_that_is_none_is_malformed(_: Net) {
    let bad: [&[u8]; 7] = [
        b"\xf6",
        b"\x80",
        b"\xa0",
        b"\xa1\x67version\x20",
        b"\xa2\x67version\x01\x67version\x01",
        b"\xa2\x67version\x01\x66limits\xa1\x6bmax_message\x19\x03\xff",
        b"\xa2\x67version\x01\x65agent\x00",
    ];
    for answer in bad {
        let (error, mut wire) =
            failure(async |wire, offer| wire.send(&Message::answer(offer.id).raw(answer)).await).await;
        assert!(matches!(error, ConnectionError::Hello(_)), "{error:?}");
        assert_eq!(wire.closed_for().await, Code::MALFORMED);
    }
    let (error, _) =
        failure(async |wire, offer| wire.send(&Message::answer(offer.id).raw(&b"\xa0"[..])).await).await;
    assert_eq!(error, ConnectionError::Hello(HelloError::Missing("version")));
}

// spec: §3.3, §4.2, §5.1
async fn garbage_for_an_answer_is_malformed(_: Net) {
    let cases: [(&[u8], Code); 5] = [
        (b"\x00\x00\x00\x00", Code::MALFORMED),
        (b"\x00\x00\x00\x05hello", Code::MALFORMED),
        (b"\x00\x00\x00\x01\x87", Code::MALFORMED),
        (b"\x00\x01\x00\x01", Code::MESSAGE_TOO_LARGE),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Code::MESSAGE_TOO_LARGE),
    ];
    for (bytes, code) in cases {
        let (error, mut wire) = failure(async |wire, _| wire.send_bytes(bytes).await).await;
        assert_eq!(error.code(), code, "{error:?}");
        assert_eq!(wire.closed_for().await, code);
    }
}

/// A client of a scripted server that has shaken hands.
async fn established() -> (Client, Wire) {
    let (client, _, wire) = against(async |wire: &mut Wire| wire.answer_hands().await).await;
    (client.unwrap(), wire)
}

// spec: §6.1
async fn a_second_answer_is_a_violation(_: Net) {
    let (client, offer, mut wire) = against(async |wire: &mut Wire| wire.answer_hands().await).await;
    let client = client.unwrap();
    wire.send(&Message::answer(offer.id)).await;
    assert_eq!(client.closed().await, ConnectionError::Violation(Violation::HelloRepeated));
    assert_eq!(wire.closed_for().await, Code::PROTOCOL_VIOLATION);
    let (client, mut wire) = established().await;
    wire.send(&Message::offer()).await;
    assert_eq!(client.closed().await, ConnectionError::Violation(Violation::HelloRepeated));
    assert_eq!(wire.closed_for().await, Code::PROTOCOL_VIOLATION);
}

// spec: §6.1, §6.13, §3.3
async fn what_follows_the_answer_in_one_piece_counts(_: Net) {
    let trap = Trap::open().await;
    let connect = Client::connect(trap.url()).handle("first", |request| async move { Ok(request.raw()) });
    let (client, response) = tokio::join!(connect.build(), async {
        let mut wire = trap.accept().await;
        let offer = wire.receive().await;
        // Larger than any frame of a handshake may be.
        let call = Message::call("first").payload(&"x".repeat(100_000));
        let both = [Message::answer(offer.id).frame(), call.frame()].concat();
        wire.send_bytes(&both).await;
        wire.response_to(call.id).await
    });
    assert_eq!(response.decode::<String>().len(), 100_000);
    drop(client.unwrap());
}

// spec: §3.1
async fn an_answer_byte_by_byte_is_an_answer(_: Net) {
    let (client, (), mut wire) = against(async |wire: &mut Wire| {
        let offer = wire.receive().await;
        for byte in Message::answer(offer.id).frame() {
            wire.send_bytes(&[byte]).await;
            tokio::task::yield_now().await;
        }
    })
    .await;
    let client = client.unwrap();
    wire.ping().await;
    drop(client);
    assert_eq!(wire.closed().await, None);
}

// spec: §5.15, §10.2
async fn a_response_twice_is_dropped(_: Net) {
    let (client, mut wire) = established().await;
    let (answer, ()) = tokio::join!(client.call::<u8>("once", &()).into_future(), async {
        let call = wire.receive().await;
        wire.send(&Message::response(call.id).payload(&1u8)).await;
        wire.send(&Message::response(call.id).payload(&2u8)).await;
    });
    assert_eq!(answer, Ok(1));
    wire.ping().await;
    assert_eq!((client.stats().dropped, client.error()), (1, None));
}

// spec: §5.15
async fn a_response_to_what_nobody_asked_is_dropped(_: Net) {
    let (client, mut wire) = established().await;
    wire.send(&Message::response(fresh_id())).await;
    wire.send(&Message::update(Id::from_bytes([0; 16]))).await;
    wire.send(&Message::continuation(Kind::Control, fresh_id())).await;
    wire.send(&Message::continuation(Kind::Stream, fresh_id())).await;
    wire.ping().await;
    assert_eq!((client.stats().dropped, client.error()), (4, None));
}

// spec: §5.11, §5.17
async fn a_response_with_an_error_beside_its_payload_is_malformed(_: Net) {
    let (client, mut wire) = established().await;
    let call = client.call::<Raw>("odd", &()).into_future();
    let (result, closed) = tokio::join!(call, async {
        let call = wire.receive().await;
        let mut frame = Message::response(call.id).payload(&1u8).frame();
        // In the place of a null error: {"code": 1}
        assert_eq!(frame.pop(), Some(0xf6));
        frame.extend_from_slice(b"\xa1\x64code\x01");
        wire.send_bytes(&framed(&frame[frame::PREFIX_LEN..])).await;
        wire.closed_for().await
    });
    assert_eq!(closed, Code::MALFORMED);
    assert_eq!(result.unwrap_err().code, Code::UNAVAILABLE);
    assert_eq!(client.closed().await.code(), Code::MALFORMED);
}

// spec: §5.15, §10.4
async fn a_cancel_from_the_callee_is_a_violation(_: Net) {
    let (client, mut wire) = established().await;
    let call = client.call::<Raw>("given up", &()).into_future();
    let (result, closed) = tokio::join!(call, async {
        let call = wire.receive().await;
        wire.send(&Message::cancel(call.id)).await;
        wire.closed_for().await
    });
    assert_eq!(closed, Code::PROTOCOL_VIOLATION);
    assert_eq!(result.unwrap_err().code, Code::UNAVAILABLE);
}

// spec: §10.6, §15.1
async fn the_server_calls_more_than_the_client_takes(_: Net) {
    let trap = Trap::open().await;
    let connect = Client::connect(trap.url())
        .configure(|config| config.limits.max_calls = 2)
        .handle("never", |_| std::future::pending::<Result<(), fluxar::HandlerError>>());
    let (client, mut wire) = tokio::join!(connect.build(), trap.established());
    let client = client.unwrap();
    let calls = [0; 3].map(|_| Message::call("never"));
    for call in &calls {
        wire.send(call).await;
    }
    let error = wire.response_to(calls[2].id).await.error.unwrap();
    assert_eq!((error.code, error.processed), (Code::RESOURCE_EXHAUSTED, Some(false)));
    wire.ping().await;
    assert_eq!((client.stats().requests_running, client.stats().refused), (2, 1));
}

// spec: §3.3, §5.13
async fn the_servers_messages_obey_the_clients_limits(_: Net) {
    let trap = Trap::open().await;
    let connect = Client::connect(trap.url()).configure(|config| config.limits.max_message = 5000);
    let (client, mut wire) = tokio::join!(connect.build(), trap.established());
    let client = client.unwrap();
    wire.send_bytes(&frame::prefix(5065)).await;
    assert_eq!(wire.closed_for().await, Code::MESSAGE_TOO_LARGE);
    assert_eq!(client.closed().await.code(), Code::MESSAGE_TOO_LARGE);
}

// spec: §5.12, §16.2
async fn an_unknown_code_is_shown_as_it_is(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    for code in [17, 99, 110, 999, 1000, u32::MAX] {
        let error = client.call::<Raw>("fail", &(code, "odd")).await.unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (Code(code), "odd"));
    }
}
