//! Credentials that run out, and are renewed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fluxar::{
    Accounts, Auth, AuthKind, AuthRequest, Code, Error, Granted, HandlerError, Identity, Peer, Qos, Raw,
    ServerBuilder, Verdict, Wanted,
};
use fluxar_proto::message::{Kind, verb};
use fluxar_tests::guests::{Shown, bearer, custom};
use fluxar_tests::net::Net;
use fluxar_tests::signal::Counter;
use fluxar_tests::site::Site;
use fluxar_tests::topics::answer_to;
use fluxar_tests::verbs::Terms;
use fluxar_tests::wire::{Message, Wire};
use fluxar_tests::{matrix, schedulers};
use tokio::sync::Notify;

matrix! {
    a_client_renews_in_time_by_itself
    who_has_run_out_opens_nothing_and_what_is_open_goes_on
    fresh_credentials_count_from_the_answer_on
    another_identity_is_refused
}

schedulers! {
    what_holds_goes_on_while_a_renewal_is_refused
    a_renewal_that_fails_is_tried_again_and_told
    an_application_renews_when_it_wants
    a_scheme_with_rounds_is_not_renewed
    who_guesses_within_a_session_is_slowed_too
    where_nobody_asks_there_is_nothing_to_renew
    a_renewal_that_takes_too_long_is_refused
    a_verdict_for_a_connection_that_is_gone_is_dropped
}

const SHORT: Duration = Duration::from_millis(200);

fn lasting(name: &str, lifetime: Duration) -> Granted {
    Granted::new(Identity::new(name)).expires_in(lifetime)
}

/// Whoever has a token is named by its first word, for so long.
fn named(lifetime: Duration) -> impl Fn(AuthRequest) -> std::future::Ready<Result<Granted, HandlerError>> {
    move |request| {
        let granted = match request.auth().map(Auth::kind) {
            Some(AuthKind::Bearer(token)) => {
                let (name, rest) = token.split_once(' ').unwrap_or((token, ""));
                Ok(Granted::new(Identity::new(name).with_attribute("token", rest)).expires_in(lifetime))
            }
            _ => Err(Error::unauthenticated("a token is needed").into()),
        };
        std::future::ready(granted)
    }
}

fn control_auth(auth: &Shown<'_>) -> Message {
    Message::control(verb::AUTH).payload(auth)
}

/// What the server says to fresh credentials: how long they last in milliseconds, where it says so.
async fn renew(wire: &mut Wire, auth: &Shown<'_>) -> Result<Option<u64>, Error> {
    let message = control_auth(auth);
    wire.send(&message).await;
    let reply = wire.response_to(message.id).await;
    assert_eq!(reply.kind, Kind::Control);
    match reply.error {
        Some(error) => Err(error),
        None => Ok(reply.decode::<BTreeMap<String, u64>>().get("auth_expires_ms").copied()),
    }
}

async fn call(wire: &mut Wire, method: &str) -> Result<Raw, Error> {
    let call = Message::call(method).payload("x");
    wire.send(&call).await;
    let response = wire.response_to(call.id).await;
    match &response.error {
        Some(error) => Err(error.clone()),
        None => Ok(response.decode()),
    }
}

async fn enter(site: &Site, token: &str) -> (Wire, Message) {
    let mut wire = Wire::connect(site.url()).await;
    let answer = wire.shake_hands_with(Terms::topics().feature("stream").offer_of(&bearer(token))).await;
    (wire, answer)
}

// spec: §8.5
async fn a_client_renews_in_time_by_itself(net: Net) {
    let (given, refused) = (Counter::new(), Counter::new());
    let site = Site::with(net, |builder| builder.authenticator(named(Duration::from_millis(600)))).await;
    let numbers = given.clone();
    let fresh = move |wanted: Wanted| {
        assert_eq!(matches!(wanted, Wanted::Renewal), numbers.get() > 0, "{wanted:?}");
        numbers.add();
        let token = format!("ada {}", numbers.get());
        async move { Ok(Auth::bearer(token)) }
    };
    let client = site.connect().credentials(fresh).build().await.unwrap();
    let peer = site.peer().await;
    let token_of = |peer: &Peer| peer.identity().unwrap().attribute("token").unwrap().to_owned();
    assert_eq!(token_of(&peer), "1");
    while given.get() < 4 {
        if client.call::<u8>("echo", &7).await != Ok(7) {
            refused.add();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(refused.get(), 0, "nothing is refused meanwhile");
    assert!(*token_of(&peer) >= *"3");
    assert_eq!(site.handle().peers().len(), 1);
}

// spec: §8.5
async fn who_has_run_out_opens_nothing_and_what_is_open_goes_on(net: Net) {
    let (entered, go) = (Counter::new(), Arc::<Notify>::default());
    let (entering, going) = (entered.clone(), go.clone());
    let site = Site::with(net, |builder| {
        builder.authenticator(named(SHORT)).handle("slow", move |_| {
            entering.add();
            let going = going.clone();
            async move {
                going.notified().await;
                Ok("done")
            }
        })
    })
    .await;
    let (mut wire, answer) = enter(&site, "ada").await;
    assert_eq!(answer.decode::<Answered>().session.auth_expires_ms, 200);
    let slow = Message::call("slow");
    wire.send(&slow).await;
    entered.reached(1).await;
    let refused = loop {
        match call(&mut wire, "echo").await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => break error,
        }
    };
    assert_eq!((refused.code, refused.processed), (Code::UNAUTHENTICATED, Some(false)));
    let openings = [Message::stream("slow"), Message::subscribe("x"), Message::publication("x").qos(1)];
    for opening in &openings {
        wire.send(opening).await;
        let error = answer_to(&mut wire, opening.id).await.error.expect("a refusal");
        assert_eq!((error.code, error.processed), (Code::UNAUTHENTICATED, Some(false)), "{opening:?}");
    }
    go.notify_one();
    assert_eq!(wire.response_to(slow.id).await.decode::<String>(), "done");
    assert_eq!(entered.get(), 1);
    wire.ping().await;
    assert_eq!(renew(&mut wire, &bearer("ada")).await, Ok(Some(200)));
    assert!(call(&mut wire, "echo").await.is_ok());
}

#[derive(serde::Deserialize)]
struct Answered {
    session: Session,
}

#[derive(serde::Deserialize)]
struct Session {
    auth_expires_ms: u64,
}

// spec: §8.5
async fn fresh_credentials_count_from_the_answer_on(net: Net) {
    let go = Arc::<Notify>::default();
    let going = go.clone();
    let slowly = move |request: AuthRequest| {
        let going = going.clone();
        async move {
            if request.identity().is_some() {
                going.notified().await;
            }
            Ok::<_, HandlerError>(lasting("ada", SHORT))
        }
    };
    let site = Site::with(net, |builder| builder.authenticator(slowly)).await;
    let (mut wire, _) = enter(&site, "ada").await;
    let renewal = control_auth(&bearer("ada"));
    wire.send(&renewal).await;
    // Until there is an answer the former ones count, and then they do not count any more.
    while call(&mut wire, "echo").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    go.notify_one();
    assert_eq!(wire.response_to(renewal.id).await.error, None);
    assert!(call(&mut wire, "echo").await.is_ok());
}

// spec: §8.5
async fn another_identity_is_refused(net: Net) {
    let site = Site::with(net, |builder| builder.authenticator(named(Duration::from_secs(3600)))).await;
    let (mut wire, _) = enter(&site, "ada 1").await;
    let peer = site.peer().await;
    let error = renew(&mut wire, &bearer("eve 1")).await.unwrap_err();
    assert_eq!(error.code, Code::PERMISSION_DENIED);
    assert_eq!(peer.identity().unwrap().name(), "ada");
    assert_eq!(renew(&mut wire, &bearer("ada 2")).await, Ok(Some(3_600_000)));
    let identity = peer.identity().unwrap();
    assert_eq!((identity.name(), identity.attribute("token")), ("ada", Some("2")));
    assert!(call(&mut wire, "echo").await.is_ok());
}

// spec: §8.5
async fn what_holds_goes_on_while_a_renewal_is_refused(net: Net) {
    let accounts = Accounts::new().bearer("ada", lasting("ada", Duration::from_secs(3600)));
    let site = Site::with(net, |builder| builder.authenticator(accounts)).await;
    let (mut wire, _) = enter(&site, "ada").await;
    for _ in 0..3 {
        let error = renew(&mut wire, &bearer("wrong")).await.unwrap_err();
        assert_eq!(error.code, Code::UNAUTHENTICATED);
        assert!(call(&mut wire, "echo").await.is_ok());
    }
    assert_eq!(site.peer().await.identity().unwrap().name(), "ada");
}

// spec: §8.5, §16.4
async fn a_renewal_that_fails_is_tried_again_and_told(net: Net) {
    let site = Site::with(net, |builder| builder.authenticator(named(Duration::from_secs(1)))).await;
    let (asked, works) = (Counter::new(), Arc::new(AtomicBool::new(true)));
    let (counting, working) = (asked.clone(), works.clone());
    let client = site.connect().credentials(move |_| {
        counting.add();
        let works = working.load(Ordering::SeqCst);
        async move {
            match works {
                true => Ok(Auth::bearer("ada")),
                false => Err(HandlerError::other("nobody issues tokens")),
            }
        }
    });
    let client = client.build().await.unwrap();
    works.store(false, Ordering::SeqCst);
    let error = loop {
        match client.call::<u8>("echo", &7).await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => break error,
        }
    };
    assert_eq!((error.code, error.processed), (Code::UNAUTHENTICATED, Some(false)));
    let refused = client.publish("x", &1).qos(Qos::AtLeastOnce).await.unwrap_err();
    assert_eq!(refused.error().code, Code::UNAUTHENTICATED);
    assert!(asked.get() >= 3, "tried {} times before the end", asked.get());
    // It goes on trying.
    let before = asked.get();
    asked.reached(before + 1).await;
    works.store(true, Ordering::SeqCst);
    asked.reached(before + 2).await;
    while client.call::<u8>("echo", &7).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn an_application_renews_when_it_wants(net: Net) {
    let site = Site::with(net, |builder| builder.authenticator(named(Duration::from_secs(60)))).await;
    let client = site.connect().auth(Auth::bearer("ada 1")).build().await.unwrap();
    assert_eq!(client.authenticate(Auth::bearer("ada 2")).await, Ok(Some(Duration::from_secs(60))));
    let identity = site.peer().await.identity().unwrap();
    assert_eq!(identity.attribute("token"), Some("2"));
    let error = client.authenticate(Auth::bearer("eve")).await.unwrap_err();
    assert_eq!(error.code, Code::PERMISSION_DENIED);
    let error = client.authenticate(Auth::api_key("ada")).await.unwrap_err();
    assert_eq!(error.code, Code::UNAUTHENTICATED);
    client.close();
    assert!(client.authenticate(Auth::bearer("ada 3")).await.is_err());
}

// spec: §8.5
async fn a_scheme_with_rounds_is_not_renewed(net: Net) {
    let demanding = |request: AuthRequest| async move {
        Ok::<_, HandlerError>(match (request.identity(), request.auth().is_some()) {
            (None, true) => Identity::new("ada").into(),
            _ => Verdict::Challenge(fluxar::Payload::null()),
        })
    };
    let site = Site::with(net, |builder| builder.authenticator(demanding)).await;
    let (mut wire, _) = enter(&site, "x").await;
    let error = renew(&mut wire, &custom("own", "x")).await.unwrap_err();
    assert_eq!(error.code, Code::UNAUTHENTICATED);
}

// spec: §17.4
// limit: handshakes and renewals of one source that fail for want of valid credentials
async fn who_guesses_within_a_session_is_slowed_too(net: Net) {
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let noting = asked.clone();
    let only_ada = move |request: AuthRequest| {
        let token = match request.auth().map(Auth::kind) {
            Some(AuthKind::Bearer(token)) => token.to_owned(),
            other => panic!("{other:?}"),
        };
        noting.lock().unwrap().push(token.clone());
        async move {
            match &*token {
                "ada" => Ok(Identity::new("ada")),
                "eve" => Ok(Identity::new("eve")),
                _ => Err(HandlerError::from(Error::unauthenticated("no"))),
            }
        }
    };
    let hour = Duration::from_secs(3600);
    let site = Site::with(net, |builder| builder.authenticator(only_ada).max_failures(3, hour)).await;
    let (mut wire, _) = enter(&site, "ada").await;
    for (guess, code) in [
        ("1", Code::UNAUTHENTICATED),
        ("eve", Code::PERMISSION_DENIED),
        ("2", Code::UNAUTHENTICATED),
        ("3", Code::RESOURCE_EXHAUSTED),
        ("ada", Code::RESOURCE_EXHAUSTED),
    ] {
        let error = renew(&mut wire, &bearer(guess)).await.unwrap_err();
        assert_eq!(error.code, code, "{guess}");
        assert_eq!(error.retry_after_ms.is_some(), code == Code::RESOURCE_EXHAUSTED);
    }
    assert_eq!(*asked.lock().unwrap(), ["ada", "1", "eve", "2"]);
    assert!(call(&mut wire, "echo").await.is_ok(), "what held goes on");
    assert_eq!(Wire::refusal_of(site.url(), &bearer("ada")).await, Code::RESOURCE_EXHAUSTED);
}

// spec: §8.5
async fn where_nobody_asks_there_is_nothing_to_renew(net: Net) {
    let site = Site::open(net).await;
    let (mut wire, _) = enter(&site, "ada").await;
    assert_eq!(renew(&mut wire, &bearer("ada")).await.unwrap_err().code, Code::UNIMPLEMENTED);
    let client = site.client().await;
    assert_eq!(client.authenticate(Auth::bearer("x")).await.unwrap_err().code, Code::UNIMPLEMENTED);
}

fn never_again(builder: ServerBuilder, asked: &Counter) -> ServerBuilder {
    let asked = asked.clone();
    builder.authenticator(move |request: AuthRequest| {
        asked.add();
        async move {
            if request.identity().is_some() {
                std::future::pending::<()>().await;
            }
            Ok::<_, HandlerError>(Identity::new("ada"))
        }
    })
}

// spec: §8.5, §15.3
async fn a_renewal_that_takes_too_long_is_refused(net: Net) {
    let asked = Counter::new();
    let quick = |config: &mut fluxar::Config| config.handshake_timeout = Duration::from_millis(300);
    let site = Site::with(net, |builder| never_again(builder, &asked).configure(quick)).await;
    let (mut wire, _) = enter(&site, "ada").await;
    let renewals: Vec<_> = (0..5).map(|_| control_auth(&bearer("ada"))).collect();
    for renewal in &renewals {
        wire.send(renewal).await;
    }
    let mut codes = Vec::new();
    for _ in &renewals {
        codes.push(wire.receive().await.error.expect("a refusal").code);
    }
    // The fifth is too many at once; it is answered first.
    assert_eq!(codes[0], Code::RESOURCE_EXHAUSTED);
    assert_eq!(codes[1..], [Code::UNAVAILABLE; 4]);
}

async fn a_verdict_for_a_connection_that_is_gone_is_dropped(net: Net) {
    let asked = Counter::new();
    let site = Site::with(net, |builder| never_again(builder, &asked)).await;
    let (mut wire, _) = enter(&site, "ada").await;
    wire.send(&control_auth(&bearer("ada"))).await;
    asked.reached(2).await;
    wire.send(&Message::control(verb::CLOSE)).await;
    // No task is left, or the test would not end well.
    wire.ended().await;
}
