//! `fluxar pub` and `fluxar sub`, with `fluxar serve` as the hub between them.

use std::time::Duration;

use fluxar::{Client, Code, Error, Message, Qos, Raw, Server};
use tokio::time::timeout;

use crate::support::{Conformance, LONG, Running, Said, fluxar, fluxar_beside};

impl Conformance {
    fn publish(&self, arguments: &[&str], input: &[u8]) -> Said {
        Running::start(["pub", &self.url].iter().chain(arguments)).end_with_input(input)
    }
}

fn said(exit: i32, out: &str, err: &str) -> Said {
    Said { exit: Some(exit), out: out.into(), err: err.into() }
}

/// A hub that keeps a value for those who subscribe, so that they are seen to have.
fn hub() -> Conformance {
    let hub = Conformance::start();
    hub.publish(&["ready.here", "1", "--retain", "--qos", "1"], b"").is("accepted");
    hub
}

/// A subscription to everything that is there.
fn subscriber(hub: &Conformance, arguments: &[&str]) -> Running {
    let mut running = Running::start(["sub", &hub.url, ">"].iter().chain(arguments));
    assert_eq!(running.line(), "ready.here 1");
    running
}

// spec: §12.5, §12.6
#[test]
fn what_is_published_is_printed_in_every_mode() {
    let hub = hub();
    for (qos, fate) in [("0", "sent"), ("1", "accepted"), ("2", "accepted")] {
        let subscriber = subscriber(&hub, &["-n", "3"]);
        hub.publish(&["a.b", "{\"id\": [1, h'02']}", "--qos", qos], b"").is(fate);
        hub.publish(&["a.c", "--qos", qos], b"").is(fate);
        assert_eq!(subscriber.end(), said(0, "a.b {\"id\": [1, h'02']}\na.c null\n", ""));
    }
}

// spec: §12.5
#[test]
fn lines_are_published_in_order_and_counted() {
    let hub = hub();
    // At most once no more is held than the hub's queue has room for.
    for (qos, what, count) in [("0", "sent", 500), ("1", "accepted", 3_000), ("2", "accepted", 3_000)] {
        let numbers = (0..count).map(|n| format!("{n}\n")).collect::<String>();
        let subscriber = subscriber(&hub, &["-n", &(count + 1).to_string()]);
        hub.publish(&["n", "--lines", "-q", qos], numbers.as_bytes())
            .is(&format!("{count} published, {count} {what}"));
        let all = (0..count).map(|n| format!("n {n}\n")).collect::<String>();
        assert_eq!(subscriber.end(), said(0, &all, ""), "qos {qos}");
    }
    let subscriber = subscriber(&hub, &["-n", "3"]);
    hub.publish(&["t", "--raw-lines", "-q", "1"], b"a\n[b\n").is("2 published, 2 accepted");
    assert_eq!(subscriber.end(), said(0, "t \"a\"\nt \"[b\"\n", ""));
}

#[test]
fn lines_that_are_no_values_end_it() {
    let hub = hub();
    let bad = hub.publish(&["n", "--lines", "-q", "1"], b"1\n\n[\n2\n");
    let line = "error: bad line 3 of standard input: expected a value, found the end at column 2\n";
    assert_eq!(bad, said(2, "1 published, 1 accepted\n", line));
}

// spec: §12.16
#[test]
fn the_last_value_is_kept_for_who_comes_later() {
    let hub = Conformance::start();
    hub.publish(&["t.a", "1", "--retain"], b"").is("sent");
    hub.publish(&["t.a", "2", "--retain", "--qos", "2"], b"").is("accepted");
    let object = "{\"topic\": \"t.a\", \"payload\": 2, \"qos\": 2, \"attempt\": 1, \"retained\": true}";
    fluxar(["sub", &hub.url, "t.*", "--json", "-n", "1"]).is(object);
    let object = object.replace("\"qos\": 2", "\"qos\": 1");
    fluxar(["sub", &hub.url, "t.*", "--json", "-n", "1", "--qos", "1"]).is(&object);
    // Cleared, and kept by a call.
    hub.publish(&["t.a", "--retain", "--qos", "1"], b"").is("accepted");
    hub.call(&["test.emit", "{\"topic\": \"t.b\", \"n\": 3, \"retain\": true}"]).is("3");
    fluxar(["sub", &hub.url, ">", "-n", "1"]).is("t.b 2");
}

// spec: §12.15
#[tokio::test]
async fn a_group_shares_the_messages() {
    let server = Server::bind("tcp://127.0.0.1:0").build().await.unwrap();
    let (url, hub) = (server.url(), server.hub().clone());
    tokio::spawn(server.run());
    let members = [(); 2].map(|()| Running::start(["sub", &url, "jobs", "--group", "g", "-n", "50"]));
    let there = async {
        while hub.stats().subscriptions < 2 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(LONG, there).await.expect("both have subscribed");
    for number in 0..100 {
        hub.publish("jobs", &number).qos(Qos::AtLeastOnce).await.unwrap();
    }
    let mut all = Vec::new();
    for member in members {
        let said = tokio::task::spawn_blocking(|| member.end()).await.unwrap();
        assert_eq!((said.exit, said.err.as_str()), (Some(0), ""));
        all.extend(
            said.text().lines().map(|line| line.strip_prefix("jobs ").unwrap().parse::<u32>().unwrap()),
        );
    }
    all.sort_unstable();
    assert_eq!(all, (0..100).collect::<Vec<_>>());
}

// spec: §12.3, §12.4
#[tokio::test]
async fn who_ends_a_subscription_and_why_shows() {
    let server = Server::bind("tcp://127.0.0.1:0").configure(|config| config.pubsub = false);
    let server = server.build().await.unwrap();
    let url = server.url();
    tokio::spawn(server.run());
    let refused = fluxar_beside(["sub", &url, "a"]).await;
    assert_eq!((refused.exit, refused.text()), (Some(1), ""));
    assert!(refused.err.starts_with("error: unimplemented (12): "), "{}", refused.err);
    let refused = fluxar_beside(["pub", &url, "a", "--qos", "1"]).await;
    assert_eq!((refused.exit, refused.text()), (Some(1), ""));
    assert!(refused.err.starts_with("error: not published: unimplemented (12): "), "{}", refused.err);
}

#[test]
fn an_interrupt_ends_a_subscription() {
    let hub = hub();
    let subscriber = subscriber(&hub, &[]);
    subscriber.signal("INT");
    assert_eq!(subscriber.end(), said(130, "", ""));
}

#[test]
fn the_end_of_the_hub_ends_a_subscription() {
    let hub = hub();
    let subscriber = subscriber(&hub, &["--no-reconnect"]);
    hub.running.signal("TERM");
    subscriber.end().failed(3, "unavailable (14): connection closed by the peer");
}

#[test]
fn bad_arguments_are_refused_before_anybody_is_dialled() {
    let publish = |arguments: &[&str]| fluxar(["pub", "tcp://127.0.0.1:1"].iter().chain(arguments));
    publish(&["a b"]).failed(2, "bad topic: a space or a control character");
    publish(&["a", "1", "--lines"])
        .failed(2, "the lines of standard input are the payloads: there is no other");
    publish(&["a", "-m", "qos:=1"]).failed(2, "bad metadata `qos:=1`: that is what --qos sets");
    publish(&["a", "-m", "retain:=true"])
        .failed(2, "bad metadata `retain:=true`: that is what --retain sets");
    publish(&["a", "-q", "3"])
        .failed(2, "invalid value '3' for '--qos <N>': expected 0, 1 or 2 (see `fluxar pub --help`)");
    fluxar(["sub", "tcp://127.0.0.1:1", "a..b"]).failed(2, "bad filter: a token is empty");
    fluxar(["sub", "tcp://127.0.0.1:1", "a", "-g", ""]).failed(2, "a group is named by 1 to 255 bytes");
}

// spec: §12.5, §21
#[tokio::test]
async fn emit_publishes_numbers_at_the_hub() {
    let peer = Conformance::start();
    let client = Client::connect(&peer.url).build().await.unwrap();
    let mut messages = client.messages("e.>").await.unwrap();
    // {"topic": "e.f", "n": 1000, "qos": 2}
    let arguments = b"\xa3\x65topic\x63e.f\x61n\x19\x03\xe8\x63qos\x02";
    assert_eq!(client.call::<u64>("test.emit", &Raw::new(&arguments[..]).unwrap()).await, Ok(1000));
    for number in 0..1000 {
        let message: Message = messages.next().await.unwrap();
        assert_eq!((message.payload::<u64>(), message.topic()), (Ok(number), "e.f"));
        message.ack().await.map_err(Error::from).unwrap();
    }
    for bad in
        [&b"\xa2\x65topic\x62..\x61n\x01"[..], b"\xa3\x65topic\x61e\x61n\x01\x63qos\x03", b"\xa1\x61n\x01"]
    {
        let error = client.call::<u64>("test.emit", &Raw::new(bad).unwrap()).await.unwrap_err();
        assert_eq!((error.code, error.processed), (Code::INVALID_ARGUMENT, Some(false)), "{error}");
    }
}

/// What `test.deliveries` tells of a topic.
async fn deliveries(client: &Client, topic: &str) -> String {
    let mut arguments = b"\xa1\x65topic".to_vec();
    arguments.push(0x60 | topic.len() as u8);
    arguments.extend_from_slice(topic.as_bytes());
    let told = client.call::<Raw>("test.deliveries", &Raw::new(arguments).unwrap()).await.unwrap();
    told.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

// spec: §12.8, §12.9, §21
#[tokio::test]
async fn deliveries_tells_what_became_of_them() {
    let peer = Conformance::start();
    let client = Client::connect(&peer.url).build().await.unwrap();
    let mut messages = client.messages("t.>").await.unwrap();
    assert_eq!(deliveries(&client, "t.a").await, "80");
    // {"topic": "t.a", "n": 2, "qos": 0 to 2}
    for qos in 0..3 {
        let emit = [&b"\xa3\x65topic\x63t.a\x61n\x02\x63qos"[..], &[qos]].concat();
        client.call::<u64>("test.emit", &Raw::new(emit).unwrap()).await.unwrap();
        for number in 0..2 {
            let message = messages.next().await.unwrap();
            if number == 0 && qos > 0 {
                let error = Error::unavailable("again").with_retry_after_ms(1);
                message.nack(error).await.map_err(Error::from).unwrap();
            } else {
                message.ack().await.map_err(Error::from).unwrap();
            }
        }
        if qos > 0 {
            let again = messages.next().await.unwrap();
            assert_eq!((again.attempt(), again.payload::<u8>()), (2, Ok(0)));
            again.ack().await.map_err(Error::from).unwrap();
        }
    }
    // Of the topic alone, and behind what was acknowledged.
    let of = |acked: bool, attempts: u8| {
        format!(
            "a265{}{}68{}{attempts:02x}",
            "61636b6564",
            if acked { "f5" } else { "f4" },
            "617474656d707473"
        )
    };
    let (lost, second, first) = (of(false, 1), of(true, 2), of(true, 1));
    let expected = format!("86{lost}{lost}{second}{first}{second}{first}");
    assert_eq!(deliveries(&client, "t.a").await, expected);
    assert_eq!(deliveries(&client, "t.b").await, "80");
    let other = Client::connect(&peer.url).build().await.unwrap();
    assert_eq!(deliveries(&other, "t.a").await, "80");
}
