"""Streams (SPEC.md §11) on the wire, for probe.py. The server needs the streams of §21."""
import os
import time

from cbor import Raw, array, decode, encode
from probing import ID, Link, check, items_with
from wire import (CALL, CANCELLED, CONTROL, FLOW_CONTROL, MALFORMED, MESSAGE, PROTOCOL_VIOLATION,
                  RESOURCE_EXHAUSTED, STREAM, frame, new_message)


class Streaming(Link):
    """A link with streams."""

    def __init__(self, offer=None):
        super().__init__({"caps": {"features": ["stream", "other"]}} | (offer or {}))
        check(self.answer.get("caps", {}).get("features") == ["stream"], "streams are not on")

    def open(self, method, payload=None, **more):
        return self.send(STREAM, None, method, payload=payload, **more)

    def on(self, id, verb=None, payload=None, **more):
        return self.send(STREAM, id, verb, payload=payload, **more)

    def read(self, id):
        """The items until something else comes, which is returned too; credit and `items` are taken apart."""
        items = []
        while message := self.receive():
            check((message.type, message.ref) == (STREAM, id), f"instead came {message}")
            if message.target == "items":
                items += [decode(item) for item in array(Raw)(message.payload)]
            elif message.target is None:
                items.append(decode(message.payload))
            elif message.target != "credit":
                return items, message
        raise AssertionError("the transport ended")

    def ended(self, id, code=None):
        items, message = self.read(id)
        check(message.target == "end", f"instead came {message}")
        check((message.error or {}).get("code") == code, f"{message.error} instead of {code}")
        return items, message

    def quiet(self):
        """Nothing comes; then calls are answered."""
        self.alive()


streaming = items_with(Streaming, "streams")


@streaming("11.2", "numbers, then the end with the final value")
def _(link):
    id = link.open("test.count", {"n": 100})
    items, end = link.ended(id)
    check(items == list(range(100)) and decode(end.payload) == 100, f"{items} {end}")
    link.on(id, "end")
    link.quiet()


@streaming("11.2", "items one by one and several in one message")
def _(link):
    id = link.open("test.sum")
    link.on(id, payload=1)
    link.on(id, "items", [2, 3, Raw(b"\x18\x04")])
    link.on(id, "items", [])
    link.on(id, "items", Raw(b"\x9f\x05\xff"))
    link.on(id, "end")
    _, end = link.ended(id)
    check(decode(end.payload) == 15, f"{end}")


@streaming("11.2", "echo of odd items, byte for byte")
def _(link):
    id = link.open("test.echo")
    odd = [Raw(bytes.fromhex(text)) for text in ("f7", "1801", "9fff", "62c328", "f97e01", "5f4101ff")]
    link.on(id, "items", odd)
    link.on(id, "end", Raw(b"\x19\x00\x01"))
    seen = []
    while (message := link.receive()).target != "end":
        if message.target != "credit":
            seen += array(Raw)(message.payload) if message.target == "items" else [message.payload]
    check(seen == odd, f"{seen}")
    check(bytes(message.payload) == b"\x19\x00\x01", f"{message}")


@streaming("11.3", "data, items and a second end after the own end")
def _(_):
    for verb, payload in ((None, 1), ("items", [1]), ("end", None)):
        with Streaming() as link:
            id = link.open("test.never")
            link.on(id, "end")
            link.on(id, verb, payload)
            link.closed(PROTOCOL_VIOLATION)


@streaming("11.3", "`end` with an error after the own end ends it all")
def _(link):
    id = link.open("test.never")
    link.on(id, "end")
    link.on(id, "end", error={"code": 1234})
    link.on(id, payload=1)  # late
    link.quiet()


@streaming("11.4", "cancel is answered by `end` with cancelled, whatever follows is late")
def _(link):
    before = link.result(link.call("test.cancelled"))
    id = link.open("test.never")
    link.on(id, payload=1)
    link.on(id, "cancel", error={"code": 1000})
    for verb, payload in ((None, 1), ("items", 5), ("cancel", None), ("credit", "x"), ("end", None)):
        link.on(id, verb, payload)
    link.ended(id, CANCELLED)
    check(link.result(link.call("test.cancelled")) == before + 1, "it is counted once")


@streaming("11.5", "credit is not exceeded by more than one message", {"limits": {"stream_window": 500}})
def _(link):
    id, granted, got = link.open("test.count", {"n": 10_000}), 500, []
    while True:
        check(granted > 0, "data without credit")
        message = link.receive()
        if message.target == "end":
            break
        granted -= message.size
        got += [decode(i) for i in array(Raw)(message.payload)] if message.target else [decode(message.payload)]
        if granted <= 0:
            link.quiet()
            link.on(id, "credit", 700 - granted)
            granted = 700
    check(got == list(range(10_000)), "the items")


@streaming("11.5", "the window of the opening, also of 0 and above 2^31-1")
def _(link):
    id = link.open("test.count", {"n": 3}, meta={"window": 0})
    link.quiet()
    link.on(id, "credit", 0)
    link.quiet()
    link.on(id, "credit", 1)
    first = link.receive()
    check((first.ref, first.type) == (id, STREAM), f"{first}")
    link.on(id, "credit", 10_000)
    link.ended(id)
    link.ended(link.open("test.count", {"n": 3}, meta={"window": (1 << 64) - 1}))
    for bad in (None, -1, "x"):
        error = link.ended(link.open("test.count", {"n": 3}, meta={"window": bad}), 3)[1].error
        check(error["processed"] is False, f"{error}")


@streaming("11.5", "data beyond the window is fatal")
def _(link):
    window = link.answer.get("limits", {}).get("stream_window", 1 << 18)
    id, item = link.open("test.never"), bytes(1_000)
    for _ in range(window // 1_000 + 2):
        link.on(id, payload=item)
    link.closed(FLOW_CONTROL)


@streaming("11.5", "credit beyond 2^31-1 is fatal; credit for a direction that has ended is ignored")
def _(link):
    id = link.open("test.count", {"n": 1})
    link.ended(id)
    link.on(id, "credit", (1 << 64) - 1)
    link.quiet()
    id = link.open("test.never")
    link.on(id, "credit", (1 << 31) - 1)
    link.closed(FLOW_CONTROL)


@streaming("11.6", "pause, repeated, and resume")
def _(link):
    id = link.open("test.count", {"n": 50}, meta={"window": 0})
    link.on(id, "pause")
    link.on(id, "pause")
    link.on(id, "credit", 100_000)
    link.quiet()
    link.on(id, "resume")
    link.on(id, "resume")
    check(link.ended(id)[0] == list(range(50)), "the items")


@streaming("11.7", "deadlines")
def _(link):
    link.ended(link.open("test.never", meta={"timeout_ms": 100}), 4)
    id = link.open("test.never", meta={"timeout_ms": 100})
    link.on(id, "end")
    link.ended(id, 4)
    for value, code in ((0, 4), ("x", 3)):
        error = link.ended(link.open("test.never", meta={"timeout_ms": value}), code)[1].error
        check(error["processed"] is False, f"{error}")


@streaming("11.8", "more streams than max_streams")
def _(link):
    most = link.answer.get("limits", {}).get("max_streams", 256)
    ids = [link.open("test.never") for _ in range(most)]
    error = link.ended(link.open("test.never"), RESOURCE_EXHAUSTED)[1].error
    check(error["processed"] is False, f"{error}")
    link.on(ids[0], "cancel")
    link.ended(ids[0], CANCELLED)
    code, start = RESOURCE_EXHAUSTED, time.monotonic()
    while code == RESOURCE_EXHAUSTED and time.monotonic() - start < 3:  # until its handler has finished, too
        id = link.open("test.reject")
        code = link.read(id)[1].error["code"]
    check(code == 7, "no slot became free")


@streaming("11.1", "refused: an unknown method, and one that does not want it")
def _(link):
    for method, code in (("nope", 12), ("test.reject", 7), ("", 12)):
        error = link.ended(link.open(method), code)[1].error
        check(error["processed"] is False, f"{error}")
    id = link.open("nope")
    link.on(id, payload=1)
    link.on(id, "end")
    link.ended(id, 12)
    link.quiet()


@streaming("11.11", "data that nobody takes is answered by cancel")
def _(link):
    id = link.open("test.count", {"n": 1})
    link.ended(id)
    link.on(id, payload=1)
    message = link.receive()
    check((message.ref, message.target) == (id, "cancel"), f"instead came {message}")
    link.on(id, "end", error={"code": CANCELLED})
    link.quiet()


@streaming("5.15", "what does not belong on a stream")
def _(_):
    wrong = [((CALL, None), PROTOCOL_VIOLATION), ((CALL, "dance"), PROTOCOL_VIOLATION),
             ((MESSAGE, "ack"), PROTOCOL_VIOLATION), ((CONTROL, None), PROTOCOL_VIOLATION)]
    for (type, target), code in wrong:
        with Streaming() as link:
            link.send(type, link.open("test.never"), target)
            link.closed(code)
    for verb, payload in (("items", 1), ("items", {}), ("credit", None), ("credit", -1)):
        with Streaming() as link:
            link.on(link.open("test.never"), verb, payload)
            link.closed(MALFORMED)
    for verb in (None, "items", "pause", "credit"):
        with Streaming() as link:
            link.on(link.open("test.never"), verb, error={"code": 1})
            link.closed(MALFORMED)


@streaming("5.15", "unknown verbs and what belongs to no open stream are dropped")
def _(link):
    id = link.open("test.never")
    link.on(id, "dance", 1)
    link.on(id, "dance", error={"code": 1})
    for verb in (None, "items", "end", "cancel", "pause", "resume", "credit"):
        link.on(os.urandom(16), verb, 1)
    link.quiet()


@streaming("5.5", "the id of an open stream, for another stream or a call")
def _(_):
    for type, target in ((STREAM, "test.never"), (CALL, "echo"), (STREAM, "nope")):
        with Streaming() as link:
            link.open("test.never", id=ID)
            link.send(type, None, target, id=ID)
            link.closed(PROTOCOL_VIOLATION)


@streaming("10.7", "opening and cancelling without end")
def _(link):
    try:
        for _ in range(300):
            ids = [os.urandom(16) for _ in range(100)]
            link.write(b"".join(frame(encode(message)) for id in ids for message in (
                new_message(STREAM, None, "test.never", id=id), new_message(STREAM, id, "cancel"))))
        link.closed(RESOURCE_EXHAUSTED)
    except OSError as error:
        check(not isinstance(error, TimeoutError), "it may go on")  # otherwise it was cut off
