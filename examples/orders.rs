//! A work queue: every order is worked on exactly once, although a worker crashes in the middle of its work.
//!
//! The shop publishes with `Qos::ExactlyOnce`: an order is not lost on its way, and not doubled by a repetition. The
//! workers are a group: each order goes to one of them. What a worker had not accepted when it crashed goes to another.
//! "Once" cannot outlive the worker that promised it, so such an order is marked as a possible duplicate, and only then
//! the next worker looks whether it was booked before.
//!
//! `cargo run --example orders`

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fluxar::{Client, Message, Qos, Reconnect, Server};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

/// How many orders there are, and how many the worker that crashes takes before it does.
const ORDERS: u32 = 300;
const BEFORE_THE_CRASH: u32 = 20;

/// How long an order takes.
const WORK: Duration = Duration::from_millis(1);

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    number: u32,
    cents: u64,
}

/// Where orders are booked: a database, in a real shop. Who has booked which, by the order's number.
#[derive(Clone, Default)]
struct Till(Arc<Mutex<BTreeMap<u32, Vec<&'static str>>>>);

impl Till {
    fn book(&self, order: &Order, worker: &'static str) {
        self.0.lock().expect("nobody panics").entry(order.number).or_default().push(worker);
    }

    fn has(&self, order: &Order) -> bool {
        self.0.lock().expect("nobody panics").contains_key(&order.number)
    }

    fn len(&self) -> usize {
        self.0.lock().expect("nobody panics").len()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let server = Server::bind("tcp://127.0.0.1:0").build().await?;
    let (url, hub, handle) = (server.url(), server.hub().clone(), server.server_handle());
    let serving = tokio::spawn(server.run());
    let till = Till::default();

    // Three workers, of which one will crash.
    let mut workers = Vec::new();
    for name in ["anna", "bert"] {
        workers.push(tokio::spawn(work(Client::connect(&url).build().await?, name, till.clone())));
    }
    // Whoever crashes does not come back for what it had: others need not wait for that.
    let carl = Client::connect(&url).reconnect(Reconnect::off()).build().await?;
    let crashing = tokio::spawn(crash(carl, till.clone()));
    // Orders for which no worker is there yet would be accepted, and kept for nobody.
    while hub.stats().subscriptions < 5 {
        sleep(Duration::from_millis(1)).await;
    }
    println!("hub      three workers are there");

    let shop = Client::connect(&url).build().await?;
    for number in 0..ORDERS {
        let order = Order { number, cents: 100 * u64::from(number) };
        shop.publish("orders.created", &order).qos(Qos::ExactlyOnce).await?;
    }
    println!("shop     {ORDERS} orders are accepted by the hub");

    let (held, unfinished) = crashing.await??;
    println!("carl     has crashed with {held} orders in hand; one of them was booked, but not accepted");
    while till.len() < ORDERS as usize {
        sleep(Duration::from_millis(1)).await;
    }
    shop.publish("orders.done", &()).qos(Qos::AtLeastOnce).await?;
    for worker in workers {
        let (name, booked, recognized) = worker.await??;
        println!("{name:<8} booked {booked}, recognized {recognized} as booked before");
    }
    check(&till, unfinished);
    shop.shut_down().await;
    handle.stop();
    Ok(serving.await??)
}

/// Works until all is done. Returns how many orders were booked, and how many turned out to be booked already.
async fn work(
    client: Client,
    name: &'static str,
    till: Till,
) -> Result<(&'static str, u32, u32), fluxar::Error> {
    let mut orders = client.messages("orders.created").group("workers").inflight(8).await?;
    let mut done = client.messages("orders.done").await?;
    let (mut booked, mut recognized) = (0, 0);
    loop {
        let message: Message = tokio::select! {
            message = orders.next() => match message {
                Some(message) => message,
                None => break,
            },
            _ = done.next() => break,
        };
        let order: Order = message.payload()?;
        sleep(WORK).await;
        // No look at the till is needed for what has certainly not come before.
        if message.is_duplicate() && till.has(&order) {
            recognized += 1;
        } else {
            till.book(&order, name);
            booked += 1;
        }
        message.ack().await.map_err(|error| error.error().clone())?;
    }
    drop((orders, done));
    client.shut_down().await;
    Ok((name, booked, recognized))
}

/// Works for a while, and crashes at the worst moment: an order is booked, and not accepted yet. Returns how many orders
/// it had in hand then, and which one was booked.
async fn crash(client: Client, till: Till) -> Result<(u64, u32), fluxar::Error> {
    let mut orders = client.messages("orders.created").group("workers").inflight(8).await?;
    let mut count = 0;
    loop {
        let message = orders.next().await.ok_or_else(|| fluxar::Error::unavailable("no orders"))?;
        let order: Order = message.payload()?;
        sleep(WORK).await;
        till.book(&order, "carl");
        count += 1;
        if count == BEFORE_THE_CRASH {
            let held = orders.stats().items as u64 + 1;
            client.hang_up();
            client.closed().await;
            return Ok((held, order.number));
        }
        message.ack().await.map_err(|error| error.error().clone())?;
    }
}

/// Nothing is lost, and nothing is there twice.
fn check(till: &Till, unfinished: u32) {
    let booked = till.0.lock().expect("nobody panics");
    let numbers = booked.keys().copied().collect::<Vec<_>>();
    assert_eq!(numbers, (0..ORDERS).collect::<Vec<_>>(), "nothing is lost");
    for (number, by) in booked.iter() {
        assert_eq!(by.len(), 1, "order {number} was booked by {by:?}");
    }
    assert_eq!(booked[&unfinished], ["carl"]);
    println!("till     all {ORDERS} orders are booked, each exactly once");
}
