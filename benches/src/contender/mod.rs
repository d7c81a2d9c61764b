//! Who is measured. Each contender moves bytes over loopback TCP, server and client on a current-thread Tokio runtime
//! of their own, with TCP_NODELAY.
//!
//! A new one needs a module with `serve` and `measure`, and its name here.

mod fluxar;
mod raw;
mod tonic;

use std::net::{SocketAddr, TcpListener};

use crate::Error;
use crate::load::{Load, Measured};

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// Nothing but the socket.
    Raw,
    /// This project.
    Fluxar,
    /// gRPC.
    Tonic,
    /// This project without sessions that outlive their link: for the part about these only.
    Fleeting,
}

impl Contender {
    /// Everyone; the one they are compared to comes first.
    pub(crate) const ALL: [Self; 3] = [Self::Raw, Self::Fluxar, Self::Tonic];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Fluxar => "fluxar",
            Self::Tonic => "tonic",
            Self::Fleeting => "fluxar-without-resume",
        }
    }

    /// What it is, for the reader of a table.
    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Raw => {
                "a Tokio echo of frames with a 4-byte length; whatever has arrived is answered with one write. Streams \
                 are such frames one behind the other, written 64 KiB at a time"
            }
            Self::Fluxar => "calls and streams of byte strings, through `Server`, `Client` and serde",
            Self::Tonic => "gRPC, unary and streaming, of messages with one `bytes` field",
            Self::Fleeting => "the same as `fluxar`, whose client does not offer to resume",
        }
    }

    pub(crate) fn from_name(name: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().chain([Self::Fleeting]).find(|contender| contender.name() == name);
        found.ok_or_else(|| format!("there is no contender {name}").into())
    }

    /// Serves every connection that comes, until an error.
    pub(crate) async fn serve(self, listener: TcpListener) -> Result<(), Error> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        match self {
            Self::Raw => raw::serve(listener).await,
            Self::Fluxar | Self::Fleeting => fluxar::serve(listener).await,
            Self::Tonic => tonic::serve(listener).await,
        }
    }

    /// Connects, and puts the load on the server.
    pub(crate) async fn measure(self, server: SocketAddr, load: Load) -> Result<Measured, Error> {
        match self {
            Self::Raw => raw::measure(server, load).await,
            Self::Fluxar => fluxar::measure(server, load, true).await,
            Self::Fleeting => fluxar::measure(server, load, false).await,
            Self::Tonic => tonic::measure(server, load).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::{Mode, Work};

    /// What a contender does under one load.
    async fn measured(contender: Contender, work: Work, payload: usize) -> Measured {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let load = Load { work, payload, warm_up: Duration::ZERO, measure: Duration::from_millis(20) };
        let measured = tokio::select! {
            served = contender.serve(listener) => panic!("{} stopped serving: {served:?}", contender.name()),
            measured = contender.measure(address, load) => measured.unwrap(),
        };
        assert!(measured.per_second > 0.0, "{} {load:?}", contender.name());
        assert!(measured.p99 >= measured.p50);
        measured
    }

    /// Every contender answers under every kind of load.
    #[tokio::test]
    async fn calls_are_answered() {
        for contender in Contender::ALL {
            for (in_flight, payload) in [(1, 0), (1, 64), (128, 64), (128, 1024)] {
                let measured = measured(contender, Work::Calls(in_flight), payload).await;
                assert_eq!(measured.p50 > 0, in_flight == 1);
            }
        }
    }

    /// Every contender streams, small items and large ones.
    #[tokio::test]
    async fn items_arrive() {
        for contender in Contender::ALL {
            for payload in [0, 64, 16 << 10] {
                for work in [Work::Download, Work::Upload] {
                    measured(contender, work, payload).await;
                }
            }
        }
    }

    #[tokio::test]
    async fn calls_are_answered_beside_a_stream() {
        for contender in [Contender::Fluxar, Contender::Tonic] {
            assert!(measured(contender, Work::CallsBesideDownload, 16 << 10).await.p50 > 0);
        }
    }

    #[tokio::test]
    async fn sessions_go_on_and_are_kept() {
        for contender in [Contender::Fluxar, Contender::Fleeting] {
            measured(contender, Work::Calls(128), 64).await;
            measured(contender, Work::Upload, 64).await;
        }
        assert!(measured(Contender::Fluxar, Work::CallsAcrossCuts, 64).await.p50 > 0);
        measured(Contender::Fluxar, Work::Detached, 64).await;
    }

    #[tokio::test]
    async fn published_messages_arrive() {
        for mode in [Mode::AtMostOnce, Mode::AtLeastOnce, Mode::ExactlyOnce] {
            for work in
                [Work::PublishDirect(mode), Work::PublishRelayed(mode, 1), Work::PublishRelayed(mode, 3)]
            {
                measured(Contender::Fluxar, work, 64).await;
                if mode == Mode::AtMostOnce {
                    measured(Contender::Raw, work, 64).await;
                }
            }
        }
    }
}
