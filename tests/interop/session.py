"""A session (SPEC.md §5, §8, §9), which may outlive its link, for peer.py. § numbers name the sections of SPEC.md."""
import asyncio
import collections

from cbor import LIMITS, Malformed, encode, uint
from calls import Calls
from pubsub import PubSub
from resume import Ledger, next_secret
from streams import Streams
from upkeep import Upkeep
from wire import (CALL, CONTROL, DRAINING, HELLO, MESSAGE, MESSAGE_TOO_LARGE, NULL, PROTOCOL_VIOLATION,
                  RESOURCE_EXHAUSTED, STREAM, SUBSCRIBE, UNAUTHENTICATED, UNIMPLEMENTED, UNSUBSCRIBE, Error,
                  Fatal, is_counted, new_message)

FEATURES = ("stream", "pubsub", "resume")
BUDGET, BUDGET_PER_SECOND = 10_000, 2_000  # §10.7


class Peer(Calls, Streams, PubSub, Upkeep):
    """One session, at either end. `gone`: it is over, and its transport is closed. `on_detached` is called where the
    link is lost and another one may come."""

    def __init__(self, methods, initiator, limits=None, hub=None):
        self.loop = asyncio.get_running_loop()
        self.methods, self.initiator, self.hub, self.features = methods, initiator, hub, ()
        self.announced = {"max_message": 16 << 20} | (limits or {})
        self.own, self.other = LIMITS | self.announced, LIMITS
        self.gone, self.writable = self.loop.create_future(), asyncio.Event()
        self.link, self.cause, self.session, self.ledger = None, None, {}, Ledger()
        self.queue, self.urgent, self.again = collections.deque(), collections.deque(), collections.deque()
        self.credentials = self.psk = self.clear_auth = None  # of an initiator
        self.site = self.identity = self.secrets = self.attempt = None  # of a responder
        self.on_detached, self.patience = lambda: None, None
        self.dropped = self.resumed = self.resent = self.renewals = 0
        self.budget, self.budget_at = BUDGET, self.loop.time()
        self.cancelled = 0  # calls and streams of the other side
        self.start_calls()
        self.start_streams()
        self.start_pubsub()
        self.start_upkeep()

    # links

    def establish(self, link, features, session, limits):
        """The first link."""
        self.features, self.session, self.other = features, session, limits
        self.publications.limit = limits["max_inflight"]
        if not self.is_resumable():
            self.session = {}
        self.attach(link, session, limits)

    def resume(self, link, session, handled, limits):
        """Another link (§9.7). What the new hellos say about limits is ignored."""
        self.ledger.forget(handled)
        old, self.attempt = self.link, None
        if old:
            old.cut()  # without a `close` (§9.8)
        if session:
            self.session = session | {"secret": next_secret(self.session["secret"], session["secret"])}
        self.forget_questions()
        self.again = collections.deque(self.ledger.kept)
        self.resumed, self.resent = self.resumed + 1, self.resent + len(self.again)
        if self.initiator:  # first of all (§9.6)
            self.urgent.append(encode(new_message(CONTROL, None, "handled", payload=self.ledger.report())))
        self.attach(link, session or {}, limits)
        if self.draining:
            self.announce_drain()

    def attach(self, link, session, limits):
        self.patience and self.patience.cancel()
        link.owner, self.link = self, link
        link.is_established(self.own["max_message"])
        if self.initiator:
            self.expire_in(session.get("auth_expires_ms"))
        self.resume_pubsub()
        self.start_heart(limits)
        self.flush()

    def is_resumable(self):
        return "resume" in self.features and self.session.get("resume_ms", 0) > 0

    def detach(self):
        """The link is lost, but not the session (§8.8)."""
        self.link.cut()
        self.link = None
        self.forget_questions()
        self.again.clear()  # it is all kept still
        self.writable.clear()
        self.resume_pubsub()
        patience = self.session["resume_ms"] / 1000  # §9.1
        self.patience = self.loop.call_later(patience, self.end, "no other link came in time")
        self.on_detached()

    def forget_questions(self):
        """§9.7"""
        self.urgent.clear()
        self.replies.clear()
        self.pings.clear()
        asked, self.asked = self.asked, {}
        for future in asked.values():
            future.cancel()

    def try_link(self, attempt):
        """A new link may take over (§9.8); of several the latest. Until then the old one stands still."""
        if self.attempt:
            self.attempt.link.cut()
        self.attempt = attempt
        if self.link and not self.link.frozen:
            self.link.freeze(True)

    def give_up(self, attempt):
        """That came to nothing."""
        if self.attempt is attempt:
            self.attempt = None
            if self.link:
                self.link.freeze(False)
                self.flush()

    def on_room(self):
        self.flush()

    def on_lost(self, link):
        if link is self.link:
            self.detach() if self.is_resumable() else self.end("the link was lost")

    def on_fault(self, link, error):
        self.close(error)

    def on_close(self, link, m):
        link.cut()  # nothing more is sent
        self.end(f"closed by the other side: {m.error or 'done'}")

    # sending

    def send(self, message):
        if message[0] == CONTROL:
            self.urgent.append(encode(message))
        elif not self.over:
            type, _, ref, target, meta, *_ = message
            self.queue.append((is_counted(type, ref, target, meta), encode(message)))
        self.flush()
        return message[1]

    def fit(self, message, **processed):
        if len(encode(message)) > self.other["max_message"]:  # fails where it was made (§5.13)
            raise Error(MESSAGE_TOO_LARGE, "the other side takes no message of that size", **processed)

    def flush(self):
        link = self.link
        while link and link.has_room:
            if self.replies or self.urgent:
                body = (self.replies or self.urgent).popleft()
            elif self.again:
                body = self.again.popleft()
            elif self.queue and self.ledger.has_room():  # §9.4
                counted, body = self.queue.popleft()
                if counted and "resume" in self.features:
                    self.ledger.keep(body)
            else:
                break
            link.write(body)
        is_free = link and not link.blocked and not self.queue and not self.again
        (self.writable.set if is_free else self.writable.clear)()

    # the end (§5.17, §8.7, §8.8)

    @property
    def over(self):
        return self.cause is not None

    def close(self, error=None):
        if not self.over:
            if self.link:
                self.link.close(error)
            self.end(f"closed: {error}" if error else "closed")

    def end(self, cause):
        if not self.over:
            self.cause = str(cause)
            self.queue.clear()
            self.patience and self.patience.cancel()
            self.end_upkeep()
            self.end_calls(self.cause)
            self.end_streams(self.cause)
            self.end_pubsub(self.cause)
            if self.attempt:
                self.attempt.link.cut()
            if self.site:
                self.site.remove(self)
            if self.link and not self.link.closing:
                self.link.cut()
            self.writable.set()  # whoever waits finds that it is over
            if self.link:
                self.link.gone.add_done_callback(lambda _: self.gone.set_result(None))
            else:
                self.gone.set_result(None)

    # messages (§5.14 to §5.16)

    def on_message(self, link, m, body):
        if "resume" in self.features and is_counted(m.type, m.ref, m.target, m.meta):
            self.count(m.size)
        if m.type == HELLO:
            raise Fatal(PROTOCOL_VIOLATION, "the handshake is over")
        elif m.ref is not None:
            self.on_continuation(m)
        elif m.target is None or m.type == UNSUBSCRIBE:
            raise Malformed("an opening without address")
        elif m.error:
            raise Malformed("an error where none may be")
        elif self.is_open(m.id) and not (m.type == MESSAGE and m.id in self.held_messages):
            raise Fatal(PROTOCOL_VIOLATION, "the id of an open exchange")  # §5.5
        elif m.type == CONTROL:
            self.on_operation(m)
        else:
            self.on_opening(m)

    def on_opening(self, m):
        features = {CALL: None, STREAM: "stream", SUBSCRIBE: "pubsub", MESSAGE: "pubsub"}
        if features[m.type] not in (None, *self.features):
            self.refuse(m, UNIMPLEMENTED)
        elif self.draining and m.id not in self.held_messages:
            self.refuse(m, DRAINING)  # it has crossed ours (§8.6)
        elif self.has_expired() and not self.initiator:
            self.refuse(m, UNAUTHENTICATED, "the credentials have run out")  # §8.5
        elif m.type == CALL:
            self.on_request(m)
        elif m.type == STREAM:
            self.on_stream_opening(m)
        elif m.type == SUBSCRIBE:
            self.on_subscribe(m)
        else:
            self.on_publication(m)

    def is_open(self, id):
        """Whether an exchange has this id (§5.5)."""
        tables = (self.mine, self.theirs, self.pings, self.asked, self.streams, self.subscriptions)
        tables += (self.subscribers, self.sent_messages, self.held_messages)
        return any(id in table for table in tables)

    def on_continuation(self, m):
        if m.target == "cancel" and m.type in (CALL, STREAM):
            self.spend()
        control = m.ref in self.pings or m.ref in self.asked
        if m.ref in self.streams:
            if m.type != STREAM:
                raise Fatal(PROTOCOL_VIOLATION, "the exchange is of another type")
            self.streams[m.ref].receive(m)
        elif m.ref in self.subscriptions or m.ref in self.subscribers:
            if m.type not in (SUBSCRIBE, UNSUBSCRIBE, MESSAGE):
                raise Fatal(PROTOCOL_VIOLATION, "the exchange is of another type")
            self.on_subscription(m)
        elif m.ref in self.sent_messages or m.ref in self.held_messages:
            if m.type != MESSAGE:
                raise Fatal(PROTOCOL_VIOLATION, "the exchange is of another type")
            self.on_message_verb(m)
        elif m.type == MESSAGE and "pubsub" in self.features and not self.is_open(m.ref):
            self.on_message_verb(m)  # §12.10: of several ids one may be known
        elif m.ref not in self.mine and m.ref not in self.theirs and not control:
            self.dropped += 1
        elif m.type != (CONTROL if control else CALL):
            raise Fatal(PROTOCOL_VIOLATION, "the exchange is of another type")
        elif m.target not in ((None,) if control else (None, "update", "cancel")):
            self.dropped += 1
        elif (m.ref in self.mine and m.target == "cancel") or (m.ref in self.theirs and m.target is None):
            raise Fatal(PROTOCOL_VIOLATION, "this side may not do that")
        elif m.error and m.target is not None:  # update, cancel; answers may have one (§5.18)
            raise Malformed("an error where none may be")
        elif control:
            self.on_reply(m)
        elif m.target == "cancel":
            self.cancelled += 1
            self.abandon(m.ref)
        elif m.ref in self.theirs:
            call = self.theirs[m.ref][1]
            call.updates.append(m.payload)
            call.news.set()
        elif m.target == "update":
            self.mine[m.ref][1](m.payload)
        else:
            future, _ = self.mine.pop(m.ref)
            if not future.done():
                future.set_exception(Error(**m.error)) if m.error else future.set_result(m.payload)

    def spend(self):
        """Cancels and refusals cost the other side (§10.7)."""
        now = self.loop.time()
        self.budget = min(BUDGET, self.budget + (now - self.budget_at) * BUDGET_PER_SECOND)
        self.budget_at = now
        if self.budget < 1:
            raise Fatal(RESOURCE_EXHAUSTED, "too many cancelled or rejected openings")
        self.budget -= 1

    def refuse(self, m, code, message=""):
        verb = {STREAM: "end", MESSAGE: "nack"}.get(m.type)
        qos = m.meta.get("qos", NULL)
        if m.type != MESSAGE or (qos[0] >> 5 == 0 and uint(qos) in (1, 2)):  # §5.16
            self.spend()
            self.send(new_message(m.type, m.id, verb, error=Error(code, message, processed=False).map))
        else:
            self.dropped += 1
