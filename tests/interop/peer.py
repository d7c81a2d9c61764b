#!/usr/bin/env python3
"""A FLUXAR peer over TCP in plain Python: a model for ports to other languages. Here is Core (SPEC.md §1.5); streams
are in streams.py, publish and subscribe in pubsub.py, messages in wire.py, their encoding in cbor.py.

    peer.py call HOST PORT METHOD [JSON] [--timeout MS]     updates and the answer as JSON, one per line
    peer.py stream HOST PORT METHOD [JSON] [--items JSON] [--window N] [--take N] [--timeout MS]
                                                            sends items; those that come, and the final value
    peer.py sub HOST PORT FILTER [--qos N] [--group G] [--inflight N] [--count N] [--nack N]
                                                            messages, acknowledged; of the first --nack not at once
    peer.py pub HOST PORT TOPIC JSON... [--qos N] [--retain]
    peer.py serve PORT [--limits JSON]                      prints its port; a hub; methods: METHODS, STREAMS
    peer.py probe HOST PORT [--only PART]                   checks a server against SPEC.md (probe.py)

It needs Python 3.11 and nothing else. § numbers name the sections of SPEC.md.
"""
import argparse
import asyncio
import collections
import json
import math
import sys
import traceback

from cbor import (ANSWER, LATER_ANSWER, LIMITS, OFFER, Malformed, Raw, decode, encode, limits_of, plain, struct_of,
                  uint)
from pubsub import Hub, PubSub
from streams import STREAMS, Streams
from wire import (CALL, CONTROL, DEADLINE_EXCEEDED, HEARTBEAT_TIMEOUT, HELLO, INTERNAL, INVALID_ARGUMENT, MALFORMED,
                  MESSAGE, MESSAGE_TOO_LARGE, NULL, PROTOCOL_VIOLATION, RESOURCE_EXHAUSTED, STREAM, SUBSCRIBE,
                  UNAVAILABLE, UNIMPLEMENTED, UNSUBSCRIBE, UNSUPPORTED_VERSION, Error, Fatal, frame,
                  new_message, parse)

HANDSHAKE_FRAME, FRAME_ROOM = 65_536, 64  # §3.3
HANDSHAKE_TIME, LINGER, HELD_BYTES, HELD_UPDATES, KEPT_PINGS = 10, 1, 16 << 20, 64, 8  # §15.3
BUDGET, BUDGET_PER_SECOND = 10_000, 2_000  # §10.7


# ---------------------------------------------------------------- the peer


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


FEATURES = ("stream", "pubsub")


class Peer(Streams, PubSub, asyncio.Protocol):
    """One connection, from either end. `ready`: it is established. `gone`: the transport is closed."""

    def __init__(self, methods, initiator, limits=None, hub=None):
        self.loop = asyncio.get_running_loop()
        self.methods, self.initiator, self.hub, self.features = methods, initiator, hub, ()
        self.announced = {"max_message": 16 << 20} | (limits or {})
        self.own, self.other = LIMITS | self.announced, LIMITS
        self.ready, self.gone = self.loop.create_future(), self.loop.create_future()
        self.writable = asyncio.Event()
        self.ready.add_done_callback(lambda ready: ready.exception())  # nobody needs to ask
        self.buffer, self.limit = bytearray(), HANDSHAKE_FRAME
        self.queue, self.replies = collections.deque(), collections.deque(maxlen=KEPT_PINGS)
        self.mine, self.theirs, self.pings = {}, {}, collections.deque(maxlen=KEPT_PINGS)
        self.established = self.closing = self.blocked = False
        self.cause, self.hello, self.proofs, self.dropped, self.running, self.held = None, None, 0, 0, 0, 0
        self.budget, self.budget_at = BUDGET, self.loop.time()
        self.cancelled = 0  # calls and streams of the other side
        self.start_streams()
        self.start_pubsub()

    # transport

    def connection_made(self, transport):
        self.transport = transport
        transport.set_write_buffer_limits(high=0)  # what waits, waits in `queue` (§5.17)
        late = Error(DEADLINE_EXCEEDED, "handshake took too long")
        self.timer = self.loop.call_later(HANDSHAKE_TIME, self.close, late)  # §6.9
        self.writable.set()
        if self.initiator:
            caps = {"features": FEATURES}
            offer = {"versions": [1], "agent": "fluxar-interop/1", "caps": caps, "limits": self.announced}
            self.hello = self.send(new_message(HELLO, payload=offer))

    def pause_writing(self):
        self.blocked = True
        self.writable.clear()

    def resume_writing(self):
        self.blocked = False
        self.flush()

    def data_received(self, data):
        if self.closing:
            return  # §8.7
        self.received = self.loop.time()
        self.buffer += data
        try:
            while len(self.buffer) >= 4 and not self.closing:
                size = int.from_bytes(self.buffer[:4], "big")
                if size == 0:
                    raise Malformed("frame of 0 bytes")
                if size > self.limit:
                    raise Fatal(MESSAGE_TOO_LARGE, f"frame of {size} bytes")  # from the length alone (§3.3)
                if len(self.buffer) < 4 + size:
                    return
                body = bytes(self.buffer[4 : 4 + size])
                del self.buffer[: 4 + size]
                if self.established and size > self.own["max_message"]:
                    raise Fatal(MESSAGE_TOO_LARGE, f"message of {size} bytes")  # §5.13
                (self.on_message if self.established else self.on_hello)(parse(body))
        except Malformed as error:
            self.close(Error(MALFORMED, str(error)))
        except Fatal as error:
            self.close(error)

    def eof_received(self):
        self.end("the link was lost")  # §3.4; the transport closes itself then

    def connection_lost(self, exception):
        self.end("the link was lost")
        self.gone.set_result(None)

    def send(self, message):
        self.queue.append(frame(encode(message)))
        self.flush()
        return message[1]

    def fit(self, message, **processed):
        if len(encode(message)) > self.other["max_message"]:  # fails where it was made (§5.13)
            raise Error(MESSAGE_TOO_LARGE, "the other side takes no message of that size", **processed)

    def flush(self):
        while (self.replies or self.queue) and not self.blocked and not self.closing:
            self.transport.write((self.replies or self.queue).popleft())
            self.sent = self.loop.time()
        if not self.blocked:
            self.writable.set()

    # the end (§5.17, §8.7, §8.8)

    def close(self, error=None):
        if not self.closing:
            self.queue.clear()
            message = new_message(CONTROL, None, "close", error=error and error.map)
            self.transport.write(frame(encode(message)))
            self.leave(f"closed: {error}" if error else "closed")

    def leave(self, cause, error=None):
        """Sends no more, but reads (and forgets) until the other side has closed: so nothing gets lost."""
        self.closing = True
        self.transport.write_eof()
        self.loop.call_later(LINGER, self.transport.abort)
        self.end(cause, error)

    def end(self, cause, error=None):
        if self.cause is None:
            self.closing, self.cause, mine, theirs = True, str(cause), self.mine, self.theirs
            self.mine, self.theirs = {}, {}
            self.timer.cancel()
            if not self.ready.done():
                self.ready.set_exception(error or Error(UNAVAILABLE, self.cause))
            for future, _ in mine.values():
                if not future.done():
                    future.set_exception(Error(UNAVAILABLE, self.cause))  # without `processed` (§10.9)
            for task, _, timer in theirs.values():
                task.cancel()
                timer and timer.cancel()
            self.end_streams(self.cause)
            self.end_pubsub(self.cause)

    # handshake (§6)

    def on_hello(self, m):
        if (m.type, m.ref, m.target) == (CONTROL, None, "close"):
            self.on_close(m)
        elif m.type != HELLO or m.ref != self.hello:  # a responder has sent no hello yet: `ref` is null
            raise Fatal(PROTOCOL_VIOLATION, "not the hello that was due")
        elif self.initiator:
            self.on_answer(m)
        elif m.target is not None or m.error:
            raise Malformed("an offer with a target or an error")
        elif 1 not in struct_of({"versions": OFFER["versions"]}, "versions")(m.payload)["versions"]:  # §6.5
            error = Error(UNSUPPORTED_VERSION, "no version in common", data=[1])
            self.send(new_message(HELLO, m.id, error=error.map))
            self.leave(error)
        else:
            offer = struct_of(OFFER)(m.payload)
            self.other = limits_of(offer)
            offered = offer.get("caps", {}).get("features", [])
            self.features = [name for name in FEATURES if name in offered]
            caps = {"features": self.features}
            answer = {"version": 1, "agent": "fluxar-interop/1", "caps": caps, "limits": self.announced}
            self.send(new_message(HELLO, m.id, payload=answer))
            self.establish()

    def on_answer(self, m):
        if m.target is not None:
            raise Fatal(PROTOCOL_VIOLATION, "an answer with a target")
        if m.error:  # §6.8: nothing more is sent
            self.end("refused", Error(**m.error))
            return self.transport.abort()
        if self.proofs == 0:
            answer = struct_of(ANSWER, "version")(m.payload)
            caps = answer.get("caps", {})
            self.features = caps.pop("features", [])
            chosen = any(caps.values()) or not set(self.features) <= set(FEATURES)
            if answer["version"] != 1 or "psk" in answer or "resumed" in answer or chosen:
                raise Fatal(PROTOCOL_VIOLATION, "the answer chooses what was not offered")  # §6.4
            self.other = limits_of(answer)
        else:
            answer = struct_of(LATER_ANSWER)(m.payload)
        if "next" not in answer:
            return self.establish()
        self.proofs += 1
        if answer["next"] != "proof" or self.proofs > 4:
            raise Fatal(PROTOCOL_VIOLATION, "no such round")
        self.hello = self.send(new_message(HELLO, m.id, "proof", payload={}))  # nothing to prove (§6.10)

    def establish(self):
        self.established, self.limit = True, self.own["max_message"] + FRAME_ROOM
        self.sent = self.received = self.pinged = self.loop.time()
        self.publications.limit = self.other["max_inflight"]
        self.timer.cancel()
        beats = [limits["heartbeat_ms"] for limits in (self.own, self.other) if limits["heartbeat_ms"]]
        self.interval = max(min(beats), 100) / 1000 if beats else math.inf
        self.ready.set_result(None)
        self.heartbeat()

    # control (§8)

    def heartbeat(self):
        now, dead = self.loop.time(), self.received + 3 * self.interval
        if now >= dead:
            return self.close(Error(HEARTBEAT_TIMEOUT, f"nothing came for {3 * self.interval} s"))
        if now >= max(self.pinged, min(self.sent, self.received)) + self.interval:
            self.pinged = now
            self.pings.append(self.send(new_message(CONTROL, None, "ping")))
        due = max(self.pinged, min(self.sent, self.received)) + self.interval
        if due < math.inf:
            self.timer = self.loop.call_at(min(due, dead), self.heartbeat)

    def on_close(self, m):
        self.end(f"closed by the other side: {m.error or 'done'}", Error(**m.error) if m.error else None)
        self.transport.abort()  # nothing more is sent

    # messages (§5.14 to §5.16)

    def on_message(self, m):
        if (m.type, m.ref, m.target) == (CONTROL, None, "close"):
            self.on_close(m)
        elif m.type == HELLO:
            raise Fatal(PROTOCOL_VIOLATION, "the handshake is over")
        elif m.ref is not None:
            self.on_continuation(m)
        elif m.target is None or m.type == UNSUBSCRIBE:
            raise Malformed("an opening without address")
        elif m.error:
            raise Malformed("an error where none may be")
        elif self.is_open(m.id) and not (m.type == MESSAGE and m.id in self.held_messages):
            raise Fatal(PROTOCOL_VIOLATION, "the id of an open exchange")  # §5.5
        elif m.type == CALL:
            self.on_request(m)
        elif m.type == STREAM and "stream" in self.features:
            self.on_stream_opening(m)
        elif m.type == SUBSCRIBE and "pubsub" in self.features:
            self.on_subscribe(m)
        elif m.type == MESSAGE and "pubsub" in self.features:
            self.on_publication(m)
        elif (m.type, m.target) == (CONTROL, "ping"):
            self.replies.append(frame(encode(new_message(CONTROL, m.id))))  # ahead of what is queued (§8.3)
            self.flush()
        elif m.type == CONTROL and m.target in ("handled", "rekey"):
            self.dropped += 1  # never answered (§8.2)
        else:
            self.refuse(m, UNIMPLEMENTED)

    def is_open(self, id):
        """Whether an exchange has this id (§5.5)."""
        tables = (self.mine, self.theirs, self.pings, self.streams, self.subscriptions, self.subscribers)
        return any(id in table for table in (*tables, self.sent_messages, self.held_messages))

    def on_continuation(self, m):
        if m.target == "cancel" and m.type in (CALL, STREAM):
            self.spend()
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
        elif m.ref not in self.mine and m.ref not in self.theirs and m.ref not in self.pings:
            self.dropped += 1
        elif m.type != (CONTROL if m.ref in self.pings else CALL):
            raise Fatal(PROTOCOL_VIOLATION, "the exchange is of another type")
        elif m.target not in ((None,) if m.type == CONTROL else (None, "update", "cancel")):
            self.dropped += 1
        elif (m.ref in self.mine and m.target == "cancel") or (m.ref in self.theirs and m.target is None):
            raise Fatal(PROTOCOL_VIOLATION, "this side may not do that")
        elif m.error and m.target is not None:  # update, cancel; answers may have one (§5.18)
            raise Malformed("an error where none may be")
        elif m.type == CONTROL:
            self.pings.remove(m.ref)
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

    # calls (§10)

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

    async def call(self, method, payload=None, timeout=None, on_update=lambda payload: None, feedback=()):
        """The result as Raw; Error is raised. `timeout` is in seconds; `feedback` is sent as updates."""
        meta = {} if timeout is None else {"timeout_ms": math.ceil(timeout * 1000)}
        request = new_message(CALL, None, method, meta, Raw(encode(payload)))
        if self.closing:
            raise Error(UNAVAILABLE, self.cause, processed=False)
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


# ---------------------------------------------------------------- the program


async def echo(call):
    return call.payload


async def fail(call):
    raise Error(call.argument("code", int), call.argument("message", str))


async def sleep(call):
    await asyncio.sleep(call.argument("ms", int) / 1000)


async def count(call):
    for number in range(call.argument("n", int)):
        await call.update(number)
    return call.argument("n", int)


async def collect(call):
    values = []
    while len(values) < call.argument("n", int):
        await call.news.wait()
        call.news.clear()
        values += call.updates
        call.updates.clear()
    return values


async def callback(call):
    method = call.argument("method", str)
    try:
        return await call.peer.call(method, decode(call.payload).get("payload"))
    except Error as error:  # what was not acted upon is that call, not this one (§5.12)
        raise Error(**error.map | {"processed": True}) from None


async def cancelled(call):
    return call.peer.cancelled


METHODS = {f.__name__: f for f in (echo, fail, sleep, count, collect, callback)} | {"test.cancelled": cancelled}


async def serve(port, limits):
    hub, loop = Hub(), asyncio.get_running_loop()
    server = await loop.create_server(lambda: Peer(METHODS, False, limits, hub), "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def show(word, value):
    print(json.dumps({word: plain(value)}), flush=True)


async def call(peer, args):
    def on_update(payload):
        show("update", decode(payload))

    timeout = args.timeout and args.timeout / 1000
    show("result", decode(await peer.call(args.method, args.json, timeout, on_update)))


async def stream(peer, args):
    stream = peer.stream(args.method, args.json, args.timeout and args.timeout / 1000, args.window)

    async def send():
        for item in args.items:
            await stream.send(item)
        await stream.end()

    sending, taken = asyncio.ensure_future(send()), 0
    sending.add_done_callback(lambda sending: sending.cancelled() or sending.exception())  # who receives knows why
    while taken != args.take and (item := await stream.next()) is not None:
        show("item", decode(item))
        taken += 1
    if taken == args.take:
        stream.cancel()
        return show("cancelled", decode(await peer.call("test.cancelled")))
    show("final", decode(stream.last))
    await sending


async def sub(peer, args):
    subscription = await peer.subscribe(args.filter, args.qos, args.inflight, args.group)
    show("confirmed", subscription.granted)
    for number in range(args.count):
        message = await subscription.next()
        if number < args.nack:
            message.nack(Error(UNAVAILABLE, "not yet", retry_after_ms=1))
            continue
        message.ack()
        seen = {name: getattr(message, name) for name in ("topic", "qos", "dup", "attempt", "retained")}
        show("message", seen | {"payload": decode(message.payload)})
    subscription.unsubscribe()
    while subscription.id in peer.subscriptions:  # what was acknowledged is there before the end
        subscription.news.clear()
        await subscription.news.wait()


async def pub(peer, args):
    for payload in args.json:
        attempts = await peer.publish(args.topic, json.loads(payload), args.qos, args.retain)
        if attempts:
            show("accepted", attempts)


async def run(command, args):
    try:
        loop = asyncio.get_running_loop()
        _, peer = await loop.create_connection(lambda: Peer(METHODS, True, args.limits), args.host, args.port)
    except OSError as error:
        show("error", Error(UNAVAILABLE, str(error), processed=False).map)
        return 1
    try:
        await peer.ready
        await command(peer, args)
        return 0
    except Error as error:
        show("error", error.map)
        return 1
    finally:
        while peer.sent_messages:  # what is acknowledged is released, too
            await asyncio.sleep(0.01)
        peer.close()
        await peer.gone


def parser():
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    commands = parser.add_subparsers(dest="command", required=True)
    words = {"call": "method", "stream": "method", "sub": "filter", "pub": "topic", "probe": "", "serve": ""}
    for name, more in words.items():
        command = commands.add_parser(name)
        for word in (("" if name == "serve" else "host ") + "port " + more).split():
            command.add_argument(word, type=int if word == "port" else str)
        command.add_argument("--limits", type=json.loads, metavar="JSON")
    options = {
        "call": {"--timeout": int},
        "stream": {"--timeout": int, "--window": int, "--take": int, "--items": json.loads},
        "sub": {"--qos": int, "--inflight": int, "--count": int, "--nack": int, "--group": str},
        "pub": {"--qos": int},
    }
    defaults = {"--qos": 0, "--count": 1, "--nack": 0, "--items": []}
    for name, more in options.items():
        for option, kind in more.items():
            commands.choices[name].add_argument(option, type=kind, default=defaults.get(option))
    for name in ("call", "stream"):
        commands.choices[name].add_argument("json", nargs="?", type=json.loads)
    commands.choices["pub"].add_argument("json", nargs="+")
    commands.choices["pub"].add_argument("--retain", action="store_true")
    commands.choices["probe"].add_argument("--only", choices=("core", "streams", "pubsub"))
    return parser


def main():
    args = parser().parse_args()
    if args.command == "probe":
        import probe
        sys.exit(probe.main(args.host, args.port, args.only))
    if args.command == "serve":
        sys.exit(asyncio.run(serve(args.port, args.limits)))
    sys.exit(asyncio.run(run({"call": call, "stream": stream, "sub": sub, "pub": pub}[args.command], args)))


if __name__ == "__main__":
    main()
