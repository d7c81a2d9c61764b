//! Where tests run: on both of Tokio's schedulers, over TCP and over Unix sockets.

use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};

/// However slow the machine is: what takes longer hangs.
pub const WATCHDOG: Duration = Duration::from_secs(60);

/// A scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    /// One thread.
    Current,
    /// Several.
    Multi,
}

/// A transport, and the addresses that a test has on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    /// TCP over the loopback interface.
    Tcp,
    /// Unix sockets.
    Unix,
}

impl Net {
    /// A URL to listen on that nobody else uses.
    pub fn url(self) -> String {
        match self {
            Self::Tcp => "tcp://127.0.0.1:0".into(),
            Self::Unix => format!("unix://{}", socket_path().display()),
        }
    }
}

/// A path that nobody else uses, and short enough for a socket.
pub fn socket_path() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("fluxar-{}-{number}.sock", std::process::id()))
}

/// Runs a test to its end, and checks that it leaves no task behind.
///
/// # Panics
///
/// Where the test panics, where it hangs, and where a task lives on without anybody to use it.
pub fn run<F: Future<Output = ()>>(flavor: Flavor, net: Net, test: impl FnOnce(Net) -> F) {
    let runtime = runtime(flavor);
    runtime.block_on(async {
        tokio::time::timeout(WATCHDOG, test(net)).await.expect("the test hangs");
        no_tasks_left().await;
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
}

/// A runtime to run a test on.
///
/// # Panics
///
/// Where the system does not let us have threads.
pub fn runtime(flavor: Flavor) -> Runtime {
    let mut builder = match flavor {
        Flavor::Current => Builder::new_current_thread(),
        Flavor::Multi => Builder::new_multi_thread(),
    };
    builder.worker_threads(2).enable_all().build().expect("a runtime")
}

/// Waits until every task of the current runtime has ended.
///
/// # Panics
///
/// Where some never do.
pub async fn no_tasks_left() {
    let metrics = Handle::current().metrics();
    let since = Instant::now();
    while metrics.num_alive_tasks() > 0 {
        assert!(since.elapsed() < WATCHDOG / 4, "{} tasks are left over", metrics.num_alive_tasks());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until `condition` holds; for what nobody announces, as counters.
///
/// # Panics
///
/// Where it never does.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < WATCHDOG / 2, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Makes tests of `async fn(Net)`s: each on every scheduler over every transport.
#[macro_export]
macro_rules! matrix {
    ($($name:ident)*) => {$(
        mod $name {
            use $crate::net::{Flavor, Net, run};

            #[test]
            fn tcp_current_thread() {
                run(Flavor::Current, Net::Tcp, super::$name);
            }

            #[test]
            fn tcp_multi_thread() {
                run(Flavor::Multi, Net::Tcp, super::$name);
            }

            #[test]
            fn unix_current_thread() {
                run(Flavor::Current, Net::Unix, super::$name);
            }

            #[test]
            fn unix_multi_thread() {
                run(Flavor::Multi, Net::Unix, super::$name);
            }
        }
    )*};
}

/// As [`matrix`], for what the transport makes no difference to: each on every scheduler, over TCP.
#[macro_export]
macro_rules! schedulers {
    ($($name:ident)*) => {$(
        mod $name {
            use $crate::net::{Flavor, Net, run};

            #[test]
            fn current_thread() {
                run(Flavor::Current, Net::Tcp, super::$name);
            }

            #[test]
            fn multi_thread() {
                run(Flavor::Multi, Net::Tcp, super::$name);
            }
        }
    )*};
}
