//! What an application may set of a connection.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::pattern::{CallLimits, PubSubLimits, QueueLimits, StreamLimits};
use crate::session::{Limits, Rates, StoreLimits, cut_agent, feature};

/// The settings of a connection; share one behind an `Arc` among all connections that have the same.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// What this side calls itself in the handshake, of which 255 bytes are told. Default `fluxar-rs/VERSION`.
    pub agent: Option<String>,
    /// Whether streams are offered and accepted (§11). Default true.
    pub stream: bool,
    /// Whether publish/subscribe is offered and accepted (§12). Default true.
    pub pubsub: bool,
    /// What this side announces that it is ready to receive. Values outside their range count as its nearest end.
    pub limits: Limits,
    /// How long the handshake may take. Default 10 s.
    pub handshake_timeout: Duration,
    /// How long a closing connection tries to send its last messages. Default 5 s.
    pub close_timeout: Duration,
    /// How long a connection that this side drains goes on where its `drain` has no deadline (§8.6). Default 30 s.
    pub drain_timeout: Duration,
    /// The longest that a request may take: a longer deadline of the caller, or none, is cut to it (§10.5). Default: none.
    pub max_deadline: Option<Duration>,
    /// Bytes of payload queued for sending beyond which new calls and updates are `Blocked`. Default 1 MiB.
    pub send_buffer: usize,
    /// Bytes held for running requests, metadata included, beyond which further ones are refused with
    /// `resource_exhausted`; one is always admitted. The same holds, apart from those, for the openings of running streams.
    /// Default 16 MiB.
    pub request_bytes: usize,
    /// Updates held for the application, per call; beyond it the oldest is dropped. Default 64.
    pub updates_per_call: usize,
    /// Bytes of updates held for the application, per connection; beyond it updates are dropped. Default 4 MiB.
    pub update_bytes: usize,
    /// Bytes of data queued for sending on one stream beyond which more is `Blocked` there; one item is always admitted.
    /// Default 64 KiB.
    pub stream_buffer: usize,
    /// The window of a stream grows with what the path holds, but not beyond this, in bytes; nor do the windows of all
    /// streams of a connection together grow by more than this (§11.5). Default 16 MiB.
    pub max_stream_window: u32,
    /// Bytes held for publications of ours, queued or unsettled, beyond which new ones are `Blocked`. Default 4 MiB.
    pub publish_buffer: usize,
    /// A message that is not acknowledged for so long is sent again (§12.8). Default 30 s.
    pub ack_timeout: Duration,
    /// How often a message is sent until it is given up (§12.8); 0 counts as 1. Default 5.
    pub attempts: u32,
    /// What is held of the peer's publications until it is polled. With acknowledgement, what is beyond that is answered
    /// `nack`, whatever `overflow` says. Default: as [`QueueLimits`].
    pub held_publications: QueueLimits,
    /// How many of the latest deliveries to the peer are remembered for
    /// [`delivery_journal`](crate::Connection::delivery_journal): a tool for tests. Default 0.
    pub delivery_journal: usize,
    /// As responder: whether there is somebody to judge fresh credentials, which come as
    /// [`AuthOffered`](crate::Event::AuthOffered). Otherwise they are answered `unimplemented` (§8.5). Default false.
    pub authenticates: bool,
    /// Whether credentials may travel in clear, over transports that are not confidential (§6.11). Default false.
    pub clear_auth: bool,
    /// Whether sessions that survive the loss of their link are offered and accepted (§9). Default true.
    pub resume: bool,
    /// As responder: how long a session is kept without a link; zero: not at all (§9.1). Default 60 s.
    pub resume_time: Duration,
    /// Messages kept until the peer says that it has handled them; with more, sending waits (§9.4). At least 512;
    /// default 16,384.
    pub resume_messages: usize,
    /// The same in bytes. At least 1 MiB; default 16 MiB.
    pub resume_bytes: usize,
    /// As initiator: the driver brings [new links](crate::Connection::reconnect) after a loss. Where a session cannot go on, the
    /// connection then waits for a fresh one instead of closing. Default false.
    pub reconnect: bool,
    /// How much the peer may say per time, and what happens beyond that (§15.4). Default: as much as it likes.
    pub rates: Rates,
    /// How many cancels and refused openings of the peer are borne at once (§10.7). Default 10,000.
    pub misuse_capacity: u32,
    /// How many more of them are borne each second. Default 2,000.
    pub misuse_per_second: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            agent: Some(concat!("fluxar-rs/", env!("CARGO_PKG_VERSION")).into()),
            stream: true,
            pubsub: true,
            limits: Limits::default(),
            handshake_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(30),
            max_deadline: None,
            send_buffer: 1 << 20,
            request_bytes: 16 << 20,
            updates_per_call: 64,
            update_bytes: 4 << 20,
            stream_buffer: 64 << 10,
            max_stream_window: 16 << 20,
            publish_buffer: 1 << 20,
            ack_timeout: Duration::from_secs(30),
            attempts: 5,
            held_publications: QueueLimits::default(),
            delivery_journal: 0,
            authenticates: false,
            clear_auth: false,
            resume: true,
            resume_time: Duration::from_secs(60),
            resume_messages: 16_384,
            resume_bytes: 16 << 20,
            reconnect: false,
            rates: Rates::default(),
            misuse_capacity: 10_000,
            misuse_per_second: 2_000,
        }
    }
}

impl Config {
    /// The limits as they are announced and enforced: within their ranges.
    pub(super) fn limits(&self) -> Limits {
        self.limits.clamped()
    }

    /// The agent as it is announced: at most 255 bytes.
    pub(super) fn agent(&self) -> Option<String> {
        self.agent.as_deref().map(cut_agent).map(String::from)
    }

    /// The features that are offered.
    pub(super) fn features(&self) -> Vec<String> {
        let features =
            [(self.stream, feature::STREAM), (self.pubsub, feature::PUBSUB), (self.resume, feature::RESUME)];
        features.into_iter().filter(|(on, _)| *on).map(|(_, name)| name.into()).collect()
    }

    /// Those of the features offered that this side has too, in the order of the offer (§6.6).
    pub(super) fn choose(&self, offered: &[String]) -> Vec<String> {
        let ours = self.features();
        offered.iter().filter(|name| ours.contains(name)).cloned().collect()
    }

    pub(super) fn store_limits(&self) -> StoreLimits {
        StoreLimits::new(self.resume_messages, self.resume_bytes)
    }

    pub(super) fn call_limits(&self) -> CallLimits {
        CallLimits {
            max_calls: self.limits.max_calls as usize,
            max_deadline: self.max_deadline,
            send_buffer: self.send_buffer,
            request_bytes: self.request_bytes,
            updates_per_call: self.updates_per_call,
            update_bytes: self.update_bytes,
            repeats: self.reconnect,
        }
    }

    pub(super) fn stream_limits(&self) -> StreamLimits {
        StreamLimits {
            max_streams: self.limits.max_streams as usize,
            window: self.limits().stream_window,
            max_window: self.max_stream_window.min(i32::MAX as u32),
            max_deadline: self.max_deadline,
            send_buffer: self.stream_buffer.max(1),
            opening_bytes: self.request_bytes,
        }
    }

    pub(super) fn pubsub_limits(&self) -> PubSubLimits {
        PubSubLimits {
            max_subscriptions: self.limits.max_subscriptions as usize,
            max_inflight: self.limits.max_inflight,
            publish_buffer: self.publish_buffer,
            held_publications: self.held_publications,
            ack_timeout: self.ack_timeout,
            attempts: self.attempts,
            misuse_capacity: self.misuse_capacity,
            delivery_journal: self.delivery_journal,
        }
    }
}
