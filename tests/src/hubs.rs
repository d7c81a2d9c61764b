//! A hub whose honest clients must not notice what the others do.

use fluxar::{Code, Fate, Hub, Overflow, Peer, Qos, QueueLimits, ServerBuilder, Tokio};

use crate::honest::Field;
use crate::net::{Net, eventually};
use crate::topics::answer_to;
use crate::verbs::Terms;
use crate::wire::{Message, Wire};

/// A hub with its honest publisher and subscriber, and how the others are to come.
pub struct Topics(pub Field);

impl Topics {
    /// Opens it, after `change`.
    pub async fn open(net: Net, change: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        Self(Field::open(net, change).await)
    }

    /// A scripted peer that has topics.
    pub async fn wire(&self) -> Wire {
        Wire::with(self.0.site.url(), Terms::topics()).await
    }

    /// The server's hub.
    pub fn hub(&self) -> Hub {
        self.0.site.handle().hub().clone()
    }

    /// The server's side of the one connection that is not the honest one.
    ///
    /// # Panics
    ///
    /// Where it never comes to exactly one.
    pub async fn peer(&self) -> Peer {
        eventually("the hostile one is there", || self.0.site.handle().peers().len() == 2).await;
        self.0.site.handle().peers().remove(1)
    }

    /// What a connection is closed for on which all of `messages` are said.
    ///
    /// # Panics
    ///
    /// Where it is not.
    pub async fn verdict(&self, messages: &[Message]) -> Code {
        let mut wire = self.wire().await;
        wire.send_bytes(&messages.iter().flat_map(Message::frame).collect::<Vec<u8>>()).await;
        wire.closed_for().await
    }

    /// Nobody is harmed, and no subscription of the others is left.
    ///
    /// # Panics
    ///
    /// Where something of that is not so.
    pub async fn unharmed(self) {
        let hub = self.hub();
        eventually("no subscription is left", || hub.stats().subscriptions == 0).await;
        assert_eq!(hub.stats().waiting, 0);
        let late = self.0.site.client().await;
        let mut messages = late.messages("late.*").qos(Qos::ExactlyOnce).await.expect("a hub that works");
        let fate = late.publish("late.news", &7).qos(Qos::ExactlyOnce).await;
        assert_eq!(fate, Ok(Fate::Accepted { attempts: 1 }));
        assert_eq!(messages.next().await.expect("a message").payload::<u8>(), Ok(7));
        drop((messages, late));
        self.0.unharmed().await;
    }
}

/// A hub whose subscribers' queues have these bounds.
pub fn hub_with(limits: QueueLimits) -> Hub {
    Hub::builder(Tokio).queue(limits).attempts(2).build()
}

/// Bounds on items.
pub fn few(items: usize, overflow: Overflow) -> QueueLimits {
    QueueLimits { items, bytes: 1 << 20, overflow }
}

/// Checks that an opening is refused with `code`.
///
/// # Panics
///
/// Where it is not.
pub async fn refused(wire: &mut Wire, opening: &Message, code: Code) {
    wire.send(opening).await;
    let answer = answer_to(wire, opening.id).await;
    let error = answer.error.unwrap_or_else(|| panic!("{opening:?} is not refused"));
    assert_eq!((error.code, error.processed), (code, Some(false)), "{opening:?}");
}
