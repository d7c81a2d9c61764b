//! The words that the protocol itself uses: verbs (§5.18) and well-known `meta` keys (§5.10).

/// The targets of messages with a `ref`, and of control messages.
pub mod verb {
    /// hello: the initiator's proof.
    pub const PROOF: &str = "proof";
    /// call: feedback or progress while the call is open, either way.
    pub const UPDATE: &str = "update";
    /// call: the caller no longer waits. stream: either side ends it at once.
    pub const CANCEL: &str = "cancel";
    /// stream: an array of items, each of which is one data item.
    pub const ITEMS: &str = "items";
    /// stream: the sender's direction is over.
    pub const END: &str = "end";
    /// stream: asks the other side to stop sending data for now.
    pub const PAUSE: &str = "pause";
    /// stream: asks the other side to go on sending data.
    pub const RESUME: &str = "resume";
    /// stream: lets the other side send that many bytes more.
    pub const CREDIT: &str = "credit";
    /// message: its receiver has taken responsibility for it.
    pub const ACK: &str = "ack";
    /// message: its receiver could not handle it.
    pub const NACK: &str = "nack";
    /// message: its sender will not send it again.
    pub const RELEASE: &str = "release";
    /// message: its receiver has forgotten it.
    pub const COMPLETE: &str = "complete";
    /// control: are you there?
    pub const PING: &str = "ping";
    /// control: fresh credentials.
    pub const AUTH: &str = "auth";
    /// control: open nothing more.
    pub const DRAIN: &str = "drain";
    /// control: the end of link and session.
    pub const CLOSE: &str = "close";
    /// control: how many counted messages have been handled.
    pub const HANDLED: &str = "handled";
    /// control: the last frame under this key.
    pub const REKEY: &str = "rekey";
}

/// Well-known keys of `meta`.
pub mod key {
    /// uint: milliseconds left for a call or a stream when the message was encoded.
    pub const TIMEOUT_MS: &str = "timeout_ms";
    /// text: W3C Trace Context, the parent.
    pub const TRACEPARENT: &str = "traceparent";
    /// text: W3C Trace Context, the vendors' part.
    pub const TRACESTATE: &str = "tracestate";
    /// uint 0, 1 or 2: the quality of service; absent means 0.
    pub const QOS: &str = "qos";
    /// text: the topic of a delivery whose filter has a wildcard.
    pub const TOPIC: &str = "topic";
    /// bool: true on a retransmission.
    pub const DUP: &str = "dup";
    /// uint, from 1: which attempt this is, or which one a `nack` answers.
    pub const ATTEMPT: &str = "attempt";
    /// uint: the opener's receive window of a stream, in bytes.
    pub const WINDOW: &str = "window";
    /// uint: how many unreleased messages a subscriber takes.
    pub const INFLIGHT: &str = "inflight";
    /// uint: the sequence number of a message.
    pub const SEQ: &str = "seq";
    /// bool: true where a publication is to be kept as the last value of its topic.
    pub const RETAIN: &str = "retain";
    /// bool: true where a delivery is the last value of its topic, from before the subscription.
    pub const RETAINED: &str = "retained";
    /// text: the group of subscriptions of which one gets each message.
    pub const GROUP: &str = "group";
    /// bool: false where the sender asks for no compression.
    pub const COMPRESS: &str = "compress";
}
