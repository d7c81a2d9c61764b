//! Calls and their payloads, over real sockets.

use std::collections::BTreeMap;

use fluxar::{Code, Error, Raw, Request};
use fluxar_tests::matrix;
use fluxar_tests::net::Net;
use fluxar_tests::signal::Counter;
use fluxar_tests::site::Site;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

matrix! {
    responses_come_in_the_order_in_which_handlers_finish
    many_calls_at_once_get_each_its_own_answer
    payloads_of_all_shapes_pass
    large_payloads_pass_both_ways
    large_payloads_of_many_calls_do_not_mix
    both_sides_may_send_more_than_sockets_hold_at_once
    a_request_larger_than_the_peer_takes_is_not_sent
    a_response_larger_than_the_caller_takes_is_an_error
    a_response_of_another_type_says_so
    an_argument_of_another_type_is_refused
    an_unknown_method_is_unimplemented
    metadata_passes
    bad_metadata_and_method_names_fail_where_they_are_made
    calls_can_be_made_from_many_threads_over_one_peer
    outcomes_wait_for_those_who_come_late
}

/// One gate per number; a handler waits at the gate that its argument names.
fn waits_at(
    gates: watch::Receiver<u32>,
) -> impl Fn(Request) -> futures_util::future::BoxFuture<'static, Result<u32, fluxar::HandlerError>> {
    move |request| {
        let mut gates = gates.clone();
        Box::pin(async move {
            let number: u32 = request.payload()?;
            gates.wait_for(|open| *open == number).await?;
            Ok(number)
        })
    }
}

// spec: §2.4, §10.2
async fn responses_come_in_the_order_in_which_handlers_finish(net: Net) {
    let (open, gates) = watch::channel(0);
    let site = Site::with(net, |builder| builder.handle("gate", waits_at(gates))).await;
    let client = site.client().await;
    let peer = client.peer();
    let (answers, mut answered) = mpsc::unbounded_channel();
    for number in 1..=3u32 {
        let (peer, answers) = (peer.clone(), answers.clone());
        tokio::spawn(async move {
            let answer: u32 = peer.call("gate", &number).await.unwrap();
            answers.send(answer).unwrap();
        });
    }
    for number in [3, 1, 2] {
        open.send(number).unwrap();
        assert_eq!(answered.recv().await, Some(number));
    }
}

// spec: §10.1
async fn many_calls_at_once_get_each_its_own_answer(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let calls = (0..2000u32).map(|number| client.call::<u32>("echo", &number).into_future());
    let answers = join_all(calls).await;
    for (number, answer) in (0..).zip(answers) {
        assert_eq!(answer, Ok(number));
    }
    let stats = client.stats();
    assert_eq!((stats.calls_made, stats.calls_in_flight), (2000, 0));
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct User {
    id: u64,
    name: String,
    tags: Vec<String>,
    score: Option<f64>,
    contact: Contact,
    extra: BTreeMap<String, i32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Contact {
    Nobody,
    Mail(String),
    Phone { country: u16, number: u64 },
}

// spec: §5.11
async fn payloads_of_all_shapes_pass(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    macro_rules! passes {
        ($($value:expr => $type:ty),* $(,)?) => {$({
            let value: $type = $value;
            let echoed: $type = client.call("echo", &value).await.unwrap();
            assert_eq!(echoed, value);
        })*};
    }
    let user = User {
        id: u64::MAX,
        name: "Ada \u{1f980}".into(),
        tags: vec![String::new(), "x".repeat(300)],
        score: Some(-0.5),
        contact: Contact::Phone { country: 44, number: 7_700_900_123 },
        extra: BTreeMap::from([("a".into(), i32::MIN), ("b".into(), 0)]),
    };
    passes! {
        () => (),
        None => Option<u32>,
        Some(7) => Option<u32>,
        true => bool,
        i64::MIN => i64,
        1.5e300 => f64,
        'ß' => char,
        String::new() => String,
        vec![0u8; 300] => Vec<u8>,
        (1, "two".into(), [3.0; 3]) => (u8, String, [f32; 3]),
        vec![Contact::Nobody, Contact::Mail("a@b".into())] => Vec<Contact>,
        user => User,
    }
    // What does not go through serde passes byte by byte, in whatever form it is written.
    let odd = Raw::new(&[0x9f, 0x18, 0x01, 0x5f, 0x41, 0xff, 0xff, 0xc1, 0xf7, 0xff][..]).unwrap();
    let echoed: Raw = client.call("echo", &odd).await.unwrap();
    assert_eq!(echoed, odd);
}

// spec: §3.1, §5.13
async fn large_payloads_pass_both_ways(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let large: String = ('a'..='z').cycle().take(5 << 20).collect();
    let echoed: String = client.call("echo", &large).await.unwrap();
    assert!(echoed == large, "five megabytes came back otherwise");
    let stats = client.stats();
    assert!(stats.bytes_in > 5 << 20 && stats.bytes_out > 5 << 20, "{stats:?}");
}

// spec: §3.1
async fn large_payloads_of_many_calls_do_not_mix(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    // Around the sizes at which buffers are copied, shared, cut and grown.
    let sizes =
        [0usize, 1, 4000, 4095, 4096, 4097, 8191, 8192, 8193, 65_535, 65_536, 65_537, 131_072, 300_000];
    let calls = (0..140usize).map(|number| {
        let text = char::from(b'a' + (number % 26) as u8).to_string().repeat(sizes[number % sizes.len()]);
        let client = &client;
        async move {
            let echoed: String = client.call("echo", &text).await.unwrap();
            assert!(echoed == text, "{} bytes came back otherwise", text.len());
        }
    });
    join_all(calls).await;
}

// spec: §8.4, §17.2
async fn both_sides_may_send_more_than_sockets_hold_at_once(net: Net) {
    let site = Site::open(net).await;
    let echo = |request: Request| async move { Ok(request.raw()) };
    let client = site.connect().handle("echo", echo).build().await.unwrap();
    let (here, there) = (client.peer(), site.peer().await);
    let large = Raw::encode(&"x".repeat(4 << 20)).unwrap();
    // Three, so that they stay below what a side holds of requests (§10.8).
    // Whoever read only once all of its own is written would wait for ever here: the other side would, too.
    let calls = [here, there].into_iter().flat_map(|peer| std::iter::repeat_n(peer, 3)).map(|peer| {
        let large = large.clone();
        async move { assert!(peer.call::<Raw>("echo", &large).await.unwrap() == large) }
    });
    join_all(calls).await;
}

// spec: §5.13
async fn a_request_larger_than_the_peer_takes_is_not_sent(net: Net) {
    let site = Site::with(net, |builder| builder.configure(|config| config.limits.max_message = 2000)).await;
    let client = site.client().await;
    assert_eq!(client.info().unwrap().limits.max_message, 2000);
    let sent = client.stats().messages_out;
    let error = client.call::<String>("echo", &"x".repeat(2000)).await.unwrap_err();
    assert_eq!((error.code, error.processed), (Code::MESSAGE_TOO_LARGE, Some(false)));
    assert_eq!(client.stats().messages_out, sent, "nothing was sent");
    let echoed: String = client.call("echo", &"x".repeat(1800)).await.unwrap();
    assert_eq!(echoed.len(), 1800);
}

// spec: §5.13
async fn a_response_larger_than_the_caller_takes_is_an_error(net: Net) {
    let site =
        Site::with(net, |builder| builder.handle("large", |_| async { Ok("x".repeat(100_000)) })).await;
    let client = site.connect().configure(|config| config.limits.max_message = 50_000).build().await.unwrap();
    let error = client.call::<String>("large", &()).await.unwrap_err();
    assert_eq!((error.code, error.processed), (Code::MESSAGE_TOO_LARGE, Some(true)));
    assert_eq!(client.call::<u8>("echo", &1).await, Ok(1), "the connection lives");
}

async fn a_response_of_another_type_says_so(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let error = client.call::<u32>("echo", "a text").await.unwrap_err();
    assert_eq!((error.code, error.processed), (Code::INTERNAL, Some(true)), "the callee did its part");
    assert!(error.message.contains("u32"), "{error}");
}

async fn an_argument_of_another_type_is_refused(net: Net) {
    let site = Site::with(net, |builder| {
        builder.handle("number", |request| async move { Ok(request.payload::<u32>()?) })
    })
    .await;
    let client = site.client().await;
    assert_eq!(client.call::<u32>("number", &7).await, Ok(7));
    let error = client.call::<u32>("number", "seven").await.unwrap_err();
    assert_eq!((error.code, error.processed), (Code::INVALID_ARGUMENT, Some(false)));
}

// spec: §10.1, §5.16
async fn an_unknown_method_is_unimplemented(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    for method in ["", "Echo", "echo ", &"m".repeat(255)] {
        let error = client.call::<Raw>(method, &()).await.unwrap_err();
        assert_eq!((error.code, error.processed), (Code::UNIMPLEMENTED, Some(false)), "{method:?}");
    }
    // The same the other way round: a client without handlers is called.
    let error = site.peer().await.call::<Raw>("echo", &()).await.unwrap_err();
    assert_eq!((error.code, error.processed), (Code::UNIMPLEMENTED, Some(false)));
}

// spec: §5.9, §5.10
async fn metadata_passes(net: Net) {
    let site = Site::with(net, |builder| {
        builder.handle("meta", |request: Request| async move {
            let meta = request.meta();
            assert_eq!(meta.get_str("traceparent"), Some("00-ab-cd-01"));
            assert_eq!(meta.len(), if request.remaining().is_some() { 3 } else { 2 });
            let map: BTreeMap<String, Payloadish> = request.raw_meta()?.decode()?;
            Ok(map["app.list"].clone())
        })
    })
    .await;
    let client = site.client().await;
    let call = || {
        client
            .call::<Payloadish>("meta", &())
            .meta("traceparent", "00-ab-cd-01")
            .meta("app.list", &Payloadish::List(vec![1, 2]))
    };
    assert_eq!(call().await, Ok(Payloadish::List(vec![1, 2])));
    assert_eq!(call().timeout(fluxar_tests::net::WATCHDOG).await, Ok(Payloadish::List(vec![1, 2])));
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Payloadish {
    Number(u64),
    Text(String),
    List(Vec<u8>),
}

// spec: §5.8, §5.9, §5.10
async fn bad_metadata_and_method_names_fail_where_they_are_made(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let sent = client.stats().messages_out;
    let twice = client.call::<Raw>("echo", &()).meta("a", &1).meta("a", &2).await;
    let reserved = client.call::<Raw>("echo", &()).meta("timeout_ms", &1).await;
    let many = (0..65).fold(client.call::<Raw>("echo", &()), |call, n| call.meta(n.to_string(), &n)).await;
    let long = client.call::<Raw>(&"m".repeat(256), &()).await;
    for result in [twice, reserved, many, long] {
        let error = result.unwrap_err();
        assert_eq!((error.code, error.processed), (Code::INVALID_ARGUMENT, Some(false)), "{error}");
    }
    assert_eq!(client.stats().messages_out, sent, "nothing was sent");
    let all = (0..64).fold(client.call::<Raw>("echo", &()), |call, n| call.meta(n.to_string(), &n));
    assert!(all.await.is_ok(), "64 keys are allowed");
    let echoed = client.call::<Raw>("echo", &Unserializable).await.unwrap_err();
    assert_eq!((echoed.code, echoed.processed), (Code::INVALID_ARGUMENT, Some(false)));
}

struct Unserializable;

impl Serialize for Unserializable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("it does not want to"))
    }
}

async fn calls_can_be_made_from_many_threads_over_one_peer(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let done = Counter::new();
    for task in 0..16u32 {
        let (peer, done) = (client.peer(), done.clone());
        tokio::spawn(async move {
            for number in 0..100u32 {
                let pair = (task, number);
                assert_eq!(peer.call::<(u32, u32)>("echo", &pair).await, Ok(pair));
            }
            done.add();
        });
    }
    done.reached(16).await;
}

// spec: §10.2
async fn outcomes_wait_for_those_who_come_late(net: Net) {
    let site = Site::open(net).await;
    let client = site.client().await;
    let mut kept = Vec::new();
    for number in 0..50u32 {
        kept.push((number, client.call::<u32>("echo", &number).start().await.unwrap()));
        // By the time that this is answered, the one before is too: its outcome lies there while others come and go.
        assert_eq!(client.call::<u32>("echo", &!number).await, Ok(!number));
    }
    for (number, call) in kept {
        assert_eq!(call.await, Ok(number));
    }
    let refused = client.call::<Raw>("fail", &(1000, "mine")).start().await.unwrap();
    assert_eq!(client.call::<u8>("echo", &1).await, Ok(1));
    assert_eq!(refused.await, Err(Error::new(Code(1000), "mine")));
}
