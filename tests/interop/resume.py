"""What a session needs in order to outlive its link (SPEC.md §9), for peer.py. § numbers name its sections."""
import collections
import hashlib
import hmac
import os

from wire import PROTOCOL_VIOLATION, Fatal

KEPT_MESSAGES, KEPT_BYTES = 1_024, 1 << 20  # §9.4
REPORT_MESSAGES, REPORT_BYTES, REPORT_TIME = 256, 256 << 10, 1  # §9.3


def proof(secret, session, offer_id):
    return hmac.digest(secret, b"fluxar resume" + session + offer_id, hashlib.sha256)  # §9.5


def next_secret(secret, salt):
    """What a resumed link brings; `salt` is `secret` of its last answer (§9.6)."""
    return hmac.digest(secret, b"fluxar resumed" + salt, hashlib.sha256)


class Ledger:
    """Counts what goes and comes, and keeps what the other side may not have."""

    def __init__(self):
        self.sent = self.acknowledged = self.handled = self.reported = 0
        self.kept, self.kept_bytes, self.unreported_bytes = collections.deque(), 0, 0

    def has_room(self):
        return len(self.kept) < KEPT_MESSAGES and self.kept_bytes < KEPT_BYTES

    def keep(self, body):
        self.sent += 1
        self.kept.append(body)
        self.kept_bytes += len(body)

    def forget(self, handled):
        """The other side has so many."""
        if not self.acknowledged <= handled <= self.sent:
            raise Fatal(PROTOCOL_VIOLATION, f"{handled} handled, after {self.acknowledged} of {self.sent}")
        while self.acknowledged < handled:
            self.acknowledged += 1
            self.kept_bytes -= len(self.kept.popleft())

    def handle(self, size):
        """Another one of the other side's. Whether it is to be told at once."""
        self.handled += 1
        self.unreported_bytes += size
        return self.handled - self.reported >= REPORT_MESSAGES or self.unreported_bytes >= REPORT_BYTES

    def report(self):
        self.reported, self.unreported_bytes = self.handled, 0
        return self.handled


class Secrets:
    """The name of a session, and what resuming it needs, at the responder (§9.1, §9.6)."""

    def __init__(self):
        self.id, self.current, self.salt = os.urandom(16), os.urandom(32), None

    def verify(self, offer_id, given):
        """Whether the proof was made with either secret. Who used the new one has it, so that the other is not needed
        any more; otherwise what leads to the new one stays the same for every attempt."""

        def fits(secret):
            return hmac.compare_digest(proof(secret, self.id, offer_id), given)

        if self.salt and fits(next_secret(self.current, self.salt)):
            self.confirm()
        elif not fits(self.current):
            return False
        self.salt = self.salt or os.urandom(32)
        return True

    def confirm(self):
        """The answer with `salt` has come."""
        self.current, self.salt = next_secret(self.current, self.salt), None
