"""Credentials and pre-shared keys (SPEC.md §6.11, §6.12), for peer.py. § numbers name the sections of SPEC.md.

Written as `bearer=TOKEN`, `api-key=KEY`, `credentials=USER:PASSWORD` and `custom=NAME:SECRET`, at a server with
`:IDENTITY` behind it (of credentials the user is the identity). The custom scheme of this peer: the challenge is 32
bytes, answered by HMAC-SHA256(secret, challenge).
"""
import collections
import hashlib
import hmac
import os

from wire import UNAUTHENTICATED, Error

KEYS = {"bearer": ["token"], "api-key": ["key"], "credentials": ["username", "password"]}
Identity = collections.namedtuple("Identity", "scheme name")


def psk_of(text):
    id, key = text.split("=", 1)
    return id, bytes.fromhex(key)


def transcript(offer, answer):
    """T (§7.3)."""
    sized = (len(body).to_bytes(4, "big") + body for body in (offer, answer))
    return hashlib.sha256(b"".join(sized)).digest()


def psk_proof(key, role, transcript):
    return hmac.digest(key, f"fluxar psk {role}".encode() + transcript, hashlib.sha256)


class Credentials:
    """Of an initiator."""

    def __init__(self, text):
        self.scheme, self.secret = text.split("=", 1)

    def first(self):
        """What is shown without being asked."""
        if self.scheme != "custom":
            values = self.secret.split(":", 1) if self.scheme == "credentials" else [self.secret]
            return {"scheme": self.scheme, **dict(zip(KEYS[self.scheme], values))}
        return {"scheme": "custom", "name": self.secret.split(":")[0], "data": None}

    def answer(self, challenge):
        name, secret = self.secret.split(":", 1)
        data = hmac.digest(secret.encode(), challenge, hashlib.sha256)
        return {"scheme": "custom", "name": name, "data": data}


class Challenge(Exception):
    """One more round is wanted (§6.10)."""


class Accounts:
    """Who may come in, at a responder."""

    def __init__(self, texts):
        self.known = [text.split("=", 1) for text in texts]

    def verify(self, auth, challenge):
        """Who that is, or Error. Challenge: it depends on another round. `challenge` is what was asked before."""
        known = [text for scheme, text in self.known if scheme == auth["scheme"]]
        if auth["scheme"] == "custom":
            known = [text.split(":", 2) for text in known]
            for name, secret, identity in known:
                if name == auth["name"] and challenge is None:
                    raise Challenge(os.urandom(32))
                expected = challenge and hmac.digest(secret.encode(), challenge, hashlib.sha256)
                if name == auth["name"] and isinstance(auth["data"], bytes) and hmac.compare_digest(
                        expected, auth["data"]):
                    return Identity("custom", identity)
        elif auth["scheme"] in KEYS:
            given = ":".join(auth[key] for key in KEYS[auth["scheme"]]).encode()
            for text in known:
                secret, identity = text, text.split(":")[0]
                if auth["scheme"] != "credentials":
                    secret, identity = text.rsplit(":", 1)
                if hmac.compare_digest(secret.encode(), given):
                    return Identity(auth["scheme"], identity)
        raise Error(UNAUTHENTICATED, "no such credentials")
