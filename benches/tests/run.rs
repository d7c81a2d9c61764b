//! The suite runs, and its processes find each other. What it measures is nobody's business here.

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fluxar-bench")).args(arguments).output().expect("the suite starts")
}

#[test]
fn prints_a_row_for_every_contender_and_load() {
    let parts = "latency,throughput,streams,fairness,pubsub,resume";
    let output = run(&["--only", parts, "--rounds", "2", "--seconds", "0.05"]);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for heading in [
        "Latency: one call in flight, 64 ",
        "Throughput: 128 calls in flight, 1024 ",
        "Streams: items of 16384 ",
        "Fairness: one call of 64 ",
        "Publish/subscribe: messages of 64 ",
        "Resume: what it costs ",
        "Resume: after a cut",
    ] {
        assert!(shown.contains(heading), "{heading}: {shown}");
    }
    for way in ["from peer to peer", "by a hub, to 1", "by a hub, to 64"] {
        assert!(shown.contains(&format!("\n| {way} ")), "{way}: {shown}");
    }
    for (contender, tables) in [("raw", 6), ("fluxar", 7), ("tonic", 7)] {
        assert_eq!(shown.matches(&format!("\n| {contender} ")).count(), tables, "{contender}: {shown}");
    }
}

#[test]
fn says_what_it_does_not_know() {
    let output = run(&["--only", "everything"]);
    assert!(!output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1);
    assert!(run(&["--help"]).status.success());
}
