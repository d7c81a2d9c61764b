"""The handshake (SPEC.md §6), from either end, with resume (§9.5, §9.6), for peer.py. § numbers name its sections."""
import hmac
import os

from auth import Challenge, psk_proof, transcript
from cbor import ANSWER, LATER_ANSWER, OFFER, Malformed, auth, bstr, encode, limits_of, struct_of, uint
from resume import proof
from session import FEATURES, Peer
from wire import (CONTROL, HELLO, PERMISSION_DENIED, PROTOCOL_VIOLATION, SESSION_UNKNOWN, UNAUTHENTICATED,
                  UNAVAILABLE, UNSUPPORTED_VERSION, Error, Fatal, new_message)

AGENT = "fluxar-interop/1"
PROOFS = 4  # §6.10
PROOF = {"auth": auth, "psk": struct_of({"proof": bstr(32)}, "proof")}


class Handshake:
    """What both sides do. It owns the link until the peer takes it over."""

    def on_link(self, link):
        self.link, self.proofs, self.offer, self.answer = link, 0, None, None

    def on_room(self):
        pass  # hellos are small

    def on_close(self, link, m):
        link.cut()  # nothing more is sent
        self.over(Error(**m.error) if m.error else Error(UNAVAILABLE, "closed by the other side"))

    def on_lost(self, link):
        self.over(Error(UNAVAILABLE, "the link was lost"))

    def on_fault(self, link, error):
        link.close(error)
        self.over(error)


class Initiator(Handshake):
    """§6.13. `done`: it is over, and the peer goes on; or Error."""

    def __init__(self, peer):
        self.peer, self.done = peer, peer.loop.create_future()
        self.done.add_done_callback(lambda done: done.cancelled() or done.exception())

    def on_link(self, link):
        super().on_link(link)
        peer, caps = self.peer, {"features": list(FEATURES)}
        offer = {"versions": [1], "agent": AGENT, "caps": caps, "limits": peer.announced}
        message = new_message(HELLO)
        self.shown, self.nonce = False, os.urandom(32)
        if peer.session:
            session, secret = peer.session["id"], peer.session["secret"]
            handled = {"session": session, "handled": peer.ledger.handled}
            offer["resume"] = handled | {"proof": proof(secret, session, message[1])}
        if peer.credentials and self.may_show() and (not peer.session or peer.has_expired()):
            offer["auth"], self.shown = peer.credentials.first(), True
        if peer.psk:
            offer["psk"] = {"id": peer.psk[0], "nonce": self.nonce}
        message[5] = offer
        self.hello, self.offer, self.resuming = message[1], encode(message), "resume" in offer
        link.write(self.offer)

    def may_show(self):
        return self.link.is_confidential or self.peer.clear_auth

    def over(self, error):
        if not self.done.done():
            self.done.set_exception(error)

    def on_message(self, link, m, body):
        if m.type != HELLO or m.ref != self.hello or m.target is not None:
            raise Fatal(PROTOCOL_VIOLATION, "not the answer that was due")
        if m.error:  # §6.8: nothing more is sent
            link.cut()
            return self.over(Error(**m.error))
        if self.answer is None:
            self.first, self.answer = self.judge(m), body
            answer = self.first
        else:
            answer = struct_of(LATER_ANSWER)(m.payload)
        if self.peer.psk and "psk" not in self.first:
            return self.on_fault(link, Error(UNAUTHENTICATED, "the other side does not take part in the key"))
        if "next" not in answer:
            return self.finish(answer)
        self.proofs += 1
        if answer["next"] != "proof" or self.proofs > PROOFS:
            raise Fatal(PROTOCOL_VIOLATION, "no such round")
        message = new_message(HELLO, m.id, "proof", payload=self.prove(answer))
        self.hello = message[1]
        link.write(encode(message))

    def judge(self, m):
        """The first answer chooses (§6.4)."""
        answer = struct_of(ANSWER, "version")(m.payload)
        caps = dict(answer.get("caps", {}))
        features = caps.pop("features", [])
        chosen = any(caps.values()) or not set(features) <= set(FEATURES)
        chosen = chosen or ("psk" in answer and not self.peer.psk) or ("resumed" in answer and not self.resuming)
        if answer["version"] != 1 or chosen:
            raise Fatal(PROTOCOL_VIOLATION, "the answer chooses what was not offered")
        return answer

    def prove(self, answer):
        """What the next proof says; nothing, where there is nothing to prove (§6.10)."""
        proof, peer = {}, self.peer
        if peer.psk and self.proofs == 1:
            self.transcript = transcript(self.offer, self.answer)
            proof["psk"] = {"proof": psk_proof(peer.psk[1], "initiator", self.transcript)}
        if peer.credentials and self.may_show():
            if isinstance(answer.get("challenge"), bytes):
                proof["auth"] = peer.credentials.answer(answer["challenge"])
            elif not self.shown:
                proof["auth"] = peer.credentials.first()
            self.shown = True
        return proof

    def finish(self, last):
        peer = self.peer
        if peer.psk:
            expected = self.proofs and psk_proof(peer.psk[1], "responder", self.transcript)
            given = last.get("psk", {}).get("proof", b"")
            if not expected or not hmac.compare_digest(expected, given):
                return self.on_fault(self.link, Error(UNAUTHENTICATED, "the other side does not hold the key"))
        session = last.get("session", {})
        if self.resuming and "resumed" not in self.first:  # a fresh one (§9.9), of which this peer makes no use
            self.link.close()
            return self.over(Error(SESSION_UNKNOWN, "the session is gone"))
        if self.resuming and (session.get("id") != peer.session["id"] or "secret" not in session):
            raise Fatal(PROTOCOL_VIOLATION, "another session")
        if self.resuming:
            peer.resume(self.link, session, self.first["resumed"]["handled"], limits_of(self.first))
        else:
            peer.establish(self.link, self.first.get("caps", {}).get("features", []), session, limits_of(self.first))
        self.done.set_result(None)


class Responder(Handshake):
    """§6.14. `site` is the server (server.py)."""

    def __init__(self, site):
        self.site, self.key, self.identity, self.challenge = site, None, None, None
        self.resuming, self.renewed = None, False

    def over(self, error):
        if self.resuming:
            self.resuming.give_up(self)

    def on_message(self, link, m, body):
        try:
            if self.answer is None:
                self.on_offer(m, body)
            elif self.hello is None:
                self.on_confirmation(m)
            else:
                self.on_proof(m)
        except Fatal:
            raise
        except Error as error:  # §6.8: an answer, and nothing more
            link.write(encode(new_message(HELLO, m.id, error=error.map)))
            link.leave()
            self.over(error)

    # the offer

    def on_offer(self, m, body):
        if m.type != HELLO or m.ref is not None:
            raise Fatal(PROTOCOL_VIOLATION, "not the offer that was due")
        if m.target is not None or m.error:
            raise Malformed("an offer with a target or an error")
        if 1 not in struct_of({"versions": OFFER["versions"]}, "versions")(m.payload)["versions"]:  # §6.5
            raise Error(UNSUPPORTED_VERSION, "no version in common", data=[1])
        offer, site = struct_of(OFFER)(m.payload), self.site
        self.offer, self.limits = body, limits_of(offer)
        offered = offer.get("caps", {}).get("features", [])
        self.features = [name for name in site.features if name in offered]
        self.take_up(offer.get("resume"), m.id)
        answer = {"version": 1, "agent": AGENT, "caps": {"features": self.features}, "limits": site.limits}
        if self.resuming:
            answer["resumed"] = {"handled": self.resuming.ledger.handled}
        asks = {}
        if site.psks:
            if "psk" not in offer:
                raise Error(UNAUTHENTICATED, "a pre-shared key is needed")
            known = site.psks.get(offer["psk"]["id"])
            self.key, asks = known or os.urandom(32), {"next": "proof"}  # unknown and wrong look the same (§6.12)
            answer["psk"] = {"nonce": os.urandom(32)}
        if "auth" not in offer and "resume" in offer and not self.resuming and site.accounts.known:
            raise Error(SESSION_UNKNOWN, "the session is gone, and a fresh one needs credentials")  # §9.9
        self.send(m, answer, asks | self.authenticate(offer.get("auth")))

    def take_up(self, wanted, offer_id):
        peer = wanted and self.site.sessions.get(wanted["session"])
        if not peer or not peer.secrets.verify(offer_id, wanted["proof"]):
            return
        if wanted["handled"] < peer.ledger.acknowledged:
            return  # perhaps an older offer, repeated by somebody else (§9.6)
        if wanted["handled"] > peer.ledger.sent:
            peer.end("resumed with a number too high")
            raise Error(PROTOCOL_VIOLATION, "more handled than was sent")
        self.resuming, self.features = peer, peer.features
        peer.try_link(self)

    def authenticate(self, auth):
        """Whatever has to be asked for."""
        accounts = self.site.accounts
        if self.identity or not accounts.known:
            return {}
        if self.resuming and not self.resuming.has_expired():
            self.identity = self.resuming.identity  # the proof stands for credentials (§9.5)
            return {}
        if auth is None:
            if self.proofs or self.resuming:
                raise Error(UNAUTHENTICATED, "credentials are needed")
            return {"next": "proof"}
        try:
            self.identity, self.renewed = accounts.verify(auth, self.challenge), True
            if self.resuming and self.identity.name != self.resuming.identity.name:
                raise Error(PERMISSION_DENIED, "another identity")
            return {}
        except Challenge as challenge:
            self.challenge = challenge.args[0]
            return {"next": "proof", "challenge": self.challenge}

    # answers

    def send(self, m, answer, asks):
        if asks and self.proofs == PROOFS:
            raise Error(UNAUTHENTICATED, "not in so many rounds")
        message = new_message(HELLO, m.id, payload=answer | asks)
        if not asks:
            message[5]["session"] = self.session()
        self.hello, body = message[1], encode(message)
        self.answer = self.answer or body
        self.link.write(body)
        if not asks:
            self.finish()

    def session(self):
        self.secrets = self.resuming.secrets if self.resuming else self.site.new_secrets()
        session = {"id": self.secrets.id, "resume_ms": 0}
        if "resume" in self.features and self.site.resume_ms:
            session |= {"resume_ms": self.site.resume_ms, "secret": self.secrets.salt or self.secrets.current}
        expires = self.site.auth_ms if self.renewed else self.resuming and self.resuming.expires_in()
        return session | ({"auth_expires_ms": expires} if expires else {})

    def on_proof(self, m):
        if (m.type, m.ref, m.target) != (HELLO, self.hello, "proof"):
            raise Fatal(PROTOCOL_VIOLATION, "not the proof that was due")
        if m.error:
            raise Malformed("a proof with an error")
        self.proofs += 1
        given, answer = struct_of(PROOF)(m.payload), {}
        if self.key and self.proofs == 1:
            self.transcript = transcript(self.offer, self.answer)
            expected = psk_proof(self.key, "initiator", self.transcript)
            if not hmac.compare_digest(expected, given.get("psk", {}).get("proof", b"")):
                raise Error(UNAUTHENTICATED, "the proof of the key is missing or wrong")
        asks = self.authenticate(given.get("auth"))
        if self.key and not asks:
            answer["psk"] = {"proof": psk_proof(self.key, "responder", self.transcript)}
        self.send(m, answer, asks)

    def finish(self):
        if self.resuming:
            self.hello = None  # §9.6: the confirmation is next
            return
        site = self.site
        peer = Peer(site.methods, False, site.limits, site.hub)
        peer.site, peer.identity, peer.secrets = site, self.identity, self.secrets
        if self.identity:
            peer.expire_in(site.auth_ms)
        session = {"id": self.secrets.id, "resume_ms": site.resume_ms if "resume" in self.features else 0}
        site.add(peer)
        peer.establish(self.link, self.features, session, self.limits)

    def on_confirmation(self, m):
        if (m.type, m.ref, m.target) != (CONTROL, None, "handled") or m.error:
            raise Fatal(PROTOCOL_VIOLATION, "the resume is not confirmed")
        handled = uint(m.payload)
        peer = self.resuming
        if not peer.ledger.acknowledged <= handled <= peer.ledger.sent:
            raise Fatal(PROTOCOL_VIOLATION, "confirmed with a wrong number")
        self.resuming = None
        peer.secrets.confirm()
        if self.renewed:
            peer.expire_in(self.site.auth_ms)
        peer.resume(self.link, None, handled, self.limits)
