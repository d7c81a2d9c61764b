//! What a connection counts.

use core::time::Duration;

/// Counters since the connection began, and what is so at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Messages received.
    pub messages_in: u64,
    /// Messages handed to the transport.
    pub messages_out: u64,
    /// Bytes received in whole frames, length prefixes included.
    pub bytes_in: u64,
    /// Bytes handed to the transport, length prefixes included.
    pub bytes_out: u64,
    /// How often the session went on over a new link.
    pub resumed: u64,
    /// Messages kept until the peer says that it has them, now (§9.4).
    pub kept_messages: usize,
    /// The same in bytes.
    pub kept_bytes: usize,
    /// Calls made.
    pub calls_made: u64,
    /// Requests of the peer accepted.
    pub calls_served: u64,
    /// Requests of the peer that it cancelled before they were answered.
    pub cancelled: u64,
    /// Openings of the peer refused: over a limit, or of a kind that is not offered.
    pub refused: u64,
    /// Continuations dropped because what they continue is over, or their verb is unknown.
    pub dropped: u64,
    /// Updates dropped because the application did not take them fast enough.
    pub updates_dropped: u64,
    /// Streams opened.
    pub streams_opened: u64,
    /// Streams of the peer accepted.
    pub streams_served: u64,
    /// Streams of the peer that it cancelled before they were closed.
    pub streams_cancelled: u64,
    /// Messages published.
    pub published: u64,
    /// Publications of the peer that came, without retransmissions of what is held.
    pub publications: u64,
    /// Publications of the peer dropped, or answered `nack`, because the application did not take them fast enough.
    pub publications_dropped: u64,
    /// Deliveries sent to subscriptions of the peer, retransmissions included.
    pub deliveries_sent: u64,
    /// Deliveries that came on subscriptions of ours.
    pub deliveries: u64,
    /// Calls of ours without an outcome, or with one that was not taken yet.
    pub calls_in_flight: usize,
    /// Requests of the peer that have a slot now.
    pub requests_running: usize,
    /// Streams of ours that are not closed.
    pub streams_open: usize,
    /// Streams of the peer that have a slot now.
    pub streams_serving: usize,
    /// Bytes of stream data that wait for the transport, or for credit, now.
    pub stream_queued_bytes: usize,
    /// Bytes of stream data that wait for the application now.
    pub stream_held_bytes: usize,
    /// Subscriptions of ours.
    pub subscriptions: usize,
    /// Subscriptions of the peer.
    pub subscribers: usize,
    /// What publications of ours count for that are queued or not settled, or whose fate was not taken, in bytes.
    pub publish_bytes: usize,
    /// Bytes that deliveries to subscriptions of the peer hold which are queued or not settled now. What they share with
    /// others counts in full.
    pub delivery_bytes: usize,
    /// Bytes that publications hold which wait for the application now.
    pub held_publication_bytes: usize,
    /// Bytes that the calls, answers and updates queued for sending count for now, and the idempotent calls that are kept until
    /// they are answered.
    pub queued_bytes: usize,
    /// Bytes that the requests which have a slot count for now.
    pub request_bytes: usize,
    /// Bytes of updates that wait for the application now.
    pub update_bytes: usize,
    /// The last round-trip time that a ping measured.
    pub rtt: Option<Duration>,
}

impl Stats {
    /// What the connection holds now in all, in bytes, of messages that came or are to be sent: what several connections
    /// share counts in full, and what is kept and still to be settled counts for both.
    pub fn held_bytes(&self) -> usize {
        let ours = self.kept_bytes + self.queued_bytes + self.stream_queued_bytes + self.publish_bytes;
        let theirs = self.request_bytes + self.update_bytes + self.stream_held_bytes;
        ours + theirs + self.held_publication_bytes + self.delivery_bytes
    }
}
