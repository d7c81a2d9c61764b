//! Servers against those who want a session that is not theirs, or that do with their own what they must not: the
//! rightful owner loses nothing but, at worst, the time that a handshake may take.

use std::time::{Duration, Instant};

use fluxar::{Code, Request};
use fluxar_proto::message::{Kind, verb};
use fluxar_tests::honest::Field;
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::resume::{Owner, Ticket, said, terms};
use fluxar_tests::schedulers;
use fluxar_tests::signal::Counter;
use fluxar_tests::wire::{Message, Wire};
use futures_util::future::join_all;

schedulers! {
    who_cannot_prove_it_gets_a_session_of_its_own
    an_offer_that_was_seen_is_good_for_a_delay_at_most
    a_proof_is_spent_once_the_resume_is_confirmed
    who_never_confirms_gives_the_session_back
    who_says_something_else_first_gives_the_session_back
    the_latest_link_wins
    who_claims_to_have_handled_too_much_loses_its_session
    who_takes_back_what_it_has_handled_loses_its_session
    what_was_on_the_way_comes_again_byte_for_byte
    a_flood_of_offers_gets_nobody_anywhere
    what_a_resume_says_has_its_shape
}

/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_millis(700);

async fn field(net: Net) -> Field {
    Field::open(net, |builder| builder.configure(|config| config.handshake_timeout = PATIENCE)).await
}

/// Everybody has left: only the honest client is there.
async fn left(field: Field, owner: Owner) {
    owner.leave().await;
    field.unharmed().await;
}

/// The answer to an offer to which nobody has a right, and after which a fresh session is closed.
async fn fresh(url: &str, offer: Message) -> Message {
    let mut wire = Wire::connect(url).await;
    let answer = wire.shake_hands_with(offer).await;
    assert!(said(&answer).resumed.is_none(), "somebody else's session goes on");
    wire.ping().await;
    wire.leave().await;
    answer
}

// spec: §9.5, §9.6, §9.9, §17.2
async fn who_cannot_prove_it_gets_a_session_of_its_own(net: Net) {
    let field = field(net).await;
    let url = field.site.url().to_owned();
    let mut owner = Owner::new(&url).await;
    owner.works().await;
    let mut unknown = owner.ticket.clone();
    unknown.pass.id.0[3] ^= 1;
    let mut guessed = owner.ticket.clone();
    guessed.pass.secret.as_mut().unwrap().0[31] ^= 1;
    let of_another = owner.ticket.proof(owner.ticket.offer(0).id);
    let offers = [
        unknown.offer(0),
        unknown.offer(u64::MAX),
        guessed.offer(0),
        owner.ticket.offer_with(0, vec![0; 32]),
        // What was seen of another offer proves nothing in this one.
        owner.ticket.offer_with(0, of_another),
        owner.ticket.offer_with(u64::MAX, vec![0x55; 32]),
    ];
    let mut shapes = Vec::new();
    for offer in offers {
        let since = Instant::now();
        let answer = fresh(&url, offer).await;
        let mut said = said(&answer);
        assert_ne!(said.session.as_ref().unwrap().id, owner.ticket.pass.id);
        // All of it is random, as the id is.
        said.session.as_mut().unwrap().secret.as_mut().unwrap().0.fill(0);
        said.session.as_mut().unwrap().id.0.fill(0);
        shapes.push((said.session, answer.payload.as_bytes().len(), answer.meta, answer.error));
        owner.works().await;
        assert!(since.elapsed() < PATIENCE, "the owner was held up");
    }
    assert!(
        shapes.windows(2).all(|two| two[0] == two[1]),
        "an unknown session can be told from a wrong proof"
    );
    assert_eq!(owner.come_back().await, 7);
    owner.works().await;
    left(field, owner).await;
}

// spec: §9.6, §9.8, §17.2, §17.5
async fn an_offer_that_was_seen_is_good_for_a_delay_at_most(net: Net) {
    let field = field(net).await;
    let url = field.site.url().to_owned();
    let mut owner = Owner::new(&url).await;
    owner.works().await;
    // The owner's own attempts have failed before they arrived; somebody has seen them, and comes with each of them.
    let repeat = async |offer: &Message| {
        let mut wire = Wire::connect(&url).await;
        let answer = wire.shake_hands_with(offer.clone()).await;
        assert!(said(&answer).resumed.is_some(), "it cannot be told from the owner's");
        (wire, Ticket::of(&answer))
    };
    let first = owner.ticket.offer(owner.handled);
    drop(repeat(&first).await);
    owner.works().await;
    for _ in 0..2 {
        let offer = owner.ticket.offer(owner.handled);
        let (mut thief, seen) = repeat(&offer).await;
        let since = Instant::now();
        owner.works().await;
        let held_up = since.elapsed();
        assert!(held_up > PATIENCE / 2, "the old link is not read while a new one is tried: {held_up:?}");
        assert!(held_up < PATIENCE * 4, "{held_up:?}");
        thief.ended().await;
        // What it was told is nothing to resume with.
        fresh(&url, seen.offer(owner.handled)).await;
        // Nor is what has arrived before.
        let since = Instant::now();
        fresh(&url, offer).await;
        owner.works().await;
        assert!(since.elapsed() < PATIENCE / 2, "the owner was held up");
    }
    assert_eq!(owner.come_back().await, 6);
    owner.works().await;
    fresh(&url, first).await;
    left(field, owner).await;
}

// spec: §9.6
async fn a_proof_is_spent_once_the_resume_is_confirmed(net: Net) {
    let field = field(net).await;
    let url = field.site.url().to_owned();
    let mut owner = Owner::new(&url).await;
    let mut spent = Vec::new();
    for round in 0..5 {
        spent.push((owner.ticket.clone(), owner.ticket.offer(owner.handled)));
        assert_eq!(owner.come_back().await, round);
        owner.works().await;
        for (old, offer) in &spent {
            assert_ne!(old.pass.secret, owner.ticket.pass.secret);
            fresh(&url, offer.clone()).await;
            fresh(&url, old.offer(0)).await;
        }
    }
    left(field, owner).await;
}

/// Loses the link, as the server notices it at once.
async fn lose(field: &Field, owner: &mut Owner) {
    let before = field.site.handle().stats().detached;
    owner.wire.finish().await;
    assert!(!owner.wire.ended().await, "a lost link is not answered with a close");
    eventually("the loss is noticed", || field.site.handle().stats().detached > before).await;
}

// spec: §9.6, §9.8
async fn who_never_confirms_gives_the_session_back(net: Net) {
    let field = field(net).await;
    let url = field.site.url().to_owned();
    let mut owner = Owner::new(&url).await;
    owner.works().await;
    // Nobody but the owner knows which of the secrets it has: the one from before those attempts, or theirs.
    for (known, has_answer) in [(1, false), (2, true)] {
        lose(&field, &mut owner).await;
        // Without a word; with half a word; gone at once.
        let (mut silent, _, unconfirmed) = Wire::resuming(&url, &owner.ticket, owner.handled).await;
        let since = Instant::now();
        silent.ended().await;
        assert!(since.elapsed() < PATIENCE * 4, "it may not take for ever");
        let (mut half, ..) = Wire::resuming(&url, &owner.ticket, owner.handled).await;
        half.send_bytes(&Message::handled(owner.handled).frame()[..7]).await;
        half.ended().await;
        for _ in 0..3 {
            drop(Wire::resuming(&url, &owner.ticket, owner.handled).await);
        }
        if has_answer {
            owner.ticket = unconfirmed;
        }
        assert_eq!(owner.come_back().await, known);
        owner.works().await;
    }
    left(field, owner).await;
}

// spec: §9.6, §9.8
async fn who_says_something_else_first_gives_the_session_back(net: Net) {
    let ran = Counter::new();
    let counting = ran.clone();
    let field = Field::open(net, |builder| {
        builder.configure(|config| config.handshake_timeout = PATIENCE).handle("note", move |_: Request| {
            counting.add();
            async { Ok(()) }
        })
    })
    .await;
    let url = field.site.url().to_owned();
    let mut owner = Owner::new(&url).await;
    owner.works().await;
    let first = [
        Message::call("note"),
        Message::stream("note"),
        Message::control(verb::PING),
        Message::handled(0).payload("many"),
        terms().offer(),
    ];
    for message in first {
        let (mut wire, ..) = Wire::resuming(&url, &owner.ticket, owner.handled).await;
        wire.send_bytes(&[message.frame(), Message::handled(owner.handled).frame()].concat()).await;
        wire.ended().await;
        // The old link goes on.
        owner.works().await;
    }
    assert_eq!(ran.get(), 0, "nothing is done on a link that is not confirmed");
    assert_eq!(owner.come_back().await, 6);
    left(field, owner).await;
}

// spec: §9.8
async fn the_latest_link_wins(net: Net) {
    let field = field(net).await;
    let url = field.site.url().to_owned();
    let mut owner = Owner::new(&url).await;
    owner.works().await;
    let (mut early, ..) = Wire::resuming(&url, &owner.ticket, owner.handled).await;
    let (mut late, known, ticket) = Wire::resuming(&url, &owner.ticket, owner.handled).await;
    assert_eq!(known, 1);
    // It has lost already, and cannot know.
    early.try_send_bytes(&Message::handled(owner.handled).frame()).await.ok();
    assert!(!early.ended().await, "no close on a link that is given up");
    late.send(&Message::handled(owner.handled)).await;
    assert!(!owner.wire.ended().await, "no close on the old link");
    (owner.wire, owner.ticket) = (late, ticket);
    owner.works().await;
    left(field, owner).await;
}

// spec: §9.3, §9.6
async fn who_claims_to_have_handled_too_much_loses_its_session(net: Net) {
    let field = field(net).await;
    let url = field.site.url().to_owned();
    // On the link.
    let mut owner = Owner::new(&url).await;
    owner.works().await;
    owner.wire.send(&Message::handled(2)).await;
    assert_eq!(owner.wire.closed_for().await, Code::PROTOCOL_VIOLATION);
    fresh(&url, owner.ticket.offer(1)).await;
    // With the confirmation.
    let mut owner = Owner::new(&url).await;
    owner.works().await;
    let (mut wire, ..) = Wire::resuming(&url, &owner.ticket, 1).await;
    wire.send(&Message::handled(2)).await;
    assert_eq!(wire.closed_for().await, Code::PROTOCOL_VIOLATION);
    assert!(!owner.wire.ended().await, "the old link is not the session's any more");
    fresh(&url, owner.ticket.offer(1)).await;
    // In an offer, with the old link alive or not.
    for loses in [false, true] {
        let mut owner = Owner::new(&url).await;
        owner.works().await;
        if loses {
            lose(&field, &mut owner).await;
        }
        let mut wire = Wire::connect(&url).await;
        let offer = owner.ticket.offer(2);
        wire.send(&offer).await;
        let answer = wire.receive().await;
        assert_eq!((answer.kind, answer.reference), (Kind::Hello, Some(offer.id)));
        assert_eq!(answer.error.map(|error| error.code), Some(Code::PROTOCOL_VIOLATION));
        wire.ended().await;
        fresh(&url, owner.ticket.offer(1)).await;
        owner.wire.ended().await;
    }
    field.unharmed().await;
}

// spec: §9.3, §9.6
async fn who_takes_back_what_it_has_handled_loses_its_session(net: Net) {
    let field = field(net).await;
    let url = field.site.url().to_owned();
    let mut owner = Owner::new(&url).await;
    let early = owner.ticket.offer(0);
    owner.works().await;
    owner.works().await;
    owner.wire.send(&Message::handled(2)).await;
    // The same once more is no harm.
    owner.wire.send(&Message::handled(2)).await;
    owner.works().await;
    // In an offer it may be somebody else, who repeats what was said long ago.
    fresh(&url, early).await;
    owner.works().await;
    owner.wire.send(&Message::handled(1)).await;
    assert_eq!(owner.wire.closed_for().await, Code::PROTOCOL_VIOLATION);
    fresh(&url, owner.ticket.offer(3)).await;
    field.unharmed().await;
}

// spec: §9.4, §9.7
async fn what_was_on_the_way_comes_again_byte_for_byte(net: Net) {
    let field = field(net).await;
    let url = field.site.url().to_owned();
    let mut owner = Owner::new(&url).await;
    let calls: Vec<_> = (0..20).map(|number| Message::call("echo").payload(&number)).collect();
    let mut answers = Vec::new();
    for call in &calls {
        owner.wire.send(call).await;
        answers.push(owner.response_to(call.id).await);
    }
    for handled in [0, 7, 20] {
        // Also for one who says that it has less than it has.
        let (wire, known, ticket) = Wire::resumed(&url, &owner.ticket, handled).await;
        (owner.wire, owner.ticket) = (wire, ticket);
        assert_eq!(known, 20, "calls are handled once");
        owner.handled = handled;
        for answer in &answers[handled as usize..] {
            assert_eq!(&owner.receive().await, answer, "the same ids in the same order");
        }
        assert_eq!(owner.handled, 20);
        // And what we say again is not done again by our count, but by theirs: nothing of it is due.
        owner.wire.ping().await;
    }
    owner.works().await;
    left(field, owner).await;
}

// spec: §9.8, §17.2
async fn a_flood_of_offers_gets_nobody_anywhere(net: Net) {
    let field = field(net).await;
    let url = field.site.url().to_owned();
    let mut owner = Owner::new(&url).await;
    owner.works().await;
    // Those who only know its name do not even delay it.
    for _ in 0..20 {
        let since = Instant::now();
        let bad = |_| fresh(&url, owner.ticket.offer_with(0, vec![1; 32]));
        join_all((0..50).map(bad)).await;
        let flood = since.elapsed();
        let since = Instant::now();
        owner.works().await;
        assert!(since.elapsed() < flood.max(PATIENCE), "the owner was held up");
    }
    // One who has the secret may have as many links as it likes: one of them is the session's.
    let mut links = join_all((0..50).map(|_| Wire::resuming(&url, &owner.ticket, owner.handled))).await;
    let (last, _, ticket) = Wire::resuming(&url, &owner.ticket, owner.handled).await;
    links.push((last, 0, ticket));
    for (wire, ..) in &mut links {
        wire.try_send_bytes(&Message::handled(owner.handled).frame()).await.ok();
    }
    let (last, _, ticket) = links.pop().unwrap();
    for (wire, ..) in &mut links {
        wire.ended().await;
    }
    owner.wire.ended().await;
    (owner.wire, owner.ticket) = (last, ticket);
    owner.works().await;
    assert_eq!(field.site.handle().peers().len(), 2);
    left(field, owner).await;
}

// spec: §6.2, §9.5
async fn what_a_resume_says_has_its_shape(net: Net) {
    let field = field(net).await;
    let url = field.site.url().to_owned();
    let mut owner = Owner::new(&url).await;
    owner.works().await;
    let mut short = owner.ticket.clone();
    short.pass.id.0.pop();
    let mut long = owner.ticket.clone();
    long.pass.id.0.push(0);
    let right = owner.ticket.clone();
    let shapes = [(&right, 0), (&right, 31), (&right, 33), (&short, 32), (&long, 32)];
    for (ticket, length) in shapes {
        let mut wire = Wire::connect(&url).await;
        wire.send(&ticket.offer_with(0, vec![7; length])).await;
        assert_eq!(wire.closed_for().await, Code::MALFORMED);
        owner.works().await;
    }
    left(field, owner).await;
}
