//! Pings that a peer does not answer one by one.

use fluxar::Client;
use fluxar_proto::message::Kind;
use fluxar_tests::net::Net;
use fluxar_tests::schedulers;
use fluxar_tests::wire::{Message, Trap};

schedulers! {
    a_ping_that_is_left_out_is_answered_by_a_later_one
}

// spec: §8.3
async fn a_ping_that_is_left_out_is_answered_by_a_later_one(_: Net) {
    let trap = Trap::open().await;
    let url = trap.url();
    let (client, mut wire) = tokio::join!(Client::connect(url).build(), trap.established());
    let client = client.unwrap();
    let ping = |peer: fluxar::Peer| tokio::spawn(async move { peer.ping().await });
    let first = ping(client.peer());
    wire.receive().await;
    let second = ping(client.peer());
    let asked = wire.receive().await;
    let third = ping(client.peer());
    wire.receive().await;
    wire.send(&Message::continuation(Kind::Control, asked.id)).await;
    second.await.unwrap().unwrap();
    first.await.unwrap().unwrap();
    assert!(!third.is_finished(), "that one may still be answered");
    drop(wire);
    third.await.unwrap().unwrap_err();
}
