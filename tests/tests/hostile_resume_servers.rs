//! Clients that come back to a server which treats their session as it must not, or has forgotten it.

use std::time::{Duration, Instant};

use fluxar::{Client, Code, ConnectError, ConnectionError, Raw, Reconnect, State};
use fluxar_proto::message::{Id, Kind, verb};
use fluxar_tests::net::Net;
use fluxar_tests::resume::{Bytes, Pass, Resumed, Session, Ticket, said, terms};
use fluxar_tests::schedulers;
use fluxar_tests::wire::{Message, Trap, Wire};

schedulers! {
    a_session_that_nobody_asked_for_is_a_violation
    what_the_server_lacks_comes_first_and_byte_for_byte
    a_server_that_does_not_answer_is_tried_again
    a_server_that_has_forgotten_costs_what_was_sent
    a_server_that_names_another_session_is_left
    a_session_without_what_belongs_to_it_is_left
    a_server_that_claims_to_have_handled_too_much_is_left
    a_server_that_takes_back_what_it_has_handled_is_left
}

const PATIENCE: Duration = Duration::from_millis(300);

/// A session's name and secret.
fn pass(number: u8) -> Pass {
    let (id, secret) = (Bytes(vec![number; 16]), Bytes(vec![number ^ 0xff; 32]));
    Pass { id, resume_ms: 60_000, secret: Some(secret) }
}

/// The answer to an offer, which grants a session; one that goes on where the server says how much it has `handled`.
fn answer(offer: Id, handled: Option<u64>, pass: Pass) -> Message {
    let resumed = handled.map(|handled| Resumed { handled });
    terms().session(Session { resumed, session: Some(pass), ..Session::default() }).answer(offer)
}

/// A scripted server that a client has a session with.
struct Scene {
    trap: Trap,
    wire: Wire,
    client: Client,
}

impl Scene {
    async fn open() -> Self {
        let trap = Trap::open().await;
        let soon = Reconnect::default().first(Duration::from_millis(2)).max(Duration::from_millis(5));
        let connect = Client::connect(trap.url()).reconnect(soon);
        let connect = connect.configure(|config| config.handshake_timeout = PATIENCE);
        let (client, mut wire) = tokio::join!(connect.build(), async {
            let mut wire = trap.accept().await;
            wire.answer_hands_with(|offer| answer(offer, None, pass(1))).await;
            wire
        });
        let client = client.unwrap();
        wire.ping().await;
        Self { trap, wire, client }
    }

    /// Loses the link, and takes the offer of the next one, which has to prove that it comes from the same client.
    async fn cut(&mut self, ticket: &Pass, handled: u64) -> Message {
        self.wire = self.trap.accept_after(&mut self.wire).await;
        let offer = self.wire.receive().await;
        let resume = said(&offer).resume.expect("it wants to go on");
        let ticket = Ticket { pass: ticket.clone() };
        assert_eq!((&resume.session, resume.handled), (&ticket.pass.id, handled));
        assert_eq!(resume.proof.0, ticket.proof(offer.id));
        offer
    }

    /// The client has left because of what the server did.
    async fn left(mut self, code: Code) {
        assert_eq!(self.wire.closed_for().await, code);
        let why = self.client.closed().await;
        assert!(matches!(why, ConnectionError::Violation(_) | ConnectionError::Hello(_)), "{why:?}");
        assert_eq!(self.client.state(), State::Closed { why });
    }
}

// spec: §6.4, §9.6
async fn a_session_that_nobody_asked_for_is_a_violation(_: Net) {
    let trap = Trap::open().await;
    let (client, mut wire) = tokio::join!(Client::connect(trap.url()).build(), async {
        let mut wire = trap.accept().await;
        wire.answer_hands_with(|offer| answer(offer, Some(0), pass(1))).await;
        wire
    });
    assert!(matches!(client, Err(ConnectError::Handshake(_))), "{client:?}");
    assert_eq!(wire.closed_for().await, Code::PROTOCOL_VIOLATION);
}

// spec: §9.5, §9.6, §9.7
async fn what_the_server_lacks_comes_first_and_byte_for_byte(_: Net) {
    let mut scene = Scene::open().await;
    let peer = scene.client.peer();
    let mut calls = Vec::new();
    let mut sent = Vec::new();
    for number in 0..5u32 {
        let peer = peer.clone();
        calls.push(tokio::spawn(async move { peer.call::<u32>("double", &number).await }));
        // One after the other, so that their order is known.
        sent.push(scene.wire.receive().await);
    }
    let mut states = scene.client.states();
    assert_eq!(states.next().await, Some(State::Connected));
    let mut ticket = Ticket { pass: pass(1) };
    for (round, known) in [(2, 0), (3, 2), (4, 2), (5, 5)] {
        let offer = scene.cut(&ticket.pass, 0).await;
        let answer = answer(offer.id, Some(known), Pass { id: pass(1).id, ..pass(round) });
        ticket = ticket.next(&answer);
        scene.wire.send(&answer).await;
        let first = scene.wire.receive().await;
        assert_eq!((first.kind, first.target.as_deref()), (Kind::Control, Some(verb::HANDLED)));
        assert_eq!(first.decode::<u64>(), 0);
        for message in &sent[known as usize..] {
            assert_eq!(&scene.wire.receive().await, message);
        }
        loop {
            match states.next().await.unwrap() {
                State::Resumed { resent } => break assert_eq!(resent, 5 - known),
                state => assert!(!matches!(state, State::Lost { .. } | State::Closed { .. }), "{state:?}"),
            }
        }
    }
    for (number, message) in sent.iter().enumerate() {
        scene.wire.send(&Message::response(message.id).payload(&(2 * number))).await;
    }
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap(), Ok(2 * number as u32));
    }
    // And the answers are counted: whoever comes back has them.
    let offer = scene.cut(&ticket.pass, 5).await;
    scene.wire.send(&answer(offer.id, Some(5), pass(1))).await;
    assert_eq!(scene.wire.receive().await.decode::<u64>(), 5);
    scene.wire.ping().await;
}

// spec: §9.6, §9.10
async fn a_server_that_does_not_answer_is_tried_again(_: Net) {
    let mut scene = Scene::open().await;
    let peer = scene.client.peer();
    let call = tokio::spawn(async move { peer.call::<u32>("answer", &()).await });
    let request = scene.wire.receive().await;
    for _ in 0..2 {
        scene.cut(&pass(1), 0).await;
        let since = Instant::now();
        scene.wire.ended().await;
        assert!(since.elapsed() < PATIENCE * 10);
    }
    // In the midst of the answer.
    let offer = scene.cut(&pass(1), 0).await;
    scene.wire.send_bytes(&answer(offer.id, Some(1), pass(1)).frame()[..30]).await;
    let offer = scene.cut(&pass(1), 0).await;
    scene.wire.send(&answer(offer.id, Some(1), pass(1))).await;
    scene.wire.send(&Message::response(request.id).payload(&42)).await;
    assert_eq!(call.await.unwrap(), Ok(42));
}

// spec: §9.9, §10.9, §11.3
async fn a_server_that_has_forgotten_costs_what_was_sent(_: Net) {
    let mut scene = Scene::open().await;
    let mut states = scene.client.states();
    assert_eq!(states.next().await, Some(State::Connected));
    let peer = scene.client.peer();
    let call = tokio::spawn(async move { peer.call::<Raw>("answer", &()).await });
    scene.wire.receive().await;
    let mut stream = scene.client.stream::<u8>("items", &()).await.unwrap();
    scene.wire.receive().await;
    let offer = scene.cut(&pass(1), 0).await;
    scene.wire.send(&answer(offer.id, None, pass(2))).await;
    let error = call.await.unwrap().unwrap_err();
    assert_eq!((error.code, error.processed), (Code::UNAVAILABLE, None), "it was sent");
    assert_eq!(stream.next().await.unwrap().unwrap_err().code, Code::UNAVAILABLE);
    loop {
        match states.next().await.unwrap() {
            State::Lost { calls, streams, .. } => break assert_eq!((calls, streams), (1, 1)),
            state => assert!(matches!(state, State::Reconnecting { .. }), "{state:?}"),
        }
    }
    assert_eq!(states.next().await, Some(State::Connected));
    // What follows is a session like any other.
    scene.wire.ping().await;
    let peer = scene.client.peer();
    let call = tokio::spawn(async move { peer.call::<u8>("answer", &()).await });
    let request = scene.wire.receive().await;
    scene.wire.send(&Message::response(request.id).payload(&1)).await;
    assert_eq!(call.await.unwrap(), Ok(1));
    let offer = scene.cut(&pass(2), 1).await;
    scene.wire.send(&answer(offer.id, Some(1), pass(2))).await;
    assert_eq!(scene.wire.receive().await.decode::<u64>(), 1);
}

// spec: §6.4, §9.6
async fn a_server_that_names_another_session_is_left(_: Net) {
    let mut scene = Scene::open().await;
    let offer = scene.cut(&pass(1), 0).await;
    scene.wire.send(&answer(offer.id, Some(0), pass(2))).await;
    scene.left(Code::PROTOCOL_VIOLATION).await;
}

// spec: §9.1, §9.6
async fn a_session_without_what_belongs_to_it_is_left(_: Net) {
    let mut scene = Scene::open().await;
    let offer = scene.cut(&pass(1), 0).await;
    scene.wire.send(&answer(offer.id, Some(0), Pass { secret: None, ..pass(1) })).await;
    scene.left(Code::MALFORMED).await;
}

// spec: §9.3, §9.6
async fn a_server_that_claims_to_have_handled_too_much_is_left(_: Net) {
    let mut scene = Scene::open().await;
    let offer = scene.cut(&pass(1), 0).await;
    scene.wire.send(&answer(offer.id, Some(1), pass(1))).await;
    scene.left(Code::PROTOCOL_VIOLATION).await;
    let mut scene = Scene::open().await;
    scene.wire.send(&Message::handled(1)).await;
    scene.left(Code::PROTOCOL_VIOLATION).await;
}

// spec: §9.3, §9.6
async fn a_server_that_takes_back_what_it_has_handled_is_left(_: Net) {
    for on_link in [false, true] {
        let mut scene = Scene::open().await;
        let peer = scene.client.peer();
        let call = tokio::spawn(async move { peer.call::<Raw>("answer", &()).await });
        scene.wire.receive().await;
        scene.wire.send(&Message::handled(1)).await;
        scene.wire.ping().await;
        if on_link {
            scene.wire.send(&Message::handled(0)).await;
        } else {
            let offer = scene.cut(&pass(1), 0).await;
            scene.wire.send(&answer(offer.id, Some(0), pass(1))).await;
        }
        scene.left(Code::PROTOCOL_VIOLATION).await;
        assert_eq!(call.await.unwrap().unwrap_err().code, Code::UNAVAILABLE);
    }
}
