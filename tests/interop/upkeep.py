"""Control messages (SPEC.md §8, §9.3) for peer.py. § numbers name the sections of SPEC.md."""
import asyncio
import collections
import math

from auth import Challenge
from cbor import array, auth, encode, struct_of, tstr, uint
from resume import REPORT_TIME
from wire import (CALL, CONTROL, DRAINING, HEARTBEAT_TIMEOUT, PERMISSION_DENIED, PROTOCOL_VIOLATION, STREAM,
                  UNAUTHENTICATED, UNAVAILABLE, UNIMPLEMENTED, Error, Fatal, new_message, parse)

KEPT_PINGS, DRAIN_TIME = 8, 30  # §15.3
DRAIN = struct_of({"deadline_ms": uint, "reason": tstr(), "redirect": tstr()})
AUTH_REPLY = struct_of({"auth_expires_ms": uint})


class Upkeep:
    """The part of a peer that keeps its session."""

    def start_upkeep(self):
        self.pings, self.replies = collections.deque(maxlen=KEPT_PINGS), collections.deque(maxlen=KEPT_PINGS)
        self.asked, self.timer, self.reporting, self.renewal, self.expires = {}, None, None, None, None
        self.interval = math.inf
        self.draining, self.drained, self.peer_draining = None, False, False

    def end_upkeep(self):
        for timer in (self.timer, self.reporting, self.renewal):
            timer and timer.cancel()
        for future in self.asked.values():
            future.cancel()

    def on_operation(self, m):
        """An opening of type control."""
        if m.target == "ping":  # ahead of what is queued (§8.3)
            self.replies.append(encode(new_message(CONTROL, m.id)))
            self.flush()
        elif m.target == "handled" and "resume" in self.features:
            self.on_handled(m.payload)
            self.flush()
        elif m.target in ("handled", "rekey"):
            self.dropped += 1  # never answered (§8.2)
        elif m.target == "drain":
            self.on_drain(m)
        elif m.target == "auth" and self.identity:
            self.on_auth(m)
        else:
            self.refuse(m, UNIMPLEMENTED)

    def on_reply(self, m):
        if m.ref in self.pings:
            self.pings.remove(m.ref)
        else:
            future = self.asked.pop(m.ref)
            if not future.done():
                future.set_exception(Error(**m.error)) if m.error else future.set_result(m.payload)

    def ask(self, operation, payload):
        """The future reply. It is cancelled where the link is lost: then the question is forgotten (§9.7)."""
        message, future = new_message(CONTROL, None, operation, payload=payload), self.loop.create_future()
        self.asked[message[1]] = future
        self.send(message)
        return future

    # heartbeat (§8.4)

    def start_heart(self, limits):
        beats = [limits["heartbeat_ms"] for limits in (self.own, limits) if limits["heartbeat_ms"]]
        self.interval = max(min(beats), 100) / 1000 if beats else math.inf
        self.pinged = self.loop.time()
        self.timer and self.timer.cancel()
        self.heartbeat()

    def heartbeat(self):
        link = self.link
        if not link:
            return
        now, dead = self.loop.time(), link.received + 3 * self.interval
        if now >= dead and not link.frozen:
            error = Error(HEARTBEAT_TIMEOUT, f"nothing came for {3 * self.interval} s")
            return self.detach() if self.is_resumable() else self.close(error)
        if now >= max(self.pinged, min(link.sent, link.received)) + self.interval:
            self.pinged = now
            self.pings.append(self.send(new_message(CONTROL, None, "ping")))
        due = max(self.pinged, min(link.sent, link.received)) + self.interval
        if due < math.inf:
            self.timer = self.loop.call_at(due if link.frozen else min(due, dead), self.heartbeat)

    # how many are handled (§9.3)

    def count(self, size):
        if self.ledger.handle(size):
            self.report()
        elif not self.reporting:
            self.reporting = self.loop.call_later(REPORT_TIME, self.report)

    def on_handled(self, payload):
        if payload[0] >> 5 != 4:
            return self.ledger.forget(uint(payload))
        lane, handled = array(uint, 2, 2)(payload)
        if lane == 0 or handled:
            raise Fatal(PROTOCOL_VIOLATION, "there is no such lane")

    def report(self):
        self.reporting and self.reporting.cancel()
        self.reporting = None
        if self.link:  # a new one begins with it anyway
            self.send(new_message(CONTROL, None, "handled", payload=self.ledger.report()))

    # renewal (§8.5)

    def expire_in(self, ms):
        self.expires = self.loop.time() + ms / 1000 if ms else None
        self.renewal and self.renewal.cancel()
        if ms and self.initiator and self.credentials:
            self.renewal = self.loop.call_later(ms / 2000, lambda: self.loop.create_task(self.renew()))

    def expires_in(self):
        return self.expires and max(1, math.ceil((self.expires - self.loop.time()) * 1000))

    def has_expired(self):
        return self.expires is not None and self.loop.time() >= self.expires

    async def renew(self):
        """Where it fails, what was shown before counts until it has run out."""
        try:
            reply = AUTH_REPLY(await self.ask("auth", self.credentials.first()))
            self.renewals += 1
            self.expire_in(reply.get("auth_expires_ms"))
        except (Error, asyncio.CancelledError):
            pass  # a new link may bring new ones

    def on_auth(self, m):
        self.spend()
        try:
            identity = self.site.accounts.verify(auth(m.payload), None)
            if identity.name != self.identity.name:
                raise Error(PERMISSION_DENIED, "another identity")
        except Challenge:
            return self.refuse(m, UNAUTHENTICATED, "no challenge outside of a handshake")
        except Error as error:
            return self.send(new_message(CONTROL, m.id, error=error.map))
        self.expire_in(self.site.auth_ms)
        expires = {"auth_expires_ms": self.site.auth_ms} if self.site.auth_ms else {}
        self.send(new_message(CONTROL, m.id, payload=expires))

    # drain (§8.6)

    def may_open(self):
        """Error where nothing more can be opened."""
        if self.over:
            raise Error(UNAVAILABLE, self.cause, processed=False)
        if self.peer_draining:
            raise Error(DRAINING, "the other side is about to leave", processed=False)

    def on_drain(self, m):
        DRAIN(m.payload)
        self.spend()
        error = Error(DRAINING, "not sent", processed=False)
        self.peer_draining, queue, self.queue = True, self.queue, collections.deque()
        self.publications.withdraw_all(error)
        for counted, body in queue:  # what was not sent fails here
            left = parse(body)
            is_new = left.ref is None and left.id not in self.attempted()
            if not is_new:
                self.queue.append((counted, body))
            else:
                self.take_back(left.id, error)
        self.send(new_message(CONTROL, m.id))

    def attempted(self):
        """Messages that were sent before (§12.8)."""
        return {id for id, message in self.sent_messages.items() if message.attempt > 1}

    def take_back(self, id, error):
        """An opening that was not sent."""
        if id in self.mine:
            future, _ = self.mine.pop(id)
            future.done() or future.set_exception(error)
        elif id in self.streams:
            self.streams[id].close()
            self.streams[id].fail(error)
        elif id in self.subscriptions:
            self.subscriptions[id].over(error)
        elif id in self.sent_messages:
            message = self.sent_messages[id]
            message.settle(error)
            message.lane.done(message)

    def is_busy(self):
        return self.mine or self.theirs or self.streams or self.sent_messages or self.held_messages or self.queue

    async def drain(self, deadline=DRAIN_TIME, reason=None):
        """Leaves as soon as everything has come to its end; after `deadline` seconds at the latest."""
        self.draining = {"deadline_ms": math.ceil(deadline * 1000)} | ({"reason": reason} if reason else {})
        until = self.loop.time() + deadline
        self.announce_drain()
        while not self.over and self.loop.time() < until and (self.is_busy() or not self.drained):
            await asyncio.sleep(0.01)
        if not self.over:
            late = Error(UNAVAILABLE, "the time to leave has come")
            for id in list(self.theirs):
                self.abandon(id)
                self.send(new_message(CALL, id, error=late.map))
            for stream in list(self.streams.values()):
                stream.stop()
                self.send(new_message(STREAM, stream.id, "end", error=late.map))
                stream.over(late.map)
            self.close()

    def announce_drain(self):
        reply = self.ask("drain", self.draining)
        reply.add_done_callback(lambda reply: reply.cancelled() or self.on_drained(reply.exception()))

    def on_drained(self, _):
        self.drained = True  # also where the other side does not know it
