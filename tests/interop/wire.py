"""Messages and frames (SPEC.md §3.1, §5), errors and codes (§16). § numbers name the sections of SPEC.md."""
import collections
import os

from cbor import ERROR, MAX_DEPTH, Malformed, Raw, bstr, encode, skip, struct_of, text_map, tstr, uint

HELLO, CALL, STREAM, SUBSCRIBE, UNSUBSCRIBE, MESSAGE, CONTROL = range(1, 8)  # §5.4
CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED = 1, 3, 4  # §16
PERMISSION_DENIED, RESOURCE_EXHAUSTED, OUT_OF_RANGE = 7, 8, 11
UNIMPLEMENTED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED = 12, 13, 14, 16
MALFORMED, PROTOCOL_VIOLATION, UNSUPPORTED_VERSION, MESSAGE_TOO_LARGE = 100, 101, 102, 103
FLOW_CONTROL, SESSION_UNKNOWN, HEARTBEAT_TIMEOUT, DRAINING = 104, 107, 108, 109


class Error(Exception):
    """An error of a call, or the reason why a session ended. `map` is what goes over the wire (§5.12)."""

    def __init__(self, code, message="", **more):
        super().__init__(f"{message} (code {code})")
        self.map = {"code": code, **({"message": message} if message else {}), **more}


class Fatal(Error):
    """What the other side did ends the link (§5.17)."""


# ---------------------------------------------------------------- messages and frames (§3.1, §5.1)

NULL = b"\xf6"  # and nothing else (§5.2)
Message = collections.namedtuple("Message", "type id ref target meta payload error size")


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
        size=len(body),
    )


def is_counted(type, ref, target, meta):
    """Whether a message is counted for resume (§9.2). The values of `meta` may be encoded."""
    if type != MESSAGE or (ref is not None and target is not None):
        return STREAM - 1 <= type <= MESSAGE
    qos = Raw(encode((meta or {}).get("qos", 0)))
    return qos[0] >> 5 == 0 and uint(qos) in (1, 2)
