//! Who is let in, and as whom.

use std::sync::Arc;
use std::time::Duration;

use fluxar::{
    Accounts, Auth, AuthRequest, Authenticator, Code, Error, HandlerError, Identity, IntoPayload, Message,
    Peer, Request, StreamRequest,
};
use fluxar_tests::guests::{api_key, bearer, credentials, custom};
use fluxar_tests::net::Net;
use fluxar_tests::signal::Counter;
use fluxar_tests::site::Site;
use fluxar_tests::verbs::Terms;
use fluxar_tests::whoami::{known, whoami};
use fluxar_tests::wire::{self, Wire};
use fluxar_tests::{matrix, schedulers};
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, mpsc};

matrix! {
    every_scheme_lets_in_whom_it_names
    who_shows_nothing_or_the_wrong_thing_is_refused
    everything_that_serves_a_peer_knows_who_it_is
    nothing_is_done_before_the_verdict
}

schedulers! {
    where_nobody_asks_everybody_is_let_in_and_nobody_known
    a_scheme_that_only_claims_to_be_a_key_is_none
    a_verdict_has_the_time_of_the_handshake
    an_authenticator_that_fails_lets_nobody_in
    a_stopped_server_waits_for_no_verdict
    a_peer_that_goes_away_is_not_waited_for
    who_guesses_is_slowed_and_nobody_else
    who_guesses_in_parallel_gets_no_further
    who_is_cut_off_while_it_hears_of_its_failure_has_failed
    failures_come_back
}

/// Those who are known.
fn accounts() -> Accounts {
    Accounts::new()
        .bearer("ada's token", Identity::new("ada").with_attribute("role", "admin"))
        .bearer("another token", Identity::new("eve"))
        .api_key("bob's key", Identity::new("bob"))
        .password("carol", "carol's password", Identity::new("carol"))
}

/// A server that lets those in who are known.
async fn guarded(net: Net) -> Site {
    Site::with(net, |builder| whoami(builder).authenticator(accounts())).await
}

/// As whom somebody who offers this is known.
async fn name_of(site: &Site, offer: wire::Message) -> Option<(String, String)> {
    let mut wire = Wire::connect(site.url()).await;
    wire.shake_hands_with(offer).await;
    let call = wire::Message::call("whoami");
    wire.send(&call).await;
    wire.response_to(call.id).await.decode()
}

// spec: §6.11
async fn every_scheme_lets_in_whom_it_names(net: Net) {
    let site = guarded(net).await;
    for (auth, name, scheme) in [
        (bearer("ada's token"), "ada", "bearer"),
        (api_key("bob's key"), "bob", "api-key"),
        (credentials("carol", "carol's password"), "carol", "credentials"),
    ] {
        assert_eq!(name_of(&site, wire::Message::offer_of(&auth)).await, known(name, scheme));
    }
    let ours = |request: AuthRequest| async move {
        let badge = Auth::custom("badge", "7".to_payload()?);
        match request.auth() {
            Some(auth) if *auth == badge => Ok(Identity::new("dora")),
            _ => Err(HandlerError::from(Error::unauthenticated("no badge"))),
        }
    };
    let site = Site::with(net, |builder| whoami(builder).authenticator(ours)).await;
    let offer = wire::Message::offer_of(&custom("badge", "7"));
    assert_eq!(name_of(&site, offer).await, known("dora", "custom"));
}

// spec: §6.11, §6.8
async fn who_shows_nothing_or_the_wrong_thing_is_refused(net: Net) {
    let site = guarded(net).await;
    for wrong in [
        bearer("ada's tokem"),
        bearer("ada's token "),
        bearer(""),
        bearer("bob's key"),
        api_key("ada's token"),
        credentials("carol", "bob's key"),
        credentials("carol", ""),
        credentials("ada", "carol's password"),
        credentials("carol's password", "carol"),
        custom("bearer", "ada's token"),
        [("scheme", "kerberos"), ("token", "ada's token")].into(),
    ] {
        let error = Wire::refusal(site.url(), &wire::Message::offer_of(&wrong)).await;
        assert_eq!(error.code, Code::UNAUTHENTICATED, "{wrong:?}");
    }
    let error = Wire::refusal(site.url(), &wire::Message::offer()).await;
    assert_eq!(error.code, Code::UNAUTHENTICATED);
    assert!(site.handle().peers().is_empty());
    // Nobody learns whether it was the name or the password.
    let wrong = ["carol", "nobody"].map(|name| wire::Message::offer_of(&credentials(name, "wrong")));
    let [name, password] =
        [Wire::refusal(site.url(), &wrong[0]).await, Wire::refusal(site.url(), &wrong[1]).await];
    assert_eq!(name, password);
}

async fn everything_that_serves_a_peer_knows_who_it_is(net: Net) {
    let (seen, mut names) = mpsc::unbounded_channel();
    let note = move |seen: &mpsc::UnboundedSender<String>, what: &str, peer: &Peer| {
        let name = peer.identity().map_or_else(|| "nobody".into(), |id| id.name().to_owned());
        seen.send(format!("{what}: {name}")).unwrap();
    };
    let (connected, called, opened, asked) = (seen.clone(), seen.clone(), seen.clone(), seen.clone());
    let site = Site::with(net, |builder| {
        builder
            .authenticator(accounts())
            .on_connect(move |peer| {
                note(&connected, "connected", &peer);
                async {}
            })
            .store_by(move |peer| {
                note(&asked, "store", peer);
                None
            })
            .handle("call", move |request: Request| {
                assert_eq!(request.identity().unwrap().attribute("role"), Some("admin"));
                note(&called, "call", &request.peer());
                async { Ok(()) }
            })
            .handle_stream("open", move |request: StreamRequest| {
                assert_eq!(request.identity().unwrap().scheme(), "bearer");
                note(&opened, "open", &request.peer());
                async { Ok(()) }
            })
    })
    .await;
    let news = move |message: Message| {
        note(&seen, message.topic(), &message.peer().unwrap());
        assert_eq!(message.identity().unwrap().name(), "ada");
        async { Ok(()) }
    };
    let _subscription = site.handle().hub().subscribe("news", news).await.unwrap();

    let mut wire = Wire::connect(site.url()).await;
    let offer = Terms::topics().feature("stream").offer_of(&bearer("ada's token"));
    wire.shake_hands_with(offer).await;
    let mut next = async || names.recv().await.unwrap();
    assert_eq!(next().await, "store: ada");
    assert_eq!(next().await, "connected: ada");
    wire.send(&wire::Message::call("call")).await;
    assert_eq!(next().await, "call: ada");
    wire.send(&wire::Message::stream("open")).await;
    assert_eq!(next().await, "open: ada");
    wire.send(&wire::Message::publication("news")).await;
    assert_eq!(next().await, "news: ada");
    assert_eq!(site.peer().await.identity().unwrap().name(), "ada");
}

/// An authenticator that decides when it is told to.
fn slow(
    verdicts: &Arc<Notify>,
) -> impl Fn(AuthRequest) -> BoxFuture<'static, Result<Identity, HandlerError>> + use<> {
    let verdicts = verdicts.clone();
    move |_| {
        let verdicts = verdicts.clone();
        Box::pin(async move {
            verdicts.notified().await;
            Ok(Identity::new("ada"))
        })
    }
}

// spec: §6.11, §6.1
async fn nothing_is_done_before_the_verdict(net: Net) {
    let (verdicts, calls) = (Arc::<Notify>::default(), Counter::new());
    let counting = calls.clone();
    let site = Site::with(net, |builder| {
        builder.authenticator(slow(&verdicts)).handle("call", move |_| {
            counting.add();
            async { Ok(()) }
        })
    })
    .await;
    let mut wire = Wire::connect(site.url()).await;
    let (offer, call) = (wire::Message::offer_of(&bearer("x")), wire::Message::call("call"));
    wire.send_bytes(&[offer.frame(), call.frame()].concat()).await;
    // A second one is let in first: so the server has had the time.
    let mut other = Wire::connect(site.url()).await;
    let second = wire::Message::offer_of(&bearer("y"));
    other.send(&second).await;
    assert!(tokio::time::timeout(Duration::from_millis(100), other.receive()).await.is_err());
    assert_eq!((calls.get(), site.handle().peers().len()), (0, 0));
    verdicts.notify_one();
    assert_eq!(wire.receive().await.reference, Some(offer.id));
    assert_eq!(wire.response_to(call.id).await.error, None);
    verdicts.notify_one();
    assert_eq!(other.receive().await.reference, Some(second.id));
    assert_eq!(calls.get(), 1);
}

async fn where_nobody_asks_everybody_is_let_in_and_nobody_known(net: Net) {
    let site = Site::with(net, whoami).await;
    for offer in [wire::Message::offer(), wire::Message::offer_of(&bearer("whatever"))] {
        assert_eq!(name_of(&site, offer).await, None);
    }
}

// spec: §6.11, §6.12
async fn a_scheme_that_only_claims_to_be_a_key_is_none(net: Net) {
    let anybody = |_: AuthRequest| async { Ok::<_, HandlerError>(Identity::new("guest")) };
    let site = Site::with(net, |builder| whoami(builder).authenticator(anybody)).await;
    for (scheme, expected) in [("psk", "none"), ("none", "none"), ("ticket", "ticket")] {
        let offer = wire::Message::offer_of(&[("scheme", scheme)].into());
        assert_eq!(name_of(&site, offer).await, known("guest", expected));
    }
}

// spec: §6.9, §6.14
async fn a_verdict_has_the_time_of_the_handshake(net: Net) {
    let site = Site::with(net, |builder| {
        builder
            .authenticator(slow(&Arc::default()))
            .configure(|config| config.handshake_timeout = Duration::from_millis(100))
    })
    .await;
    let mut wire = Wire::connect(site.url()).await;
    wire.send(&wire::Message::offer_of(&bearer("x"))).await;
    assert_eq!(wire.closed_for().await, Code::DEADLINE_EXCEEDED);
}

async fn an_authenticator_that_fails_lets_nobody_in(net: Net) {
    let asked = Counter::new();
    let counting = asked.clone();
    let failing = move |_: AuthRequest| {
        counting.add();
        assert_ne!(counting.get(), 1, "panics before there is a future");
        let number = counting.get();
        async move {
            assert_ne!(number, 2, "panics in the future");
            let port: u16 = "no port".parse()?;
            Ok(Identity::new(port.to_string()))
        }
    };
    let site = Site::with(net, |builder| builder.authenticator(failing)).await;
    for _ in 0..30 {
        let error = Wire::refusal(site.url(), &wire::Message::offer_of(&bearer("x"))).await;
        assert_eq!(error.code, Code::UNAVAILABLE, "it is never the peer's fault");
        assert_eq!(error.message, "the credentials cannot be checked");
    }
    assert_eq!(asked.get(), 30);
}

async fn a_stopped_server_waits_for_no_verdict(net: Net) {
    let site = Site::with(net, |builder| builder.authenticator(slow(&Arc::default()))).await;
    let mut wire = Wire::connect(site.url()).await;
    wire.send(&wire::Message::offer_of(&bearer("x"))).await;
    site.close().await;
    assert!(!wire.ended().await);
}

async fn a_peer_that_goes_away_is_not_waited_for(net: Net) {
    let verdicts = Arc::<Notify>::default();
    let asked = Counter::new();
    let (counting, slow) = (asked.clone(), slow(&verdicts));
    let site = Site::with(net, |builder| {
        builder.authenticator(move |request: AuthRequest| {
            counting.add();
            slow(request)
        })
    })
    .await;
    let mut wire = Wire::connect(site.url()).await;
    wire.send(&wire::Message::offer_of(&bearer("x"))).await;
    asked.reached(1).await;
    drop(wire);
    verdicts.notify_one();
    site.close().await;
}

/// A server that lets `accounts` in, forgives so many failures, and asks its authenticator `asked` times.
async fn strict(net: Net, failures: u32, refill: Duration, asked: &Counter) -> (Site, String) {
    let (asked, other) = (asked.clone(), Net::Unix.url());
    let second = other.clone();
    let site = Site::with(net, |builder| {
        let known = accounts();
        let counting = move |request: AuthRequest| {
            asked.add();
            let known = known.clone();
            async move { known.authenticate(request).await }
        };
        builder.authenticator(counting).max_failures(failures, refill).listen(second)
    });
    (site.await, other)
}

// spec: §17.4, §6.8
// limit: handshakes and renewals of one source that fail for want of valid credentials
async fn who_guesses_is_slowed_and_nobody_else(net: Net) {
    let asked = Counter::new();
    let (site, other) = strict(net, 3, Duration::from_secs(3600), &asked).await;
    // Whoever succeeds loses nothing by it, however often.
    let good = wire::Message::offer_of(&bearer("ada's token"));
    for _ in 0..5 {
        Wire::connect(site.url()).await.shake_hands_with(good.clone()).await;
    }
    for guess in ["1", "2", "3"] {
        assert_eq!(Wire::refusal_of(site.url(), &bearer(guess)).await, Code::UNAUTHENTICATED);
    }
    assert_eq!(asked.get(), 8);
    // Now the right one would not help either, nor does it matter whether there is one.
    for offer in [wire::Message::offer_of(&bearer("4")), good.clone(), wire::Message::offer()] {
        let error = Wire::refusal(site.url(), &offer).await;
        assert_eq!(error.code, Code::RESOURCE_EXHAUSTED);
        let wait = error.retry_after_ms.expect("when to come again");
        assert!((3_590_000..=3_600_000).contains(&wait), "{wait}");
    }
    assert_eq!(asked.get(), 8, "credentials are not looked at");
    Wire::connect(&other).await.shake_hands_with(good).await;
}

// spec: §17.4
async fn who_guesses_in_parallel_gets_no_further(net: Net) {
    let asked = Counter::new();
    let (site, _) = strict(net, 3, Duration::from_secs(3600), &asked).await;
    let guesses = (0..50).map(|guess| {
        let (url, guess) = (site.url().to_owned(), guess.to_string());
        async move { Wire::refusal_of(&url, &bearer(&guess)).await }
    });
    let codes = futures_util::future::join_all(guesses).await;
    let heard = codes.iter().filter(|code| **code == Code::UNAUTHENTICATED).count();
    assert_eq!((heard, asked.get()), (3, 3), "{codes:?}");
    assert!(codes.iter().all(|code| [Code::UNAUTHENTICATED, Code::RESOURCE_EXHAUSTED].contains(code)));
}

// spec: §17.4
async fn who_is_cut_off_while_it_hears_of_its_failure_has_failed(net: Net) {
    let site = Site::with(net, |builder| {
        builder.authenticator(accounts()).max_failures(3, Duration::from_secs(3600)).max_handshakes(1)
    });
    let site = site.await;
    let (mut heard, mut open) = (Vec::new(), Vec::new());
    for guess in 0..6 {
        // Whoever does not close is still there when the next one takes its place.
        let mut wire = Wire::connect(site.url()).await;
        wire.send(&wire::Message::offer_of(&bearer(&guess.to_string()))).await;
        heard.push(wire.receive().await.error.expect("a refusal").code);
        open.push(wire);
    }
    let (guessed, slowed) = heard.split_at(3);
    assert!(guessed.iter().all(|code| *code == Code::UNAUTHENTICATED), "{heard:?}");
    assert!(slowed.iter().all(|code| *code == Code::RESOURCE_EXHAUSTED), "{heard:?}");
}

// spec: §17.4
async fn failures_come_back(net: Net) {
    let asked = Counter::new();
    let (site, _) = strict(net, 1, Duration::from_secs(1), &asked).await;
    assert_eq!(Wire::refusal_of(site.url(), &bearer("wrong")).await, Code::UNAUTHENTICATED);
    let good = wire::Message::offer_of(&bearer("ada's token"));
    let error = Wire::refusal(site.url(), &good).await;
    let wait = Duration::from_millis(error.retry_after_ms.expect("when to come again"));
    assert!(wait <= Duration::from_secs(1), "{wait:?}");
    tokio::time::sleep(wait).await;
    Wire::connect(site.url()).await.shake_hands_with(good).await;
}
