//! What waits for the transport: how much of it, and in what pieces.

use bytes::Buf;
use fluxar_proto::TransmitBuf;
use fluxar_proto::message::{Kind, verb};

use crate::support::{Msg, Script, blob, config, one, options, requests, uint};

// spec: §10.4
#[test]
fn a_bounded_amount_is_encoded_ahead_so_that_the_rest_can_be_taken_back() {
    let mut script = Script::initiator(&config(|_| ()));
    let now = script.now;
    let calls = [(); 300].map(|()| script.connection.call(now, "m", blob(1000), options()).unwrap());
    let mut out = TransmitBuf::new();
    let added = script.connection.poll_transmit(now, &mut out);
    assert_eq!(added, out.remaining());
    assert!((64 << 10..66 << 10).contains(&added), "{added}");
    assert_eq!(script.connection.poll_transmit(now, &mut out), 0, "as long as so much waits");
    for call in &calls[100..] {
        script.connection.cancel(now, *call).unwrap();
    }
    out.advance(added);
    assert!(out.is_empty());
    assert_eq!(script.read().len(), 100 - added / 1028);
    assert_eq!(script.connection.stats().messages_out, 101, "with the offer");
}

// spec: §3.1
#[test]
fn large_payloads_are_pieces_of_their_own_and_shared() {
    let mut script = Script::initiator(&config(|_| ()));
    let now = script.now;
    let payload = blob(50_000);
    for payload in [uint(1), payload.clone(), uint(2)] {
        script.connection.call(now, "m", payload, options()).unwrap();
    }
    let mut out = TransmitBuf::new();
    let added = script.connection.poll_transmit(now, &mut out);
    let pieces = out.segments().map(<[u8]>::len).collect::<Vec<_>>();
    assert_eq!(pieces, [29 + 28 - 1 - 1 + 1, 50_000, 1 + 29]);
    assert!(out.segments().any(|piece| piece.as_ptr() == payload.as_bytes().as_ptr()), "not a copy");

    // Whatever a write takes, the rest follows.
    let mut bytes = vec![];
    while out.has_remaining() {
        let count = out.chunk().len().min(777);
        bytes.extend_from_slice(&out.chunk()[..count]);
        out.advance(count);
    }
    assert_eq!(bytes.len(), added);
    let payloads = Msg::decode_all(&bytes).into_iter().map(|message| message.payload).collect::<Vec<_>>();
    assert_eq!(payloads, [uint(1), payload, uint(2)].map(|payload| payload.as_bytes().to_vec()));
    out.shrink();
    assert!(out.is_empty() && out.segments().next().is_none());
}

// spec: §10.1
#[test]
fn counters_count_what_has_passed() {
    let mut script = Script::initiator(&config(|_| ()));
    let before = script.connection.stats();
    assert_eq!((before.messages_in, before.messages_out), (1, 1));
    script.connection.call(script.now, "m", uint(1), options()).unwrap();
    let sent = script.read_bytes().len() as u64;
    let call = Msg::opening(Kind::Call, script.id(), "m").frame();
    script.send_bytes(&call[..9]).unwrap();
    assert_eq!(script.connection.stats().bytes_in, before.bytes_in, "whole frames are counted");
    script.send_bytes(&call[9..]).unwrap();
    let after = script.connection.stats();
    assert_eq!((after.messages_in, after.messages_out), (2, 2));
    assert_eq!(after.bytes_in - before.bytes_in, call.len() as u64);
    assert_eq!(after.bytes_out - before.bytes_out, sent);
}

// spec: §10.8
// spec: §15.3
#[test]
fn gauges_show_what_is_held_at_the_moment() {
    let mut script = Script::responder(&config(|_| ()));
    let gauges = |script: &Script| {
        let stats = script.connection.stats();
        (stats.queued_bytes, stats.request_bytes, stats.update_bytes, script.connection.in_flight())
    };
    let call = Msg::opening(Kind::Call, script.id(), "m").payload(blob(500));
    let id = call.id;
    script.send(call.clone()).unwrap();
    let request = one(requests(&script.events())).id;
    assert_eq!(gauges(&script), (0, call.body().len(), 0, 1));
    let update = Msg::continuation(Kind::Call, script.id(), id).verb(verb::UPDATE).payload(blob(300));
    script.send(update).unwrap();
    assert_eq!(gauges(&script), (0, call.body().len(), 300, 1));
    let ours = script.connection.call(script.now, "m", blob(200), options()).unwrap();
    assert_eq!(gauges(&script), (200 + 128, call.body().len(), 300, 2));
    script.connection.update_request(request, blob(100)).unwrap();
    assert_eq!(gauges(&script).0, 200 + 128 + 100 + 128);
    script.read();
    assert_eq!(gauges(&script), (0, call.body().len(), 300, 2));
    script.connection.respond(request, Ok(uint(1))).unwrap();
    assert_eq!((gauges(&script).1, gauges(&script).2), (call.body().len(), 0), "nobody will take the update");
    script.read();
    assert_eq!(gauges(&script), (0, 0, 0, 1));
    script.connection.cancel(script.now, ours).unwrap();
    assert_eq!(gauges(&script), (0, 0, 0, 0));
}
