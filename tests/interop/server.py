"""A server for peer.py: sessions, which may outlive their links, and a hub. § numbers name the sections of SPEC.md."""
import asyncio
import signal

from auth import Accounts, psk_of
from handshake import Responder
from link import Link
from pubsub import Hub
from resume import Secrets
from session import FEATURES


class Site:
    """What its peers have in common."""

    def __init__(self, methods, limits=None, accounts=(), psks=(), resume_ms=30_000, auth_ms=None):
        self.methods, self.limits, self.hub = methods, {"max_message": 16 << 20} | (limits or {}), Hub()
        self.accounts, self.psks = Accounts(accounts), dict(map(psk_of, psks))
        self.resume_ms, self.auth_ms = resume_ms, auth_ms
        self.features = FEATURES if resume_ms else tuple(name for name in FEATURES if name != "resume")
        self.peers, self.sessions = set(), {}

    def new_secrets(self):
        return Secrets()

    def add(self, peer):
        self.peers.add(peer)
        self.sessions[peer.secrets.id] = peer

    def remove(self, peer):
        self.peers.discard(peer)
        self.sessions.pop(peer.secrets.id, None)

    async def serve(self, port):
        """Prints its port; until SIGTERM, and then as long as something is open (§8.6)."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        server = await loop.create_server(lambda: Link(Responder(self)), "127.0.0.1", port)
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        print(server.sockets[0].getsockname()[1], flush=True)
        await stop.wait()
        server.close()
        peers = list(self.peers)
        await asyncio.gather(*(peer.drain(reason="the server stops") for peer in peers))
        await asyncio.gather(*(peer.gone for peer in peers))
