"""Plays the situations of SPEC.md against a server of FLUXAR Core and checks its answers.

Called as `peer.py probe HOST PORT [--only core|streams|pubsub|sessions]`; what is beyond Core is in probe_streams.py,
probe_pubsub.py and probe_sessions.py. The server is expected to have the methods `echo` and `sleep` of peer.py,
or those of `fluxar serve --conformance`, which begin with `test.`. Items that need `count` (`test.update`),
`collect` or `callback` are skipped where the server does not have them. Each item has connections of its own.
"""
import os
import socket
import time
import traceback

from cbor import Raw, decode, encode
from probing import ID, ITEMS, REFUSED, Link, Skip, check, examples, item, max_message
from wire import (CALL, CONTROL, HELLO, MALFORMED, MESSAGE, MESSAGE_TOO_LARGE, PROTOCOL_VIOLATION,
                  RESOURCE_EXHAUSTED, STREAM, SUBSCRIBE, UNSUBSCRIBE, frame, new_message)

# ---------------------------------------------------------------- frames


@item("3.1", "a frame in single bytes")
def _(link):
    for byte in frame(encode(new_message(CALL, None, link.names["echo"], payload="cut", id=ID))):
        link.write(bytes([byte]))
    check(link.result(ID) == "cut", "echo")


@item("3.1", "many frames in one write")
def _(link):
    ids = [os.urandom(16) for _ in range(50)]
    link.write(b"".join(frame(encode(new_message(CALL, None, link.names["echo"], id=id))) for id in ids))
    check(sorted(link.receive().ref for _ in ids) == sorted(ids), "answers")


@item("3.1", "a frame of 0 bytes")
def _(link):
    link.write(bytes(4))
    link.closed(MALFORMED)


@item("3.1", "a frame of 0 bytes instead of the offer")
def _():
    with Link(hello=False) as link:
        link.write(bytes(4))
        link.closed(MALFORMED)


@item("3.3", "a frame beyond the limit, refused from its length")
def _(link):
    link.write((max_message(link) + 65).to_bytes(4, "big"))
    link.closed(MESSAGE_TOO_LARGE)


@item("3.3", "65,537 bytes instead of the offer, and what is no FLUXAR at all")
def _():
    for start in (bytes.fromhex("00010001"), b"GET / HTTP/1.1\r\n\r\n", bytes.fromhex("160301020001")):
        with Link(hello=False) as link:
            link.write(start)
            link.closed(MESSAGE_TOO_LARGE)


@item("3.3", "an offer of 65,536 bytes")
def _():
    with Link(hello=False) as link:
        body = encode(new_message(HELLO, payload={"versions": [1], "padding": bytes(65_536 - 46)}))
        check(len(body) == 65_536, f"the probe's own sum: {len(body)}")
        link.write(frame(body))
        check(link.receive().type == HELLO, "no answer")


@item("5.13", "a message of exactly max_message, and one byte more")
def _(link):
    for more in (0, 1):
        size = max_message(link) - len(encode(new_message(CALL, None, link.names["echo"], payload=b""))) - 4
        request = encode(new_message(CALL, None, link.names["echo"], payload=bytes(size + more), id=ID))
        link.write(frame(request))
        if more:
            link.closed(MESSAGE_TOO_LARGE)
        else:  # what comes back is larger by `ref`, smaller by the method
            answer = link.answer_to(ID)
            check(answer.error or len(answer.payload) == size + 5, "echo")


@item("3.4", "the end of the input, between frames and inside one")
def _():
    for rest in (b"", b"\0\0", b"\0\0\0\x09\x87"):
        with Link() as link:
            link.write(rest)
            link.socket.shutdown(socket.SHUT_WR)
            link.ended()


# ---------------------------------------------------------------- handshake


@item("6.4", "the smallest offer gets version 1 and nothing that was not offered")
def _(link):
    caps = link.answer.get("caps", {})
    check(link.answer["version"] == 1 and not any(caps.values()), f"{link.answer}")
    check(not {"psk", "resumed", "next"} & link.answer.keys(), f"{link.answer}")


@item("6.2", "unknown keys, features and capabilities; an indefinite map")
def _():
    for name in ("offer-unknown-keys", "offer", "offer-features"):
        with Link(hello=False) as link:
            link.write(frame(dict(examples("hex", ""))[name]))
            check(link.receive().error is None, f"{name} was refused")
    with Link(hello=False) as link:
        offer = b"\xbf" + encode("versions") + b"\x9f\x01\xff" + encode("x") + b"\xf7\xff"
        id = link.send(HELLO, payload=Raw(offer))
        check(link.answer_to(id, HELLO).error is None, "refused")


@item("6.5", "no version in common")
def _():
    for payload in ({"versions": [2, 99]}, {"versions": [2], "limits": "a later meaning"}):
        with Link(hello=False) as link:
            error = link.answer_to(link.send(HELLO, payload=payload), HELLO).error
            check(error and error["code"] == 102 and error["data"] == [1], f"{error}")
            link.socket.shutdown(socket.SHUT_WR)
            link.ended()


@item("6.8", "offers that are malformed")
def _():
    bad = [body for _, body in examples("hexbad", "malformed-payload") if body[1] == HELLO]
    bad += [body for _, body in examples("hexbad", "malformed")]
    bad.append(dict(examples("hexbad", "malformed-use"))["offer-with-target"])
    for payload in ({"versions": [1.5]}, {"versions": [-1]}, {"versions": [1], "agent": None},
                    {"versions": [1], "agent": "a" * 256}, {"versions": [1], "caps": {"features": "stream"}},
                    {"versions": [1], "limits": {"heartbeat_ms": "1"}}, {"versions": [1], "limits": []},
                    {"versions": [1], **{f"{n}": 0 for n in range(64)}}, None):
        bad.append(encode(new_message(HELLO, payload=payload)))
    bad.append(encode(new_message(HELLO, error={"code": 1})))
    for body in bad:
        with Link(hello=False) as link:
            link.write(frame(body))
            try:
                link.closed(MALFORMED)
            except AssertionError as error:
                raise AssertionError(f"{body.hex()}: {error}") from None


@item("6.1", "something else than the offer")
def _():
    others = (CALL, None, "echo"), (CALL, ID), (CONTROL, None, "ping"), (HELLO, ID), (HELLO, ID, "proof")
    for fields in others:
        with Link(hello=False) as link:
            link.send(*fields, payload={"versions": [1]})
            link.closed(PROTOCOL_VIOLATION)


@item("6.14", "close instead of the offer is not answered")
def _():
    with Link(hello=False) as link:
        link.send(CONTROL, None, "close")
        link.ended()


@item("6.1", "a call in the same write as the offer, larger than a frame of the handshake")
def _():
    with Link(hello=False) as link:
        call = new_message(CALL, None, link.names["echo"], payload=bytes(70_000), id=ID)
        link.write(frame(encode(new_message(HELLO, payload={"versions": [1]}))) + frame(encode(call)))
        check(link.receive().type == HELLO, "no answer")
        check(link.result(ID) == bytes(70_000), "echo")


@item("6.1", "a hello after the handshake")
def _():
    for fields, payload in (((), {"versions": [1]}), ((ID,), {"version": 1}), ((ID, "proof"), {})):
        with Link() as link:
            link.send(HELLO, *fields, payload=payload)
            link.closed(PROTOCOL_VIOLATION)


# ---------------------------------------------------------------- messages


@item("19.11", "every malformed message of the examples")
def _():
    for name, body in [*examples("hexbad", "malformed"), *examples("hexbad", "malformed-use")]:
        if name == "offer-with-target":
            continue  # in the handshake: see §6.8
        with Link() as link:
            link.write(frame(body))
            try:
                link.closed(MALFORMED)
            except (AssertionError, OSError) as error:
                raise AssertionError(f"{name}: {error}") from None


@item("5.2", "what no sender writes and every receiver accepts")
def _(link):
    for name, body in [*examples("hexok", ""), ("depth-64", dict(examples("hex", ""))["depth-64"])]:
        link.write(frame(body))
        link.error(ID, **REFUSED)


@item("5.3", "a meta value of depth 64: the map of meta itself does not count")
def _(link):
    for method in ("echo", "nope"):
        link.answer_to(link.call(method, meta={"deep": Raw(b"\x81" * 63 + b"\x80")}))


@item("5.9", "unknown meta keys, 64 of them; well-known ones where they mean nothing")
def _(link):
    check(link.result(link.call("echo", 1, meta={f"{n}": None for n in range(64)})) == 1, "echo")
    meta = {"qos": "x", "seq": -1, "traceparent": 7, "compress": "no"}
    check(link.result(link.call("echo", 1, meta=meta)) == 1, "echo")


@item("5.11", "echo of many kinds of payloads")
def _(link):
    encoded = """f7 e0 f8ff f97e00 fa7f800000 c11a514b67b0 c249010000000000000000 a2010101f7 62c328 7f6161ff
        9f0102ff bf6161f6ff 5f4101ff 1900ff a1a10102f6 80 a0 9fff bfff 5fff 1bffffffffffffffff"""
    values = [None, True, False, 0, 23, 24, 255, 256, 65_536, 1 << 32, (1 << 64) - 1, -1, -(1 << 64), 1.5]
    values += [1e300, float("inf"), "", "ä€𝄞", b"", bytes(range(256)), "x" * 70_000]
    values += [[], [1, [2, []]], {}, {"a": {"b": []}}]
    for value in values + [Raw(bytes.fromhex(item)) for item in encoded.split()]:
        result = link.answer_to(link.call("echo", value))
        same = result.payload == encode(value) or decode(result.payload) == decode(encode(value))
        check(result.error is None and same, f"{value!r} became {result}")


@item("5.16", "an unknown method, also one that is reserved, and the empty one")
def _(link):
    for method in ("no such method", "fluxar.no-such-method", "", "ä" * 127):
        link.error(link.call(method), **REFUSED)
    link.alive()


@item("5.16", "openings of features that are off, and unknown control operations")
def _(link):
    link.error(link.send(STREAM, None, "s"), STREAM, "end", **REFUSED)
    link.error(link.send(SUBSCRIBE, None, "a.*"), SUBSCRIBE, None, **REFUSED)
    for qos in (1, 2):
        link.error(link.send(MESSAGE, None, "a", {"qos": qos}), MESSAGE, "nack", **REFUSED)
    link.send(MESSAGE, None, "a", {"qos": 0})
    link.send(MESSAGE, None, "a")
    for operation in ("dance", "auth", ""):
        link.error(link.send(CONTROL, None, operation), CONTROL, None, **REFUSED)
    link.alive()


@item("8.2", "`handled` and `rekey` where they mean nothing: no answer")
def _(link):
    link.send(CONTROL, None, "handled", payload=0)
    link.send(CONTROL, None, "rekey")
    link.alive()


@item("5.14", "an opening with two faults: the first in the order decides")
def _(link):
    link.error(link.call("no such method", meta={"timeout_ms": 0}), code=4, processed=False)
    link.error(link.call("no such method", meta={"timeout_ms": "x"}), code=3, processed=False)
    link.send(CONTROL, None, "dance", error={"code": 1})
    link.closed(100)


@item("5.12", "an error on an opening that carries none")
def _():
    for type, target in ((CALL, "echo"), (STREAM, "s"), (SUBSCRIBE, "a"), (MESSAGE, "a"), (CONTROL, "ping")):
        with Link() as link:
            link.send(type, None, target, error={"code": 1})
            link.closed(MALFORMED)


@item("5.14", "openings without an address")
def _():
    for type in (CALL, STREAM, SUBSCRIBE, UNSUBSCRIBE, MESSAGE, CONTROL):
        with Link() as link:
            link.send(type)
            link.closed(MALFORMED)


@item("5.15", "late continuations are dropped")
def _(link):
    for type, targets in ((CALL, (None, "update", "cancel", "x")), (STREAM, (None, "items", "end", "cancel")),
                          (SUBSCRIBE, (None,)), (UNSUBSCRIBE, (None,)), (MESSAGE, (None, "ack", "nack")),
                          (CONTROL, (None, "ping", "close"))):
        for target in targets:
            link.send(type, os.urandom(16), target, error={"code": 1} if target == "update" else None)
    done = link.call("echo")
    link.result(done)
    for target in ("cancel", "update", None):
        link.send(CALL, done, target)
    link.alive()


@item("5.15", "an unknown verb on an open call is dropped")
def _(link):
    id = link.call("sleep", {"ms": 200})
    link.send(CALL, id, "dance", payload=1)
    link.send(CALL, id, "dance", error={"code": 1})
    link.result(id)


@item("5.15", "what the caller of an open call may not send")
def _():
    wrong = (CALL, None), (STREAM, "end"), (STREAM, "dance"), (UNSUBSCRIBE, None), (CONTROL, None)
    for type, target in wrong:
        with Link() as link:
            link.call("sleep", {"ms": 5_000}, id=ID)
            link.send(type, ID, target)
            link.closed(PROTOCOL_VIOLATION)
    for target in ("update", "cancel"):
        with Link() as link:
            link.call("sleep", {"ms": 5_000}, id=ID)
            link.send(CALL, ID, target, error={"code": 1})
            link.closed(MALFORMED)


@item("5.5", "the id of an open call, for another call or a ping; afterwards it is free")
def _():
    for fields in ((CALL, None, "echo"), (CALL, None, "nope"), (CONTROL, None, "ping"), (STREAM, None, "s")):
        with Link() as link:
            link.call("sleep", {"ms": 5_000}, id=ID)
            link.send(*fields, id=ID)
            link.closed(PROTOCOL_VIOLATION)
    with Link() as link:
        for _ in range(2):
            link.result(link.call("echo", id=ID))


# ---------------------------------------------------------------- calls


@item("10.2", "calls at the same time, answered out of order")
def _(link):
    slow, fast = link.call("sleep", {"ms": 400}), [link.call("echo", n) for n in range(20)]
    seen = [link.receive().ref for _ in range(21)]
    check(seen[-1] == slow and sorted(seen[:-1]) == sorted(fast), "the order")


@item("10.3", "updates from the callee")
def _(link):
    link.need("update")
    id = link.call("update", {"n": 5})
    for n in range(5):
        check(decode(link.answer_to(id, CALL, "update").payload) == n, f"update {n}")
    check(link.result(id) == 5, "result")


@item("10.3", "updates from the caller")
def _(link):
    link.need("collect")
    id = link.call("collect", {"n": 3})
    for n in range(3):
        link.send(CALL, id, "update", payload=n)
    check(link.result(id) == [0, 1, 2], "result")


@item("10.1", "the callee calls its caller, with results and errors")
def _(link):
    link.need("callback")
    id = link.call("callback", {"method": "my.method", "payload": 7})
    request = link.receive()
    check((request.type, request.ref, request.target) == (CALL, None, "my.method"), f"{request}")
    check(decode(request.payload) == 7, "payload")
    link.send(CALL, request.id, payload=8)
    check(link.result(id) == 8, "result")
    for fields, code in (((CALL, "cancel"), PROTOCOL_VIOLATION), ((STREAM, "end"), PROTOCOL_VIOLATION)):
        with Link() as other:
            other.call("callback", {"method": "my.method", "payload": 7})
            other.send(fields[0], other.receive().id, fields[1])
            other.closed(code)


@item("10.4", "a cancelled call is not answered")
def _(link):
    id = link.call("sleep", {"ms": 300})
    link.send(CALL, id, "cancel", payload="ignored")
    link.send(CALL, id, "update", payload=1)
    time.sleep(0.5)
    link.alive()


@item("10.5", "deadlines")
def _(link):
    start = time.monotonic()
    link.error(link.call("sleep", {"ms": 3_000}, meta={"timeout_ms": 150}), code=4)
    check(0.14 < time.monotonic() - start < 2.5, "not at the deadline")
    link.error(link.call("echo", meta={"timeout_ms": 0}), code=4, processed=False)
    for value in ("1", -1, 1.5, None, Raw(b"\xc2\x41\x01")):
        link.error(link.call("echo", meta={"timeout_ms": value}), code=3, processed=False)
    for value in (60_000, (1 << 64) - 1):
        check(link.result(link.call("echo", 1, meta={"timeout_ms": value})) == 1, "echo")


@item("10.6", "more calls than max_calls")
def _(link):
    most = link.answer.get("limits", {}).get("max_calls", 1024)
    if most > 5_000:
        raise Skip(f"max_calls is {most}")
    for _ in range(most):
        link.call("sleep", {"ms": 60_000})
    link.error(link.call("echo"), code=RESOURCE_EXHAUSTED, processed=False)


@item("10.7", "cancelling, and opening what is unknown, without end")
def _():
    abuse = (CALL, ID, "cancel"), (STREAM, ID, "cancel"), (CALL, None, "nope"), (CONTROL, None, "dance")
    for fields in abuse:
        with Link() as link:
            try:
                for _ in range(300):
                    link.write(b"".join(frame(encode(new_message(*fields))) for _ in range(100)))
                link.closed(RESOURCE_EXHAUSTED)
            except OSError as error:
                check(not isinstance(error, TimeoutError), f"{fields} may go on")  # otherwise it was cut off


@item("5.13", "a result that is larger than the caller's max_message")
def _():
    with Link({"limits": {"max_message": 1_024}}) as link:
        check(len(link.result(link.call("echo", bytes(900)))) == 900, "echo")
        link.error(link.call("echo", bytes(2_000)), code=MESSAGE_TOO_LARGE, processed=True)
        link.alive()


# ---------------------------------------------------------------- control


@item("8.3", "pings, answered in their order")
def _(link):
    for id in [link.send(CONTROL, None, "ping", payload=n) for n in range(5)]:
        check(link.answer_to(id, CONTROL).error is None, "an error")


@item("8.3", "twenty pings at once: in their order, and the latest eight for certain")
def _(link):
    pings = [new_message(CONTROL, None, "ping") for _ in range(20)]
    link.write(b"".join(frame(encode(ping)) for ping in pings))
    due, answered = [ping[1] for ping in pings], []
    while answered[-1:] != due[-1:]:
        message = link.receive()
        check(message and (message.type, message.target) == (CONTROL, None), f"instead came {message}")
        answered.append(message.ref)
    check(answered[-8:] == due[-8:], "not the latest eight")
    check(answered == [id for id in due if id in answered], "the order, or a ping answered twice")
    link.alive()


@item("8.4", "heartbeat: pings, and the end of who stays silent")
def _():
    with Link({"limits": {"heartbeat_ms": 1}}) as link:  # counts as 100
        time.sleep(0.01)
        start, link.answer_pings = time.monotonic(), False
        link.closed(108)
        check(0.25 < time.monotonic() - start < 2.0 and link.pings in (2, 3), f"{link.pings} pings")
    with Link({"limits": {"heartbeat_ms": 250}}) as link:
        link.result(link.call("sleep", {"ms": 1_200}))  # pings are answered meanwhile
        check(link.pings in (3, 4), f"{link.pings} pings")


@item("8.7", "close ends the transport and is not answered")
def _():
    for error in (None, {"code": 1_000, "message": "enough"}):
        with Link() as link:
            link.call("sleep", {"ms": 100})
            close = frame(encode(new_message(CONTROL, None, "close", error=error)))
            link.write(close + bytes(4))  # what follows would be fatal if it were not ignored
            link.ended()


def main(host, port, only):
    Link.address, failed = (host, port), 0
    items = [item for item in ITEMS if only in (None, item[0])]
    with Link() as link:
        for method in ("echo", "sleep", "update", "collect", "callback"):
            for name in ("test." + method, "count" if method == "update" else method):
                answer = link.answer_to(link.call(name, meta={"timeout_ms": 100}))
                if not answer.error or answer.error["code"] != REFUSED["code"]:
                    Link.names[method] = name
                    break
    for _, section, name, function in items:
        word, why = "PASS", ""
        try:
            if function.__code__.co_argcount:
                with Link() as link:
                    function(link)
            else:
                function()
        except Skip as skip:
            word, why = "SKIP", f": {skip}"
        except Exception as error:
            word, why, failed = "FAIL", f": {error!r}"[:600], failed + 1
            if not isinstance(error, AssertionError):
                traceback.print_exc()
        print(f"{word} §{section} {name}{why}", flush=True)
    print(f"{len(items)} items, {failed} failed")
    return 1 if failed else 0
