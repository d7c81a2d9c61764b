"""Publish and subscribe (SPEC.md §12) on the wire, for probe.py. The server is a hub with room for many."""
import os
import time

from cbor import Raw, array, bstr, decode, encode
from probing import ID, Link, check, items_with
from wire import (CALL, CONTROL, INVALID_ARGUMENT, MALFORMED, MESSAGE, NULL, PROTOCOL_VIOLATION, RESOURCE_EXHAUSTED,
                  STREAM, SUBSCRIBE, UNIMPLEMENTED, UNSUBSCRIBE, frame, new_message)

ids_of = array(bstr(16))


class Member(Link):
    """A link with publish and subscribe."""

    def __init__(self, offer=None):
        super().__init__({"caps": {"features": ["pubsub", "other"]}} | (offer or {}))
        check(self.answer.get("caps", {}).get("features") == ["pubsub"], "publish/subscribe is not on")

    def subscribe(self, filter, granted=None, **meta):
        id = self.send(SUBSCRIBE, None, filter, meta)
        answer = self.answer_to(id, SUBSCRIBE)
        check(not answer.error, f"{answer.error}")
        qos = decode(answer.meta.get("qos", b"\0"))
        check(qos == (meta.get("qos", 0) if granted is None else granted), f"granted: {qos}")
        return id

    def publish(self, topic, payload=None, meta=None, **more):
        return self.send(MESSAGE, None, topic, meta, payload=payload, **more)

    def on(self, id, verb, payload=None, **more):
        return self.send(MESSAGE, id, verb, payload=payload, **more)

    def delivery(self, subscription, payload, topic=None, **want):
        """The next message is a delivery of that."""
        m = self.answer_to(subscription, MESSAGE)
        check(m.error is None and decode(m.payload) == payload, f"{m} instead of {payload}")
        meta = {key: decode(value) for key, value in m.meta.items()}
        seen = {key: meta.get(key) for key in want}
        check(seen == want and (topic is None or meta.get("topic", topic) == topic), f"{meta} instead of {want}")
        return m

    def answered(self, verb, *ids):
        """These ids, in messages of that verb, in whatever order."""
        left = set(ids)
        while left:
            m = self.receive()
            check(m and (m.type, m.target) == (MESSAGE, verb), f"instead came {m}")
            these = {m.ref, *(ids_of(m.payload) if m.payload != NULL else ())}
            check(these <= left, f"{these - left}")
            left -= these

    def unsubscribe(self, id):
        self.send(UNSUBSCRIBE, id)
        m = self.answer_to(id, UNSUBSCRIBE)
        check(not m.error, f"{m.error}")


def topic():
    """One that nobody else uses."""
    return "probe." + os.urandom(6).hex()


member = items_with(Member, "pubsub")


@member("12.2", "which filters match")
def _(link):
    base = topic()
    for filter, hits in (
        ("a", "a"), ("*", "a"), (">", "a a.b a.b.c"), ("a.*", "a.b"), ("a.>", "a.b a.b.c"), ("*.b", "a.b"),
        ("*.*.c", "a.b.c"), ("a.b.c", "a.b.c"), ("a.*.>", "a.b.c"), ("ä", "ä"),
    ):
        id = link.subscribe(f"{base}.{filter}")
        for suffix in ("a", "a.b", "a.b.c", "b", "A", "ä"):
            link.publish(f"{base}.{suffix}", suffix)
        one = {"*": "a b A ä", ">": "a a.b a.b.c b A ä"}.get(filter, hits)
        for suffix in one.split():
            link.delivery(id, suffix, f"{base}.{suffix}")
        link.alive()
        link.unsubscribe(id)


@member("12.1", "bad topics and filters")
def _(link):
    for bad in ("", ".", "a.", ".a", "a..b", "a b", "a\tb", "a\x7f", "a.>.b", "a*", "a.*b", "a>"):
        link.error(link.send(SUBSCRIBE, None, bad), SUBSCRIBE, None, code=INVALID_ARGUMENT, processed=False)
    for bad in ("", "a..b", "a b", "a.*", ">", "*"):
        id = link.publish(bad, 1, {"qos": 1})
        link.error(id, MESSAGE, "nack", code=INVALID_ARGUMENT, processed=False)
        link.publish(bad, 1)  # dropped
    for type, verb in ((SUBSCRIBE, None), (MESSAGE, "nack")):
        id = link.send(type, None, "fluxar.x", {"qos": 1})
        link.error(id, type, verb, code=UNIMPLEMENTED, processed=False)
    link.alive()


@member("5.10", "bad values of well-known keys")
def _(link):
    for bad in ({"qos": 3}, {"qos": "1"}, {"inflight": 0}, {"group": ""}, {"group": "g" * 256}, {"group": 1}):
        link.error(link.send(SUBSCRIBE, None, topic(), bad), SUBSCRIBE, None, code=3, processed=False)
    for bad in ({"retain": 1}, {"dup": "x"}, {"attempt": 0}):
        link.error(link.publish(topic(), 1, {"qos": 1} | bad), MESSAGE, "nack", code=3, processed=False)
    many = {f"key{number}": number for number in range(56)}
    link.error(link.publish(topic(), 1, {"qos": 1} | many), MESSAGE, "nack", code=3, processed=False)
    many.popitem()
    link.answer_to(link.publish(topic(), 1, {"qos": 1} | many), MESSAGE, "ack")
    link.alive()


@member("12.5", "deliveries carry payload and meta, and the lower qos")
def _(link):
    base, odd = topic(), Raw(b"\x9f\x18\x01\xf7\xff")
    low, high = link.subscribe(base), link.subscribe(base, qos=2)
    for qos in (0, 1, 2):
        id = link.publish(base, odd, {"qos": qos, "traceparent": "00-1", "own": [1], "attempt": 1, "topic": "x"})
        seen = {}
        while len(seen) < 2 + (qos > 0):
            m = link.receive()
            seen[m.ref] = m
        for subscription, expected in ((low, 0), (high, qos)):
            m = seen[subscription]
            meta = {key: decode(value) for key, value in m.meta.items()}
            check(m.payload == odd and meta["own"] == [1] and meta["traceparent"] == "00-1", f"{m}")
            check(meta.get("qos", 0) == expected and meta.get("topic", base) == base, f"{meta}")
        if qos:
            check(seen[id].target == "ack", f"{seen[id]}")
            link.on(seen[high].id, "ack")
        if qos == 2:
            link.on(id, "release")
            link.answered("release", seen[high].id)
            link.on(seen[high].id, "complete")
            link.answered("complete", id)
    link.alive()


@member("12.8", "at least once: nack, retry with dup and attempt, then ack")
def _(link):
    base = topic()
    subscription = link.subscribe(base, qos=1)
    link.publish(base, 7, {"qos": 0})
    link.delivery(subscription, 7)
    with Member() as other:
        other.answer_to(other.publish(base, 8, {"qos": 1}), MESSAGE, "ack")
    first = link.delivery(subscription, 8, qos=1, dup=None, attempt=None)
    for attempt in (2, 3):
        link.on(first.id, "nack", error={"code": 14, "retry_after_ms": 1})
        again = link.delivery(subscription, 8, qos=1, dup=True, attempt=attempt)
        check(again.id == first.id, "another id")
    link.on(first.id, "ack")
    link.on(first.id, "ack")  # late
    link.alive()


@member("12.8", "a nack that makes a retry pointless ends the attempts")
def _(link):
    base = topic()
    subscription = link.subscribe(base, qos=2)
    with Member() as other:
        other.answer_to(other.publish(base, 1, {"qos": 2}), MESSAGE, "ack")
    link.on(link.delivery(subscription, 1).id, "nack", error={"code": 5})
    time.sleep(0.3)
    link.alive()


@member("12.9", "exactly once: a repeated publication is acknowledged and not delivered again")
def _(link):
    base = topic()
    with Member() as other:
        subscription = other.subscribe(base)
        id = link.publish(base, 1, {"qos": 2})
        link.answered("ack", id)
        for attempt in (2, 3):
            link.publish(base, 1, {"qos": 2, "dup": True, "attempt": attempt}, id=id)
            link.answered("ack", id)
        other.delivery(subscription, 1)
        other.alive()
        link.on(id, "release")
        link.answered("complete", id)
        link.on(id, "release")  # unknown now
        link.answered("complete", id)


@member("12.10", "several ids in one message")
def _(link):
    base = topic()
    subscription = link.subscribe(base, qos=2)
    with Member() as other:
        ids = [other.publish(base, number, {"qos": 2}) for number in range(5)]
        other.answered("ack", *ids)
        unknown = [os.urandom(16), os.urandom(16)]
        other.on(unknown[0], "release", [*ids, unknown[1]])
        other.answered("complete", *ids, *unknown)
    deliveries = [link.delivery(subscription, number).id for number in range(5)]
    link.on(os.urandom(16), "ack", [deliveries[0], os.urandom(16), *deliveries[1:]])
    link.answered("release", *deliveries)
    link.on(deliveries[0], "complete", deliveries[1:])
    link.on(os.urandom(16), "ack", 5)  # of what is unknown not even the payload matters
    link.alive()


@member("12.11", "no more in flight than the subscription takes")
def _(link):
    base = topic()
    subscription = link.subscribe(base, qos=1, inflight=2)
    with Member() as other:
        other.answered("ack", *[other.publish(base, number, {"qos": 1}) for number in range(6)])
    first, second = link.delivery(subscription, 0), link.delivery(subscription, 1)
    link.alive()
    link.on(second.id, "ack")
    third = link.delivery(subscription, 2)
    link.alive()
    link.on(first.id, "ack", [third.id])
    link.delivery(subscription, 3)
    link.delivery(subscription, 4)
    link.alive()


@member("12.11", "more publications in flight than max_inflight")
def _(link):
    most, base = link.answer.get("limits", {}).get("max_inflight", 256), topic()
    ids = [link.publish(base, None, {"qos": 2}) for _ in range(most)]
    link.answered("ack", *ids)
    error = {"code": RESOURCE_EXHAUSTED, "processed": False}
    link.error(link.publish(base, None, {"qos": 2}), MESSAGE, "nack", **error)
    link.error(link.publish(base, None, {"qos": 1}), MESSAGE, "nack", **error)
    link.on(ids[0], "release")
    link.answered("complete", ids[0])
    link.answered("ack", link.publish(base, None, {"qos": 1}))


@member("12.15", "each message goes to one member of a group, and to those without")
def _(link):
    base = topic()
    members = [link.subscribe(base, group="g"), link.subscribe(base, group="g")]
    others = [link.subscribe(base), link.subscribe(base, group="h"), link.subscribe("*." + base[6:], group="g")]
    for number in range(10):
        link.publish(base, number)
    seen = [link.receive() for _ in range(40)]
    counts = [sum(m.ref == subscription for m in seen) for subscription in members + others]
    check(counts == [5, 5, 10, 10, 10], f"{counts}")
    check(sorted(decode(m.payload) for m in seen if m.ref in members) == list(range(10)), "each once")
    link.alive()


@member("12.15", "what a member has not acknowledged goes to another when it leaves")
def _(link):
    base = topic()
    with Member() as leaver:
        left = leaver.subscribe(base, qos=1, group="g")
        with Member() as publisher:
            publisher.answer_to(publisher.publish(base, 1, {"qos": 1}), MESSAGE, "ack")
            sent = leaver.delivery(left, 1)
        stays = link.subscribe(base, qos=1, group="g")
        leaver.unsubscribe(left)
    again = link.delivery(stays, 1, dup=True, attempt=2)
    check(again.id != sent.id, "the same id")
    link.on(again.id, "ack")
    link.alive()


@member("12.16", "retained values: kept, replaced, cleared")
def _(link):
    base = topic()
    for payload, meta in ((1, {"retain": True}), (2, {"retain": True, "qos": 1}), (3, {"retain": False, "qos": 1})):
        id = link.publish(base, payload, meta)
        if "qos" in meta:
            link.answered("ack", id)
    id = link.subscribe(base[:5] + ".>", qos=2)
    m = link.delivery(id, 2, base, retained=True, qos=1)
    link.on(m.id, "ack")
    link.publish(base, 4, {"retain": True})
    link.delivery(id, 4, base, retained=None)
    link.subscribe(base, group="g")  # gets none
    link.alive()
    link.publish(base, None, {"retain": True})
    while link.receive().ref != id:  # the group gets it as well
        pass
    with Member() as other:
        other.subscribe(base)
        other.alive()


@member("12.4", "unsubscribe, and what comes late")
def _(link):
    base = topic()
    id = link.subscribe(base, qos=2)
    with Member() as other:
        other.answered("ack", other.publish(base, 1, {"qos": 1}))
    m = link.delivery(id, 1)
    link.unsubscribe(id)
    for verb in ("ack", "nack", "complete"):
        link.on(m.id, verb, error={"code": 1} if verb == "nack" else None)
    link.publish(base, 2)
    link.send(UNSUBSCRIBE, id)
    link.alive()


@member("12.3", "more subscriptions than max_subscriptions")
def _(link):
    most, base = link.answer.get("limits", {}).get("max_subscriptions", 1024), topic()
    ids = [link.subscribe(f"{base}.{number}") for number in range(most)]
    error = {"code": RESOURCE_EXHAUSTED, "processed": False}
    link.error(link.send(SUBSCRIBE, None, base), SUBSCRIBE, None, **error)
    link.unsubscribe(ids[0])
    link.subscribe(base)


@member("5.15", "what a peer may not send")
def _(_):
    def delivered(link):
        base = topic()
        id = link.subscribe(base, qos=2)
        with Member() as other:
            other.answered("ack", other.publish(base, 1, {"qos": 2}))
        return id, link.delivery(id, 1).id

    for wrong, code in (
        (lambda link, id, m: link.on(m, "complete"), PROTOCOL_VIOLATION),
        (lambda link, id, m: link.on(m, "release"), PROTOCOL_VIOLATION),
        (lambda link, id, m: link.on(m, "ack", 1), MALFORMED),
        (lambda link, id, m: link.on(m, "ack", error={"code": 1}), MALFORMED),
        (lambda link, id, m: link.send(CALL, m, None), PROTOCOL_VIOLATION),
        (lambda link, id, m: link.send(STREAM, id, "end"), PROTOCOL_VIOLATION),
        (lambda link, id, m: link.send(CONTROL, id), PROTOCOL_VIOLATION),
        (lambda link, id, m: link.send(SUBSCRIBE, id), PROTOCOL_VIOLATION),
        (lambda link, id, m: link.send(MESSAGE, id, None), PROTOCOL_VIOLATION),
        (lambda link, id, m: link.send(SUBSCRIBE, None, "a", id=id), PROTOCOL_VIOLATION),
        (lambda link, id, m: link.send(CALL, None, "echo", id=m), PROTOCOL_VIOLATION),
        (lambda link, id, m: link.publish("a", 1, {"qos": 1, "dup": True}, id=m), PROTOCOL_VIOLATION),
    ):
        with Member() as link:
            wrong(link, *delivered(link))
            link.closed(code)
    with Member() as link:
        link.publish("a", 1, {"qos": 2}, id=ID)
        link.answered("ack", ID)
        link.publish("a", 1, {"qos": 2}, id=ID)  # without `dup`
        link.closed(PROTOCOL_VIOLATION)


@member("5.15", "unknown verbs, and answers to what is unknown")
def _(link):
    id = link.subscribe(topic(), qos=1)
    link.send(SUBSCRIBE, id, "dance")
    link.send(UNSUBSCRIBE, id, "dance")
    link.on(os.urandom(16), "dance")
    for verb in ("ack", "nack", "complete"):
        link.on(os.urandom(16), verb)
    link.alive()


@member("10.7", "subscribing and unsubscribing without end")
def _(link):
    try:
        for _ in range(300):
            ids = [os.urandom(16) for _ in range(100)]
            link.write(b"".join(frame(encode(message)) for id in ids for message in (
                new_message(SUBSCRIBE, None, "a", id=id), new_message(UNSUBSCRIBE, id))))
        link.closed(RESOURCE_EXHAUSTED)
    except OSError as error:
        check(not isinstance(error, TimeoutError), "it may go on")  # otherwise it was cut off
