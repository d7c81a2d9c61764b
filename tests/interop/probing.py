"""What the parts of the probe have in common: raw links, and the list of items. § numbers name SPEC.md's sections."""
import pathlib
import re
import socket
import time

from cbor import ANSWER, decode, encode, struct_of
from wire import CALL, CONTROL, HELLO, frame, new_message, parse

SPEC = pathlib.Path(__file__).parents[2] / "SPEC.md"
ITEMS = []
REFUSED = {"code": 12, "processed": False}  # what the unknown gets (§5.16), apart from the message
ID = bytes.fromhex("0192f2a04c017a109b3c5d7e2f112001")  # I01 of §19


class Skip(Exception):
    pass


def item(section, name, part="core"):
    return lambda function: ITEMS.append((part, section, name, function))


def items_with(kind, part):
    """Like `item`, for functions that take a link of that kind, with an offer of its own."""

    def of(section, name, offer=None):
        def register(function):
            def run():
                with kind(offer) as link:
                    function(link)

            item(section, name, part)(run)

        return register

    return of


def check(truth, why):
    if not truth:
        raise AssertionError(why)


class Link:
    """A raw connection: whatever is wanted can be sent on it. Pings are answered and not seen."""

    address, names = None, {}

    def __init__(self, offer=None, hello=True):
        self.socket = socket.create_connection(self.address, timeout=3)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.pings, self.answer_pings = 0, True
        if hello:
            offer_id = self.send(HELLO, payload={"versions": [1]} | (offer or {}))
            answer = self.answer_to(offer_id, HELLO)
            check(not answer.error, f"answer: {answer}")
            self.answer = struct_of(ANSWER, "version")(answer.payload)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def write(self, data):
        self.socket.sendall(data)

    def send(self, *fields, **more):
        message = new_message(*fields, **more)
        self.write(frame(encode(message)))
        return message[1]

    def exactly(self, size):
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                return None
            data += part
        return data

    def receive(self):
        """The next message that is no ping; None at the end of the transport."""
        start = time.monotonic()
        while time.monotonic() - start < 3:
            size = self.exactly(4)
            body = size and self.exactly(int.from_bytes(size, "big"))
            if not body:
                return None
            message = parse(body)
            if (message.type, message.target) != (CONTROL, "ping"):
                return message
            self.pings += 1
            if self.answer_pings:
                self.send(CONTROL, message.id)
        raise TimeoutError("nothing but pings comes")

    def call(self, method, payload=None, **more):
        return self.send(CALL, None, self.names.get(method, method), payload=payload, **more)

    def need(self, method):
        if method not in self.names:
            raise Skip(f"the server has no `{method}`")

    def answer_to(self, ref, type=CALL, target=None):
        message = self.receive()
        check(message, "the transport ended")
        check((message.type, message.ref, message.target) == (type, ref, target), f"instead came {message}")
        return message

    def result(self, ref):
        message = self.answer_to(ref)
        check(not message.error, f"error: {message.error}")
        return decode(message.payload)

    def error(self, ref, *place, **want):
        error = self.answer_to(ref, *place).error
        seen = {key: value for key, value in (error or {}).items() if key in ("code", "processed")}
        check(seen == want, f"{error} instead of {want}")
        return error

    def alive(self):
        """Nothing else has come and calls are answered: what was sent before had no effect."""
        check(self.result(self.call("echo", "alive")) == "alive", "echo")

    def closed(self, code):
        """`close` with that code is the last message, and then the transport ends (§5.17)."""
        while (message := self.receive()) and (message.type, message.target) != (CONTROL, "close"):
            pass  # answers to what came before the offence
        check(message, "the transport ended without `close`")
        check(message.error and message.error["code"] == code, f"{message} instead of {code}")
        self.socket.shutdown(socket.SHUT_WR)
        check(self.receive() is None, "something follows `close`")

    def ended(self):
        check(self.receive() is None, "something was sent")


def examples(kind, third):
    """The blocks of §19 of one kind, as (name, bytes)."""
    pattern = rf"```{kind} (\S+) {third}\n(.*?)```" if third else rf"```{kind} (\S+)\n(.*?)```"
    for name, body in re.findall(pattern, SPEC.read_text(), re.S):
        yield name, bytes.fromhex(" ".join(line.split("#")[0] for line in body.splitlines()))


def max_message(link):
    return link.answer.get("limits", {}).get("max_message", 1 << 20)
