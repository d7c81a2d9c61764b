//! What peers can make a process hold by publish and subscribe, counted by its allocator. One test at a time: they share
//! that count.

use fluxar::{Client, Code, Hub, Overflow, Qos, QueueLimits, Tokio};
use fluxar_tests::memory::{MIB, Meter, alone, settled};
use fluxar_tests::net::{Net, eventually};
use fluxar_tests::site::Site;
use fluxar_tests::topics::{answer_to, subscribed};
use fluxar_tests::verbs::Terms;
use fluxar_tests::wire::{Message, Wire, fresh_id};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// A server with this hub, a client at work, and the scripted peer.
async fn scene(hub: Hub) -> (Site, Client, Wire) {
    let site = Site::with(Net::Tcp, |builder| builder.hub(hub)).await;
    let client = site.client().await;
    works(&client).await;
    let wire = Wire::with(site.url(), Terms::topics()).await;
    (site, client, wire)
}

async fn works(client: &Client) {
    let mut messages = client.messages("honest.*").qos(Qos::ExactlyOnce).await.unwrap();
    client.publish("honest.news", &1).qos(Qos::ExactlyOnce).await.unwrap();
    messages.next().await.unwrap().ack().await.unwrap();
}

// spec: §12.3, §12.16, §17.2
#[test]
fn last_values_for_many_subscriptions_are_not_held_for_each() {
    alone(|| async {
        let hub = Hub::builder(Tokio).build();
        let (site, client, mut wire) = scene(hub.clone()).await;
        for number in 0..5000_u32 {
            hub.publish(&format!("a.{number}"), &number).qos(Qos::AtLeastOnce).retain().await.unwrap();
        }
        let before = settled(|| MEMORY.current_usage()).await;
        let mut refused = 0;
        let (peak, ()) = MEMORY
            .peak_of(async {
                for _ in 0..100 {
                    let subscription = Message::subscribe("a.>").qos(1).with("inflight", &1);
                    wire.send(&subscription).await;
                    let confirmation = answer_to(&mut wire, subscription.id).await;
                    if let Some(error) = confirmation.error {
                        assert_eq!((error.code, error.processed), (Code::RESOURCE_EXHAUSTED, Some(false)));
                        refused += 1;
                    }
                }
                works(&client).await;
            })
            .await;
        // 65,536 of them may wait, which is once all that there may be.
        assert!(peak < 24 * MIB, "{peak} bytes");
        assert!((80..90).contains(&refused), "{refused}");
        // At most once, there is nothing to wait for; nor where there are none.
        for subscription in [Message::subscribe("a.>"), Message::subscribe("b.>").qos(2)] {
            subscribed(&mut wire, &subscription).await;
        }
        drop(wire);
        eventually("only the honest one is left", || site.handle().peers().len() == 1).await;
        MEMORY.back_to(before, MIB).await;
        // Who takes them gets all of them.
        let mut all = client.messages("a.*").qos(Qos::AtLeastOnce).await.unwrap();
        for _ in 0..5000 {
            let message = all.next().await.unwrap();
            assert!(message.is_retained());
            message.ack().await.unwrap();
        }
    });
}

// spec: §12.7, §12.11, §17.2
#[test]
fn a_subscriber_that_takes_nothing_costs_its_queue() {
    alone(|| async {
        let queue = QueueLimits { items: 10_000, bytes: 2 * MIB, overflow: Overflow::DropOldest };
        let (site, client, mut wire) = scene(Hub::builder(Tokio).queue(queue).build()).await;
        let before = settled(|| MEMORY.current_usage()).await;
        for number in 0..4_u8 {
            let subscription = Message::subscribe("a.b").qos(number % 3).with("inflight", &3);
            subscribed(&mut wire, &subscription).await;
        }
        let (peak, ()) = MEMORY
            .peak_of(async {
                let text = "x".repeat(10_000);
                for _ in 0..2000 {
                    client.publish("a.b", &text).qos(Qos::AtLeastOnce).await.unwrap();
                }
            })
            .await;
        // The bytes of a message are the same for all of them; what is under way to the transport comes to that.
        assert!(peak < 2 * 2 * MIB + 2 * MIB, "{peak} bytes");
        drop(wire);
        eventually("only the honest one is left", || site.handle().peers().len() == 1).await;
        MEMORY.back_to(before, MIB).await;
        works(&client).await;
    });
}

// spec: §12.5, §12.9, §10.7, §17.2
#[test]
fn floods_of_messages_about_nothing_leave_nothing() {
    alone(|| async {
        let (site, client, wire) = scene(Hub::new(Tokio)).await;
        drop(wire);
        let floods: [(fn() -> Message, bool); 6] = [
            (|| Message::publication("a.b").qos(2).payload(&"x".repeat(500)), false),
            (|| Message::publication("a..b").payload(&"x".repeat(500)), false),
            (|| Message::ack(fresh_id()), false),
            (|| Message::delivery(fresh_id()).qos(2).payload(&"x".repeat(500)), false),
            (|| Message::release(fresh_id()), true),
            (|| Message::subscribe("a..b"), true),
        ];
        let before = settled(|| MEMORY.current_usage()).await;
        for (flood, ends) in floods {
            let (peak, ()) = MEMORY
                .peak_of(async {
                    let mut wire = Wire::with(site.url(), Terms::topics()).await;
                    for _ in 0..200 {
                        let some = (0..100).flat_map(|_| flood().frame()).collect::<Vec<u8>>();
                        // It may be cut off before all is sent.
                        if wire.try_send_bytes(&some).await.is_err() {
                            break;
                        }
                    }
                    if ends {
                        assert_eq!(wire.closed_for().await, Code::RESOURCE_EXHAUSTED);
                    }
                    works(&client).await;
                })
                .await;
            assert!(peak < 8 * MIB, "{peak} bytes of {:?}", flood());
            eventually("only the honest one is left", || site.handle().peers().len() == 1).await;
            MEMORY.back_to(before, MIB / 2).await;
        }
    });
}
