//! Credentials of a session that goes on over a new link.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use fluxar_proto::message::verb;
use fluxar_proto::{
    Ask, Auth, Code, Config, Connection, Dial, Event, Grant, Incoming, Instant, Offered, Progress,
    ProofProgress, Psk, PskKey, ResumeProgress, Resuming, Tentative, TransmitBuf,
};

use crate::support::rounds::drained;
use crate::support::{Msg, at, config, ids, ms, one, options, requests, uint};

/// The two ends of a session, and the time.
struct Ends {
    config: Arc<Config>,
    a: Connection,
    b: Connection,
    now: Instant,
}

fn bytes(from: &mut Connection, now: Instant) -> BytesMut {
    let mut out = TransmitBuf::new();
    from.poll_transmit(now, &mut out);
    BytesMut::from(&drained(&mut out)[..])
}

fn dial() -> Dial {
    Dial { auth: Some(Auth::bearer("t")), ..Dial::confidential() }
}

impl Ends {
    /// A session whose credentials last for so long, and whose link is lost.
    fn detached(lasts: Option<Duration>) -> Self {
        let config = config(|c| (c.resume, c.authenticates) = (true, true));
        let now = Instant::ZERO;
        let mut a = Connection::initiate_with(config.clone(), now, ids(1), dial()).unwrap();
        let offered = Self::offered(&config, &bytes(&mut a, now), now);
        assert_eq!(offered.auth(), Some(&Auth::bearer("t")));
        let mut b = offered.accept_with(now, Grant { auth_expires: lasts });
        a.handle_input(now, &mut bytes(&mut b, now)).unwrap();
        let mut ends = Self { config, a, b, now };
        ends.cut();
        ends
    }

    fn offered(config: &Arc<Config>, offer: &[u8], now: Instant) -> Box<Offered> {
        let incoming = Incoming::new(config.clone(), now, ids(9));
        match incoming.handle_input(now, &mut BytesMut::from(offer), &mut TransmitBuf::new()) {
            Ok(Progress::Offered(offered)) => offered,
            other => panic!("no offer: {other:?}"),
        }
    }

    fn cut(&mut self) {
        self.a.handle_eof(self.now, 0).unwrap();
        self.b.handle_eof(self.now, 0).unwrap();
        assert!(self.a.is_detached() && self.b.is_detached());
        while self.a.poll_event().is_some() || self.b.poll_event().is_some() {}
    }

    /// The offer to go on, and what the responder takes up for it.
    fn offer(&mut self, dial: Dial) -> (Box<Offered>, Tentative) {
        assert_eq!(self.a.reconnect(self.now, dial), Ok(true));
        let offered = Self::offered(&self.config, &bytes(&mut self.a, self.now), self.now);
        let resume = offered.offer().resume.clone().unwrap();
        let tentative = self.b.take_up(self.now, &resume, offered.id()).unwrap();
        (offered, tentative)
    }

    /// The initiator has the last answer, and confirms.
    fn confirm(&mut self, resuming: Resuming, answer: &[u8]) {
        let Self { a, b, now, .. } = self;
        a.handle_input(*now, &mut BytesMut::from(answer)).unwrap();
        let mut said = bytes(a, *now);
        let Ok(ResumeProgress::Confirmed(confirmed)) = resuming.handle_input(&mut said) else {
            panic!("not confirmed")
        };
        assert!(b.confirm_link(*now, confirmed));
        b.handle_input(*now, &mut said).unwrap();
        assert!(!a.is_detached() && !b.is_detached());
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.b.poll_event()).collect()
    }
}

// spec: §8.5
// spec: §9.5
#[test]
fn the_proof_of_the_session_stands_for_credentials_that_still_last() {
    let mut ends = Ends::detached(Some(ms(10_000)));
    ends.now = at(4_000);
    let (mut offered, tentative) = ends.offer(dial());
    assert_eq!(offered.auth(), None, "they stay where they are");
    offered.set_resumed(tentative);
    let mut out = TransmitBuf::new();
    let resuming = offered.accept_resumed(ends.now, &mut out).unwrap();
    ends.confirm(resuming, &drained(&mut out));
    assert_eq!(ends.b.auth_expires(), Some(at(10_000)), "as was granted");
    assert_eq!(ends.a.auth_expires(), Some(at(10_000)), "what is left of it is told");

    let mut ends = Ends::detached(None);
    let (mut offered, tentative) = ends.offer(dial());
    offered.set_resumed(tentative);
    let resuming = offered.accept_resumed(ends.now, &mut out).unwrap();
    ends.confirm(resuming, &drained(&mut out));
    assert_eq!((ends.a.auth_expires(), ends.b.auth_expires()), (None, None));
}

// spec: §8.5
// spec: §9.6
#[test]
fn without_fresh_credentials_no_session_goes_on_whose_own_have_run_out() {
    let mut ends = Ends::detached(Some(ms(1_000)));
    ends.now = at(1_000);
    let (mut offered, tentative) = ends.offer(dial());
    assert_eq!(offered.auth(), Some(&Auth::bearer("t")), "they have run out, so that there are fresh ones");
    let attempt = tentative.attempt();
    offered.set_resumed(tentative);
    let mut out = TransmitBuf::new();
    assert!(offered.accept_resumed(ends.now, &mut out).is_none());
    let refusal = one(Msg::decode_all(&drained(&mut out)));
    assert_eq!(refusal.code(), Code::UNAUTHENTICATED);
    ends.b.abandon(ends.now, attempt);
    assert!(ends.b.is_detached() && ends.b.session_id().is_some(), "the session stays as it was");
    ends.a.handle_eof(ends.now, 0).unwrap();

    let (mut offered, tentative) = ends.offer(dial());
    offered.set_resumed(tentative);
    let grant = Grant { auth_expires: Some(ms(5_000)) };
    let resuming = offered.accept_resumed_with(ends.now, grant, &mut out).unwrap();
    let answer = drained(&mut out);
    ends.confirm(resuming, &answer);
    assert_eq!((ends.a.auth_expires(), ends.b.auth_expires()), (Some(at(6_000)), Some(at(6_000))));
    let call = ends.a.call(ends.now, "m", uint(1), options()).unwrap();
    ends.b.handle_input(ends.now, &mut bytes(&mut ends.a, ends.now)).unwrap();
    let events = ends.events();
    assert_eq!(one(requests(&events)).id.wire_id(), call.wire_id());
}

// spec: §6.10
// spec: §9.6
#[test]
fn a_session_may_go_on_after_a_proof() {
    let mut ends = Ends::detached(None);
    let psk = Some(Psk::new("site-7", *b"sixteen bytes!!!"));
    let (mut offered, tentative) = ends.offer(Dial { psk, ..dial() });
    offered.set_resumed(tentative);
    let mut out = TransmitBuf::new();
    let ask = Ask { psk: Some(PskKey::new(*b"sixteen bytes!!!")), challenge: None };
    let proving = offered.ask(ends.now, ask, &mut out).unwrap();
    let first = drained(&mut out);
    assert!(first.windows(7).any(|bytes| bytes == b"resumed"), "it is told in the first answer");
    ends.a.handle_input(ends.now, &mut BytesMut::from(&first[..])).unwrap();
    assert!(ends.a.is_handshaking());
    let mut proof = bytes(&mut ends.a, ends.now);
    let Ok(ProofProgress::Offered(offered)) = proving.handle_input(ends.now, &mut proof, &mut out) else {
        panic!("no proof")
    };
    assert!(offered.has_proven_psk());
    assert_eq!(
        offered.auth(),
        Some(&Auth::bearer("t")),
        "what was held back is sent when a proof is asked for"
    );
    let resuming = offered.accept_resumed(ends.now, &mut out).unwrap();
    let last = drained(&mut out);
    assert!(
        !last.windows(7).any(|bytes| bytes == b"resumed") && last.windows(7).any(|bytes| bytes == b"session")
    );
    ends.confirm(resuming, &last);
}

// spec: §9.7
#[test]
fn a_renewal_without_an_answer_is_forgotten_with_its_link() {
    let mut ends = Ends::detached(Some(ms(10_000)));
    let again = |ends: &mut Ends| {
        let (mut offered, tentative) = ends.offer(dial());
        offered.set_resumed(tentative);
        let mut out = TransmitBuf::new();
        let resuming = offered.accept_resumed(ends.now, &mut out).unwrap();
        ends.confirm(resuming, &drained(&mut out));
    };
    again(&mut ends);
    let renewal = ends.a.authenticate(ends.now, Auth::bearer("fresh")).unwrap();
    ends.b.handle_input(ends.now, &mut bytes(&mut ends.a, ends.now)).unwrap();
    assert!(ends.events().iter().any(|event| matches!(event, Event::AuthOffered { .. })));
    ends.b.answer_auth(renewal, Ok(None)).unwrap();
    ends.a.handle_eof(ends.now, 0).unwrap();
    let ended = std::iter::from_fn(|| ends.a.poll_event()).find_map(|event| match event {
        Event::Authenticated { id, result } => Some((id, result.unwrap_err().code)),
        _ => None,
    });
    assert_eq!(ended, Some((renewal, Code::UNAVAILABLE)));
    ends.b.handle_eof(ends.now, 0).unwrap();
    again(&mut ends);
    assert_eq!(ends.b.auth_expires(), Some(at(10_000)), "what was not sent does not count");
    let said = Msg::decode_all(&bytes(&mut ends.b, ends.now));
    assert!(said.iter().all(|message| message.reference != Some(renewal)), "{said:?}");
    let said = Msg::decode_all(&bytes(&mut ends.a, ends.now));
    assert!(said.iter().all(|message| message.target.as_deref() != Some(verb::AUTH)), "{said:?}");
}
