//! Pre-shared keys.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use fluxar::{
    Accounts, Auth, AuthRequest, Client, Code, ConnectError, ConnectionError, HandlerError, Identity, Psk,
    PskError, Reconnect, ServerBuilder, State,
};
use fluxar_proto::frame;
use fluxar_proto::message::{Id, Kind};
use fluxar_tests::net::Net;
use fluxar_tests::plan::Mishap;
use fluxar_tests::proxy::Proxy;
use fluxar_tests::resume::{Ticket, said, terms};
use fluxar_tests::signal::Counter;
use fluxar_tests::site::Site;
use fluxar_tests::whoami::{known, name_of, whoami};
use fluxar_tests::wire::{Message, Trap, Wire};
use fluxar_tests::{matrix, schedulers};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

matrix! {
    both_sides_prove_that_they_hold_the_key
    a_key_and_credentials_go_together
    an_unknown_name_looks_like_a_wrong_key
    keys_come_and_go_while_the_server_runs
}

schedulers! {
    who_names_no_key_is_refused
    who_names_no_key_is_let_in_where_that_is_optional
    a_proof_of_the_wrong_shape_is_refused
    a_server_without_the_key_is_left
    a_server_that_only_pretends_is_left
    wrong_proofs_are_slowed
    who_is_cut_off_while_it_hears_of_a_wrong_proof_has_failed
    a_session_goes_on_once_its_key_is_proven_again
    a_session_goes_on_with_no_other_key_nor_without
}

const KEY: &[u8] = &[7; 32];

async fn guarded(net: Net) -> Site {
    let change = |builder| whoami(builder).psk(Psk::new("first", KEY)).psk(Psk::new("second", [8; 16]));
    Site::with(net, change).await
}

fn refused_with(result: Result<Client, ConnectError>) -> Code {
    match result {
        Err(ConnectError::Handshake(ConnectionError::Refused(error))) => error.code,
        other => panic!("{other:?}"),
    }
}

/// An offer that names a key, with a nonce of so many bytes.
fn offer(name: &str, nonce: u8) -> Message {
    let head = [&b"\xa2\x68versions\x81\x01\x63psk\xa2\x62id"[..], &[0x60 + name.len() as u8]].concat();
    let nonce = [&[0x65][..], b"nonce", &[0x58, nonce], &vec![3; nonce.into()]].concat();
    Message::offer().raw([&head, name.as_bytes(), &nonce].concat())
}

/// A proof of so many bytes.
fn proof(answer: Id, len: u8) -> Message {
    let proof = [&b"\xa1\x63psk\xa1\x65proof"[..], &[0x58, len], &vec![5; len.into()]].concat();
    Message::continuation(Kind::Hello, answer).verb("proof").raw(proof)
}

// spec: §6.12
async fn both_sides_prove_that_they_hold_the_key(net: Net) {
    let site = guarded(net).await;
    for (name, key) in [("first", KEY), ("second", &[8; 16][..])] {
        let client = site.connect().psk(Psk::new(name, key)).build().await.unwrap();
        assert_eq!(name_of(&client).await, known(name, "psk"));
    }
    for (name, key) in [("first", &[8; 16][..]), ("second", KEY), ("third", KEY), ("first", &[])] {
        let client = site.connect().psk(Psk::new(name, key)).build().await;
        assert_eq!(refused_with(client), Code::UNAUTHENTICATED, "{name}");
    }
}

// spec: §6.12
async fn a_key_and_credentials_go_together(net: Net) {
    let asked = Counter::new();
    let counting = asked.clone();
    let site = Site::with(net, |builder| {
        whoami(builder).psk(Psk::new("first", KEY)).authenticator(move |request: AuthRequest| {
            counting.add();
            assert_eq!(request.psk(), Some("first"));
            let accounts = Accounts::new().bearer("token", Identity::new("ada"));
            async move { fluxar::Authenticator::authenticate(&accounts, request).await }
        })
    })
    .await;
    let connect = |key: &[u8], token| site.connect().psk(Psk::new("first", key)).auth(Auth::bearer(token));
    let client = connect(KEY, "token").build().await.unwrap();
    assert_eq!((name_of(&client).await, asked.get()), (known("ada", "bearer"), 1));
    assert_eq!(refused_with(connect(KEY, "wrong").build().await), Code::UNAUTHENTICATED);
    assert_eq!(asked.get(), 2);
    assert_eq!(refused_with(connect(&[], "token").build().await), Code::UNAUTHENTICATED);
    assert_eq!(asked.get(), 2, "whoever does not hold the key shows his credentials to nobody");
}

/// What a server says to who names a key and does not hold it, with all that is random left out.
async fn rejection(url: &str, name: &str) -> Vec<(Kind, usize, Vec<u8>, Option<fluxar::Error>)> {
    let mut wire = Wire::connect(url).await;
    let offer = offer(name, 32);
    wire.send(&offer).await;
    let answer = wire.receive().await;
    assert_eq!(answer.reference, Some(offer.id));
    let proof = proof(answer.id, 32);
    wire.send(&proof).await;
    let refusal = wire.receive().await;
    assert_eq!(refusal.reference, Some(proof.id));
    assert_eq!(wire.next().await, None);
    let shown = |message: &Message| {
        let mut payload = message.payload.as_bytes().to_vec();
        if let Some(at) = payload.windows(7).position(|window| window == b"nonce\x58\x20") {
            payload[at + 7..at + 39].fill(0);
        }
        (message.kind, message.frame().len(), payload, message.error.clone())
    };
    vec![shown(&answer), shown(&refusal)]
}

// spec: §6.12, §17.4
async fn an_unknown_name_looks_like_a_wrong_key(net: Net) {
    let site = guarded(net).await;
    let known = rejection(site.url(), "first").await;
    assert_eq!(known[1].3.as_ref().map(|error| error.code), Some(Code::UNAUTHENTICATED));
    for name in ["fir5t", "other", ""] {
        assert_eq!(rejection(site.url(), name).await, known, "{name:?}");
    }
}

// spec: §6.12
async fn keys_come_and_go_while_the_server_runs(net: Net) {
    let keys = Arc::new(RwLock::new(HashMap::from([("old".to_owned(), vec![1; 16])])));
    let shelf = keys.clone();
    let find = move |name: &str| {
        assert_ne!(name, "panic");
        Some(Psk::new(name, shelf.read().unwrap().get(name)?.clone()))
    };
    let site = Site::with(net, |builder| whoami(builder).psk(Psk::new("fixed", KEY)).psks(find)).await;
    let connect = async |name, key: &[u8]| site.connect().psk(Psk::new(name, key)).build().await;
    let old = connect("old", &[1; 16]).await.unwrap();
    assert_eq!(refused_with(connect("new", &[2; 16]).await), Code::UNAUTHENTICATED);
    keys.write().unwrap().insert("new".into(), vec![2; 16]);
    let new = connect("new", &[2; 16]).await.unwrap();
    keys.write().unwrap().remove("old");
    assert_eq!(refused_with(connect("old", &[1; 16]).await), Code::UNAUTHENTICATED);
    connect("fixed", KEY).await.unwrap();
    assert_eq!(refused_with(connect("panic", KEY).await), Code::UNAUTHENTICATED);
    for (client, name) in [(&old, "old"), (&new, "new")] {
        assert_eq!(name_of(client).await, known(name, "psk"), "who is in stays");
    }
}

// spec: §6.12, §6.8
async fn who_names_no_key_is_refused(net: Net) {
    let site = guarded(net).await;
    assert_eq!(refused_with(site.connect().build().await), Code::UNAUTHENTICATED);
    assert_eq!(refused_with(site.connect().auth(Auth::bearer("x")).build().await), Code::UNAUTHENTICATED);
}

async fn who_names_no_key_is_let_in_where_that_is_optional(net: Net) {
    let change = |builder| whoami(builder).psk(Psk::new("first", KEY)).psk_optional();
    let site = Site::with(net, change).await;
    assert_eq!(name_of(&site.client().await).await, None);
    let client = site.connect().psk(Psk::new("first", KEY)).build().await.unwrap();
    assert_eq!(name_of(&client).await, known("first", "psk"));
    let client = site.connect().psk(Psk::new("first", [9; 16])).build().await;
    assert_eq!(refused_with(client), Code::UNAUTHENTICATED, "who names one has to hold it");
}

// spec: §6.12, §6.2
async fn a_proof_of_the_wrong_shape_is_refused(net: Net) {
    let site = guarded(net).await;
    for nonce in [0, 31, 33] {
        let mut wire = Wire::connect(site.url()).await;
        wire.send(&offer("first", nonce)).await;
        assert_eq!(wire.closed_for().await, Code::MALFORMED, "a nonce of {nonce} bytes");
    }
    for len in [0, 31, 33] {
        let mut wire = Wire::connect(site.url()).await;
        wire.send(&offer("first", 32)).await;
        let answer = wire.receive().await;
        wire.send(&proof(answer.id, len)).await;
        assert_eq!(wire.closed_for().await, Code::MALFORMED, "a proof of {len} bytes");
    }
    let mut wire = Wire::connect(site.url()).await;
    wire.send(&offer("first", 32)).await;
    let answer = wire.receive().await;
    let nothing = Message::continuation(Kind::Hello, answer.id).verb("proof").raw(&b"\xa0"[..]);
    wire.send(&nothing).await;
    assert_eq!(wire.refused(nothing.id).await.code, Code::UNAUTHENTICATED);
}

// spec: §6.12
async fn a_server_without_the_key_is_left(net: Net) {
    let site = Site::open(net).await;
    match site.connect().psk(Psk::new("first", KEY)).build().await {
        Err(ConnectError::Handshake(ConnectionError::Psk(PskError::Declined))) => {}
        other => panic!("{other:?}"),
    }
}

// spec: §6.12
async fn a_server_that_only_pretends_is_left(_: Net) {
    for (last, why) in [
        // As if the initiator's proof had sufficed.
        (&b"\xa0"[..], PskError::Missing),
        (&[&b"\xa1\x63psk\xa1\x65proof\x58\x20"[..], &[9; 32]].concat(), PskError::Wrong),
    ] {
        let trap = Trap::open().await;
        let client = Client::connect(trap.url()).psk(Psk::new("first", KEY)).build();
        let (client, code) = tokio::join!(client, async {
            let mut wire = trap.accept().await;
            let offer = wire.receive().await;
            let nonce = [&b"\xa3\x67version\x01\x64next\x65proof\x63psk\xa1\x65nonce\x58\x20"[..], &[1; 32]];
            let ask = Message::answer(offer.id).raw(nonce.concat());
            wire.send(&ask).await;
            let proof = wire.receive().await;
            assert_eq!(proof.reference, Some(ask.id));
            let answer = Message::continuation(Kind::Hello, proof.id).raw(last.to_vec());
            wire.send(&answer).await;
            wire.closed_for().await
        });
        match client {
            Err(ConnectError::Handshake(ConnectionError::Psk(error))) => assert_eq!(error, why),
            other => panic!("{other:?}"),
        }
        assert_eq!(code, Code::UNAUTHENTICATED);
    }
}

// spec: §17.4
async fn wrong_proofs_are_slowed(net: Net) {
    let other = Net::Unix.url();
    let second = other.clone();
    let site = Site::with(net, |builder| {
        builder.psk(Psk::new("first", KEY)).max_failures(3, Duration::from_secs(3600)).listen(second)
    })
    .await;
    for name in ["first", "unknown", "first"] {
        let client = site.connect().psk(Psk::new(name, [1; 16])).build().await;
        assert_eq!(refused_with(client), Code::UNAUTHENTICATED);
    }
    let right = Psk::new("first", KEY);
    let client = site.connect().psk(right.clone()).build().await;
    assert_eq!(refused_with(client), Code::RESOURCE_EXHAUSTED);
    Client::connect(other).psk(right).build().await.unwrap();
}

// spec: §17.4
async fn who_is_cut_off_while_it_hears_of_a_wrong_proof_has_failed(net: Net) {
    let site = Site::with(net, |builder| {
        let builder = builder.psk(Psk::new("first", KEY)).max_handshakes(1);
        builder.max_failures(3, Duration::from_secs(3600))
    });
    let site = site.await;
    let mut open = Vec::new();
    for attempt in 0..6 {
        // Whoever does not close is still there when the next one takes its place.
        let mut wire = Wire::connect(site.url()).await;
        wire.send(&offer("first", 32)).await;
        let answer = wire.receive().await;
        let code = match answer.error {
            Some(error) => error.code,
            None => {
                wire.send(&proof(answer.id, 32)).await;
                wire.receive().await.error.expect("a refusal").code
            }
        };
        let expected = if attempt < 3 { Code::UNAUTHENTICATED } else { Code::RESOURCE_EXHAUSTED };
        assert_eq!(code, expected, "attempt {attempt}");
        open.push(wire);
    }
}

// spec: §6.12, §9.5
async fn a_session_goes_on_once_its_key_is_proven_again(net: Net) {
    let change = |builder: ServerBuilder| builder.configure(|config| config.resume = true);
    let keys = |builder: ServerBuilder| builder.psk(Psk::new("first", KEY)).psk(Psk::new("second", [8; 16]));
    let site = Site::with(net, |builder| keys(change(whoami(builder)))).await;
    let proxy = Proxy::clear(site.url()).await;
    let quick = Reconnect::default().first(Duration::from_millis(1)).max(Duration::from_millis(10));
    let client = Client::connect(proxy.url()).configure(|config| config.resume = true).reconnect(quick);
    let client = client.psk(Psk::new("first", KEY)).build().await.unwrap();
    let mut states = client.states();
    assert!(matches!(states.next().await, Some(State::Connected)));
    for _ in 0..3 {
        proxy.strike(Mishap::Close);
        assert!(matches!(states.next().await, Some(State::Reconnecting { .. })));
        assert!(matches!(states.next().await, Some(State::Resumed { .. })));
        assert_eq!(name_of(&client).await, known("first", "psk"));
    }
    assert_eq!(site.handle().stats().resumed, 3);
}

/// The same offer, naming a key.
fn naming(offer: Message, name: &str) -> Message {
    let map = offer.payload.as_bytes().to_vec();
    assert_eq!(map[0], 0xbf, "a map without a length");
    let key = [&b"\x63psk\xa2\x62id"[..], &[0x60 + name.len() as u8], name.as_bytes()].concat();
    offer.raw([&map[..1], &key, &b"\x65nonce\x58\x20"[..], &[3; 32], &map[1..]].concat())
}

/// Shakes hands, and proves to hold a key where one is given: gives the first answer and the last.
async fn answers(url: &str, offer: Message, key: Option<(&str, &[u8])>) -> (Wire, Message, Message) {
    let mut wire = Wire::connect(url).await;
    let Some((name, key)) = key else {
        let answer = wire.shake_hands_with(offer).await;
        return (wire, answer.clone(), answer);
    };
    let offer = naming(offer, name);
    let first = wire.shake_hands_with(offer.clone()).await;
    let mut transcript = Sha256::new();
    for hello in [&offer, &first] {
        let body = hello.frame().split_off(frame::PREFIX_LEN);
        transcript.update(u32::try_from(body.len()).unwrap().to_be_bytes());
        transcript.update(body);
    }
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(b"fluxar psk initiator");
    mac.update(&transcript.finalize());
    let proof = [&b"\xa1\x63psk\xa1\x65proof\x58\x20"[..], &mac.finalize().into_bytes()].concat();
    let proof = Message::continuation(Kind::Hello, first.id).verb("proof").raw(proof);
    wire.send(&proof).await;
    let last = wire.receive().await;
    assert_eq!((last.kind, last.reference, &last.error), (Kind::Hello, Some(proof.id), &None));
    (wire, first, last)
}

// spec: §6.12, §9.9
async fn a_session_goes_on_with_no_other_key_nor_without(net: Net) {
    let first = Some(("first", KEY));
    // Whoever holds a key is somebody, and everybody else a guest: what matters is not shown by credentials.
    let by_key = |request: AuthRequest| {
        let name = request.psk().unwrap_or("guest").to_owned();
        async move { Ok::<_, HandlerError>(Identity::new(name)) }
    };
    let keys = |builder: ServerBuilder| builder.psk(Psk::new("first", KEY)).psk(Psk::new("second", [8; 16]));
    let site = Site::with(net, |builder| keys(builder).psk_optional().authenticator(by_key)).await;
    let (_wire, _, last) = answers(site.url(), terms().offer(), first).await;
    let ticket = Ticket::of(&last);
    // Whoever has listened has the session's secret, which is not enough.
    let mut wire = Wire::connect(site.url()).await;
    let offer = ticket.offer(0);
    wire.send(&offer).await;
    assert_eq!(wire.refused(offer.id).await.code, Code::SESSION_UNKNOWN);
    let mut wire = Wire::connect(site.url()).await;
    let offer = naming(ticket.offer(0), "second");
    let answer = wire.shake_hands_with(offer).await;
    assert!(said(&answer).resumed.is_none(), "the session goes on with another key");
    let (_guest, _, last) = answers(site.url(), terms().offer(), None).await;
    let mut wire = Wire::connect(site.url()).await;
    let answer = wire.shake_hands_with(naming(Ticket::of(&last).offer(0), "second")).await;
    assert!(said(&answer).resumed.is_none(), "a guest's session becomes somebody's");
    let (_wire, answer, _) = answers(site.url(), ticket.offer(0), first).await;
    assert!(said(&answer).resumed.is_some());
}
