//! Secrets stay out of what is shown and logged (§17.4).

use std::fmt::{self, Write};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use fluxar::{
    Accounts, Auth, Client, Granted, HandlerError, Identity, IntoPayload, Psk, Reconnect, Request, Server,
    Wanted,
};
use fluxar_tests::guests::bearer;
use fluxar_tests::net::{self, Flavor, Net};
use fluxar_tests::plan::Mishap;
use fluxar_tests::proxy::Proxy;
use fluxar_tests::site::Site;
use fluxar_tests::wire::{self, Wire};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Everything that is secret here has it in it.
const MARK: &str = "s3cr3t";

fn secret(name: &str) -> String {
    format!("{MARK} {name}")
}

/// Keeps all that is logged, whatever the level.
struct Log;

static LOGGED: Mutex<String> = Mutex::new(String::new());

fn logged() -> MutexGuard<'static, String> {
    LOGGED.lock().unwrap_or_else(|error| error.into_inner())
}

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        writeln!(logged(), "{field}={value:?}").expect("a string takes all");
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut Self);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut Self);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Self);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Every way to succeed and to fail.
async fn everything(net: Net) {
    let hour = Duration::from_secs(3600);
    let accounts = Accounts::new()
        .bearer(secret("token"), Granted::new(Identity::new("ada")).expires_in(hour))
        .api_key(secret("key"), Identity::new("bob"))
        .password("carol", secret("password"), Identity::new("carol").with_attribute("note", secret("note")));
    assert!(!format!("{accounts:?}").contains(MARK));
    let psk = Psk::new("first", secret("psk"));
    let keys = psk.clone();
    let site = Site::with(net, |builder| {
        builder.authenticator(accounts).psk(psk.clone()).psk_optional().max_failures(1000, hour).handle(
            "whoami",
            |request: Request| async move {
                Ok(format!("{:?} {request:?} {:?}", request.identity(), request.peer()))
            },
        )
    })
    .await;
    let proxy = Proxy::clear(site.url()).await;
    let quick = Reconnect::default().first(Duration::from_millis(1)).max(Duration::from_millis(10));
    for auth in [
        Auth::bearer(secret("token")),
        Auth::api_key(secret("key")),
        Auth::credentials("carol", secret("password")),
    ] {
        assert!(!format!("{auth:?} {:?} {psk:?}", auth.kind()).contains(MARK));
        let builder =
            Client::connect(proxy.url()).auth(auth.clone()).psk(keys.clone()).reconnect(quick.clone());
        assert!(!format!("{builder:?}").contains(MARK));
        let client = builder.build().await.expect("it is let in");
        let told = client.call::<String>("whoami", &()).await.expect("an answer");
        assert!(told.contains("Identity") && !told.contains(MARK), "{told}");
        client.authenticate(auth).await.expect("it is renewed");
        client.authenticate(Auth::bearer(secret("wrong"))).await.expect_err("it is not");
        let mut states = client.states();
        proxy.strike(Mishap::Close);
        while !matches!(states.next().await, Some(fluxar::State::Resumed { .. })) {}
        assert!(!format!("{client:?} {:?}", client.stats()).contains(MARK));
    }
    for wrong in [
        Auth::bearer(secret("other token")),
        Auth::api_key(secret("other key")),
        Auth::credentials(secret("other name"), secret("other password")),
        Auth::custom("own", secret("own").to_payload().expect("a payload")),
    ] {
        let error = site.connect().auth(wrong).build().await.expect_err("it is refused");
        assert!(!format!("{error:?} {error}").contains(MARK), "{error:?}");
    }
    for psk in [Psk::new("first", secret("other psk")), Psk::new("other", secret("psk"))] {
        site.connect().psk(psk).build().await.expect_err("it is refused");
    }
    let failing = |_: Wanted| async {
        let auth = Auth::bearer(secret("given"));
        Err::<Auth, _>(HandlerError::other(format!("there is {auth:?}")))
    };
    site.connect().credentials(failing).build().await.expect_err("there are no credentials");
    // What is malformed is not shown either.
    for bytes in [secret("garbage").into_bytes(), wire::framed(secret("garbage").as_bytes())] {
        let mut wire = Wire::connect(site.url()).await;
        wire.send_bytes(&bytes).await;
        wire.ended().await;
    }
    let mut odd = bearer("x");
    odd.insert("token", MARK);
    odd.insert("scheme", "credentials");
    let mut wire = Wire::connect(site.url()).await;
    wire.send(&wire::Message::offer_of(&odd)).await;
    wire.ended().await;
    let server =
        Server::bind(net.url()).psk(keys).authenticator(Accounts::new().bearer(MARK, Identity::new("x")));
    assert!(!format!("{server:?}").contains(MARK));
}

// spec: §17.4
#[test]
fn secrets_are_neither_shown_nor_logged() {
    tracing::subscriber::set_global_default(Log).expect("the only test here");
    net::run(Flavor::Multi, Net::Tcp, everything);
    let logged = logged();
    assert!(logged.contains("a peer is not let in"), "it is logged what happens:\n{logged}");
    let bad: Vec<&str> = logged.lines().filter(|line| line.contains(MARK)).collect();
    assert!(bad.is_empty(), "{bad:#?}");
}
