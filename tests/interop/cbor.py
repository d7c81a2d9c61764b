"""CBOR for the FLUXAR peer (SPEC.md §5.2, §5.3), and checks of the structures of hellos and errors (§6.2).

Payloads are kept as encoded items (`Raw`) until somebody wants to look into them, so this layer neither
changes them nor trips over what it does not understand. § numbers name the sections of SPEC.md.
"""
import json
import math
import struct

MAX_DEPTH, MAX_KEYS = 64, 64  # §15.2


class Malformed(Exception):
    """The bytes do not have the form that SPEC.md asks for: code 100, fatal."""


class Raw(bytes):
    """One encoded item. Payloads stay so until somebody wants to look into them."""


def head(data, pos):
    """Major type, additional information, argument (None: indefinite, or a break), position behind it."""
    if pos >= len(data):
        raise Malformed("bytes are missing at the end")
    major, info, pos = data[pos] >> 5, data[pos] & 31, pos + 1
    if info < 24:
        return major, info, info, pos
    if info < 28:
        size = 1 << (info - 24)
        if pos + size > len(data):
            raise Malformed("bytes are missing at the end")
        argument = int.from_bytes(data[pos : pos + size], "big")
        if major == 7 and size == 1 and argument < 32:
            raise Malformed("a simple value below 32 in two bytes")
        return major, info, argument, pos + size
    if info < 31 or major in (0, 1, 6):
        raise Malformed("reserved additional information")
    return major, info, None, pos


def string_end(data, pos, major, length):
    """The end of a string whose head ends at `pos`; its chunks, if the length is indefinite."""
    while length is None:
        chunk, _, size, pos = head(data, pos)
        if chunk == 7 and size is None:
            return pos
        if chunk != major or size is None:
            raise Malformed("a chunk that does not belong into its string")
        pos = string_end(data, pos, major, size)
    if length > len(data) - pos:  # a claim, until it is seen to be true (§17.2)
        raise Malformed("a string is longer than the message")
    return pos + length


def skip(data, pos, depth=MAX_DEPTH):
    """The end of the item at `pos`, which is checked for form and depth, without recursion (§5.3, §17.2)."""
    stack = []  # for each array, map and tag around: [major, number of items or None, items seen]
    while True:
        major, _, argument, pos = head(data, pos)
        if major in (2, 3):
            pos = string_end(data, pos, major, argument)
        elif major in (4, 5, 6):
            if len(stack) == depth:
                raise Malformed("deeper than 64")
            items = 1 if major == 6 else argument if argument is None else argument * (major - 3)
            if items != 0:
                stack.append([major, items, 0])
                continue
        elif major == 7 and argument is None:
            if not stack or stack[-1][1] is not None or (stack[-1][0] == 5 and stack[-1][2] % 2):
                raise Malformed("a break where none may be")
            stack.pop()
        while stack:  # an item is complete; perhaps what holds it, too
            stack[-1][2] += 1
            if stack[-1][2] != stack[-1][1]:
                break
            stack.pop()
        if not stack:
            return pos


def text(data, pos, most=math.inf):
    """A text of definite length in valid UTF-8, and the position behind it."""
    major, _, length, start = head(data, pos)
    if major != 3 or length is None or length > most:
        raise Malformed("a text of definite length was expected here, not longer than allowed")
    pos = string_end(data, start, major, length)
    try:
        return data[start:pos].decode(), pos
    except UnicodeDecodeError:
        raise Malformed("a text is not UTF-8") from None


def text_map(data, pos, indefinite=False):
    """A map with text keys that do not repeat, as {text: Raw}, and the position behind it (§5.9, §6.2)."""
    major, _, count, pos = head(data, pos)
    if major != 5 or (count is None and not indefinite):
        raise Malformed("a map was expected here")
    result = {}
    while len(result) != count:
        if count is None and data[pos : pos + 1] == b"\xff":
            return result, pos + 1
        key, pos = text(data, pos)
        if key in result or len(result) == MAX_KEYS:
            raise Malformed("a key repeats, or there are more than 64")
        end = skip(data, pos)
        result[key], pos = Raw(data[pos:end]), end
    return result, pos


def decode(data):
    """A Python value. `data` is an item that `skip` has passed, so it is no deeper than 64."""

    def item(pos):
        major, info, argument, pos = head(data, pos)
        if major < 2:
            return (argument, -1 - argument)[major], pos
        if major < 4:
            end = string_end(data, pos, major, argument)
            if argument is not None:
                value = data[pos:end]
            else:
                value = b""
                while data[pos] != 0xFF:
                    _, _, size, start = head(data, pos)
                    value, pos = value + data[start : start + size], start + size
            return value if major == 2 else value.decode(errors="surrogateescape"), end
        if major == 6:
            return item(pos)  # tags have no meaning to this peer
        if major == 7 and info > 24:
            size = 1 << (info - 24)
            return struct.unpack({2: ">e", 4: ">f", 8: ">d"}[size], data[pos - size : pos])[0], pos
        if major == 7:
            return {20: False, 21: True}.get(argument), pos  # null, and what Python has no name for
        values, items = [], None if argument is None else argument * (major - 3)
        while len(values) != items and not (items is None and data[pos] == 0xFF):
            value, pos = item(pos)
            values.append(value)
        if major == 5:
            keys = (key if isinstance(key, str) else json.dumps(plain(key)) for key in values[::2])
            values = dict(zip(keys, values[1::2]))
        return values, pos + (items is None)

    return item(0)[0]


def encode(value):
    """The shortest form with definite lengths (§5.2)."""

    def start(major, number):
        for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
            if number < 24:
                return bytes([major << 5 | number])
            if number < 1 << 8 * size:
                return bytes([major << 5 | info]) + number.to_bytes(size, "big")
        raise ValueError("an integer of more than 64 bits")

    match value:
        case Raw():
            return bytes(value)
        case None | True | False:
            return {None: b"\xf6", True: b"\xf5", False: b"\xf4"}[value]
        case int():
            return start(0, value) if value >= 0 else start(1, -1 - value)
        case float():
            return b"\xfb" + struct.pack(">d", value)
        case bytes():
            return start(2, len(value)) + value
        case str():
            data = value.encode(errors="surrogateescape")
            return start(3, len(data)) + data
        case list() | tuple():
            return start(4, len(value)) + b"".join(map(encode, value))
        case dict():
            return start(5, len(value)) + b"".join(encode(k) + encode(v) for k, v in value.items())
    raise TypeError(f"cannot encode {type(value)}")


def plain(value):
    """What `json` can print: byte strings become hexadecimal text."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value


# ---------------------------------------------------------------- structures in CDDL (§5.12, §6.2)
# A check takes one well-formed item and returns its value, or raises Malformed.


def uint(raw):
    major, _, argument, _ = head(raw, 0)
    if major != 0:
        raise Malformed("an unsigned integer was expected here")
    return argument


def code(raw):
    if not 0 < uint(raw) < 1 << 32:
        raise Malformed("no such code")
    return uint(raw)


def boolean(raw):
    if raw not in (b"\xf4", b"\xf5"):
        raise Malformed("true or false was expected here")
    return raw == b"\xf5"


def tstr(most=math.inf):
    return lambda raw: text(raw, 0, most)[0]


def bstr(size):
    def check(raw):
        major, _, length, pos = head(raw, 0)
        if major != 2 or length != size:
            raise Malformed(f"a byte string of {size} was expected here")
        return bytes(raw[pos:])

    return check


def array(of, least=0, most=math.inf):
    def check(raw):
        major, _, count, pos = head(raw, 0)
        if major != 4:
            raise Malformed("an array was expected here")
        values = []
        while len(values) != count and not (count is None and raw[pos] == 0xFF):
            end = skip(raw, pos)
            values.append(of(Raw(raw[pos:end])))
            pos = end
        if not least <= len(values) <= most:
            raise Malformed(f"an array of {len(values)}")
        return values

    return check


def struct_of(known, required="", indefinite=True):
    """A map of which the keys in `known` have a form; others are ignored."""

    def check(raw):
        found, _ = text_map(raw, 0, indefinite)
        for key in required.split():
            if key not in found:
                raise Malformed(f"`{key}` is missing")
        return {key: known[key](value) for key, value in found.items() if key in known}

    return check


def auth(raw):  # §6.11: of a scheme that is not in the list everything is well-formed
    any_scheme = struct_of({"scheme": tstr()}, "scheme")(raw)
    keys = {"bearer": "token", "api-key": "key", "credentials": "username password", "custom": "name data"}
    names = keys.get(any_scheme["scheme"], "")
    return struct_of({n: decode if n == "data" else tstr() for n in names.split()}, names)(raw) | any_scheme


LIMITS = {"max_message": 1 << 20, "max_calls": 1024, "max_streams": 256, "stream_window": 1 << 18,
          "max_subscriptions": 1024, "max_inflight": 256, "heartbeat_ms": 15_000}  # and their defaults (§6.7)
NAMES, SOME_NAMES, KEY, COUNTS = array(tstr()), array(tstr(), 1), bstr(32), array(array(uint, 2, 2))
OFFER = {
    "versions": array(uint, 1),
    "agent": tstr(255),
    "caps": struct_of({
        "compress": SOME_NAMES,
        "encrypt": struct_of({"suites": SOME_NAMES, "key": KEY, "identity": KEY}, "suites key"),
        "features": NAMES,
    }),
    "limits": struct_of({key: uint for key in LIMITS}),
    "auth": auth,
    "psk": struct_of({"id": tstr(255), "nonce": KEY}, "id nonce"),
    "resume": struct_of(
        {"session": bstr(16), "handled": uint, "proof": KEY, "lanes": COUNTS}, "session handled proof"
    ),
}
LATER_ANSWER = {
    "psk": struct_of({"proof": KEY}, "proof"),
    "next": tstr(),
    "challenge": decode,
    "session": struct_of(
        {"id": bstr(16), "resume_ms": uint, "secret": KEY, "auth_expires_ms": uint}, "id resume_ms"
    ),
}
ANSWER = LATER_ANSWER | {
    "version": uint,
    "agent": tstr(255),
    "caps": struct_of({
        "compress": tstr(),
        "encrypt": struct_of({"suite": tstr(), "key": KEY, "identity": KEY}, "suite key"),
        "features": NAMES,
    }),
    "limits": OFFER["limits"],
    "psk": struct_of({"nonce": KEY}, "nonce"),
    "resumed": struct_of({"handled": uint, "lanes": COUNTS}, "handled"),
}
ERROR = {"code": code, "message": tstr(), "data": decode, "retry_after_ms": uint, "processed": boolean}


def limits_of(hello):
    """What the sender of a hello is ready to receive, defaults included."""
    limits = LIMITS | hello.get("limits", {})
    if limits["max_message"] < 1024:
        raise Malformed("`max_message` below 1,024")
    return limits
