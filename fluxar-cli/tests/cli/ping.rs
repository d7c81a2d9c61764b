//! `fluxar ping`.

use fluxar::Server;

use crate::support::{Conformance, Running, fluxar};

/// The number before ` ms` at the end of a line.
fn millis(line: &str) -> f64 {
    line.strip_suffix(" ms").and_then(|line| line.rsplit(' ').next()).unwrap().parse().unwrap()
}

#[test]
fn each_ping_has_its_line_and_the_end_a_summary() {
    let peer = Conformance::start();
    let said = fluxar(["ping", &peer.url, "-n", "3", "-i", "10ms"]);
    assert_eq!((said.exit, said.err.as_str()), (Some(0), ""));
    let lines = said.text().lines().collect::<Vec<_>>();
    let [connected, one, two, three, rule, summary] = lines[..] else { panic!("{lines:?}") };
    let agent = concat!("fluxar-cli/", env!("CARGO_PKG_VERSION"));
    assert!(connected.starts_with(&format!("connected to {} ({agent}) in ", peer.url)), "{connected}");
    let times = [(1, one), (2, two), (3, three)].map(|(n, line)| {
        assert!(line.starts_with(&format!("ping {n}: ")), "{line}");
        millis(line)
    });
    assert_eq!(rule, format!("--- {}", peer.url));
    let figures = summary.strip_prefix("3 pings, 3 answered, min/p50/p99/max ").unwrap();
    let figures = figures.strip_suffix(" ms").unwrap().split('/').map(|text| text.parse::<f64>().unwrap());
    let mut sorted = times;
    sorted.sort_by(f64::total_cmp);
    assert_eq!(figures.collect::<Vec<_>>(), [sorted[0], sorted[1], sorted[2], sorted[2]]);
}

#[test]
fn many_pings_as_fast_as_they_are_answered() {
    let peer = Conformance::start();
    let said = fluxar(["ping", &peer.url, "-n", "200", "-i", "0"]);
    assert!(said.text().contains("\n200 pings, 200 answered, "));
}

#[test]
fn an_interrupt_ends_with_the_summary() {
    let peer = Conformance::start();
    let mut ping = Running::start(["ping", &peer.url, "-i", "1h"]);
    assert!(ping.line().starts_with("connected to "));
    assert!(ping.line().starts_with("ping 1: "));
    ping.signal("INT");
    let said = ping.end();
    assert_eq!((said.exit, said.err.as_str()), (Some(0), ""));
    assert!(said.text().starts_with(&format!("--- {}\n1 ping, 1 answered, ", peer.url)), "{}", said.text());
}

#[test]
fn a_reader_that_has_left_is_no_error() {
    let peer = Conformance::start();
    let mut ping = Running::start(["ping", &peer.url, "-i", "0"]);
    ping.line();
    ping.close_output();
    let said = ping.end();
    assert_eq!((said.exit, said.err.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn a_peer_that_goes_ends_it() {
    let server = Server::bind("tcp://127.0.0.1:0").build().await.unwrap();
    let (url, handle) = (server.url(), server.server_handle());
    tokio::spawn(server.run());
    let (mut ping, first) = tokio::task::spawn_blocking(move || {
        let mut ping = Running::start(["ping", &url, "-i", "1h"]);
        ping.line();
        let first = ping.line();
        (ping, first)
    })
    .await
    .unwrap();
    assert!(first.starts_with("ping 1: "));
    handle.stop();
    let said = tokio::task::spawn_blocking(move || {
        assert!(ping.line().starts_with("--- "));
        ping.end()
    })
    .await
    .unwrap();
    assert_eq!((said.exit, said.err.as_str()), (Some(3), "error: connection closed by the peer\n"));
    assert!(said.text().starts_with("1 ping, 1 answered, "));
}
