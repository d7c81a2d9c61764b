//! Whatever a peer sends: no panic, one error that stays, and a `close` that says what it was.

use std::sync::Arc;

use bytes::BytesMut;
use fluxar_proto::message::{Kind, key, verb};
use fluxar_proto::{
    CallEvent, Code, Config, ConnectionError, Error, Event, Id, Incoming, Instant, Progress, StreamEvent,
    StreamOptions, TransmitBuf,
};
use proptest::prelude::*;

use crate::support::{
    Last, Msg, Script, TestRng, blob, cases, cbor, config, hello, id, ids, is_close, ms, options, take, uint,
};

fn settings() -> Arc<Config> {
    config(|c| {
        c.limits.max_calls = 4;
        c.limits.max_message = 5_000;
        c.limits.max_streams = 3;
        c.limits.stream_window = 2_000;
        c.request_bytes = 2_000;
        c.misuse_capacity = 30;
        c.authenticates = true;
    })
}

/// A connection with calls and streams of both sides, some of them over.
fn established(responder: bool) -> (Script, Vec<Id>) {
    let start = if responder { Script::responder_with } else { Script::initiator_with };
    let mut script = start(&settings(), hello(!responder, &[]));
    let mut known = vec![];
    for n in 0..5 {
        let timeout = options().with_timeout(ms(500 * (n + 1)));
        let call = script.connection.call(script.now, "m", uint(n), timeout).unwrap();
        known.push(call.wire_id());
        if n == 1 {
            script.read();
            script.connection.cancel(script.now, call).unwrap();
        }
    }
    let ping = script.connection.ping(script.now).unwrap();
    script.read();
    script.connection.call(script.now, "queued", uint(9), options()).unwrap();
    known.push(ping);
    known.extend([(); 3].map(|()| script.call("m")));
    let requests = crate::support::requests(&script.events());
    script.connection.respond(requests[0].id, Ok(uint(1))).unwrap();
    for n in 0..4 {
        let options = StreamOptions::new().with_timeout(ms(700 * (n + 1)));
        let stream = script.connection.open_stream(script.now, "m", uint(n), options).unwrap();
        script.connection.send_item(stream, uint(n)).unwrap();
        script.read();
        match n {
            0 => script.connection.end_stream(stream, uint(1)).unwrap(),
            1 => script.connection.cancel_stream(stream, None),
            _ => {}
        }
        known.push(stream.wire_id());
        let opening = Msg::opening(Kind::Stream, script.id(), "m");
        known.push(opening.id);
        script.send(opening).unwrap();
    }
    (script, known)
}

/// Sends pieces until they are through or the connection ends, and checks what it does then.
fn attack(script: &mut Script, pieces: impl IntoIterator<Item = Vec<u8>>) {
    for piece in pieces {
        let error = match script.send_bytes(&piece) {
            Ok(()) => {
                check_bounds(script);
                continue;
            }
            Err(error) => error,
        };
        check_end(script, &error);
        return;
    }
    let _heartbeat = script.wait(ms(20_000));
    script.connection.abort(script.now, ConnectionError::Transport("enough".into()));
    check_empty(script);
}

fn check_bounds(script: &mut Script) {
    let stats = script.connection.stats();
    assert!(stats.requests_running <= 4, "{stats:?}");
    assert!(stats.request_bytes <= 7_000, "{stats:?}");
    assert!(stats.streams_serving <= 3, "{stats:?}");
    let held = (stats.streams_serving + stats.streams_open) * (2_000 + 5_000);
    assert!(stats.stream_held_bytes <= held, "{stats:?}");
}

fn check_end(script: &mut Script, error: &ConnectionError) {
    let told = script.read();
    match error {
        ConnectionError::ClosedByPeer(_) | ConnectionError::Refused(_) => {
            assert!(told.is_empty(), "{told:?}")
        }
        _ => assert!(told.len() == 1 && is_close(&told[0], Some(error.code())), "{error:?}: {told:?}"),
    }
    assert!(script.connection.is_closed());
    assert_eq!(script.send_bytes(&[1, 2, 3, 4, 5]).as_ref(), Err(error), "the error stays");
    assert_eq!(script.connection.handle_timeout(script.now), Ok(()));
    assert_eq!(script.connection.poll_timeout(), None);
    assert!(script.connection.ping(script.now).is_none());
    check_empty(script);
}

/// Answers what is running; nothing may be left then.
fn check_empty(script: &mut Script) {
    let events = script.events();
    let closed = events.iter().filter(|event| matches!(event, Event::Closed(_))).count();
    assert!(closed == 1 && matches!(events.last(), Some(Event::Closed(_))), "{events:?}");
    for event in &events {
        match event {
            Event::Call(CallEvent::Response(call)) => {
                assert!(script.connection.take_response(*call).unwrap().is_some());
            }
            Event::Call(CallEvent::Withdrawn(request, _)) => {
                script.connection.respond(*request, Err(Error::cancelled(""))).unwrap_err();
            }
            // Each stream has something to tell at the end.
            Event::Stream(StreamEvent::Readable(stream)) => {
                assert_ne!(take(&mut script.connection, *stream).1, Last::Open);
                script.connection.release_stream(*stream);
            }
            _ => {}
        }
    }
    let stats = script.connection.stats();
    assert_eq!((stats.calls_in_flight, stats.requests_running), (0, 0), "{events:?}");
    assert_eq!((stats.queued_bytes, stats.request_bytes, stats.update_bytes), (0, 0, 0));
    assert_eq!((stats.streams_open, stats.streams_serving), (0, 0), "{events:?}");
    assert_eq!((stats.stream_queued_bytes, stats.stream_held_bytes), (0, 0));
}

/// A message of which every field may be anything that has a meaning somewhere.
fn any_message(rng: &mut TestRng, known: &[Id]) -> Msg {
    let kinds = [
        Kind::Call,
        Kind::Call,
        Kind::Call,
        Kind::Stream,
        Kind::Stream,
        Kind::Stream,
        Kind::Subscribe,
        Kind::Message,
        Kind::Control,
    ];
    let any_id = |rng: &mut TestRng| match rng.below(3) {
        0 => known[rng.below(known.len())],
        _ => id(rng.below(5_000) as u64),
    };
    let targets = [
        "m",
        verb::UPDATE,
        verb::UPDATE,
        verb::CANCEL,
        verb::PING,
        verb::AUTH,
        verb::DRAIN,
        verb::HANDLED,
        verb::END,
        verb::END,
        verb::ITEMS,
        verb::CREDIT,
        verb::PAUSE,
        verb::RESUME,
        verb::ACK,
        "",
    ];
    let kind = match rng.below(40) {
        0 => Kind::Hello,
        1 => Kind::Unsubscribe,
        _ => kinds[rng.below(kinds.len())],
    };
    let mut message =
        Msg::bare(kind, if rng.below(30) == 0 { any_id(rng) } else { id(10_000 + rng.word() % 1_000_000) });
    message.reference = (rng.below(2) == 0).then(|| any_id(rng));
    if rng.below(40) != 0 && (message.reference.is_none() || rng.below(3) > 0) {
        message.target = Some(targets[rng.below(targets.len())].into());
    }
    if rng.below(4) == 0 {
        let key = [key::TIMEOUT_MS, key::QOS, key::WINDOW, "x"][rng.below(4)];
        message = message.meta_uint(key, [0, 1, 2, 700, u64::MAX][rng.below(5)]);
    }
    match rng.below(12) {
        _ if message.target.as_deref() == Some(verb::AUTH) && rng.below(3) > 0 => {
            message = message.payload(cbor(|out| out.map(1)?.str("scheme")?.str("smoke")?.ok()));
        }
        0 => message = message.payload(blob(900)),
        1 => message = message.payload(cbor(|out| out.array(2)?.u8(1)?.null()?.ok())),
        3 => message = message.payload(uint([0, 1, 1_000, u64::MAX][rng.below(4)])),
        2 if message.reference.is_some() => message = message.error(Error::new(Code(7), "no")),
        _ => {}
    }
    message
}

fn chunked(bytes: &[u8], rng: &mut TestRng) -> Vec<Vec<u8>> {
    let mut rest = bytes;
    let mut pieces = vec![];
    while !rest.is_empty() {
        let (piece, left) = rest.split_at((1 + rng.below(200)).min(rest.len()));
        pieces.push(piece.to_vec());
        rest = left;
    }
    pieces
}

/// The frames of a session that a peer might send, with some bytes changed.
fn mutated(frames: &mut Vec<u8>, rng: &mut TestRng) {
    for _ in 0..rng.below(4) {
        let at = rng.below(frames.len());
        match rng.below(4) {
            0 => frames[at] ^= 1 << rng.below(8),
            1 => frames[at] = rng.word() as u8,
            2 => drop(frames.remove(at)),
            _ => frames.insert(at, rng.word() as u8),
        }
        if frames.is_empty() {
            return;
        }
    }
}

/// Feeds an incoming link, and the connection behind it where it gets that far.
fn attack_incoming(pieces: Vec<Vec<u8>>) {
    let (mut out, mut input) = (TransmitBuf::new(), BytesMut::new());
    let mut incoming = Incoming::new(settings(), Instant::ZERO, ids(2));
    let mut pieces = pieces.into_iter();
    for piece in pieces.by_ref() {
        input.extend_from_slice(&piece);
        match incoming.handle_input(Instant::ZERO, &mut input, &mut out) {
            Ok(Progress::More(more)) => incoming = more,
            Ok(Progress::Offered(offered)) => {
                let connection = offered.accept(Instant::ZERO);
                let mut script = Script::over(connection);
                attack(&mut script, std::iter::once(input.to_vec()).chain(pieces));
                return;
            }
            Err(error) => {
                let told = Msg::decode_all(&out.segments().flatten().copied().collect::<Vec<u8>>());
                match error {
                    ConnectionError::ClosedByPeer(_) => assert!(told.is_empty()),
                    ConnectionError::NoCommonVersion => assert_eq!(told[0].code(), Code::UNSUPPORTED_VERSION),
                    error => assert!(told.len() == 1 && is_close(&told[0], Some(error.code())), "{told:?}"),
                }
                return;
            }
        }
    }
    assert!(out.is_empty());
}

fn offer(rng: &mut TestRng) -> Vec<u8> {
    let payload = cbor(|out| {
        out.map(4)?.str("versions")?.array(2)?.u8(1)?.u8(2)?;
        out.str("agent")?.str("x/1")?;
        out.str("caps")?.map(1)?.str("features")?.array(1)?.str("stream")?;
        out.str("limits")?
            .map(2)?
            .str("max_message")?
            .u32(4096)?
            .str("max_calls")?
            .u8(rng.below(9) as u8)?
            .ok()
    });
    Msg::bare(Kind::Hello, id(0)).payload(payload).frame()
}

proptest! {
    #![proptest_config(cases(400))]

    // spec: §5.17, §17.2
    #[test]
    fn any_bytes_are_borne_in_every_state(
        bytes in prop::collection::vec(any::<u8>(), 1..600),
        seed: u64,
        framed: bool,
    ) {
        let rng = &mut TestRng::new(seed);
        let bytes = if framed { [&(bytes.len() as u32).to_be_bytes()[..], &bytes].concat() } else { bytes };
        attack_incoming(chunked(&bytes, rng));
        let mut offered = Script::offered_by(&settings());
        offered.read();
        attack(&mut offered, chunked(&bytes, rng));
        for responder in [false, true] {
            attack(&mut established(responder).0, chunked(&bytes, rng));
        }
    }

    // spec: §5.15, §5.16, §5.17
    #[test]
    fn any_messages_are_borne(seed: u64, count in 1usize..80, responder: bool, reads: bool) {
        let rng = &mut TestRng::new(seed);
        let (mut script, mut known) = established(responder);
        for _ in 0..count {
            let message = any_message(rng, &known);
            known.push(message.id);
            if let Err(error) = script.send(message) {
                check_end(&mut script, &error);
                return Ok(());
            }
            check_bounds(&mut script);
            if reads && rng.below(3) == 0 {
                script.read();
            }
            if rng.below(10) == 0 && script.wait(ms(rng.below(300) as u64)).is_err() {
                return Ok(());
            }
        }
        attack(&mut script, []);
    }

    // spec: §5.1, §5.17, §6.1
    #[test]
    fn changed_bytes_in_a_valid_session_are_borne(seed: u64, count in 1usize..10) {
        let rng = &mut TestRng::new(seed);
        let (mut script, known) = established(seed % 2 == 0);
        let messages = (0..count).flat_map(|_| any_message(rng, &known).frame()).collect::<Vec<_>>();

        let mut frames = messages.clone();
        mutated(&mut frames, rng);
        attack(&mut script, chunked(&frames, rng));

        let mut frames = [offer(rng), messages.clone()].concat();
        mutated(&mut frames, rng);
        attack_incoming(chunked(&frames, rng));

        let mut offered = Script::offered_by(&settings());
        let sent = crate::support::one(offered.read());
        let answer = Msg::continuation(Kind::Hello, id(0), sent.id);
        let answer = answer.payload(cbor(|out| out.map(1)?.str("version")?.u8(1)?.ok()));
        let mut frames = [answer.frame(), messages].concat();
        mutated(&mut frames, rng);
        attack(&mut offered, chunked(&frames, rng));
    }
}
