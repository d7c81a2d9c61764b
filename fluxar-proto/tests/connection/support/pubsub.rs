//! Publish and subscribe: settings, messages of scripts, and what is to be found among events.

use std::sync::Arc;

use fluxar_proto::message::{Id, Kind, key};
use fluxar_proto::{
    Config, Event, Fate, Payload, PubSubEvent, Publication, PublicationId, PublishOptions, Qos, QueueLimits,
    SubscribeOptions, SubscribeRequest, SubscriberId, SubscriptionId,
};

use super::{A, B, Msg, Pair, Script, cbor, config, one, uint};

/// A value of metadata.
#[derive(Clone, Copy, Debug)]
pub(crate) enum V<'a> {
    U(u64),
    B(bool),
    T(&'a str),
}

impl Msg {
    /// Sets a `meta` of several keys.
    pub(crate) fn with(mut self, pairs: &[(&str, V<'_>)]) -> Self {
        self.meta = cbor(|out| {
            out.map(pairs.len() as u64)?;
            for (key, value) in pairs {
                out.str(key)?;
                match value {
                    V::U(n) => out.u64(*n)?,
                    V::B(b) => out.bool(*b)?,
                    V::T(t) => out.str(t)?,
                };
            }
            Ok(())
        });
        self
    }

    /// The value of a key of `meta`, where it is an unsigned integer.
    pub(crate) fn meta_u64(&self, key: &str) -> Option<u64> {
        self.meta_item(|meta| meta.get_u64(key))
    }

    pub(crate) fn meta_bool(&self, key: &str) -> Option<bool> {
        self.meta_item(|meta| meta.get_bool(key))
    }

    pub(crate) fn meta_str(&self, key: &str) -> Option<String> {
        self.meta_item(|meta| meta.get_str(key).map(Into::into))
    }

    fn meta_item<T>(&self, get: impl FnOnce(fluxar_proto::message::Meta<'_>) -> Option<T>) -> Option<T> {
        if self.meta.is_empty() {
            return None;
        }
        get(fluxar_proto::message::Meta::decode(&self.meta).unwrap())
    }

    /// The ids that the message settles: `ref`, then those in the payload.
    pub(crate) fn ids(&self) -> Vec<Id> {
        let item = fluxar_proto::message::Item::new(&self.payload).unwrap();
        let more = if item.is_null() { None } else { Some(item.array().unwrap()) };
        let id = |bytes: &[u8]| Id::from_bytes(bytes.try_into().unwrap());
        let more = more.into_iter().flatten().map(|item| id(item.as_byte_str().unwrap()));
        self.reference.into_iter().chain(more).collect()
    }

    pub(crate) fn is_verb(&self, verb: &str) -> bool {
        self.kind == Kind::Message && self.target.as_deref() == Some(verb)
    }
}

/// A publication of a script; with qos 0 nothing is said of it.
pub(crate) fn publication(id: Id, topic: &str, qos: u64) -> Msg {
    let message = Msg::opening(Kind::Message, id, topic).payload(vec![0x07]);
    if qos == 0 { message } else { message.with(&[(key::QOS, V::U(qos))]) }
}

/// The same, sent again.
pub(crate) fn again(id: Id, topic: &str, qos: u64, attempt: u64) -> Msg {
    let marks = [(key::QOS, V::U(qos)), (key::DUP, V::B(true)), (key::ATTEMPT, V::U(attempt))];
    publication(id, topic, 0).with(&marks)
}

/// The payload of a message that settles several.
pub(crate) fn several(ids: &[Id]) -> Vec<u8> {
    cbor(|out| {
        out.array(ids.len() as u64)?;
        for id in ids {
            out.bytes(id.as_bytes())?;
        }
        Ok(())
    })
}

impl Script {
    /// The connection has responded to a script with publish/subscribe.
    pub(crate) fn pubsub(change: impl FnOnce(&mut Config)) -> Self {
        Self::pubsub_with(change, &[])
    }

    /// As `pubsub`, with limits that the script announces.
    pub(crate) fn pubsub_with(change: impl FnOnce(&mut Config), limits: &[(&str, u32)]) -> Self {
        let offer = cbor(|out| {
            out.map(3)?.str("versions")?.array(1)?.u8(1)?;
            out.str("caps")?.map(1)?.str("features")?.array(1)?.str("pubsub")?;
            out.str("limits")?.map(limits.len() as u64)?;
            for (name, limit) in limits {
                out.str(name)?.u32(*limit)?;
            }
            Ok(())
        });
        Self::responder_with(&config(change), offer)
    }

    /// Continues a message with a verb of type 6.
    pub(crate) fn settle(&mut self, verb: &str, reference: Id) -> Result<(), fluxar_proto::ConnectionError> {
        let message = Msg::continuation(Kind::Message, self.id(), reference).verb(verb);
        self.send(message)
    }

    /// What the application learns of publish and subscribe.
    pub(crate) fn pubsub_events(&mut self) -> Vec<PubSubEvent> {
        pubsub_events(&self.events())
    }

    /// The publications that have come.
    pub(crate) fn publications(&mut self) -> Vec<Publication> {
        std::iter::from_fn(|| self.connection.poll_publication()).collect()
    }

    /// Publishes with acknowledgement; the publication, and what it was sent as.
    pub(crate) fn publish(&mut self, qos: Qos) -> (PublicationId, Msg) {
        let options = PublishOptions::new().with_qos(qos);
        let publication = self.connection.publish(self.now, "a.b", uint(7), options).unwrap().unwrap();
        (publication, one(self.read()))
    }

    /// Subscribes to the connection, which confirms; the id of the opening, and the subscriber.
    pub(crate) fn subscriber(&mut self, filter: &str, qos: u64, queue: QueueLimits) -> (Id, SubscriberId) {
        self.subscriber_with(filter, &[(key::QOS, V::U(qos))], queue)
    }

    pub(crate) fn subscriber_with(
        &mut self,
        filter: &str,
        meta: &[(&str, V<'_>)],
        queue: QueueLimits,
    ) -> (Id, SubscriberId) {
        let id = self.id();
        self.send(Msg::opening(Kind::Subscribe, id, filter).with(meta)).unwrap();
        let request = one(requests(&self.pubsub_events()));
        self.connection.confirm(request.id, Qos::ExactlyOnce, queue).unwrap();
        let confirmation = one(self.read());
        assert_eq!((confirmation.kind, confirmation.reference), (Kind::Subscribe, Some(id)));
        (id, request.id)
    }

    /// The connection subscribes, and the script confirms with all that is wanted.
    pub(crate) fn subscribed(&mut self, filter: &str, options: SubscribeOptions) -> SubscriptionId {
        let granted = options.qos.to_wire();
        let subscription = self.connection.subscribe(self.now, filter, options).unwrap();
        let opening = one(self.read());
        assert_eq!((opening.kind, opening.target.as_deref()), (Kind::Subscribe, Some(filter)));
        let confirmation = Msg::continuation(Kind::Subscribe, self.id(), opening.id);
        self.send(confirmation.with(&[(key::QOS, V::U(granted.into()))])).unwrap();
        assert!(matches!(self.pubsub_events()[..], [PubSubEvent::Confirmed(id, _)] if id == subscription));
        subscription
    }

    /// A delivery on a subscription of the connection; its id.
    pub(crate) fn delivery(
        &mut self,
        subscription: SubscriptionId,
        meta: &[(&str, V<'_>)],
    ) -> Result<Id, fluxar_proto::ConnectionError> {
        let id = self.id();
        let delivery = Msg::continuation(Kind::Message, id, subscription.wire_id());
        self.send(delivery.payload(vec![0x07]).with(meta)).map(|()| id)
    }
}

/// A pair in which B has confirmed a subscription of A.
pub(crate) fn subscribed(
    config: &Arc<Config>,
    filter: &str,
    options: SubscribeOptions,
    queue: QueueLimits,
) -> (Pair, SubscriptionId, SubscriberId) {
    let mut pair = Pair::established(config);
    let (now, qos) = (pair.now, options.qos);
    let subscription = pair.a().subscribe(now, filter, options).unwrap();
    pair.drive();
    let request = one(requests(&pubsub_events(&pair.events(B))));
    pair.b().confirm(request.id, Qos::ExactlyOnce, queue).unwrap();
    pair.drive();
    let confirmed = pubsub_events(&pair.events(A));
    assert!(
        matches!(confirmed[..], [PubSubEvent::Confirmed(id, granted)] if (id, granted) == (subscription, qos))
    );
    (pair, subscription, request.id)
}

pub(crate) fn pubsub_events(events: &[Event]) -> Vec<PubSubEvent> {
    let events = events.iter().filter_map(|event| match event {
        Event::PubSub(event) => Some(event.clone()),
        _ => None,
    });
    events.collect()
}

/// The wishes to subscribe among some events.
pub(crate) fn requests(events: &[PubSubEvent]) -> Vec<SubscribeRequest> {
    let requests = events.iter().filter_map(|event| match event {
        PubSubEvent::Subscribe(request) => Some(request.clone()),
        _ => None,
    });
    requests.collect()
}

/// The publications whose fate is known, among some events.
pub(crate) fn fated(events: &[PubSubEvent]) -> Vec<PublicationId> {
    let fated = events.iter().filter_map(|event| match event {
        PubSubEvent::Fate(publication) => Some(*publication),
        _ => None,
    });
    fated.collect()
}

/// Takes the fates that some events announce.
pub(crate) fn fates(connection: &mut fluxar_proto::Connection, events: &[Event]) -> Vec<Fate> {
    let mut take = |id| connection.take_fate(id).unwrap().expect("a fate that was announced");
    fated(&pubsub_events(events)).into_iter().map(&mut take).collect()
}

/// The numbers that some messages carry.
pub(crate) fn numbers<'a>(payloads: impl IntoIterator<Item = &'a Payload>) -> Vec<u64> {
    payloads.into_iter().map(|payload| payload.as_item().as_u64().unwrap()).collect()
}

/// The verbs among some messages, in order.
pub(crate) fn verbs(messages: &[Msg]) -> Vec<&str> {
    messages.iter().filter_map(|message| message.target.as_deref()).collect()
}
