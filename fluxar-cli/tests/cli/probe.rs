//! The conformance peer in the eyes of a peer in another language, `tests/interop/peer.py`.

use std::process::Command;

use crate::support::Conformance;

const PEER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/interop/peer.py");

// spec: §11, §12, §21
#[test]
fn it_does_what_the_specification_says() {
    if Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: there is no python3");
        return;
    }
    let peer = Conformance::start();
    let port = peer.url.rsplit(':').next().unwrap();
    let output = Command::new("python3").args(["-B", PEER, "probe", "127.0.0.1", port]).output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    let lines = |word| report.lines().filter(move |line| line.starts_with(word)).collect::<Vec<_>>();
    assert!(output.status.success() && lines("FAIL ").is_empty(), "{report}");
    // There is no call that takes updates.
    assert_eq!(lines("SKIP ").len(), 1, "{report}");
    assert!(lines("PASS ").len() >= 75, "{report}");
}
