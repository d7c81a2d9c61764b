//! Who sends next of those that may have much to send (§2.4).

use crate::pattern::{Calls, Context, Outgoing, PubSub, Streams};

/// So many messages of calls go ahead of one of the others, at most.
const CALLS_IN_A_ROW: u8 = 16;

/// Calls overtake bulk, so that a call does not wait for a stream; but they do not starve it. Among the bulk, streams and
/// publications take turns.
#[derive(Debug, Default)]
pub(super) struct Turns {
    calls: u8,
    /// The last of the bulk was of a stream.
    streamed: bool,
}

impl Turns {
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
        self.calls = 0;
        let bulk = if self.streamed {
            pubsub
                .poll_bulk(cx)
                .map(|message| (message, false))
                .or_else(|| Some((streams.poll_bulk(cx)?, true)))
        } else {
            streams
                .poll_bulk(cx)
                .map(|message| (message, true))
                .or_else(|| Some((pubsub.poll_bulk(cx)?, false)))
        };
        match bulk {
            Some((message, streamed)) => {
                self.streamed = streamed;
                Some(message)
            }
            None => calls.poll_outgoing(cx),
        }
    }
}
