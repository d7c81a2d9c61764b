"""Streams (SPEC.md §11) for peer.py, and the streams of the conformance peer (§21). § numbers name its sections."""
import asyncio
import collections
import math
import traceback

from cbor import Malformed, Raw, array, decode, encode, uint
from wire import (CANCELLED, DEADLINE_EXCEEDED, FLOW_CONTROL, INTERNAL, INVALID_ARGUMENT, NULL, OUT_OF_RANGE,
                  PERMISSION_DENIED, PROTOCOL_VIOLATION, RESOURCE_EXHAUSTED, STREAM, UNAVAILABLE, UNIMPLEMENTED, Error,
                  Fatal, new_message)

MOST_CREDIT = (1 << 31) - 1  # §11.5
HELD_BYTES = 16 << 20  # §15.3
VERBS = (None, "items", "end", "cancel", "pause", "resume", "credit")


class Stream:
    """A stream, at either end."""

    def __init__(self, peer, id, ours, credit, window, argument):
        self.peer, self.id, self.ours, self.payload = peer, id, ours, argument
        self.credit, self.granted, self.window, self.taken = credit, window, window, 0
        self.our_end = self.their_end = self.cancelling = self.closed = self.paused = self.finished = False
        self.items, self.last, self.error = collections.deque(), None, None
        self.news, self.room = asyncio.Event(), asyncio.Event()
        self.timer = self.task = None

    # what applications do

    async def next(self):
        """The next item as Raw; None behind the last. Error is raised where the stream has failed."""
        while not self.items:
            if self.their_end:
                return None
            if self.error:
                raise self.error
            if self.granted <= 0:  # who waits must be able to get something (§11.5)
                self.grant(max(self.taken, 1 - self.granted))
            self.news.clear()
            await self.news.wait()
        item, cost = self.items.popleft()
        self.taken += cost
        if 2 * self.taken >= self.window:
            self.grant(self.taken)
        return item

    async def send(self, value, verb=None):
        """Waits for credit, and until the transport takes it."""
        message = new_message(STREAM, self.id, verb, payload=value)
        self.peer.fit(message)
        while True:
            await self.peer.writable.wait()
            self.check()
            if self.credit > 0 and not self.paused:
                break
            self.room.clear()
            await self.room.wait()
        self.credit -= len(encode(message))
        self.peer.send(message)

    async def end(self, value=None):
        if encode(value) == NULL:  # costs nothing
            self.check()
            self.peer.send(new_message(STREAM, self.id, "end"))
        else:
            await self.send(value, "end")
        self.our_end = True
        if self.their_end:
            self.close()

    def cancel(self, error=None):
        """Gives the stream up (§11.4)."""
        if not self.closed and not self.cancelling:
            self.peer.send(new_message(STREAM, self.id, "cancel", error=error and error.map))
            self.cancelling = True
            self.items.clear()
            self.fail(error or Error(CANCELLED, "cancelled here"))

    def pause(self):
        self.peer.send(new_message(STREAM, self.id, "pause"))

    def resume(self):
        self.peer.send(new_message(STREAM, self.id, "resume"))

    # what happens to it

    def check(self):
        if self.error or self.our_end:
            raise self.error or Error(PROTOCOL_VIOLATION, "this direction has ended")

    def grant(self, bytes):
        if not self.their_end and not self.closed and not self.cancelling:
            self.peer.send(new_message(STREAM, self.id, "credit", payload=bytes))
            self.granted, self.taken = self.granted + bytes, 0

    def fail(self, error):
        self.error = error
        self.news.set()
        self.room.set()

    def close(self):
        """Both directions are over: the exchange is not open any more."""
        if not self.closed:
            self.closed = True
            self.peer.streams.pop(self.id, None)
            self.timer and self.timer.cancel()
            self.peer.release_stream(self)

    def stop(self):
        """Nobody waits for what the handler does."""
        if self.task:
            self.task.cancel()

    def receive(self, m):
        """A message on this stream, in the order of §5.15."""
        verb = m.target
        if verb not in VERBS:
            self.peer.dropped += 1
        elif self.cancelling:
            self.close() if verb in ("end", "cancel") else None  # all else is late
        elif verb in (None, "items", "end") and not m.error and self.their_end:
            raise Fatal(PROTOCOL_VIOLATION, "data after the end")
        elif m.error and verb not in ("end", "cancel"):
            raise Malformed("an error where none may be")
        elif verb == "cancel":
            self.peer.cancelled += not self.ours
            self.peer.send(new_message(STREAM, self.id, "end", error=Error(CANCELLED).map))
            self.over(m.error)
            self.stop()
        elif verb == "end" and m.error:
            self.over(m.error)
            self.stop()
        elif verb == "credit":
            self.receive_credit(uint(m.payload))
        elif verb in ("pause", "resume"):
            self.paused = verb == "pause"
            self.room.set()
        else:
            self.receive_data(m)

    def receive_data(self, m):
        items = array(Raw)(m.payload) if m.target == "items" else [m.payload]
        if m.target != "end" or m.payload != NULL:
            if self.granted <= 0:
                raise Fatal(FLOW_CONTROL, "data without credit")
            self.granted -= m.size
        if m.target == "end":
            self.their_end, self.last = True, m.payload
            if self.our_end:
                self.close()
        elif self.finished:  # nobody takes it (§11.11)
            return self.cancel()
        else:  # an `items` costs when its last item is taken
            costs = [0] * (len(items) - 1) + [m.size]
            self.items.extend(zip(items, costs))
            if not items:
                self.taken += m.size
        self.news.set()

    def receive_credit(self, bytes):
        if not self.our_end:
            self.credit += bytes
            if self.credit > MOST_CREDIT:
                raise Fatal(FLOW_CONTROL, "credit beyond all bounds")
            self.room.set()

    def over(self, error):
        self.close()
        self.fail(Error(**error) if error else Error(CANCELLED, "cancelled by the other side"))


class Streams:
    """The part of a peer that does streams."""

    def start_streams(self):
        self.streams, self.serving, self.opening_bytes = {}, 0, 0

    def end_streams(self, cause):
        for stream in list(self.streams.values()):
            stream.close()
            stream.fail(Error(UNAVAILABLE, cause))
            stream.stop()

    def on_stream_opening(self, m):
        try:
            timeout = uint(m.meta["timeout_ms"]) if "timeout_ms" in m.meta else None
            credit = uint(m.meta["window"]) if "window" in m.meta else self.other["stream_window"]
        except Malformed:
            return self.refuse(m, INVALID_ARGUMENT, "a meta key has a bad value")
        if timeout == 0:
            self.refuse(m, DEADLINE_EXCEEDED)
        elif self.serving >= self.own["max_streams"]:
            self.refuse(m, RESOURCE_EXHAUSTED, "too many streams")  # §11.8
        elif self.opening_bytes and self.opening_bytes + len(m.payload) > HELD_BYTES:
            self.refuse(m, RESOURCE_EXHAUSTED, "too much held")
        elif m.target not in STREAMS:
            self.refuse(m, UNIMPLEMENTED)
        else:
            window = self.own["stream_window"]
            stream = Stream(self, m.id, False, min(credit, MOST_CREDIT), window, m.payload)
            self.streams[m.id] = stream
            self.serving, self.opening_bytes = self.serving + 1, self.opening_bytes + len(m.payload)
            if timeout:
                stream.timer = self.loop.call_later(timeout / 1000, self.expire_stream, stream)
            stream.task = self.loop.create_task(self.run_stream(STREAMS[m.target], stream))
            stream.task.add_done_callback(lambda _: self.release_stream(stream))

    async def run_stream(self, handler, stream):
        try:
            await stream.end(await handler(stream))
            stream.finished = True
            if stream.items:
                stream.cancel()  # §11.11
        except (Exception, asyncio.CancelledError) as error:
            if stream.closed or stream.cancelling:
                return
            if not isinstance(error, Error):
                traceback.print_exc()
                error = Error(INTERNAL, "the handler failed")
            self.send(new_message(STREAM, stream.id, "end", error=error.map))
            stream.over(error.map)

    def release_stream(self, stream):
        """A slot is taken until the stream is closed and its handler has finished (§11.8)."""
        if stream.task and stream.closed and stream.task.done():
            self.serving, self.opening_bytes = self.serving - 1, self.opening_bytes - len(stream.payload)
            stream.task = None

    def expire_stream(self, stream):
        """The deadline (§11.7)."""
        late = Error(DEADLINE_EXCEEDED, "the deadline passed")
        if stream.cancelling:
            return
        if stream.ours:
            return stream.cancel(late)
        self.send(new_message(STREAM, stream.id, "end", error=late.map))
        stream.over(late.map)
        stream.stop()

    def stream(self, method, payload=None, timeout=None, window=None):
        """Opens a stream. `timeout` is in seconds, `window` in bytes: what may come before any of it is taken."""
        meta = {} if timeout is None else {"timeout_ms": math.ceil(timeout * 1000)}
        if window is not None:
            meta["window"] = window
        self.may_open()
        if "stream" not in self.features:
            raise Error(UNAVAILABLE, "the other side has no streams", processed=False)
        opening = new_message(STREAM, None, method, meta, Raw(encode(payload)))
        self.fit(opening, processed=False)
        window = self.own["stream_window"] if window is None else window
        stream = Stream(self, opening[1], True, self.other["stream_window"], window, None)
        self.streams[stream.id] = stream
        self.send(opening)
        if timeout is not None:
            stream.timer = self.loop.call_later(timeout, self.expire_stream, stream)
        return stream


# ---------------------------------------------------------------- the streams of §21


def argument(payload, name, default=None):
    value = decode(payload)
    value = value.get(name, default) if isinstance(value, dict) else None
    if not isinstance(value, int) or value < 0:
        raise Error(INVALID_ARGUMENT, f"`{name}` is missing or of another type", processed=False)
    return value


async def count(stream):
    n, size = argument(stream.payload, "n"), argument(stream.payload, "size", 0)
    sized = "size" in decode(stream.payload)
    for number in range(n):
        await stream.send(bytes([number % 256]) * size if sized else number)
    return n


async def sum(stream):
    total = 0
    while (item := await stream.next()) is not None:
        if item[0] >> 5 > 1:
            raise Error(INVALID_ARGUMENT, "an item is no integer")
        total += decode(item)
    if not -(1 << 63) <= total < 1 << 63:
        raise Error(OUT_OF_RANGE, "the sum has more than 64 bits")
    return total


async def echo(stream):
    while (item := await stream.next()) is not None:
        await stream.send(item)
    return stream.last


async def never(stream):
    await asyncio.Event().wait()


async def reject(stream):
    raise Error(PERMISSION_DENIED, "this is what it is for", processed=False)


STREAMS = {f"test.{handler.__name__}": handler for handler in (count, sum, echo, never, reject)}
