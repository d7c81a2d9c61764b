//! A session goes on over a new link.

use bytes::{Buf, BytesMut};
use fluxar_proto::{
    CallEvent, Connection, ConnectionError, Dial, Event, Incoming, Instant, Progress, ResumeProgress,
    TransmitBuf,
};

use crate::support::{Pair, blob, config, ids, options, outcomes, requests, uint};

/// Carries what `from` has to say.
fn bytes(from: &mut Connection, now: Instant) -> BytesMut {
    let mut out = TransmitBuf::new();
    from.poll_transmit(now, &mut out);
    BytesMut::from(&out.copy_to_bytes(out.remaining())[..])
}

fn all(connection: &mut Connection) -> Vec<Event> {
    std::iter::from_fn(|| connection.poll_event()).collect()
}

// spec: §8.8
#[test]
fn a_link_that_fails_in_two_ways_at_once_is_lost_once() {
    let mut pair = Pair::established(&config(|config| config.resume = true));
    let (now, link) = (pair.now, pair.a().link());
    let a = pair.a();
    for why in [ConnectionError::LinkLost { unread: 0 }, ConnectionError::Transport("reset".into())] {
        a.abort_link(now, link, why);
        assert!(a.is_detached() && a.error().is_none());
    }
    // Without regard to links it is the end.
    a.abort(now, ConnectionError::Transport("given up".into()));
    assert!(a.is_closed());
}

// spec: §9.5, §9.6, §9.7
#[test]
fn a_call_is_answered_over_the_next_link() {
    let config = config(|config| config.resume = true);
    let mut pair = Pair::established(&config);
    let now = pair.now;
    let call = pair.a().call(now, "m", uint(7), options()).unwrap();
    pair.drive();
    let events = pair.events(1);
    let [request] = &requests(&events)[..] else { panic!("{events:?}") };
    // The answer leaves, and is lost with the link; so is a request.
    pair.b().respond(request.id, Ok(uint(8))).unwrap();
    bytes(pair.b(), now);
    let second = pair.a().call(now, "m", uint(9), options()).unwrap();
    bytes(pair.a(), now);
    let link = pair.a().link();
    pair.cut();
    let [a, b] = &mut pair.ends;
    let (a, b) = (a.connection.as_mut().unwrap(), b.connection.as_mut().unwrap());
    a.handle_eof(now, 0).unwrap();
    b.handle_eof(now, 0).unwrap();
    assert!(a.is_detached() && b.is_detached() && a.link() != link);
    assert!(matches!(all(a)[..], [Event::Detached(_)]));
    assert!(matches!(all(b)[..], [Event::Detached(_)]));
    // A call without a link waits.
    let third = a.call(now, "m", uint(10), options()).unwrap();
    assert_eq!(bytes(a, now), "");

    assert_eq!([(); 2].map(|()| a.reconnect(now, Dial::default())), [Ok(true), Ok(false)]);
    let mut out = TransmitBuf::new();
    let incoming = Incoming::new(config.clone(), now, ids(9));
    let Ok(Progress::Offered(mut offered)) = incoming.handle_input(now, &mut bytes(a, now), &mut out) else {
        panic!("no offer")
    };
    let offer = offered.offer().resume.clone().unwrap();
    assert_eq!(Some(offer.session), b.session_id());
    offered.set_resumed(b.take_up(now, &offer, offered.id()).unwrap());
    let resuming = offered.accept_resumed(now, &mut out).unwrap();
    let mut answer = BytesMut::from(&out.copy_to_bytes(out.remaining())[..]);
    a.handle_input(now, &mut answer).unwrap();
    assert!(matches!(all(a)[..], [Event::Resumed { resent: 1 }]));
    let mut said = bytes(a, now);
    let Ok(ResumeProgress::Confirmed(confirmed)) = resuming.handle_input(&mut said) else {
        panic!("not confirmed")
    };
    assert!(b.confirm_link(now, confirmed));
    let events = all(b);
    assert!(matches!(events[..], [Event::Resumed { resent: 1 }]));
    b.handle_input(now, &mut said).unwrap();
    let events = all(b);
    let again = requests(&events);
    assert_eq!(again.len(), 2);
    for request in again {
        b.respond(request.id, Ok(request.payload)).unwrap();
    }
    a.handle_input(now, &mut bytes(b, now)).unwrap();
    let events = all(a);
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Call(CallEvent::Response(_)))).count(), 3);
    let outcomes = outcomes(a, &events);
    assert_eq!(outcomes, [(call, Ok(uint(8))), (second, Ok(uint(9))), (third, Ok(uint(10)))]);
    assert_eq!((a.stats().resumed, b.stats().resumed), (1, 1));
}

// spec: §6.1, §9.7
#[test]
fn nothing_follows_an_offer_also_where_resending_was_cut_short() {
    let config = config(|config| config.resume = true);
    let mut pair = Pair::established(&config);
    let now = pair.now;
    for _ in 0..8 {
        pair.a().call(now, "m", blob(100_000), options()).unwrap();
        while !bytes(pair.a(), now).is_empty() {}
    }
    pair.cut();
    let [a, b] = &mut pair.ends;
    let (a, b) = (a.connection.as_mut().unwrap(), b.connection.as_mut().unwrap());
    b.handle_eof(now, 0).unwrap();
    for _ in 0..3 {
        a.handle_eof(now, 0).unwrap();
        assert_eq!(a.reconnect(now, Dial::default()), Ok(true));
        let mut said = bytes(a, now);
        let mut out = TransmitBuf::new();
        let incoming = Incoming::new(config.clone(), now, ids(9));
        let Ok(Progress::Offered(mut offered)) = incoming.handle_input(now, &mut said, &mut out) else {
            panic!("no offer")
        };
        assert_eq!((said.len(), a.wants_transmit()), (0, false), "something follows the offer");
        let offer = offered.offer().resume.clone().unwrap();
        offered.set_resumed(b.take_up(now, &offer, offered.id()).unwrap());
        let resuming = offered.accept_resumed(now, &mut out).unwrap();
        a.handle_input(now, &mut BytesMut::from(&out.copy_to_bytes(out.remaining())[..])).unwrap();
        // A part of what goes again; the link is lost, and nobody has confirmed anything.
        let said = bytes(a, now);
        assert!(said.len() > 100_000 && said.len() < 800_000, "{} bytes", said.len());
        b.abandon(now, resuming.attempt());
    }
}
