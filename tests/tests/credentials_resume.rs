//! Credentials, where a session goes on over another link.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fluxar::{
    Auth, AuthKind, AuthRequest, Client, ClientBuilder, Code, ConnectionError, Drain, Granted, HandlerError,
    Identity, Payload, Reconnect, Request, ServerBuilder, State, States, Verdict, Wanted,
};
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::plan::Mishap;
use fluxar_tests::proxy::Proxy;
use fluxar_tests::schedulers;
use fluxar_tests::signal::Counter;
use fluxar_tests::site::Site;

schedulers! {
    a_session_that_goes_on_needs_no_credentials
    credentials_that_have_run_out_are_renewed_with_the_link
    a_session_goes_on_with_no_other_identity
    a_session_without_fresh_credentials_does_not_go_on
    where_the_session_is_gone_credentials_are_shown_again
    who_fails_to_come_back_is_not_slowed_for_what_he_holds
    credentials_do_not_follow_a_redirection_to_strangers
    strangers_neither_get_credentials_renewed_nor_challenges_answered
}

/// Whom the authenticator has seen: the token, and who it was by then.
type Seen = Arc<Mutex<Vec<(Option<String>, Option<String>)>>>;

/// A server that takes tokens for names; they last for so long.
async fn site(
    net: Net,
    lifetime: Duration,
    change: impl FnOnce(ServerBuilder) -> ServerBuilder,
) -> (Site, Seen) {
    let seen = Seen::default();
    let noting = seen.clone();
    let naming = move |request: AuthRequest| {
        let token = match request.auth().map(Auth::kind) {
            Some(AuthKind::Bearer(token)) => Some(token.to_owned()),
            _ => None,
        };
        let present = request.identity().map(|identity| identity.name().to_owned());
        noting.lock().unwrap().push((token.clone(), present));
        async move {
            let name = token.ok_or(fluxar::Error::unauthenticated("a token is needed"))?;
            Ok::<_, HandlerError>(Granted::new(Identity::new(name)).expires_in(lifetime))
        }
    };
    let site = Site::with(net, |builder| {
        let builder = builder.authenticator(naming).handle("whoami", |request: Request| async move {
            Ok(request.identity().map(|identity| identity.name().to_owned()))
        });
        change(builder)
    });
    (site.await, seen)
}

fn connect(proxy: &Proxy) -> ClientBuilder {
    let quick = Reconnect::default().first(Duration::from_millis(1)).max(Duration::from_millis(10));
    Client::connect(proxy.url()).reconnect(quick)
}

async fn name_of(client: &Client) -> String {
    client.call::<Option<String>>("whoami", &()).await.expect("an answer").expect("an identity")
}

/// The first state for which this is so.
async fn until(states: &mut States, is_it: impl Fn(&State) -> bool) -> State {
    loop {
        let state = states.next().await.expect("it comes before the end");
        if is_it(&state) {
            return state;
        }
    }
}

fn seen_as(token: &str, present: Option<&str>) -> (Option<String>, Option<String>) {
    (Some(token.into()), present.map(String::from))
}

const HOUR: Duration = Duration::from_secs(3600);

// spec: §9.5
async fn a_session_that_goes_on_needs_no_credentials(net: Net) {
    let (site, seen) = site(net, HOUR, |builder| builder).await;
    let proxy = Proxy::clear(site.url()).await;
    let client = connect(&proxy).auth(Auth::bearer("ada")).build().await.unwrap();
    let mut states = client.states();
    for _ in 0..3 {
        proxy.strike(Mishap::Close);
        until(&mut states, |state| matches!(state, State::Resumed { .. })).await;
        assert_eq!(name_of(&client).await, "ada");
    }
    assert_eq!(*seen.lock().unwrap(), [seen_as("ada", None)]);
}

/// A client whose token runs out while it has no link, and the proxy that gives it none.
async fn away(site: &Site, lifetime: Duration, later: Option<&'static str>) -> (Client, Proxy, States) {
    let proxy = Proxy::clear(site.url()).await;
    let asked = Counter::new();
    let client = connect(&proxy).credentials(move |wanted: Wanted| {
        asked.add();
        let token = if asked.get() == 1 { Some("ada") } else { later };
        assert!(!matches!(wanted, Wanted::Renewal), "there is no link to renew them over");
        async move { Ok::<_, HandlerError>(token.map(Auth::bearer)) }
    });
    let client = client.build().await.unwrap();
    let states = client.states();
    proxy.shut(true);
    proxy.strike(Mishap::Close);
    tokio::time::sleep(lifetime).await;
    (client, proxy, states)
}

// spec: §8.5, §9.5
async fn credentials_that_have_run_out_are_renewed_with_the_link(net: Net) {
    let lifetime = Duration::from_millis(500);
    let (site, seen) = site(net, lifetime, |builder| builder).await;
    let (client, proxy, mut states) = away(&site, lifetime, Some("ada")).await;
    proxy.shut(false);
    until(&mut states, |state| matches!(state, State::Resumed { .. })).await;
    assert_eq!(name_of(&client).await, "ada");
    assert_eq!(seen.lock().unwrap()[..2], [seen_as("ada", None), seen_as("ada", Some("ada"))]);
    assert_eq!(site.handle().stats().resumed, 1);
}

// spec: §8.5
async fn a_session_goes_on_with_no_other_identity(net: Net) {
    let lifetime = Duration::from_millis(300);
    let (site, _) = site(net, lifetime, |builder| builder).await;
    let (client, proxy, mut states) = away(&site, lifetime, Some("eve")).await;
    proxy.shut(false);
    let end = until(&mut states, |state| matches!(state, State::Closed { .. })).await;
    let State::Closed { why: ConnectionError::Refused(error) } = end else { panic!("{end:?}") };
    assert_eq!(error.code, Code::PERMISSION_DENIED);
    assert_eq!(site.handle().stats().resumed, 0);
    drop(client);
}

// spec: §8.5
async fn a_session_without_fresh_credentials_does_not_go_on(net: Net) {
    let lifetime = Duration::from_millis(300);
    let (site, _) = site(net, lifetime, |builder| builder).await;
    let (client, proxy, mut states) = away(&site, lifetime, None).await;
    proxy.shut(false);
    let end = until(&mut states, |state| matches!(state, State::Closed { .. })).await;
    let State::Closed { why: ConnectionError::Refused(error) } = end else { panic!("{end:?}") };
    assert_eq!(error.code, Code::UNAUTHENTICATED);
    drop(client);
}

// spec: §9.9
async fn where_the_session_is_gone_credentials_are_shown_again(net: Net) {
    let (site, seen) = site(net, HOUR, |builder| builder.max_detached(0)).await;
    let proxy = Proxy::clear(site.url()).await;
    let client = connect(&proxy).auth(Auth::bearer("ada")).build().await.unwrap();
    let mut states = client.states();
    until(&mut states, |state| matches!(state, State::Connected)).await;
    proxy.strike(Mishap::Close);
    until(&mut states, |state| matches!(state, State::Lost { .. })).await;
    until(&mut states, |state| matches!(state, State::Connected)).await;
    assert_eq!(name_of(&client).await, "ada");
    assert_eq!(
        *seen.lock().unwrap(),
        [seen_as("ada", None), seen_as("ada", None)],
        "asked about none but these"
    );
}

// spec: §17.4
async fn who_fails_to_come_back_is_not_slowed_for_what_he_holds(net: Net) {
    let change = |builder: ServerBuilder| builder.max_failures(1, HOUR).max_detached(0);
    let (site, _) = site(net, HOUR, change).await;
    let proxy = Proxy::clear(site.url()).await;
    let client = connect(&proxy).auth(Auth::bearer("ada")).build().await.unwrap();
    let mut states = client.states();
    until(&mut states, |state| matches!(state, State::Connected)).await;
    for _ in 0..3 {
        proxy.strike(Mishap::Close);
        until(&mut states, |state| matches!(state, State::Connected)).await;
    }
    assert_eq!(name_of(&client).await, "ada");
}

// spec: §17.4, §8.6
async fn credentials_do_not_follow_a_redirection_to_strangers(net: Net) {
    for is_stranger in [true, false] {
        let (home, _) = site(net, HOUR, |builder| builder).await;
        let shown = Arc::<Mutex<Vec<bool>>>::default();
        let noting = shown.clone();
        let curious = move |request: AuthRequest| {
            noting.lock().unwrap().push(request.auth().is_some());
            async { Ok::<_, HandlerError>(Identity::new("anybody")) }
        };
        let other = Site::with(net, |builder| builder.authenticator(curious)).await;
        let mut client = home.connect().auth(Auth::bearer("ada")).follow_redirects(true);
        if !is_stranger {
            client = client.url(other.url());
        }
        let client = client.build().await.unwrap();
        home.handle().drain_with(Drain::new().with_redirect(other.url())).await;
        eventually("the client goes there", || other.handle().peers().len() == 1).await;
        assert_eq!(*shown.lock().unwrap(), [!is_stranger]);
        drop(client);
    }
}

// spec: §8.6, §17.4
async fn strangers_neither_get_credentials_renewed_nor_challenges_answered(net: Net) {
    let (home, _) = site(net, HOUR, |builder| builder).await;
    let shown = Arc::<Mutex<Vec<bool>>>::default();
    let noting = shown.clone();
    // Asks for an answer first, and then lets whoever it is in, but not for long.
    let curious = move |request: AuthRequest| {
        noting.lock().unwrap().push(request.auth().is_some());
        let verdict = match request.challenge() {
            None => Verdict::Challenge(Payload::null()),
            Some(_) => Granted::new(Identity::new("x")).expires_in(Duration::from_millis(200)).into(),
        };
        async { Ok::<_, HandlerError>(verdict) }
    };
    let stranger = Site::with(net, |builder| builder.authenticator(curious)).await;
    let wanted = Arc::<Mutex<Vec<Wanted>>>::default();
    let asked = wanted.clone();
    let client = home.connect().follow_redirects(true).credentials(move |wanted: Wanted| {
        asked.lock().unwrap().push(wanted);
        async { Ok::<_, HandlerError>(Auth::bearer("ada")) }
    });
    let client = client.build().await.unwrap();
    home.handle().drain_with(Drain::new().with_redirect(stranger.url())).await;
    eventually("the client is there", || stranger.handle().peers().len() == 1).await;
    let late = || async { client.call::<u32>("echo", &1).await };
    while late().await.is_ok() {}
    let error = late().await.unwrap_err();
    assert_eq!(error.code, Code::UNAUTHENTICATED, "{error}");
    let error = client.authenticate(Auth::bearer("ada")).await.unwrap_err();
    assert_eq!((error.code, error.processed), (Code::FAILED_PRECONDITION, Some(false)), "{error}");
    assert_eq!(*shown.lock().unwrap(), [false, false]);
    let wanted = wanted.lock().unwrap();
    assert!(matches!(wanted[..], [Wanted::Connect(_)]), "{wanted:?}");
}
