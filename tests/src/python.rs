//! The peer in another language, `interop/peer.py`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

const PEER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/interop/peer.py");

/// Whether there is a Python to run it; says so where there is none.
pub fn has_python() -> bool {
    let found = Command::new("python3").arg("--version").output().is_ok();
    if !found {
        println!("skipped: there is no python3");
    }
    found
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.arg("-B").arg(PEER).args(words).stdin(Stdio::null());
    command
}

/// Runs a command of peer.py against the server at `port` to its end: its exit code, and what it prints.
///
/// # Panics
///
/// Where it cannot be run, or is killed.
pub async fn peer(name: &str, port: &str, words: &[&str]) -> (i32, String) {
    let mut command = command(&[&[name, "127.0.0.1", port], words].concat());
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
    let output = output.expect("peer.py runs");
    print!("{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code().expect("an exit code"), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// peer.py as a server, for as long as this lives.
#[derive(Debug)]
pub struct PythonServer {
    child: Child,
    url: String,
}

impl PythonServer {
    /// Starts it.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts it with more on its command line.
    ///
    /// # Panics
    ///
    /// Where it does not say that it listens.
    pub fn with(words: &[&str]) -> Self {
        let mut command = command(&[&["serve", "0"], words].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("peer.py runs");
        let mut port = String::new();
        let out = child.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut port).expect("its port");
        Self { child, url: format!("tcp://127.0.0.1:{}", port.trim()) }
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The port that it listens on.
    pub fn port(&self) -> &str {
        self.url.rsplit(':').next().unwrap_or_default()
    }
}

impl Drop for PythonServer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
