#!/usr/bin/env python3
"""A FLUXAR Core peer (SPEC.md §1.5) over TCP in plain Python: a model for ports to other languages.

    peer.py call HOST PORT METHOD [JSON] [--timeout MS]     updates and the answer as JSON, one per line
    peer.py serve PORT                                      prints its port; methods: see METHODS
    peer.py probe HOST PORT                                 checks a server against SPEC.md (probe.py)

It needs Python 3.11 and nothing else; the encoding is in cbor.py. § numbers name the sections of SPEC.md.
"""
import argparse
import asyncio
import collections
import json
import math
import os
import sys
import traceback

from cbor import (ANSWER, ERROR, LATER_ANSWER, LIMITS, MAX_DEPTH, OFFER, Malformed, Raw, bstr, decode, encode,
                  limits_of, plain, skip, struct_of, text_map, tstr, uint)

HELLO, CALL, STREAM, SUBSCRIBE, UNSUBSCRIBE, MESSAGE, CONTROL = range(1, 8)  # §5.4
INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED = 3, 4, 8  # §16
UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 12, 13, 14
MALFORMED, PROTOCOL_VIOLATION, UNSUPPORTED_VERSION, MESSAGE_TOO_LARGE = 100, 101, 102, 103
HEARTBEAT_TIMEOUT = 108

HANDSHAKE_FRAME, FRAME_ROOM = 65_536, 64  # §3.3
HANDSHAKE_TIME, LINGER, HELD_BYTES, HELD_UPDATES, KEPT_PINGS = 10, 1, 16 << 20, 64, 8  # §15.3
BUDGET, BUDGET_PER_SECOND = 10_000, 2_000  # §10.7


class Error(Exception):
    """An error of a call, or the reason why a session ended. `map` is what goes over the wire (§5.12)."""

    def __init__(self, code, message="", **more):
        super().__init__(f"{message} (code {code})")
        self.map = {"code": code, **({"message": message} if message else {}), **more}


class Fatal(Error):
    """What the other side did ends the link (§5.17)."""


# ---------------------------------------------------------------- messages and frames (§3.1, §5.1)

NULL = b"\xf6"  # and nothing else (§5.2)
Message = collections.namedtuple("Message", "type id ref target meta payload error")


def new_message(type, ref=None, target=None, meta=None, payload=None, error=None, id=None):
    return [type, id or os.urandom(16), ref, target, meta or None, payload, error]  # a new id each (§5.5)


def frame(body):
    return len(body).to_bytes(4, "big") + body


def parse(body):
    """Exactly one envelope (§5.1)."""
    if body[0] != 0x87:
        raise Malformed("the first byte is not 87")
    ends = [1]
    for _ in range(7):  # the maps of meta and error themselves do not count (§5.3)
        ends.append(skip(body, ends[-1], MAX_DEPTH + (len(ends) in (5, 7))))
    if ends[-1] != len(body):
        raise Malformed("bytes are left over")
    type, id, ref, target, meta, payload, error = (Raw(body[a:b]) for a, b in zip(ends, ends[1:]))
    if not 1 <= uint(type) <= 7:
        raise Malformed("no such type")
    if error != NULL and payload != NULL:
        raise Malformed("payload and error")
    return Message(
        type=uint(type),
        id=bstr(16)(id),
        ref=None if ref == NULL else bstr(16)(ref),
        target=None if target == NULL else tstr(255)(target),
        meta={} if meta == NULL else text_map(meta, 0)[0],
        payload=payload,
        error=None if error == NULL else struct_of(ERROR, "code", indefinite=False)(error),
    )


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


class Peer(asyncio.Protocol):
    """One connection, from either end. `ready`: it is established. `gone`: the transport is closed."""

    def __init__(self, methods, initiator, limits=None):
        self.loop = asyncio.get_running_loop()
        self.methods, self.initiator, self.announced = methods, initiator, limits or {"max_message": 16 << 20}
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

    # transport

    def connection_made(self, transport):
        self.transport = transport
        transport.set_write_buffer_limits(high=0)  # what waits, waits in `queue` (§5.17)
        late = Error(DEADLINE_EXCEEDED, "handshake took too long")
        self.timer = self.loop.call_later(HANDSHAKE_TIME, self.close, late)  # §6.9
        self.writable.set()
        if self.initiator:
            offer = {"versions": [1], "agent": "fluxar-interop/1", "limits": self.announced}
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
            self.other = limits_of(struct_of(OFFER)(m.payload))
            answer = {"version": 1, "agent": "fluxar-interop/1", "limits": self.announced}
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
            if answer["version"] != 1 or "psk" in answer or "resumed" in answer or any(caps.values()):
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
        elif m.id in self.mine or m.id in self.theirs or m.id in self.pings:
            raise Fatal(PROTOCOL_VIOLATION, "the id of an open exchange")  # §5.5
        elif m.type == CALL:
            self.on_request(m)
        elif (m.type, m.target) == (CONTROL, "ping"):
            self.replies.append(frame(encode(new_message(CONTROL, m.id))))  # ahead of what is queued (§8.3)
            self.flush()
        elif m.type == CONTROL and m.target in ("handled", "rekey"):
            self.dropped += 1  # never answered (§8.2)
        else:
            self.refuse(m, UNIMPLEMENTED)

    def on_continuation(self, m):
        if m.target == "cancel" and m.type in (CALL, STREAM):
            self.spend()
        if m.ref not in self.mine and m.ref not in self.theirs and m.ref not in self.pings:
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


METHODS = {f.__name__: f for f in (echo, fail, sleep, count, collect, callback)}


async def serve(port):
    server = await asyncio.get_running_loop().create_server(lambda: Peer(METHODS, False), "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def call(host, port, method, argument, timeout):
    def show(word, value):
        print(json.dumps({word: plain(value)}), flush=True)

    def on_update(payload):
        show("update", decode(payload))

    try:
        loop = asyncio.get_running_loop()
        _, peer = await loop.create_connection(lambda: Peer(METHODS, True), host, port)
    except OSError as error:
        show("error", Error(UNAVAILABLE, str(error), processed=False).map)
        return 1
    try:
        await peer.ready
        show("result", decode(await peer.call(method, argument, timeout and timeout / 1000, on_update)))
        return 0
    except Error as error:
        show("error", error.map)
        return 1
    finally:
        peer.close()
        await peer.gone


def main():
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, words in (("call", "host port method"), ("serve", "port"), ("probe", "host port")):
        command = commands.add_parser(name)
        for word in words.split():
            command.add_argument(word, type=int if word == "port" else str)
    commands.choices["call"].add_argument("json", nargs="?", type=json.loads)
    commands.choices["call"].add_argument("--timeout", type=int, metavar="MS")
    args = parser.parse_args()
    if args.command == "probe":
        import probe
        sys.exit(probe.main(args.host, args.port))
    if args.command == "serve":
        sys.exit(asyncio.run(serve(args.port)))
    sys.exit(asyncio.run(call(args.host, args.port, args.method, args.json, args.timeout)))


if __name__ == "__main__":
    main()
