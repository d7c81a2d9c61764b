"""Calls (SPEC.md §10) for peer.py. § numbers name the sections of SPEC.md."""
import asyncio
import collections
import math
import traceback

from cbor import Malformed, Raw, decode, encode, uint
from wire import (CALL, DEADLINE_EXCEEDED, INTERNAL, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNAVAILABLE, UNIMPLEMENTED,
                  Error, new_message)

HELD_BYTES, HELD_UPDATES = 16 << 20, 64  # §15.3


class IncomingCall:
    """What a handler sees of a call that it answers."""

    def __init__(self, peer, message):
        self.peer, self.id, self.payload = peer, message.id, message.payload
        self.updates = collections.deque(maxlen=HELD_UPDATES)  # beyond that the oldest goes (§10.3)
        self.news = asyncio.Event()

    def argument(self, name, kind):
        value = decode(self.payload)
        if not isinstance(value, dict) or not isinstance(value.get(name), kind):
            raise Error(INVALID_ARGUMENT, f"`{name}` is missing or of another type")
        return value[name]

    async def update(self, value):
        await self.peer.writable.wait()
        if self.id in self.peer.theirs:
            message = new_message(CALL, self.id, "update", payload=value)
            self.peer.fit(message)
            self.peer.send(message)


class Calls:
    """The part of a peer that calls and is called."""

    def start_calls(self):
        self.mine, self.theirs, self.running, self.held = {}, {}, 0, 0

    def end_calls(self, cause):
        mine, theirs, self.mine, self.theirs = self.mine, self.theirs, {}, {}
        for future, _ in mine.values():
            if not future.done():
                future.set_exception(Error(UNAVAILABLE, cause))  # without `processed` (§10.9)
        for task, _, timer in theirs.values():
            task.cancel()
            timer and timer.cancel()

    # those of the other side

    def on_request(self, m):
        try:
            timeout = uint(m.meta["timeout_ms"]) if "timeout_ms" in m.meta else None
        except Malformed:
            return self.refuse(m, INVALID_ARGUMENT, "timeout_ms")  # §5.10
        if timeout == 0:  # the order is that of §5.14
            self.refuse(m, DEADLINE_EXCEEDED)
        elif self.running >= self.own["max_calls"]:
            self.refuse(m, RESOURCE_EXHAUSTED, "too many calls")  # §10.6
        elif self.held and self.held + len(m.payload) > HELD_BYTES:
            self.refuse(m, RESOURCE_EXHAUSTED, "too much held")  # §10.8
        elif m.target not in self.methods:
            self.refuse(m, UNIMPLEMENTED)
        else:
            call, size = IncomingCall(self, m), len(m.payload)
            self.running, self.held = self.running + 1, self.held + size
            timer = timeout and self.loop.call_later(timeout / 1000, self.expire, m.id)
            task = self.loop.create_task(self.run(self.methods[m.target], call))
            task.add_done_callback(lambda _: self.release(size))  # not before: it is work that counts (§10.6)
            self.theirs[m.id] = (task, call, timer)

    async def run(self, handler, call):
        try:
            message = new_message(CALL, call.id, payload=Raw(encode(await handler(call))))
            self.fit(message, processed=True)
        except Error as error:
            message = new_message(CALL, call.id, error=error.map)
            if len(encode(message)) > self.other["max_message"]:  # §5.13
                message[-1] = {key: error.map[key] for key in ("code", "processed") if key in error.map}
        except (Exception, asyncio.CancelledError):
            if call.id in self.theirs:
                traceback.print_exc()
            message = new_message(CALL, call.id, error=Error(INTERNAL, "the handler failed").map)
        if call.id in self.theirs:
            await self.writable.wait()  # who does not read waits with all its slots taken (§17.2)
        if call.id in self.theirs:
            self.abandon(call.id, stop=False)
            self.send(message)

    def release(self, size):
        self.running, self.held = self.running - 1, self.held - size

    def abandon(self, id, stop=True):
        task, _, timer = self.theirs.pop(id)
        timer and timer.cancel()
        if stop:
            task.cancel()

    def expire(self, id):
        self.abandon(id)
        self.send(new_message(CALL, id, error=Error(DEADLINE_EXCEEDED).map))  # §10.5

    # our own

    async def call(self, method, payload=None, timeout=None, on_update=lambda payload: None, feedback=()):
        """The result as Raw; Error is raised. `timeout` is in seconds; `feedback` is sent as updates."""
        meta = {} if timeout is None else {"timeout_ms": math.ceil(timeout * 1000)}
        request = new_message(CALL, None, method, meta, Raw(encode(payload)))
        self.may_open()
        self.fit(request, processed=False)
        if len(self.mine) >= self.other["max_calls"]:
            raise Error(RESOURCE_EXHAUSTED, "too many calls", processed=False)
        future, id = self.loop.create_future(), request[1]
        self.mine[id] = (future, on_update)
        self.send(request)
        try:
            for value in feedback:
                await self.writable.wait()
                self.send(new_message(CALL, id, "update", payload=value))
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            raise Error(DEADLINE_EXCEEDED, "no answer in time") from None
        finally:  # given up, by whom it may be: tell the callee (§10.4)
            if self.mine.pop(id, None):
                self.send(new_message(CALL, id, "cancel"))
