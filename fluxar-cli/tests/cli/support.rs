//! Running the command, and peers for it.

use std::cell::Cell;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use fluxar::Server;
use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
use tokio::sync::Notify;

/// Far longer than anything here takes; a test that needs it has failed.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// What a command that has ended said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) exit: Option<i32>,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    /// Asserts that all went well and nothing but this line was said.
    #[track_caller]
    pub(crate) fn is(&self, line: &str) {
        assert_eq!((self.exit, self.text(), self.err.as_str()), (Some(0), format!("{line}\n").as_str(), ""));
    }

    /// Asserts that it failed with this exit code, with this one line on standard error, and nothing else.
    #[track_caller]
    pub(crate) fn failed(&self, exit: i32, line: &str) {
        assert_eq!(
            (self.exit, self.text(), self.err.as_str()),
            (Some(exit), "", format!("error: {line}\n").as_str())
        );
    }

    /// As [`failed`](Self::failed), where the line goes on with what only the system knows.
    #[track_caller]
    pub(crate) fn failed_somehow(&self, exit: i32, start: &str) {
        assert!(self.err.starts_with(&format!("error: {start}")), "{}", self.err);
        let line = self.err.strip_prefix("error: ").unwrap().trim_end();
        assert!(line.len() > start.len());
        self.failed(exit, line);
    }
}

/// A command that runs, or has run.
pub(crate) struct Running {
    child: Child,
    out: Option<BufReader<ChildStdout>>,
}

impl Running {
    pub(crate) fn start<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fluxar"));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::of(&mut command)
    }

    /// The same, with standard error on a terminal.
    pub(crate) fn start_on_terminal<S: AsRef<OsStr>>(
        arguments: impl IntoIterator<Item = S>,
    ) -> (Self, Screen) {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
        let user = std::fs::File::options().write(true).open(name).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_fluxar"));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(user);
        (Self::of(&mut command), Screen::new(terminal.into()))
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let out = child.stdout.take().map(BufReader::new);
        Self { child, out }
    }

    /// The next line of standard output, without its end.
    pub(crate) fn line(&mut self) -> String {
        let mut out = self.out.take().unwrap();
        let (out, line) = within(move || {
            let mut line = String::new();
            out.read_line(&mut line).unwrap();
            (out, line)
        });
        self.out = Some(out);
        assert!(line.ends_with('\n'), "the output has ended: {line:?}");
        line.trim_end().to_owned()
    }

    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Nobody reads what it says any more.
    pub(crate) fn close_output(&mut self) {
        drop(self.out.take());
    }

    /// Writes a line to its standard input.
    pub(crate) fn write_line(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Waits for its end while its standard input stays open.
    pub(crate) fn end_with_open_input(mut self) -> Said {
        let _held = self.child.stdin.take();
        self.end_of(|| ())
    }

    /// Hands it all of its standard input, and waits for its end.
    pub(crate) fn end_with_input(mut self, input: &[u8]) -> Said {
        let (mut stdin, input) = (self.child.stdin.take().unwrap(), input.to_vec());
        // It may end without having read all.
        self.end_of(move || drop(stdin.write_all(&input)))
    }

    /// Waits for its end beside `write`.
    fn end_of(mut self, write: impl FnOnce() + Send + 'static) -> Said {
        let (mut out, mut err) = (self.out.take(), self.child.stderr.take());
        within(move || {
            let writing = std::thread::spawn(write);
            let reading = std::thread::spawn(move || {
                let mut bytes = Vec::new();
                out.as_mut().map(|out| out.read_to_end(&mut bytes).unwrap());
                bytes
            });
            let mut text = String::new();
            err.as_mut().map(|err| err.read_to_string(&mut text).unwrap());
            writing.join().unwrap();
            let out = reading.join().unwrap();
            let exit = ExitStatus::code(&self.child.wait().unwrap());
            Said { exit, out, err: text }
        })
    }

    pub(crate) fn end(self) -> Said {
        self.end_with_input(b"")
    }
}

/// A test that fails leaves nothing behind that runs.
impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What a terminal shows.
pub(crate) struct Screen {
    pieces: mpsc::Receiver<String>,
    shown: Cell<String>,
}

impl Screen {
    fn new(mut terminal: std::fs::File) -> Self {
        let (sender, pieces) = mpsc::channel();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // It fails where nobody writes any more.
            while let Ok(len @ 1..) = terminal.read(&mut piece)
                && sender.send(String::from_utf8_lossy(&piece[..len]).into_owned()).is_ok()
            {}
        });
        Self { pieces, shown: Cell::default() }
    }

    /// Waits until it has shown this text.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str) {
        let mut shown = self.shown.take();
        while !shown.contains(text) {
            shown += &self.pieces.recv_timeout(LONG).expect(&shown);
        }
        self.shown.set(shown);
    }

    /// All that it has shown once nobody writes to it any more.
    pub(crate) fn to_end(&self) -> String {
        self.pieces.iter().fold(self.shown.take(), |shown, piece| shown + &piece)
    }
}

/// What `work` comes to; a panic where it takes for ever.
fn within<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, outcome) = mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    outcome.recv_timeout(LONG).expect("it takes for ever")
}

/// Runs the command to its end.
pub(crate) fn fluxar<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Said {
    Running::start(arguments).end()
}

/// A conformance peer.
pub(crate) struct Conformance {
    pub(crate) running: Running,
    pub(crate) url: String,
}

impl Conformance {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    pub(crate) fn with(switches: &[&str]) -> Self {
        let listen = ["serve", "--conformance", "--listen", "tcp://127.0.0.1:0"];
        let mut running = Running::start(listen.iter().chain(switches));
        let line = running.line();
        let url = line.strip_prefix("listening on ").unwrap().to_owned();
        Self { running, url }
    }

    pub(crate) fn call(&self, arguments: &[&str]) -> Said {
        fluxar(["call", &self.url].iter().chain(arguments))
    }
}

/// A server in this process, for what the conformance peer does not do; and its URL.
pub(crate) async fn serve(register: impl FnOnce(&Server)) -> String {
    let server = Server::bind("tcp://127.0.0.1:0").build().await.unwrap();
    register(&server);
    let url = server.url();
    tokio::spawn(server.run());
    url
}

/// Runs the command to its end beside the tasks of this test.
pub(crate) async fn fluxar_beside<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Said {
    let running = Running::start(arguments);
    tokio::task::spawn_blocking(move || running.end()).await.unwrap()
}

/// Tells that a handler is gone.
pub(crate) struct NotifyOnDrop(pub(crate) Arc<Notify>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// A directory that is removed in the end. Its path is short, as that of a Unix socket has to be.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("fluxar-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A file of this content, as a command takes it: `@PATH`.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        format!("@{}", path.display())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}
