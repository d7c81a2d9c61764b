//! What the conformance peer does on topics when it is asked to. Otherwise it is a hub as every server is.

use fluxar::{DeliveryRecord, Error, HandlerError, Hub, PublishError, Qos, Raw, Request, Server};

use super::{Arguments, invalid};
use crate::notation;

/// Deliveries that are remembered for each connection.
pub(super) const REMEMBERED: usize = 1 << 16;

/// Deliveries on a topic that are told of.
const TOLD: usize = 1024;

/// Registers the calls that are about topics.
pub(super) fn register(server: &Server) {
    let hub = server.hub().clone();
    server.handle("test.emit", move |request: Request| emit(request, hub.clone()));
    server.handle("test.deliveries", deliveries);
}

/// What was delivered to the caller on a topic, and what it said to that.
async fn deliveries(request: Request) -> Result<Raw, HandlerError> {
    let topic = Arguments::of(&request.raw())?.require::<String>("topic")?;
    let journal = request.peer().delivery_journal();
    let mut latest =
        journal.iter().rev().filter(|record| *record.topic == *topic).take(TOLD).collect::<Vec<_>>();
    latest.reverse();
    let told = latest.iter().map(|DeliveryRecord { acked, attempts, .. }| {
        format!("{{\"acked\": {acked}, \"attempts\": {attempts}}}")
    });
    let array = format!("[{}]", told.collect::<Vec<_>>().join(", "));
    Ok(Raw::new(notation::parse(&array)?)?)
}

/// Publishes numbers at the hub.
async fn emit(request: Request, hub: Hub) -> Result<u64, HandlerError> {
    let arguments = Arguments::of(&request.raw())?;
    let (topic, n) = (arguments.require::<String>("topic")?, arguments.require::<u64>("n")?);
    let qos = match arguments.get::<u64>("qos")? {
        None | Some(0) => Qos::AtMostOnce,
        Some(1) => Qos::AtLeastOnce,
        Some(2) => Qos::ExactlyOnce,
        Some(_) => return Err(invalid("`qos` is 0, 1 or 2").into()),
    };
    let retain = arguments.get::<bool>("retain")?.unwrap_or_default();
    for number in 0..n {
        let publish = hub.publish(&topic, &number).qos(qos);
        let publish = if retain { publish.retain() } else { publish };
        publish.await.map_err(|error| of_all(number, &error))?;
        // So that the connections get their turn.
        tokio::task::coop::consume_budget().await;
    }
    Ok(n)
}

/// Why not all were published.
fn of_all(published: u64, error: &PublishError) -> Error {
    let error = error.error();
    Error::new(error.code, error.message.clone()).with_processed(published > 0)
}
