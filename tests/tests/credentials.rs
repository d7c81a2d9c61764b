//! What clients show of themselves.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fluxar::{
    Accounts, Auth, AuthKind, AuthRequest, Client, Code, ConnectError, ConnectionError, Error, HandlerError,
    Identity, IntoPayload, Payload, Raw, Reconnect, Verdict, Wanted,
};
use fluxar_runtime as runtime;
use fluxar_tests::net::Net;
use fluxar_tests::open::Open;
use fluxar_tests::signal::Counter;
use fluxar_tests::site::Site;
use fluxar_tests::whoami::{known, name_of, whoami};
use fluxar_tests::wire::{Message, Trap};
use fluxar_tests::{matrix, schedulers};

matrix! {
    every_scheme_is_known_at_the_other_side
    what_is_refused_is_told
    a_provider_is_asked_before_each_attempt
    a_challenge_is_answered
}

schedulers! {
    rounds_of_challenges_are_counted
    a_challenge_without_an_answer_is_refused
    a_provider_that_fails_fails_the_attempt
    a_provider_has_the_time_of_the_handshake
    a_provider_that_hangs_at_a_challenge_hangs_there_alone
    credentials_stay_at_home_where_somebody_may_listen
    credentials_travel_in_clear_where_that_is_allowed
    a_client_that_comes_back_brings_fresh_credentials
}

fn refusal(result: Result<Client, ConnectError>) -> Error {
    match result {
        Err(ConnectError::Handshake(ConnectionError::Refused(error))) => error,
        other => panic!("{other:?}"),
    }
}

// spec: §6.11
async fn every_scheme_is_known_at_the_other_side(net: Net) {
    let accounts = Accounts::new()
        .bearer("ada's token", Identity::new("ada"))
        .api_key("bob's key", Identity::new("bob"))
        .password("carol", "carol's password", Identity::new("carol"));
    let site = Site::with(net, |builder| whoami(builder).authenticator(accounts)).await;
    for (auth, name, scheme) in [
        (Auth::bearer("ada's token"), "ada", "bearer"),
        (Auth::api_key("bob's key"), "bob", "api-key"),
        (Auth::credentials("carol", "carol's password"), "carol", "credentials"),
    ] {
        let client = site.connect().auth(auth).build().await.unwrap();
        assert_eq!(name_of(&client).await, known(name, scheme));
        assert_eq!(client.identity().map(|identity| identity.name().to_owned()), None, "the server's");
    }
}

// spec: §6.8, §6.11
async fn what_is_refused_is_told(net: Net) {
    let answer = |request: AuthRequest| async move {
        match request.auth().map(Auth::kind) {
            Some(AuthKind::Bearer("banned")) => {
                let data = "until monday".to_payload()?;
                let error = Error::permission_denied("not today").with_data(data.as_bytes().to_vec());
                Err::<Identity, _>(HandlerError::from(error.with_retry_after_ms(1234)))
            }
            _ => Err(Error::unauthenticated("who are you?").into()),
        }
    };
    let site = Site::with(net, |builder| builder.authenticator(answer)).await;
    let error = refusal(site.connect().auth(Auth::bearer("banned")).build().await);
    assert_eq!((error.code, error.retry_after_ms), (Code::PERMISSION_DENIED, Some(1234)));
    assert_eq!(error.data.as_deref(), "until monday".to_payload().ok().as_ref().map(Payload::as_bytes));
    for client in [site.connect(), site.connect().auth(Auth::bearer("else"))] {
        assert_eq!(refusal(client.build().await).code, Code::UNAUTHENTICATED);
    }
}

/// What a provider was asked for.
type Asked = Arc<Mutex<Vec<String>>>;

fn noting(asked: &Asked, token: &'static str) -> impl runtime::Credentials + use<> {
    let asked = asked.clone();
    move |wanted: Wanted| {
        let what = match wanted {
            Wanted::Connect(address) => format!("connect to {address}"),
            Wanted::Challenge(_) => "challenge".into(),
            Wanted::Renewal => "renewal".into(),
            other => panic!("{other:?}"),
        };
        asked.lock().unwrap().push(what);
        async move { Ok(Auth::bearer(token)) }
    }
}

async fn a_provider_is_asked_before_each_attempt(net: Net) {
    let accounts = Accounts::new().bearer("token", Identity::new("ada"));
    let site = Site::with(net, |builder| whoami(builder).authenticator(accounts)).await;
    let (asked, nowhere) = (Asked::default(), "unix:///nowhere");
    let client = Client::connect(nowhere).url(site.url()).credentials(noting(&asked, "token"));
    let client = client.build().await.unwrap();
    assert_eq!(name_of(&client).await, known("ada", "bearer"));
    let expected = [format!("connect to {nowhere}"), format!("connect to {}", site.url())];
    assert_eq!(*asked.lock().unwrap(), expected);
}

/// Wants the number before each of its challenges, so many times.
fn countdown(rounds: u32) -> impl Fn(AuthRequest) -> std::future::Ready<Result<Verdict, HandlerError>> {
    move |request| {
        let answer = || -> Result<Verdict, HandlerError> {
            let shown: u32 = match request.auth().map(Auth::kind) {
                Some(AuthKind::Custom { name: "countdown", data }) => {
                    Raw::from(Payload::from(data)).decode()?
                }
                other => panic!("{other:?}"),
            };
            let wanted = match request.challenge() {
                Some(challenge) => Raw::from(challenge.clone()).decode::<u32>()? - 1,
                None => rounds,
            };
            match (shown == wanted, wanted) {
                (false, _) => Err(Error::unauthenticated("miscounted").into()),
                (true, 0) => Ok(Identity::new("counter").into()),
                (true, _) => Ok(Verdict::Challenge(wanted.to_payload()?)),
            }
        };
        std::future::ready(answer())
    }
}

/// Counts down from `rounds`.
fn counting(rounds: u32) -> impl runtime::Credentials {
    move |wanted: Wanted| async move {
        let number = match wanted {
            Wanted::Challenge(challenge) => Raw::from(challenge).decode::<u32>()? - 1,
            _ => rounds,
        };
        Ok(Auth::custom("countdown", number.to_payload()?))
    }
}

// spec: §6.10, §6.11
async fn a_challenge_is_answered(net: Net) {
    for rounds in 0..=4 {
        let site = Site::with(net, |builder| whoami(builder).authenticator(countdown(rounds))).await;
        let client = site.connect().credentials(counting(rounds)).build().await.unwrap();
        assert_eq!(name_of(&client).await, known("counter", "custom"), "{rounds}");
        let other = site.connect().credentials(counting(rounds + 1)).build().await;
        assert_eq!(refusal(other).code, Code::UNAUTHENTICATED);
    }
}

// spec: §6.10
async fn rounds_of_challenges_are_counted(net: Net) {
    let site = Site::with(net, |builder| builder.authenticator(countdown(5))).await;
    let client = site.connect().credentials(counting(5)).build().await;
    assert_eq!(refusal(client).code, Code::UNAUTHENTICATED, "four rounds do not suffice");
}

async fn a_challenge_without_an_answer_is_refused(net: Net) {
    let demanding = |request: AuthRequest| async move {
        match (request.challenge().is_some(), request.auth().is_some()) {
            (false, true) => Ok(Verdict::Challenge(Payload::null())),
            (true, false) => Err(HandlerError::from(Error::unauthenticated("that is no answer"))),
            other => panic!("{other:?}"),
        }
    };
    let site = Site::with(net, |builder| builder.authenticator(demanding)).await;
    let fixed = Auth::custom("any", Payload::null());
    let failing = |wanted: Wanted| async move {
        match wanted {
            Wanted::Challenge(_) => Err(HandlerError::other("no idea")),
            _ => Ok(Auth::custom("any", Payload::null())),
        }
    };
    let panicking = |wanted: Wanted| async move {
        assert!(!matches!(wanted, Wanted::Challenge(_)));
        Ok(Auth::custom("any", Payload::null()))
    };
    for client in [
        site.connect().auth(fixed),
        site.connect().credentials(failing),
        site.connect().credentials(panicking),
    ] {
        assert_eq!(refusal(client.build().await).message, "that is no answer");
    }
}

async fn a_provider_that_fails_fails_the_attempt(net: Net) {
    let site = Site::open(net).await;
    let failing = |_: Wanted| async { Err::<Auth, _>(HandlerError::other("secret reasons")) };
    let panicking =
        |_: Wanted| -> std::future::Ready<Result<Auth, HandlerError>> { panic!("secret reasons") };
    for client in [site.connect().credentials(failing), site.connect().credentials(panicking)] {
        match client.build().await {
            Err(ConnectError::Credentials(error)) => {
                assert!(!error.to_string().contains("secret"), "{error}")
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(site.handle().peers().is_empty());
}

// spec: §6.9
async fn a_provider_has_the_time_of_the_handshake(net: Net) {
    let site = Site::open(net).await;
    let never = |_: Wanted| std::future::pending::<Result<Auth, HandlerError>>();
    let client = site.connect().credentials(never);
    let client = client.configure(|config| config.handshake_timeout = Duration::from_millis(50));
    match client.build().await {
        Err(ConnectError::Credentials(error)) => assert_eq!(error.code, Code::DEADLINE_EXCEEDED),
        other => panic!("{other:?}"),
    }
}

async fn a_provider_that_hangs_at_a_challenge_hangs_there_alone(net: Net) {
    let quick = |config: &mut fluxar::Config| config.handshake_timeout = Duration::from_millis(200);
    let site = Site::with(net, |builder| {
        whoami(builder).authenticator(countdown(1)).resume_for(Duration::ZERO).configure(quick)
    })
    .await;
    let asked = Counter::new();
    let counting = asked.clone();
    let hanging = move |wanted: Wanted| {
        counting.add();
        let hangs = counting.get() == 4;
        async move {
            let number = match wanted {
                Wanted::Challenge(_) if hangs => std::future::pending().await,
                Wanted::Challenge(_) => 0u32,
                _ => 1,
            };
            Ok(Auth::custom("countdown", number.to_payload()?))
        }
    };
    let client = site.connect().credentials(hanging).configure(quick).reconnect(self::quick());
    let client = client.build().await.unwrap();
    let mut states = client.states();
    states.next().await;
    site.peer().await.hang_up();
    while !matches!(states.next().await, Some(fluxar::State::Connected)) {}
    assert_eq!(name_of(&client).await, known("counter", "custom"));
    assert_eq!(asked.get(), 6, "in the second attempt it hung, in the third it did not");
}

const SECRETS: [&str; 3] = ["the token", "the key", "the password"];

fn schemes() -> [Auth; 4] {
    [
        Auth::bearer(SECRETS[0]),
        Auth::api_key(SECRETS[1]),
        Auth::credentials("ada", SECRETS[2]),
        Auth::custom("own", SECRETS[0].to_payload().unwrap()),
    ]
}

/// Lets everybody in, and says who showed what.
async fn gullible(net: Net) -> (Site, Asked) {
    let shown = Asked::default();
    let noting = shown.clone();
    let take_all = move |request: AuthRequest| {
        let scheme = request.auth().map_or("none", Auth::scheme).to_owned();
        noting.lock().unwrap().push(scheme);
        async { Ok(Identity::new("anybody")) }
    };
    (Site::with(net, |builder| builder.authenticator(take_all)).await, shown)
}

// spec: §6.11, §17.4
async fn credentials_stay_at_home_where_somebody_may_listen(net: Net) {
    let (site, shown) = gullible(net).await;
    let open = Open::default();
    for auth in schemes() {
        let client = runtime::ClientBuilder::new(open.clone(), site.url()).auth(auth).build().await;
        match client {
            Err(ConnectError::Handshake(ConnectionError::AuthInClear)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(open.dialled(), 4);
    assert!(SECRETS.iter().all(|secret| !open.has_heard(secret)));
    assert!(shown.lock().unwrap().is_empty());
    // Nor does a server get them that asks: there are none to be shown.
    let trap = Trap::open().await;
    let client = runtime::ClientBuilder::new(open.clone(), trap.url()).build();
    let (client, ()) = tokio::join!(client, async {
        let mut wire = trap.accept().await;
        let offer = wire.receive().await;
        let ask = Message::answer(offer.id).raw(&b"\xa2\x67version\x01\x64next\x65proof"[..]);
        wire.send(&ask).await;
        let proof = wire.receive().await;
        assert_eq!((proof.reference, proof.payload.as_bytes()), (Some(ask.id), &b"\xa0"[..]));
    });
    assert!(client.is_err());
}

// spec: §6.11
async fn credentials_travel_in_clear_where_that_is_allowed(net: Net) {
    for open in [Open::default(), Open::confidential()] {
        let (site, shown) = gullible(net).await;
        for auth in schemes() {
            let mut client = runtime::ClientBuilder::new(open.clone(), site.url()).auth(auth);
            if !open.is_confidential() {
                client = client.allow_plaintext_auth();
            }
            client.build().await.unwrap();
        }
        assert!(SECRETS.iter().all(|secret| open.has_heard(secret)));
        assert_eq!(*shown.lock().unwrap(), ["bearer", "api-key", "credentials", "custom"]);
    }
}

// spec: §9.9, §6.11
async fn a_client_that_comes_back_brings_fresh_credentials(net: Net) {
    let asked = Counter::new();
    let numbers = asked.clone();
    let numbered = move |_: Wanted| {
        numbers.add();
        let token = format!("token {}", numbers.get());
        async move { Ok(Auth::bearer(token)) }
    };
    let naming = |request: AuthRequest| async move {
        match request.auth().map(Auth::kind) {
            Some(AuthKind::Bearer(token)) => Ok(Identity::new(token)),
            other => panic!("{other:?}"),
        }
    };
    // Sessions end with their links here, so that each link has to be let in.
    let site =
        Site::with(net, |builder| whoami(builder).authenticator(naming).resume_for(Duration::ZERO)).await;
    let client = site.connect().credentials(numbered).reconnect(quick()).build().await.unwrap();
    for number in 1..=3 {
        assert_eq!(name_of(&client).await, known(&format!("token {number}"), "bearer"));
        let mut states = client.states();
        states.next().await;
        site.peer().await.hang_up();
        while !matches!(states.next().await, Some(fluxar::State::Connected)) {}
    }
    assert_eq!(asked.get(), 4);
}

fn quick() -> Reconnect {
    Reconnect::default().first(Duration::from_millis(1)).max(Duration::from_millis(10))
}
