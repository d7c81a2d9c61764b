//! Links that are lost and come back, and who may come at all.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use fluxar::{Request, StreamRequest};

use crate::support::{Conformance, Directory, Running, Said, fluxar, fluxar_beside, serve};

/// What it says on standard error of a link that is lost once, and of a session that goes on; nothing else.
#[track_caller]
fn went_on(said: &Said, out: &str) {
    assert_eq!((said.exit, said.text()), (Some(0), out), "{}", said.err);
    let lines = said.err.lines().filter(|line| !line.starts_with("final: ")).collect::<Vec<_>>();
    let [lost, again] = lines[..] else { panic!("{}", said.err) };
    assert!(lost.starts_with("link lost: reconnecting in 0.") && lost.ends_with(" s"), "{lost}");
    assert!(again.starts_with("resumed: ") && again.contains("message"), "{again}");
}

// spec: §9.7
#[tokio::test]
async fn a_call_is_answered_over_another_link() {
    let url = serve(|server| {
        server.handle("cut", |request: Request| async move {
            request.peer().drop_link();
            // The answer has to come over another one.
            while !request.peer().stats().resumed.eq(&1) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(7)
        });
    })
    .await;
    went_on(&fluxar_beside(["call", &url, "cut"]).await, "7\n");
}

// spec: §9.7
#[tokio::test]
async fn a_stream_goes_on_over_another_link() {
    let url = serve(|server| {
        server.handle_stream("cut", |mut request: StreamRequest| async move {
            for number in 0..5_000_u32 {
                if number == 2_500 {
                    request.peer().drop_link();
                }
                request.send(&number).await?;
            }
            Ok("done")
        });
    })
    .await;
    let said = fluxar_beside(["stream", &url, "cut"]).await;
    went_on(&said, &(0..5_000).map(|number| format!("{number}\n")).collect::<String>());
    assert!(said.err.ends_with("final: \"done\"\n"), "{}", said.err);
}

// spec: §9.9
#[test]
fn a_subscription_goes_on_at_a_hub_that_has_started_again() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("tcp://127.0.0.1:{port}");
    let serve = || {
        let mut running = Running::start(["serve", "--listen", &url]);
        assert_eq!(running.line(), format!("listening on {url}"));
        running
    };
    let publish = |payload| {
        let published = fluxar(["pub", &url, "t", payload, "--qos", "1", "--retain"]);
        assert_eq!((published.exit, published.text()), (Some(0), "accepted\n"), "{}", published.err);
    };
    let hub = serve();
    let mut subscriber = Running::start(["sub", &url, "t", "--count", "2"]);
    publish("1");
    assert_eq!(subscriber.line(), "t 1");
    hub.signal("KILL");
    drop(hub);
    let _again = serve();
    publish("2");
    assert_eq!(subscriber.line(), "t 2");
    let said = subscriber.end();
    assert_eq!(said.exit, Some(0), "{}", said.err);
    let place = |text| said.err.find(text).unwrap_or_else(|| panic!("{}", said.err));
    assert!(place("link lost: ") < place("session lost: 0 calls, 0 streams, 1 subscription\n"));
    assert!(place("session lost: ") < place("connected again\n"));
}

#[test]
fn of_several_urls_one_is_enough() {
    let peer = Conformance::start();
    // Taken, and nobody listens there.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    fluxar(["call", &nobody, "test.echo", "5", "--url", &peer.url]).is("5");
}

const SWITCHES: [&str; 6] =
    ["--auth", "bearer=t0ken:ada", "--auth", "api-key=k3y:ci", "--auth", "credentials=bob:pa:ss"];

fn whoami(scheme: &str, name: &str) -> String {
    format!("{{\"scheme\": {scheme}, \"identity\": {name}, \"encrypted\": false, \"resumed\": false}}")
}

// spec: §6.11
#[test]
fn a_server_asks_who_comes_and_knows_who_is_there() {
    let (peer, directory) = (Conformance::with(&SWITCHES), Directory::new());
    let token = directory.file("token", b"t0ken\n");
    peer.call(&["test.whoami", "--auth", "bearer=t0ken"]).is(&whoami("\"bearer\"", "\"ada\""));
    peer.call(&["test.whoami", "--auth", &format!("bearer={token}")]).is(&whoami("\"bearer\"", "\"ada\""));
    peer.call(&["test.whoami", "--auth", "api-key=k3y"]).is(&whoami("\"api-key\"", "\"ci\""));
    peer.call(&["test.whoami", "--auth", "credentials=bob:pa:ss"]).is(&whoami("\"credentials\"", "\"bob\""));
    let mut command = Command::new(env!("CARGO_BIN_EXE_fluxar"));
    command.args(["call", &peer.url, "test.whoami", "--auth", "credentials=env:FLUXAR_TEST_LOGIN"]);
    let output = command.env("FLUXAR_TEST_LOGIN", "bob:pa:ss").output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), whoami("\"credentials\"", "\"bob\"") + "\n");
    let refused = format!("cannot connect: {}: the handshake failed: ", peer.url);
    for auth in ["bearer=wr0ng", "api-key=t0ken", "credentials=bob:pa", "credentials=ada:t0ken"] {
        let said = peer.call(&["test.whoami", "--auth", auth]);
        said.failed_somehow(3, &refused);
        assert!(said.err.contains("unauthenticated") && !said.err.contains(&auth[8..]), "{}", said.err);
    }
    let said = peer.call(&["test.whoami"]);
    said.failed_somehow(3, &refused);
    assert!(said.err.contains("unauthenticated"), "{}", said.err);
    Conformance::start().call(&["test.whoami"]).is(&whoami("null", "null"));
}

// spec: §6.12
#[test]
fn a_server_asks_for_a_pre_shared_key_and_tells_no_wrong_one_from_an_unknown_one() {
    let directory = Directory::new();
    let key = directory.file("key", b"00112233445566778899aabbccddeeff\n");
    let peer = Conformance::with(&["--psk", &format!("site-7={key}"), "--psk", "site-8=0102"]);
    let call = |words: &[&str]| peer.call(&[&["test.echo", "1"], words].concat());
    call(&["--psk", "site-7=00112233445566778899AABBCCDDEEFF"]).is("1");
    call(&["--psk", "site-8=0102"]).is("1");
    let (wrong, unknown) = (call(&["--psk", "site-7=0102"]), call(&["--psk", "site-9=0102"]));
    wrong.failed_somehow(3, &format!("cannot connect: {}: the handshake failed: ", peer.url));
    assert_eq!(wrong, unknown);
    let none = call(&[]);
    assert!(none.exit == Some(3) && none.err.contains("unauthenticated"), "{}", none.err);
    // A key that the peer does not ask for is one that it does not prove to hold.
    let said = Conformance::start().call(&["test.echo", "--psk", "site-7=0102"]);
    assert!(said.exit == Some(3) && said.err.contains("takes no part in the pre-shared key"), "{}", said.err);
}

#[test]
fn mistakes_about_secrets_do_not_repeat_them() {
    for (words, line) in [
        (
            ["--auth", "t0psecret"],
            "bad --auth: expected bearer=TOKEN, api-key=KEY or credentials=USER:PASSWORD",
        ),
        (
            ["--psk", "id=t0psecret"],
            "bad --psk: expected ID=HEX, with at most 255 bytes and an even number of hex digits",
        ),
        (
            ["--auth", "bearer=env:FLUXAR_NO_SUCH_VARIABLE"],
            "cannot take what --auth says from FLUXAR_NO_SUCH_VARIABLE: environment variable not found",
        ),
    ] {
        fluxar([&["call", "tcp://127.0.0.1:1", "m"], &words[..]].concat()).failed(2, line);
    }
    let serve = ["serve", "--listen", "tcp://127.0.0.1:0", "--auth", "bearer=t0psecret"];
    fluxar(serve).failed(
        2,
        "bad --auth: expected bearer=TOKEN:IDENTITY, api-key=KEY:IDENTITY or credentials=USER:PASSWORD",
    );
}
