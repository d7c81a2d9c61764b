"""Sessions that go on over other links (SPEC.md §9) on the wire, for probe.py. The server needs the methods of §21."""
import os
import time

from cbor import ANSWER, Raw, array, decode, struct_of, uint
from probing import Link, Skip, check, items_with
from resume import next_secret, proof
from wire import (CALL, CONTROL, HELLO, MESSAGE, PROTOCOL_VIOLATION, SESSION_UNKNOWN, STREAM, SUBSCRIBE, is_counted)

CAPS = {"features": ["stream", "pubsub", "resume"]}
LIMITS = {"stream_window": 1_000}  # so that streams stand still unless they are given more


class Session(Link):
    """The first link of a session, or with `of` another one of the same. It counts what comes."""

    def __init__(self, offer=None, of=None, confirm=True, **changes):
        super().__init__(hello=False)
        self.told, self.handled = 0, of.handled if of else 0
        self.secret, id = of and of.secret, os.urandom(16)
        offer = {"versions": [1], "caps": CAPS, "limits": LIMITS} | (offer or {})
        if of:
            self.session = of.session
            resume = {"session": of.session, "handled": self.handled}
            resume |= {"proof": proof(of.secret, of.session, id)} | changes
            offer["resume"] = resume
        answer = self.answer_to(self.send(HELLO, payload=offer, id=id), HELLO)
        self.error, self.answer = answer.error, None
        if self.error:
            return
        self.answer = struct_of(ANSWER, "version")(answer.payload)
        self.is_resumed, session = "resumed" in self.answer, self.answer.get("session", {})
        if "secret" not in session:
            raise Skip("the server keeps no sessions")
        if not of:
            self.session, self.secret = session["id"], session["secret"]
        elif self.is_resumed:
            check(session["id"] == of.session, "another id")
            self.salt, self.resumed = session["secret"], self.answer["resumed"]["handled"]
            self.secret = next_secret(of.secret, self.salt)
            if confirm:
                self.confirm()

    def confirm(self):
        self.send(CONTROL, None, "handled", payload=self.handled)

    def receive(self):
        while message := super().receive():
            if (message.type, message.target) == (CONTROL, "handled"):
                self.told = uint(message.payload)
                continue
            self.handled += is_counted(message.type, message.ref, message.target, message.meta)
            return message

    def cut(self):
        self.socket.close()
        return self

    def lost(self):
        """It is taken as what follows is about another session, or refused."""
        return self.error["code"] == SESSION_UNKNOWN if self.error else not self.is_resumed


session = items_with(Session, "sessions")


@session("9.1", "a session has a name, a secret and a time")
def _(link):
    with Session() as other:
        check(len({link.session, other.session}) == len({link.secret, other.secret}) == 2, "the same ones")
    check(link.answer["session"]["resume_ms"] > 0, f"{link.answer}")


@session("9.3", "`handled` comes within a second or so, and at once after many")
def _(link):
    link.alive()
    start = time.monotonic()
    while not link.told:
        link.send(CONTROL, None, "ping")
        check(link.receive().type == CONTROL and time.monotonic() - start < 2, "nothing was told")
        time.sleep(0.02)
    check(link.told == 1, f"{link.told}")
    for number in range(300):
        link.result(link.call("echo", number))
    check(link.told >= 256, f"{link.told} of 301")


@session("9.3", "`handled` is not told where sessions end with their link")
def _(_):
    with Link() as link:
        link.alive()
        time.sleep(1.2)
        link.alive()


@session("9.3", "what `handled` may not say")
def _(_):
    for numbers in ((2,), (1, 0), (1, [4, 1])):
        with Session() as link:
            link.alive()
            for number in numbers:
                link.send(CONTROL, None, "handled", payload=number)
            link.closed(PROTOCOL_VIOLATION)
    with Session() as link:
        link.send(CONTROL, None, "handled", payload=[4, 0])  # a lane that there is not
        link.alive()


@session("9.7", "what was not handled comes again, byte for byte and in order")
def _(link):
    ids = [link.call("echo", number) for number in range(10)]
    first = [link.receive() for _ in ids]
    link.handled = 3
    with Session(of=link.cut()) as again:
        check(again.is_resumed and again.resumed == 10, f"{again.answer}")
        check([again.receive() for _ in ids[3:]] == first[3:], "something else")
        again.alive()


@session("9.7", "what did not arrive is sent again here, and handled once")
def _(link):
    before = link.result(link.call("test.cancelled"))
    requests = [(os.urandom(16), number) for number in range(50)]
    for id, number in requests:
        link.call("echo", number, id=id)
    with Session(of=link.cut()) as again:
        for id, number in requests[again.resumed - 1 :]:
            again.call("echo", number, id=id)
        seen = [again.receive() for _ in requests]
        check(sorted((m.ref, decode(m.payload)) for m in seen) == sorted(requests), "not each once")
        check(again.result(again.call("test.cancelled")) == before, "some were given up")


@session("9.7", "a stream goes on with the credit that it had")
def _(link):
    id, seen, left = link.send(STREAM, None, "test.count", payload={"n": 200, "size": 100}), [], LIMITS["stream_window"]
    for more in (2_000, 3_000, 1 << 20):
        while left > 0:
            message = link.receive()
            check(message and message.ref == id and message.target in (None, "items"), f"instead came {message}")
            seen += map(decode, array(Raw)(message.payload) if message.target else [message.payload])
            left -= message.size
        link = Session(of=link.cut())
        link.alive()  # and no data before
        link.send(STREAM, id, "credit", payload=more)
        left += more
    while (message := link.receive()) and message.target != "end":
        seen += map(decode, array(Raw)(message.payload) if message.target else [message.payload])
    check(seen == [bytes([number]) * 100 for number in range(200)], f"{len(seen)} items")
    link.cut()


@session("9.7", "a publication with qos 2 over three links, once")
def _(link):
    topic, meta = "probe." + os.urandom(6).hex(), {"qos": 2}
    with Session() as other:
        other.answer_to(other.send(SUBSCRIBE, None, topic), SUBSCRIBE)
        id = link.send(MESSAGE, None, topic, meta, payload=7)
        check(decode(other.receive().payload) == 7, "not delivered")
        link = Session(of=link.cut())
        if not link.resumed:
            link.send(MESSAGE, None, topic, meta, payload=7, id=id)
        link.answer_to(id, MESSAGE, "ack")
        link.send(MESSAGE, id, "release")
        link.answer_to(id, MESSAGE, "complete")
        link.handled -= 1
        link = Session(of=link.cut())
        link.answer_to(id, MESSAGE, "complete")
        link.cut()
        other.alive()


@session("9.6", "a wrong proof and an unknown session look the same, and cost the rightful one nothing")
def _(link):
    asks = link.call("sleep", {"ms": 300})
    for changes in ({"proof": bytes(32)}, {"session": os.urandom(16)}):
        with Session(of=link, **changes) as other:
            check(other.lost(), f"{other.answer}")
    link.answer_to(asks)
    with Session(of=link.cut()) as again:
        check(again.is_resumed, "it is lost")
        again.alive()


@session("9.6", "a number that is too high ends the session; one that was higher before is like a wrong proof")
def _(link):
    link.alive()
    link.send(CONTROL, None, "handled", payload=1)
    link.alive()
    with Session(of=link, handled=0) as other:
        check(other.lost(), f"{other.answer}")
    link.alive()
    with Session(of=link.cut(), handled=100) as other:
        check(other.error and other.error["code"] == PROTOCOL_VIOLATION, f"{other.answer}")
    with Session(of=link) as other:
        check(other.lost(), "it goes on")


@session("9.6", "something else than the confirmation ends the link, and leaves the session")
def _(link):
    for message in (("echo", CALL), ("ping", CONTROL)):
        with Session(of=link, confirm=False) as other:
            other.send(message[1], None, message[0])
            last = other.receive()  # `close` or nothing: nothing else may be said before the confirmation
            check(last is None or (last.error or {}).get("code") == PROTOCOL_VIOLATION, f"instead came {last}")
        link.alive()
    with Session(of=link.cut()) as again:
        again.alive()


@session("9.6", "until the confirmation both secrets count; afterwards the new one alone")
def _(link):
    with Session(of=link, confirm=False) as lost, Session(of=link, confirm=False) as again:
        check(lost.salt == again.salt, "a repeated offer took the secret away")
    with Session(of=again) as last:  # with the new one: it has arrived
        last.alive()
        with Session(of=link) as late, Session(of=again) as later:
            check(late.lost() and later.lost(), "an old secret is good enough")
        last.alive()


@session("9.8", "a new link takes over, and the old one ends without `close`")
def _(link):
    with Session(of=link, confirm=False) as other:
        late = link.call("echo", "not read")
        other.socket.settimeout(0.3)
        try:
            check(other.receive() is None, "something comes before the confirmation")
            check(False, "the new link ended")
        except TimeoutError:
            other.socket.settimeout(3)
        other.confirm()
        check(other.resumed == 0, "it has read on")
        other.alive()
        try:
            check(link.receive() is None, f"something comes on the old link, perhaps about {late}")
        except ConnectionError:
            pass


@session("9.8", "where the new link is lost the old one goes on")
def _(link):
    with Session(of=link, confirm=False):
        late = link.call("echo", "later")
    check(link.result(late) == "later", "echo")


@session("9.8", "of several new links the latest wins")
def _(link):
    with Session(of=link, confirm=False) as first, Session(of=link, confirm=False) as second:
        second.confirm()
        second.alive()
        try:
            first.confirm()
            check(first.receive() is None, "something comes")
        except ConnectionError:
            pass
        second.alive()


@session("9.1", "`close` ends the session")
def _(link):
    link.send(CONTROL, None, "close")
    link.ended()
    with Session(of=link) as other:
        check(other.lost(), "it goes on")
