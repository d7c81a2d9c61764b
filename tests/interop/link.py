"""A transport with frames on it (SPEC.md §3), for peer.py. § numbers name the sections of SPEC.md."""
import asyncio
import ipaddress

from cbor import Malformed
from wire import (CONTROL, DEADLINE_EXCEEDED, MALFORMED, MESSAGE_TOO_LARGE, Error, Fatal, encode, frame, new_message,
                  parse)

HANDSHAKE_FRAME, FRAME_ROOM = 65_536, 64  # §3.3
HANDSHAKE_TIME, LINGER = 10, 1  # §15.3


class Link(asyncio.Protocol):
    """Its owner is first a handshake (handshake.py), then a peer (session.py). `gone`: the transport is closed."""

    def __init__(self, owner):
        self.owner, self.loop = owner, asyncio.get_running_loop()
        self.buffer, self.limit, self.most = bytearray(), HANDSHAKE_FRAME, HANDSHAKE_FRAME
        self.blocked = self.closing = self.frozen = False
        self.gone = self.loop.create_future()
        self.sent = self.received = self.loop.time()

    # what happens to it

    def connection_made(self, transport):
        self.transport = transport
        transport.set_write_buffer_limits(high=0)  # what waits, waits at the peer (§5.17)
        late = Error(DEADLINE_EXCEEDED, "handshake took too long")
        self.timer = self.loop.call_later(HANDSHAKE_TIME, lambda: self.owner.on_fault(self, late))  # §6.9
        self.owner.on_link(self)

    def pause_writing(self):
        self.blocked = True

    def resume_writing(self):
        self.blocked = False
        self.owner.on_room()

    def data_received(self, data):
        if not self.closing:  # §8.7
            self.received = self.loop.time()
            self.buffer += data
            self.read()

    def read(self):
        try:
            while len(self.buffer) >= 4 and not self.closing and not self.frozen:
                size = int.from_bytes(self.buffer[:4], "big")
                if size == 0:
                    raise Malformed("frame of 0 bytes")
                if size > self.limit:
                    raise Fatal(MESSAGE_TOO_LARGE, f"frame of {size} bytes")  # from the length alone (§3.3)
                if len(self.buffer) < 4 + size:
                    return
                body = bytes(self.buffer[4 : 4 + size])
                del self.buffer[: 4 + size]
                if size > self.most:
                    raise Fatal(MESSAGE_TOO_LARGE, f"message of {size} bytes")  # §5.13
                message = parse(body)
                if (message.type, message.ref, message.target) == (CONTROL, None, "close"):
                    self.owner.on_close(self, message)
                else:
                    self.owner.on_message(self, message, body)
        except Malformed as error:
            self.owner.on_fault(self, Error(MALFORMED, str(error)))
        except Fatal as error:
            self.owner.on_fault(self, error)

    def eof_received(self):
        self.lose()  # §3.4; the transport closes itself then

    def connection_lost(self, exception):
        self.lose()
        self.gone.set_result(None)

    def lose(self):
        self.timer.cancel()
        if not self.closing:
            self.closing = True
            self.owner.on_lost(self)

    # what its owner does

    @property
    def is_confidential(self):
        """Credentials may go over it in clear (§6.11)."""
        return ipaddress.ip_address(self.transport.get_extra_info("peername")[0]).is_loopback

    @property
    def has_room(self):
        return not (self.blocked or self.frozen or self.closing or self.transport.is_closing())

    def write(self, body):
        self.transport.write(frame(body))
        self.sent = self.loop.time()

    def is_established(self, max_message):
        self.timer.cancel()
        self.most, self.limit = max_message, max_message + FRAME_ROOM
        self.sent = self.received = self.loop.time()

    def freeze(self, frozen):
        """Reads no more for now (§9.8)."""
        self.frozen, self.received = frozen, self.loop.time()
        if not self.closing:
            (self.transport.pause_reading if frozen else self.transport.resume_reading)()
            self.read()

    def close(self, error=None):
        """Says `close`, and leaves."""
        if not self.closing:
            self.write(encode(new_message(CONTROL, None, "close", error=error and error.map)))
            self.leave()

    def leave(self):
        """Sends no more, but reads (and forgets) until the other side has closed: so nothing gets lost."""
        self.closing = True
        self.timer.cancel()
        try:
            self.transport.write_eof()
        except OSError:  # it was cut off already
            self.transport.abort()
        self.loop.call_later(LINGER, self.transport.abort)

    def cut(self):
        """Without a `close`."""
        self.closing = True
        self.timer.cancel()
        self.transport.abort()
