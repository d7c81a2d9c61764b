"""Publish and subscribe (SPEC.md §12) for peer.py, with a hub. § numbers name the sections of SPEC.md."""
import asyncio
import collections

from cbor import Malformed, Raw, array, boolean, bstr, encode, tstr, uint
from wire import (INVALID_ARGUMENT, MESSAGE, NULL, PROTOCOL_VIOLATION, RESOURCE_EXHAUSTED, SUBSCRIBE, UNAVAILABLE,
                  UNIMPLEMENTED, UNSUBSCRIBE, Error, Fatal, new_message)

ACK_TIMEOUT, ATTEMPTS, BACKOFF = 30, 5, 0.1  # §12.8
POINTLESS = {3, 5, 6, 7, 11, 12, 103, 109}  # §12.8: sending it again changes nothing
HELD_MESSAGES, KEPT_VALUES, MOST_KEYS = 1_024, 1_024, 56  # §12.5, §15.3
PASSED_ON = ("traceparent", "tracestate", "compress")  # §12.5
QUEUED, SENT, RELEASING, FAILED, DELIVERED, ACKED = "queued sent releasing failed delivered acked".split()


def check_topic(topic, wildcards=False):
    """Raises Error where it is no topic, or with wildcards no filter (§12.1, §12.2)."""
    tokens = topic.split(".")
    for place, token in enumerate(tokens):
        wild = token == "*" or (token == ">" and place == len(tokens) - 1)
        if not (wildcards and wild) and (not token or any(c in "*>" or c <= " " or c == "\x7f" for c in token)):
            raise Error(INVALID_ARGUMENT, "no topic", processed=False)
    if topic.startswith("fluxar."):
        raise Error(UNIMPLEMENTED, "reserved", processed=False)


def matches(filter, topic):
    wanted, tokens = filter.split("."), topic.split(".")
    if wanted[0] in ("*", ">") and tokens[0] == "fluxar":
        return False
    if wanted[-1] == ">":
        wanted, rest = wanted[:-1], tokens[len(wanted) - 1 :]
        return bool(rest) and all(a in ("*", b) for a, b in zip(wanted, tokens))
    return len(wanted) == len(tokens) and all(a in ("*", b) for a, b in zip(wanted, tokens))


def key(meta, name, form, default):
    """A well-known key: Malformed where its value is bad (§5.10)."""
    return form(meta[name]) if name in meta else default


def qos_of(raw):
    if uint(raw) > 2:
        raise Malformed("no such qos")
    return uint(raw)


def at_least_1(raw):
    if uint(raw) < 1:
        raise Malformed("it is at least 1")
    return uint(raw)


def group_name(raw):
    if not tstr(255)(raw):
        raise Malformed("a group without a name")
    return tstr(255)(raw)


def lenient(meta, name, form, default):
    """In a continuation a key with a bad value is ignored (§5.10)."""
    try:
        return key(meta, name, form, default)
    except Malformed:
        return default


# ---------------------------------------------------------------- sending (§12.13)


class Outgoing:
    """A publication or a delivery with qos 1 or 2, at its sender."""

    def __init__(self, lane, ref, topic, meta, qos, payload):
        self.id = new_message(MESSAGE)[1]
        self.lane, self.ref, self.topic, self.meta = lane, ref, topic, meta | {"qos": qos}
        self.qos, self.payload, self.state, self.attempt, self.timer = qos, payload, QUEUED, 0, None
        self.fate = asyncio.get_running_loop().create_future()
        self.fate.add_done_callback(lambda fate: fate.cancelled() or fate.exception())

    def send(self):
        peer = self.lane.peer
        self.attempt += 1
        again = {"dup": True, "attempt": self.attempt} if self.attempt > 1 else {}
        meta = self.meta | again
        if self.attempt > 1:
            meta.pop("seq", None)
        peer.send(new_message(MESSAGE, self.ref, self.topic, meta, self.payload, id=self.id))
        self.state = SENT
        self.wait()

    def wait(self):
        """For the answer; without a link none can come (§12.8)."""
        if self.state == SENT and self.timer:
            self.timer.cancel()
        if self.state == SENT and self.lane.peer.link:
            self.timer = self.lane.peer.loop.call_later(self.lane.peer.ack_timeout, self.expire)

    def expire(self):
        """No answer in time."""
        if self.attempt < ATTEMPTS:
            self.send()
        else:
            self.state = FAILED  # in flight all the same, until an answer comes (§12.11)
            self.settle(Error(UNAVAILABLE, "no answer"))

    def settle(self, error=None):
        self.timer and self.timer.cancel()
        if not self.fate.done():
            self.fate.set_exception(error) if error else self.fate.set_result(self.attempt)

    def on_ack(self):
        if self.state == RELEASING or self.attempt == 0:
            return
        if self.state == QUEUED:  # a retransmission waits, which is not sent then (§12.8)
            self.lane.withdraw(self)
        self.settle()
        if self.qos == 1:
            return self.lane.done(self)
        self.state = RELEASING
        self.lane.peer.send(new_message(MESSAGE, self.id, "release"))

    def on_nack(self, error):
        if self.state == RELEASING:
            raise Fatal(PROTOCOL_VIOLATION, "nack after ack")
        if self.state == QUEUED:
            return
        self.timer.cancel()
        if self.state == FAILED or self.attempt == ATTEMPTS or error["code"] in POINTLESS:
            self.settle(Error(**error))
            return self.lane.done(self)
        self.state = QUEUED
        self.lane.flying -= 1
        wait = error.get("retry_after_ms", BACKOFF * 1000 * 2 ** self.attempt) / 1000
        self.timer = self.lane.peer.loop.call_later(wait, self.lane.offer, self)

    def on_complete(self):
        if self.state != RELEASING:
            raise Fatal(PROTOCOL_VIOLATION, "complete without release")
        self.lane.done(self)


class Lane:
    """The messages that share a limit of what is in flight (§12.11)."""

    def __init__(self, peer, limit):
        self.peer, self.limit, self.flying, self.waiting = peer, limit, 0, collections.deque()

    def offer(self, message):
        self.peer.sent_messages[message.id] = message
        self.waiting.append(message)
        self.pump()

    def pump(self):
        while self.waiting and self.flying < self.limit:
            self.flying += 1
            self.waiting.popleft().send()

    def withdraw(self, message):
        message.timer.cancel()
        if message in self.waiting:
            self.waiting.remove(message)
        self.flying += 1

    def withdraw_all(self, error):
        """Those that were never sent (§8.6)."""
        for message in [message for message in self.waiting if message.attempt == 0]:
            self.waiting.remove(message)
            del self.peer.sent_messages[message.id]
            message.settle(error)

    def done(self, message):
        self.peer.sent_messages.pop(message.id, None)
        self.flying -= 1
        self.pump()

    def end(self, ref):
        """The subscription is over, or the session (§12.4)."""
        for message in [m for m in self.peer.sent_messages.values() if m.lane is self]:
            del self.peer.sent_messages[message.id]
            message.settle(Error(UNAVAILABLE, "the subscription or the session is over"))
        self.waiting.clear()


# ---------------------------------------------------------------- the hub (§12.5, §12.15, §12.16)


class Subscriber:
    """A subscription of the other side, at the hub."""

    def __init__(self, peer, id, filter, qos, inflight, group):
        self.peer, self.id, self.filter, self.qos, self.group = peer, id, filter, qos, group
        self.lane, self.count, self.dropped = Lane(peer, inflight), 0, False

    def has_room(self):
        return len(self.lane.waiting) < HELD_MESSAGES

    def deliver(self, topic, payload, qos, meta, retained=False):
        qos, self.count = min(qos, self.qos), self.count + 1
        meta = meta | {"topic": topic} | ({"retained": True} if retained else {})
        message = new_message(MESSAGE, self.id, None, meta, payload)
        if qos == 0 and len(self.peer.queue) >= HELD_MESSAGES:
            self.dropped = True  # at most once: who does not read loses (§12.7)
            return
        if self.dropped:
            meta["seq"], self.dropped = self.count, False
        try:
            self.peer.fit(message)
        except Error:
            self.dropped = True
            return
        if qos == 0:
            self.peer.send(new_message(MESSAGE, self.id, None, meta, payload))
        else:
            self.lane.offer(Outgoing(self.lane, self.id, None, meta, qos, payload))


class Hub:
    """Routes publications to the subscriptions of all peers that share it."""

    def __init__(self):
        self.subscribers, self.kept, self.turns = [], {}, collections.Counter()

    def publish(self, topic, payload, qos, retain, meta):
        if retain and payload != NULL and topic not in self.kept and len(self.kept) >= KEPT_VALUES:
            raise Error(RESOURCE_EXHAUSTED, "too many values are kept", processed=False)
        receivers, groups = [], collections.defaultdict(list)
        for subscriber in self.subscribers:
            if matches(subscriber.filter, topic):
                if subscriber.group is None:
                    receivers.append(subscriber)
                else:
                    groups[subscriber.group, subscriber.filter].append(subscriber)
        for name, members in groups.items():
            members = [member for member in members if member.has_room()] or members
            self.turns[name] += 1
            receivers.append(members[self.turns[name] % len(members)])
        if qos and not all(receiver.has_room() for receiver in receivers):
            raise Error(RESOURCE_EXHAUSTED, "a subscriber does not keep up", processed=False, retry_after_ms=100)
        if retain and payload == NULL:
            self.kept.pop(topic, None)
        elif retain:
            self.kept[topic] = (payload, qos, meta)
        for receiver in receivers:
            receiver.deliver(topic, payload, qos, meta)

    def add(self, subscriber):
        if subscriber.group is None:
            for topic, (payload, qos, meta) in self.kept.items():
                if matches(subscriber.filter, topic):
                    subscriber.deliver(topic, payload, qos, meta, retained=True)
        self.subscribers.append(subscriber)

    def remove(self, subscriber):
        """Members of its group that stay get what it has not acknowledged (§12.15)."""
        self.subscribers.remove(subscriber)
        left = [m for m in subscriber.peer.sent_messages.values() if m.lane is subscriber.lane]
        subscriber.lane.end(subscriber.id)
        heirs = [s for s in self.subscribers if (s.group, s.filter) == (subscriber.group, subscriber.filter)]
        for message in left if subscriber.group is not None and heirs else ():
            if message.state in (QUEUED, SENT) and message.attempt < ATTEMPTS:
                heir = heirs[self.turns[subscriber.group] % len(heirs)]
                self.turns[subscriber.group] += 1
                heir.count += 1
                meta = {name: value for name, value in message.meta.items() if name not in ("seq", "qos")}
                copy = Outgoing(heir.lane, heir.id, None, meta, min(message.qos, heir.qos) or 1, message.payload)
                copy.attempt = message.attempt
                heir.lane.offer(copy)


# ---------------------------------------------------------------- receiving (§12.14)


class Delivery:
    """What a subscriber gets."""

    def __init__(self, peer, m, topic, qos):
        self.peer, self.id, self.topic, self.qos, self.payload = peer, m.id, topic, qos, m.payload
        self.dup, self.attempt = lenient(m.meta, "dup", boolean, False), lenient(m.meta, "attempt", at_least_1, 1)
        self.retained = lenient(m.meta, "retained", boolean, False)

    def ack(self):
        if self.id in self.peer.held_messages:
            self.peer.acknowledge(self.id)

    def nack(self, error):
        if self.peer.held_messages.pop(self.id, None):
            self.peer.send(new_message(MESSAGE, self.id, "nack", error=error.map))


class Subscription:
    """A subscription of this side."""

    def __init__(self, peer, id, filter, qos, inflight):
        self.peer, self.id, self.filter, self.wanted, self.inflight = peer, id, filter, qos, inflight
        self.granted, self.ending, self.count, self.lost, self.error = None, False, 0, 0, None
        self.messages, self.news = collections.deque(), asyncio.Event()
        self.confirmed = peer.loop.create_future()
        self.confirmed.add_done_callback(lambda future: future.cancelled() or future.exception())

    async def next(self):
        while not self.messages:
            if self.error:
                raise self.error
            self.news.clear()
            await self.news.wait()
        return self.messages.popleft()

    def unsubscribe(self):
        if not self.ending and self.id in self.peer.subscriptions:
            self.ending = True
            self.peer.send(new_message(UNSUBSCRIBE, self.id))
            self.peer.forget_held(self.id)

    def over(self, error):
        self.peer.subscriptions.pop(self.id, None)
        self.peer.forget_held(self.id)
        self.error = error
        self.news.set()
        if not self.confirmed.done():
            self.confirmed.set_exception(error)

    def receive(self, m):
        if self.ending:
            self.peer.dropped += 1
            return
        if self.granted is None:
            raise Fatal(PROTOCOL_VIOLATION, "a delivery before the confirmation")
        qos, dup = lenient(m.meta, "qos", qos_of, 0), lenient(m.meta, "dup", boolean, False)
        topic = lenient(m.meta, "topic", tstr(255), None)
        if qos > self.granted or (topic is None and ("*" in self.filter or ">" in self.filter)):
            raise Fatal(PROTOCOL_VIOLATION, "a delivery without topic, or with too high a qos")
        if not dup:
            self.count += 1
            seq = lenient(m.meta, "seq", at_least_1, 0)
            if seq > self.count:
                self.lost, self.count = self.lost + seq - self.count, seq
        if qos and not self.peer.hold(m, dup, self.inflight):
            return
        if qos == 0 and len(self.messages) >= HELD_MESSAGES:
            self.messages.popleft()
        self.messages.append(Delivery(self.peer, m, topic or self.filter, qos))
        self.news.set()


class PubSub:
    """The part of a peer that publishes and subscribes. `held_messages`: id -> (the subscription, DELIVERED or ACKED,
    qos)."""

    def start_pubsub(self):
        self.subscriptions, self.subscribers, self.sent_messages, self.held_messages = {}, {}, {}, {}
        self.publications, self.ack_timeout = Lane(self, self.other["max_inflight"]), ACK_TIMEOUT

    def end_pubsub(self, cause):
        for subscription in list(self.subscriptions.values()):
            subscription.over(Error(UNAVAILABLE, cause))
        for subscriber in list(self.subscribers.values()):
            del self.subscribers[subscriber.id]
            self.hub.remove(subscriber)
        self.publications.end(None)

    def resume_pubsub(self):
        for message in list(self.sent_messages.values()):
            message.wait()

    # what applications do

    async def subscribe(self, filter, qos=0, inflight=None, group=None):
        """The subscription, once it is confirmed."""
        wanted = {"qos": qos, "inflight": inflight, "group": group}
        self.may_open()
        opening = new_message(SUBSCRIBE, None, filter, {name: value for name, value in wanted.items() if value})
        subscription = Subscription(self, opening[1], filter, qos, inflight or self.own["max_inflight"])
        self.subscriptions[opening[1]] = subscription
        self.send(opening)
        await subscription.confirmed
        return subscription

    async def publish(self, topic, payload, qos=0, retain=False):
        """How many attempts it took until it was acknowledged; None for qos 0."""
        meta, payload = {"retain": True} if retain else {}, Raw(encode(payload))
        self.fit(new_message(MESSAGE, None, topic, meta | {"qos": qos}, payload), processed=False)
        await self.writable.wait()
        self.may_open()
        if "pubsub" not in self.features:
            raise Error(UNAVAILABLE, "the other side does not publish", processed=False)
        if qos == 0:
            self.send(new_message(MESSAGE, None, topic, meta, payload))
            return None
        message = Outgoing(self.publications, None, topic, meta, qos, payload)
        self.publications.offer(message)
        return await message.fate

    # openings

    def on_subscribe(self, m):
        try:
            qos, inflight = key(m.meta, "qos", qos_of, 0), key(m.meta, "inflight", at_least_1, None)
            group = key(m.meta, "group", group_name, None)
            check_topic(m.target, wildcards=True)
        except Malformed:
            return self.refuse(m, INVALID_ARGUMENT, "a meta key has a bad value")
        except Error as error:
            return self.refuse(m, error.map["code"])
        if len(self.subscribers) >= self.own["max_subscriptions"]:
            return self.refuse(m, RESOURCE_EXHAUSTED, "too many subscriptions")
        if not self.hub:
            return self.refuse(m, UNIMPLEMENTED)
        inflight = inflight or self.other["max_inflight"]
        self.subscribers[m.id] = subscriber = Subscriber(self, m.id, m.target, qos, inflight, group)
        self.send(new_message(SUBSCRIBE, m.id, None, {"qos": qos} if qos else None))
        self.hub.add(subscriber)

    def on_publication(self, m):
        try:
            qos, retain = key(m.meta, "qos", qos_of, 0), key(m.meta, "retain", boolean, False)
            dup, _ = key(m.meta, "dup", boolean, False), key(m.meta, "attempt", at_least_1, 1)
            if len(m.meta) > MOST_KEYS:
                raise Malformed("too many keys")
            check_topic(m.target)
        except Malformed:
            return self.refuse(m, INVALID_ARGUMENT, "a meta key has a bad value")
        except Error as error:
            return self.refuse(m, error.map["code"])
        if not self.hub:
            return self.refuse(m, UNIMPLEMENTED)
        if qos and not self.hold(m, dup, self.own["max_inflight"]):
            return
        try:
            meta = {name: m.meta[name] for name in m.meta if name in PASSED_ON or name not in KNOWN}
            self.hub.publish(m.target, m.payload, qos, retain, meta)
        except Error as error:
            if qos and self.held_messages.pop(m.id):
                self.send(new_message(MESSAGE, m.id, "nack", error=error.map))
            return
        if qos:
            self.acknowledge(m.id)

    # the machine of the receiver (§12.14)

    def hold(self, m, dup, most):
        """Whether the message is new, and there is room for it; it is answered otherwise."""
        held = self.held_messages.get(m.id)
        if held:
            if not dup or held[0] != m.ref:
                raise Fatal(PROTOCOL_VIOLATION, "the id of an open exchange")
            if held[1] == ACKED:
                self.send(new_message(MESSAGE, m.id, "ack"))
            return False
        if self.is_open(m.id):
            raise Fatal(PROTOCOL_VIOLATION, "the id of an open exchange")
        if len([1 for ref, *_ in self.held_messages.values() if ref == m.ref]) >= most:
            self.spend()
            full = Error(RESOURCE_EXHAUSTED, "too many in flight", processed=False)
            self.send(new_message(MESSAGE, m.id, "nack", error=full.map))
            return False
        self.held_messages[m.id] = (m.ref, DELIVERED, uint(m.meta["qos"]))
        return True

    def acknowledge(self, id):
        ref, _, qos = self.held_messages.pop(id)
        if qos == 2:
            self.held_messages[id] = (ref, ACKED, qos)
        self.send(new_message(MESSAGE, id, "ack"))

    def forget_held(self, ref):
        self.held_messages = {id: held for id, held in self.held_messages.items() if held[0] != ref}

    # continuations

    def on_subscription(self, m):
        """Of type 4 or 5, or a delivery."""
        ours, theirs = self.subscriptions.get(m.ref), self.subscribers.get(m.ref)
        if m.type == UNSUBSCRIBE and m.target is None and theirs:
            self.spend()
            self.send(new_message(UNSUBSCRIBE, m.ref))
            del self.subscribers[m.ref]
            self.hub.remove(theirs)
        elif m.type == UNSUBSCRIBE and m.target is None and ours:
            if not ours.ending:
                self.send(new_message(UNSUBSCRIBE, m.ref))
            ours.over(Error(**(m.error or {"code": UNAVAILABLE, "message": "ended by the publisher"})))
        elif m.target is not None:
            self.dropped += 1
        elif theirs or (m.type == MESSAGE and m.error):
            raise Fatal(PROTOCOL_VIOLATION, "this side may not do that")
        elif m.type == MESSAGE:
            ours.receive(m)
        elif m.error and ours.granted is None:
            ours.over(Error(**m.error))
        elif ours.ending:
            self.dropped += 1
        else:
            granted = lenient(m.meta, "qos", qos_of, 0)
            if ours.granted is not None or granted > ours.wanted:
                raise Fatal(PROTOCOL_VIOLATION, "a second confirmation, or more than was wanted")
            ours.granted = granted
            ours.confirmed.set_result(granted)

    def on_message_verb(self, m):
        """`ack`, `nack`, `release` and `complete`, each of one id or of several (§12.10)."""
        if m.target not in ("ack", "nack", "release", "complete") or (
            m.ref not in self.sent_messages | self.held_messages and m.target == "nack"
        ):
            self.dropped += 1
            return
        if m.error and m.target != "nack":
            raise Malformed("an error where none may be")
        ids, role = [m.ref], self.sent_messages if m.target == "release" else self.held_messages
        if m.target != "nack" and m.payload != NULL:
            try:
                ids += array(bstr(16))(m.payload)
            except Malformed:
                if not self.is_open(m.ref) and m.target != "release":
                    return
                raise
        if any(id in role for id in ids):
            raise Fatal(PROTOCOL_VIOLATION, "an answer of the wrong side")
        if m.target == "release":
            return self.on_release(ids)
        for id in ids:
            message = self.sent_messages.get(id)
            if not message:
                self.dropped += 1
            elif m.target == "ack":
                message.on_ack()
            elif m.target == "nack":
                message.on_nack(m.error or {"code": UNAVAILABLE})
            else:
                message.on_complete()

    def on_release(self, ids):
        for id in ids:
            held = self.held_messages.pop(id, None)
            if held and held[1] != ACKED:
                raise Fatal(PROTOCOL_VIOLATION, "release of what was not acknowledged")
            if not held:
                self.spend()
        self.send(new_message(MESSAGE, ids[0], "complete", payload=ids[1:] or None))


KNOWN = {"timeout_ms", "window", "qos", "inflight", "group", "retain", "retained", "topic", "dup", "attempt", "seq"}
