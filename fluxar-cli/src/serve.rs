//! `fluxar serve`.

use std::future::Future;
use std::time::Duration;

use fluxar::{BindError, Server};

use crate::args::ServeArgs;
use crate::failure::{Exit, Failure, print};
use crate::{access, conformance, connect};

use self::signals::Signals;

pub(crate) async fn run(args: &ServeArgs) -> Result<(), Failure> {
    // Before anybody can know that we run.
    let mut signals = Signals::new().map_err(|error| Failure::usage(format_args!("no signals: {error}")))?;
    let server = listen(args)?.await?;
    if args.conformance {
        conformance::register(&server);
    }
    let (handle, addresses) = (server.server_handle(), server.addresses().to_vec());
    let serving = tokio::spawn(server.run());
    for address in addresses {
        // That nobody reads this is no reason not to serve.
        print(format_args!("listening on {address}")).unwrap_or_default();
    }
    signals.next().await;
    let left = async {
        handle.drain(Duration::from_millis(args.drain_ms)).await;
        serving.await
    };
    tokio::select! {
        served = left => match served {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::connection(error)),
            Err(error) => Err(Failure::connection(error)),
        },
        // Somebody is in a hurry.
        () = signals.next() => Err(Failure::silent(Exit::Interrupted)),
    }
}

/// Fails at once where the command line is wrong.
fn listen(args: &ServeArgs) -> Result<impl Future<Output = Result<Server, Failure>>, Failure> {
    let (first, others) = args.listen.split_first().map_or(("", &[][..]), |(first, others)| (first, others));
    let mut builder = Server::bind(first);
    for url in others {
        builder = builder.listen(url);
    }
    if !args.door.auth.is_empty() {
        builder = builder.authenticator(access::accounts(&args.door.auth)?);
    }
    for psk in &args.door.psk {
        builder = builder.psk(access::psk(psk)?);
    }
    if let Some(ms) = args.resume_ms {
        builder = builder.resume_for(Duration::from_millis(ms));
    }
    let builder = builder.configure(|config| {
        config.delivery_journal = if args.conformance { conformance::DELIVERY_JOURNAL } else { 0 };
        config.agent = Some(connect::AGENT.into());
        config.limits.heartbeat_ms = args.heartbeat_ms.unwrap_or(config.limits.heartbeat_ms);
        config.limits.max_message = args.max_message.unwrap_or(config.limits.max_message);
        config.limits.stream_window = args.stream_window.unwrap_or(config.limits.stream_window);
    });
    Ok(async {
        builder.build().await.map_err(|error| match error {
            BindError::Address(_) | BindError::WrongTransport(_) => Failure::usage(error),
            _ => Failure::connection(format_args!("cannot listen: {error}")),
        })
    })
}

/// The signals that end a server: SIGINT and SIGTERM.
#[cfg(unix)]
mod signals {
    use std::io;

    use tokio::signal::unix::{Signal, SignalKind, signal};

    pub(super) struct Signals {
        interrupt: Signal,
        terminate: Signal,
    }

    impl Signals {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Self {
                interrupt: signal(SignalKind::interrupt())?,
                terminate: signal(SignalKind::terminate())?,
            })
        }

        pub(super) async fn next(&mut self) {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
            }
        }
    }
}

/// The signal that ends a server: Ctrl-C.
#[cfg(windows)]
mod signals {
    use std::io;

    use tokio::signal::windows::{CtrlC, ctrl_c};

    pub(super) struct Signals(CtrlC);

    impl Signals {
        pub(super) fn new() -> io::Result<Self> {
            ctrl_c().map(Self)
        }

        pub(super) async fn next(&mut self) {
            self.0.recv().await;
        }
    }
}
