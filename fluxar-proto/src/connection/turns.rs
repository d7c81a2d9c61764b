//! Who sends next of those that may have much to send (§2.4).

use crate::pattern::{Calls, Context, Outgoing, PubSub, Streams};

/// So many messages of calls go ahead of one of the others, at most.
const CALLS_IN_A_ROW: u8 = 16;

/// So many messages that others wait for go ahead of bulk, at most: with the calls, 64.
const URGENT_IN_A_ROW: u8 = 48;

/// Calls overtake bulk, so that a call does not wait for a stream, and so does what others wait for; but they do not starve
/// it. Among the bulk, streams and publications take turns.
#[derive(Debug, Default)]
pub(super) struct Turns {
    calls: u8,
    urgent: u8,
    /// The last of the bulk was of a stream.
    streamed: bool,
}

impl Turns {
    /// A message goes ahead of calls and bulk.
    pub(super) fn note_urgent(&mut self) {
        self.urgent = self.urgent.saturating_add(1);
    }

    /// The bulk that goes ahead of what others wait for, because enough of that went ahead of it.
    pub(super) fn overdue(
        &mut self,
        streams: &mut Streams,
        pubsub: &mut PubSub,
        cx: &mut Context<'_>,
    ) -> Option<Outgoing> {
        if self.urgent < URGENT_IN_A_ROW { None } else { self.bulk(streams, pubsub, cx) }
    }

    /// The next message of calls, streams or publications.
    pub(super) fn next(
        &mut self,
        calls: &mut Calls,
        streams: &mut Streams,
        pubsub: &mut PubSub,
        cx: &mut Context<'_>,
    ) -> Option<Outgoing> {
        if self.calls < CALLS_IN_A_ROW
            && let Some(call) = calls.poll_outgoing(cx)
        {
            self.calls += 1;
            return Some(call);
        }
        self.bulk(streams, pubsub, cx).or_else(|| calls.poll_outgoing(cx))
    }

    fn bulk(&mut self, streams: &mut Streams, pubsub: &mut PubSub, cx: &mut Context<'_>) -> Option<Outgoing> {
        (self.calls, self.urgent) = (0, 0);
        let (message, streamed) = if self.streamed {
            pubsub
                .poll_bulk(cx)
                .map(|message| (message, false))
                .or_else(|| Some((streams.poll_bulk(cx)?, true)))
        } else {
            streams
                .poll_bulk(cx)
                .map(|message| (message, true))
                .or_else(|| Some((pubsub.poll_bulk(cx)?, false)))
        }?;
        self.streamed = streamed;
        Some(message)
    }
}
