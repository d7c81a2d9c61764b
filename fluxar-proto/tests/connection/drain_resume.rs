//! Drain over the end of a link (§8.6, §9.7).

use std::sync::Arc;

use bytes::{Buf, BytesMut};
use fluxar_proto::message::verb;
use fluxar_proto::{
    CallError, Code, Config, Connection, ConnectionError, Dial, Drain, Event, Incoming, Instant, Progress,
    ResumeProgress, TransmitBuf,
};

use crate::support::{Msg, Pair, config, ids, ms, one, options, outcomes, requests, uint};

/// What `from` has to say.
fn bytes(from: &mut Connection, now: Instant) -> BytesMut {
    let mut out = TransmitBuf::new();
    from.poll_transmit(now, &mut out);
    BytesMut::from(&out.copy_to_bytes(out.remaining())[..])
}

fn events(connection: &mut Connection) -> Vec<Event> {
    std::iter::from_fn(|| connection.poll_event()).collect()
}

/// Both sides have lost their link.
fn cut(a: &mut Connection, b: &mut Connection, now: Instant) {
    a.handle_eof(now, 0).unwrap();
    b.handle_eof(now, 0).unwrap();
    assert!(a.is_detached() && b.is_detached());
}

/// The session goes on over a new link.
fn resume(a: &mut Connection, b: &mut Connection, config: &Arc<Config>, now: Instant) {
    assert_eq!(a.reconnect(now, Dial::default()), Ok(true));
    let mut out = TransmitBuf::new();
    let incoming = Incoming::new(config.clone(), now, ids(9));
    let Ok(Progress::Offered(mut offered)) = incoming.handle_input(now, &mut bytes(a, now), &mut out) else {
        panic!("no offer")
    };
    let offer = offered.offer().resume.clone().unwrap();
    offered.set_resumed(b.take_up(now, &offer, offered.id()).unwrap());
    let resuming = offered.accept_resumed(now, &mut out).unwrap();
    let mut answer = BytesMut::from(&out.copy_to_bytes(out.remaining())[..]);
    a.handle_input(now, &mut answer).unwrap();
    let mut said = bytes(a, now);
    let Ok(ResumeProgress::Confirmed(confirmed)) = resuming.handle_input(&mut said) else {
        panic!("not confirmed")
    };
    assert!(b.confirm_link(now, confirmed));
    b.handle_input(now, &mut said).unwrap();
}

fn drains(bytes: &[u8]) -> Vec<Msg> {
    let messages = Msg::decode_all(bytes).into_iter();
    messages.filter(|message| message.target.as_deref() == Some(verb::DRAIN)).collect()
}

// spec: §8.6, §9.7
#[test]
fn over_a_new_link_it_is_said_again_and_holds_on() {
    let config = config(|config| config.resume = true);
    let mut pair = Pair::established(&config);
    let mut now = pair.now;
    let call = pair.a().call(now, "m", uint(7), options()).unwrap();
    pair.drive();
    let request = one(requests(&pair.events(1)));
    let [a, b] = &mut pair.ends;
    let (a, b) = (a.connection.as_mut().unwrap(), b.connection.as_mut().unwrap());
    b.drain(now, Drain::new().with_deadline(ms(9_000)));
    assert_eq!(drains(&bytes(b, now)).len(), 1);
    // It is lost with the link.
    cut(a, b, now);
    assert!(b.is_draining() && a.peer_draining().is_none());
    now = now + ms(1_000);
    resume(a, b, &config, now);
    let mut said = bytes(b, now);
    assert_eq!(drains(&said).len(), 1);
    a.handle_input(now, &mut said).unwrap();
    let told = events(a).into_iter().find_map(|event| match event {
        Event::Draining(drain) => drain.deadline,
        _ => None,
    });
    assert_eq!(told, Some(ms(8_000)), "what is left of it");
    // The reply is lost with the next one; the peer knows all the same.
    let crossed = {
        let lost = bytes(a, now);
        assert!(!lost.is_empty());
        cut(a, b, now);
        a.call(now, "m", uint(8), options())
    };
    assert_eq!(crossed, Err(CallError::Draining));
    resume(a, b, &config, now);
    b.respond(request.id, Ok(uint(1))).unwrap();
    let mut said = bytes(b, now);
    assert!(b.error().is_none(), "it has still to be answered");
    a.handle_input(now, &mut said).unwrap();
    b.handle_input(now, &mut bytes(a, now)).unwrap();
    a.handle_input(now, &mut bytes(b, now)).unwrap_err();
    assert_eq!(a.error(), Some(&ConnectionError::ClosedByPeer(None)));
    assert_eq!(b.error(), Some(&ConnectionError::ClosedLocally(None)));
    let events = events(a);
    assert_eq!(outcomes(a, &events), [(call, Ok(uint(1)))]);
}

// spec: §8.6, §8.8
#[test]
fn without_a_link_the_deadline_is_the_end() {
    let config = config(|config| config.resume = true);
    let mut pair = Pair::established(&config);
    let now = pair.now;
    let call = pair.b().call(now, "m", uint(7), options()).unwrap();
    pair.drive();
    let [a, b] = &mut pair.ends;
    let (a, b) = (a.connection.as_mut().unwrap(), b.connection.as_mut().unwrap());
    b.drain(now, Drain::new().with_deadline(ms(9_000)));
    cut(a, b, now);
    assert_eq!(b.poll_timeout(), Some(now + ms(9_000)));
    b.handle_timeout(now + ms(8_999)).unwrap();
    assert!(b.is_detached());
    b.handle_timeout(now + ms(9_000)).unwrap();
    assert_eq!(b.error(), Some(&ConnectionError::ClosedLocally(None)));
    assert!(b.is_closed() && b.poll_timeout().is_none());
    let events = events(b);
    let (ended, outcome) = one(outcomes(b, &events));
    assert_eq!((ended, outcome.unwrap_err().code), (call, Code::UNAVAILABLE));
}
