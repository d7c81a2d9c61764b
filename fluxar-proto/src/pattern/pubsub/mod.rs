//! Publish and subscribe (§12).

use bytes::Bytes;

use super::{Context, OpenIds, Outgoing};
use crate::message::Envelope;
use crate::session::{ConnectionError, Limits};
use crate::time::Instant;

/// What happens to subscriptions, publications and deliveries.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PubSubEvent {}

/// The local limits.
#[derive(Clone, Debug)]
pub(crate) struct PubSubLimits {}

/// All subscriptions, publications and deliveries of one connection, in both directions.
#[derive(Debug)]
pub(crate) struct PubSub {
    on: bool,
}

impl PubSub {
    pub(crate) fn new(_limits: PubSubLimits) -> Self {
        Self { on: false }
    }

    pub(crate) fn start(&mut self, _on: bool, _peer: &Limits) {}

    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// Whether an opening with the id of what is open is a retransmission of that (§5.5).
    pub(crate) fn is_again(&self, _envelope: &Envelope<'_>, _open: &OpenIds) -> bool {
        false
    }

    pub(crate) fn handle(
        &mut self,
        _envelope: &Envelope<'_>,
        _frame: &Bytes,
        _cx: &mut Context<'_>,
    ) -> Result<(), ConnectionError> {
        Ok(())
    }

    pub(crate) fn poll_urgent(&mut self, _cx: &mut Context<'_>) -> Option<Outgoing> {
        None
    }

    pub(crate) fn poll_bulk(&mut self, _cx: &mut Context<'_>) -> Option<Outgoing> {
        None
    }

    pub(crate) fn wants_transmit(&self) -> bool {
        false
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        None
    }

    pub(crate) fn handle_timeout(&mut self, _now: Instant, _open: &mut OpenIds) {}

    pub(crate) fn poll_event(&mut self) -> Option<PubSubEvent> {
        None
    }

    pub(crate) fn wind_up(&mut self, _why: &ConnectionError, _open: &mut OpenIds) {}

    pub(crate) fn terminate(&mut self, _why: &ConnectionError, _open: &mut OpenIds) {}
}
