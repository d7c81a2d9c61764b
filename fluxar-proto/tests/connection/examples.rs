//! The worked examples of the specification, as a connection takes and makes them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::BytesMut;
use fluxar_proto::message::{Id, Kind};
use fluxar_proto::{
    Code, ConnectionError, Event, Incoming, Instant, Payload, Progress, StreamOptions, TransmitBuf,
};

use crate::support::{
    ENDED, Last, Msg, Script, Talk, config, ids, is_close, one, opened, options, requests, streaming, uint,
};

/// An example: the word after the fence, the one after its name, and the bytes.
struct Example {
    word: &'static str,
    verdict: &'static str,
    bytes: Vec<u8>,
}

static EXAMPLES: LazyLock<BTreeMap<&'static str, Example>> = LazyLock::new(|| {
    let text = include_str!("../../../SPEC.md");
    let mut examples = BTreeMap::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(fence) = line.strip_prefix("```hex") else { continue };
        let mut words = fence.split(' ');
        let word = words.next().unwrap_or_default();
        let Some(name) = words.next() else { continue };
        let block = lines.by_ref().take_while(|line| !line.starts_with("```"));
        let digits = block.filter_map(|line| line.split('#').next()).flat_map(str::split_whitespace);
        let bytes = digits.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        examples.insert(name, Example { word, verdict: words.next().unwrap_or_default(), bytes });
    }
    examples
});

/// The body of an example that is a plain message.
#[track_caller]
fn body(name: &str) -> Vec<u8> {
    let example = &EXAMPLES[name];
    if example.word == "frame" { example.bytes[4..].to_vec() } else { example.bytes.clone() }
}

fn message(name: &str) -> Msg {
    Msg::decode(&body(name))
}

/// Examples with this verdict, of one type of message or of all but that.
fn refused(verdict: &str, hellos: bool) -> impl Iterator<Item = (&'static str, &'static Example)> {
    let examples = EXAMPLES.iter().map(|(name, example)| (*name, example));
    examples.filter(move |(_, example)| {
        example.verdict == verdict && (example.bytes.get(1) == Some(&1)) == hellos
    })
}

/// What an incoming link makes of bytes, and what it tells.
fn incoming(bytes: &[u8]) -> (Result<(), ConnectionError>, Vec<Msg>) {
    let mut out = TransmitBuf::new();
    let incoming = Incoming::new(config(|c| c.agent = None), Instant::ZERO, ids(2));
    let result = incoming.handle_input(Instant::ZERO, &mut BytesMut::from(bytes), &mut out);
    let told = |out: &TransmitBuf| Msg::decode_all(&out.segments().flatten().copied().collect::<Vec<u8>>());
    match result {
        Ok(Progress::Offered(offered)) => {
            let mut connection = offered.accept(Instant::ZERO);
            connection.poll_transmit(Instant::ZERO, &mut out);
            (Ok(()), told(&out))
        }
        Ok(Progress::More(_)) => panic!("no whole frame"),
        Err(error) => (Err(error), told(&out)),
    }
}

fn offered(name: &str) -> (Result<(), ConnectionError>, Vec<Msg>) {
    incoming(&Msg::frame(&message(name)))
}

/// The connection has been sent these examples.
#[track_caller]
fn after(names: &[&str]) -> Script {
    let mut script = Script::responder(&config(|_| ()));
    for name in names {
        script.send_body(&body(name)).unwrap();
    }
    script
}

/// The same message, but for its own id and the words of an error.
#[track_caller]
fn assert_alike(sent: &Msg, example: &str) {
    let strip = |message: &Msg| {
        let error = message.error.clone().map(|mut error| {
            error.message.clear();
            error
        });
        Msg { id: Id::from_bytes([0; 16]), error, ..message.clone() }
    };
    assert_eq!(strip(sent), strip(&message(example)), "{example}");
}

// spec: §3.1, §3.3, §19.2
#[test]
fn frames_are_taken_and_refused_as_shown() {
    let (result, told) = incoming(&EXAMPLES["offer-frame"].bytes);
    assert_eq!((result, one(told).reference), (Ok(()), Some(message("offer-frame").id)));
    let mut count = 0;
    for (verdict, code) in
        [("frame-malformed", Code::MALFORMED), ("frame-too-large", Code::MESSAGE_TOO_LARGE)]
    {
        for (name, example) in EXAMPLES.iter().filter(|(_, example)| example.verdict == verdict) {
            let (result, told) = incoming(&example.bytes);
            assert_eq!(result.unwrap_err().code(), code, "{name}");
            assert!(is_close(&one(told), Some(code)), "{name}");
            count += 1;
        }
    }
    assert!(count >= 4, "{count}");
}

// spec: §6.2, §6.3, §6.4, §6.5, §19.4
#[test]
fn offers_are_answered_as_shown() {
    for name in ["offer-frame", "offer", "offer-unknown-keys", "offer-features", "offer-encrypt"] {
        let (result, told) = offered(name);
        let answer = one(told);
        assert_eq!(
            (result, answer.kind, answer.reference),
            (Ok(()), Kind::Hello, Some(message(name).id)),
            "{name}"
        );
    }
    let (result, told) = offered("offer-future");
    assert_eq!(result, Err(ConnectionError::NoCommonVersion));
    let (told, shown) = (one(told), message("answer-refused"));
    assert_eq!((told.reference, told.code()), (shown.reference, shown.code()));
    assert_eq!(told.error.unwrap().data, shown.error.unwrap().data);

    let offer = EXAMPLES["offer-frame"].bytes[4..].to_vec();
    let sent = one(Script::offered_by(&config(|c| {
        c.agent = None;
        (c.stream, c.pubsub) = (false, false);
        c.limits = fluxar_proto::Limits::ABSENT;
    }))
    .read());
    assert_eq!(Msg { id: message("offer-frame").id, ..sent }.body(), offer, "the smallest offer is ours");
}

// spec: §6.4, §6.7, §6.8, §19.4
#[test]
fn answers_are_taken_as_shown() {
    let answered = |name: &str| {
        let mut script = Script::offered_by(&config(|_| ()));
        let offer = one(script.read()).id;
        let sent = message(name);
        let reference = sent.reference.map(|_| offer);
        let result = script.send(Msg { reference, ..sent });
        (result, script)
    };
    let (result, script) = answered("answer");
    assert_eq!(result, Ok(()));
    let peer = script.connection.peer().unwrap();
    assert_eq!(
        (peer.agent.as_deref(), peer.limits.max_calls, peer.limits.max_message),
        (Some("other/2.3"), 64, 1 << 20)
    );
    assert_eq!(answered("answer-minimal").0, Ok(()));
    for (name, code) in [("answer-refused", 102), ("answer-unauthenticated", 16)] {
        let (result, script) = answered(name);
        let Err(ConnectionError::Refused(error)) = result else { panic!("{name}: {result:?}") };
        assert_eq!((error.code, Some(error)), (Code(code), message(name).error), "{name}");
        assert!(script.connection.is_closed());
    }
    let (result, mut script) = answered("answer-chooses-freely");
    assert_eq!(result.unwrap_err().code(), Code::PROTOCOL_VIOLATION);
    assert!(is_close(&one(script.read()), Some(Code::PROTOCOL_VIOLATION)));
    let (result, _) = answered("close-handshake-timeout");
    assert_eq!(result, Err(ConnectionError::ClosedByPeer(message("close-handshake-timeout").error)));
}

// spec: §6.2, §5.14, §19.4, §19.11
#[test]
fn malformed_offers_are_refused_as_shown() {
    let offers = refused("malformed-payload", true).chain(refused("malformed-use", true)).collect::<Vec<_>>();
    assert!(offers.len() >= 6, "{}", offers.len());
    for (name, _) in offers {
        let (result, told) = offered(name);
        assert_eq!(result.unwrap_err().code(), Code::MALFORMED, "{name}");
        assert!(is_close(&one(told), Some(Code::MALFORMED)), "{name}");
    }
}

// spec: §5.1, §5.2, §5.12, §5.14, §19.11
#[test]
fn malformed_messages_are_fatal_as_shown() {
    let messages = refused("malformed", false).chain(refused("malformed-use", false)).collect::<Vec<_>>();
    assert!(messages.len() >= 30, "{}", messages.len());
    for (name, example) in messages {
        let mut script = after(&[]);
        let error = script.send_body(&example.bytes).unwrap_err();
        assert_eq!(error.code(), Code::MALFORMED, "{name}");
        assert!(is_close(&one(script.read()), Some(Code::MALFORMED)), "{name}");
    }
}

// spec: §5.2, §5.3, §5.9, §19.3
#[test]
fn odd_but_valid_messages_are_taken_as_shown() {
    let accepted = EXAMPLES.iter().filter(|(_, example)| example.word == "ok").map(|(name, _)| *name);
    let accepted = accepted.chain(["call", "depth-64", "call-deadline"]).collect::<Vec<_>>();
    assert!(accepted.len() >= 6);
    for name in accepted {
        let mut script = after(&[name]);
        let request = one(requests(&script.events()));
        assert_eq!(request.payload.as_bytes(), message(name).payload, "{name}");
    }
}

// spec: §10.1, §10.2, §10.3, §10.4, §10.5, §19.5
#[test]
fn calls_go_as_shown() {
    let mut script = after(&["call"]);
    let request = one(requests(&script.events()));
    assert_eq!((&*request.method, request.id.wire_id()), ("user.getProfile", message("call").id));
    script
        .connection
        .respond(request.id, Ok(Payload::new(message("response").payload.into()).unwrap()))
        .unwrap();
    assert_alike(&one(script.read()), "response");

    for answer in ["response-application", "response-error", "response-data", "response-unimplemented"] {
        let mut script = after(&["call-deadline"]);
        let request = one(requests(&script.events()));
        assert_eq!(request.deadline, Some(script.now + std::time::Duration::from_millis(1500)));
        let progress = Payload::new(message("update").payload.into()).unwrap();
        script.connection.update_request(request.id, progress).unwrap();
        let error = message(answer).error.unwrap();
        script.connection.respond(request.id, Err(error.clone())).unwrap();
        let sent = script.read();
        assert_alike(&sent[0], "update");
        assert_alike(&sent[1], answer);
        assert_eq!(sent[1].error, Some(error));
    }

    let mut script = after(&["call-deadline", "cancel"]);
    script.events();
    assert!(script.read().is_empty());
    assert_eq!((script.connection.stats().requests_running, script.connection.stats().dropped), (1, 0));

    let mut script = after(&[]);
    let meta = message("call").meta;
    let payload = Payload::new(message("call").payload.into()).unwrap();
    script.connection.call(script.now, "user.getProfile", payload, options().with_meta(meta.into())).unwrap();
    let sent = one(script.read());
    assert_alike(&sent, "call");
    assert_eq!(sent.body().len(), 60, "as announced");
    let call = script.connection.call(script.now, "ui.refresh", Payload::null(), options()).unwrap();
    assert_alike(&one(script.read()), "call-back");
    script.connection.cancel(script.now, call).unwrap();
    let cancel = Msg { reference: message("cancel").reference, ..one(script.read()) };
    assert_alike(&cancel, "cancel");
}

// spec: §5.5, §5.15, §6.1, §19.5
#[test]
fn violations_are_fatal_as_shown_and_only_while_the_call_is_open() {
    let to_callee = ["response-from-caller", "id-of-an-open-call", "stream-verb-on-a-call", "second-offer"];
    for name in to_callee {
        let mut script = after(&["call"]);
        let error = script.send_body(&body(name)).unwrap_err();
        assert_eq!(error.code(), Code::PROTOCOL_VIOLATION, "{name}");
        assert!(is_close(&one(script.read()), Some(Code::PROTOCOL_VIOLATION)), "{name}");
    }
    let mut script = after(&[]);
    let call = script.connection.call(script.now, "m", Payload::null(), options()).unwrap();
    script.read();
    let cancel = Msg { reference: Some(call.wire_id()), ..message("cancel-from-callee") };
    assert_eq!(script.send(cancel).unwrap_err().code(), Code::PROTOCOL_VIOLATION);

    let mut script = after(&["call"]);
    let request = one(requests(&script.events())).id;
    script.connection.respond(request, Ok(Payload::null())).unwrap();
    script.read();
    for name in ["response-from-caller", "cancel-from-callee", "stream-verb-on-a-call"] {
        script.send_body(&body(name)).unwrap();
    }
    assert_eq!(script.connection.stats().dropped, 3);
    script.send_body(&body("id-of-an-open-call")).unwrap();
    assert_eq!(requests(&script.events()).len(), 1, "a new call");
}

// spec: §5.16, §8.2, §8.3, §8.7, §19.6
#[test]
fn control_messages_go_as_shown() {
    assert_alike(&one(after(&["ping"]).read()), "ping-reply");
    assert_alike(&one(after(&["control-unknown"]).read()), "control-unknown-reply");
    for name in ["close", "close-malformed"] {
        let mut script = after(&[]);
        let error = script.send_body(&body(name)).unwrap_err();
        assert_eq!(error, ConnectionError::ClosedByPeer(message(name).error), "{name}");
        assert!(script.read().is_empty());
        assert!(matches!(script.events()[..], [Event::Closed(_)]));
    }
    let mut script = after(&[]);
    script.connection.close(script.now, None);
    assert_alike(&one(script.read()), "close");
    let mut script = after(&[]);
    script.connection.ping(script.now).unwrap();
    assert_alike(&one(script.read()), "ping");
    assert_eq!(message("ping-reply").reference, Some(message("ping").id));
}

/// A connection that has been sent the opening of the stream, and what it goes by there.
fn streamed() -> Talk {
    let mut script = streaming(&config(|_| ()), &[]);
    script.send_body(&body("stream-open")).unwrap();
    let opening = one(opened(&script.events()));
    assert_eq!(
        (&*opening.method, opening.payload.as_bytes()),
        ("llm.complete", &message("stream-open").payload[..])
    );
    Talk::over(script, opening.id)
}

/// The payload of an example.
fn payload(name: &str) -> Payload {
    Payload::new(message(name).payload.into()).unwrap()
}

// spec: §11.1, §11.2, §11.3, §11.5, §11.6, §19.8
#[test]
fn a_stream_goes_as_shown_at_its_acceptor() {
    let mut talk = streamed();
    let stream = talk.stream;
    talk.connection().send_item(stream, payload("stream-data")).unwrap();
    assert_alike(&one(talk.messages()), "stream-data");
    for item in payload("stream-items").as_item().array().unwrap() {
        talk.connection().send_item_from(stream, item).unwrap();
    }
    talk.connection().end_stream(stream, payload("stream-end-value")).unwrap();
    assert_alike(&one(talk.messages()), "stream-items");
    talk.script.send_body(&body("stream-pause")).unwrap();
    talk.script.send_body(&body("stream-credit")).unwrap();
    assert_alike(&one(talk.messages()), "stream-end-value");
    talk.script.send_body(&body("stream-go-on")).unwrap();
    talk.script.send_body(&body("stream-end")).unwrap();
    assert_eq!(talk.take(), (vec![], ENDED));
    assert!(talk.messages().is_empty());
    assert!(!talk.still_open());
}

// spec: §11.1, §11.2, §11.3, §11.5, §11.6, §19.8
#[test]
fn a_stream_goes_as_shown_at_its_opener() {
    let mut script = streaming(&config(|_| ()), &[]);
    let options = StreamOptions::new().with_window(100);
    let argument = payload("stream-open");
    let stream = script.connection.open_stream(script.now, "llm.complete", argument, options).unwrap();
    assert_alike(&script.read()[0], "stream-open");
    let mut talk = Talk::over(script, stream);
    let theirs = |name: &str| Msg { reference: Some(stream.wire_id()), ..message(name) };
    let ours = |talk: &mut Talk| Msg { reference: Some(message("stream-open").id), ..one(talk.messages()) };
    let mut items = vec![payload("stream-data")];
    items.extend(payload("stream-items").as_item().array().unwrap().map(Payload::from));
    for name in ["stream-data", "stream-items"] {
        talk.script.send(theirs(name)).unwrap();
    }
    assert_eq!(talk.take(), (items, Last::Open));
    let credit = ours(&mut talk);
    assert_eq!(
        (credit.target, credit.payload),
        (message("stream-credit").target, uint(114).into_bytes().to_vec())
    );
    talk.connection().pause_stream(stream);
    assert_alike(&ours(&mut talk), "stream-pause");
    talk.connection().resume_stream(stream);
    assert_alike(&ours(&mut talk), "stream-go-on");
    talk.connection().end_stream(stream, Payload::null()).unwrap();
    assert_alike(&ours(&mut talk), "stream-end");
    talk.script.send(theirs("stream-end-value")).unwrap();
    assert_eq!(talk.take(), (vec![], Last::End(payload("stream-end-value"))));
    assert!(!talk.still_open());
}

// spec: §11.3, §11.4, §19.8
#[test]
fn streams_are_given_up_as_shown() {
    let mut talk = streamed();
    talk.script.send_body(&body("stream-cancel")).unwrap();
    assert_alike(&one(talk.messages()), "stream-end-cancelled");
    let mut talk = streamed();
    let (stream, now) = (talk.stream, talk.script.now);
    let shown = message("stream-end-error");
    talk.connection().refuse_stream(now, stream, shown.error.unwrap()).unwrap();
    assert_alike(&one(talk.messages()), "stream-end-error");
    for name in ["items-not-an-array", "credit-negative"] {
        let mut talk = streamed();
        assert_eq!(talk.script.send_body(&body(name)).unwrap_err().code(), Code::MALFORMED, "{name}");
        assert!(is_close(&one(talk.messages()), Some(Code::MALFORMED)));
    }
}
