"""Connecting, and connecting again (SPEC.md §9.10), for peer.py. § numbers name the sections of SPEC.md."""
import asyncio
import random

from handshake import Initiator
from link import Link
from wire import RESOURCE_EXHAUSTED, UNAVAILABLE, Error

FIRST_WAIT, LONGEST_WAIT = 0.05, 2


async def connect(peer, host, port):
    """Another link for the peer. OSError or Error where that fails."""
    shake = Initiator(peer)
    await peer.loop.create_connection(lambda: Link(shake), host, port)
    await shake.done


async def reconnect(peer, host, port):
    """Until the session goes on, or is over."""
    wait = FIRST_WAIT
    while not peer.over and not peer.link:
        await asyncio.sleep(random.uniform(0, wait))
        wait = min(2 * wait, LONGEST_WAIT)
        try:
            await connect(peer, host, port)
        except OSError:
            continue
        except Error as error:
            if error.map["code"] not in (UNAVAILABLE, RESOURCE_EXHAUSTED):
                peer.end(f"the session is lost: {error}")


def come_back(peer, host, port):
    """Has the peer come back by itself."""

    def on_detached():
        peer.coming_back = peer.loop.create_task(reconnect(peer, host, port))

    peer.on_detached = on_detached
