"""What peer.py answers. § numbers name the sections of SPEC.md."""
import asyncio

from cbor import decode
from wire import Error


async def echo(call):
    return call.payload


async def fail(call):
    raise Error(call.argument("code", int), call.argument("message", str))


async def sleep(call):
    await asyncio.sleep(call.argument("ms", int) / 1000)


async def count(call):
    for number in range(call.argument("n", int)):
        await call.update(number)
    return call.argument("n", int)


async def collect(call):
    values = []
    while len(values) < call.argument("n", int):
        await call.news.wait()
        call.news.clear()
        values += call.updates
        call.updates.clear()
    return values


async def callback(call):
    method = call.argument("method", str)
    try:
        return await call.peer.call(method, decode(call.payload).get("payload"))
    except Error as error:  # what was not acted upon is that call, not this one (§5.12)
        raise Error(**error.map | {"processed": True}) from None


async def cancelled(call):
    return call.peer.cancelled


async def whoami(call):
    scheme, name = call.peer.identity or (None, None)
    return {"scheme": scheme, "identity": name, "encrypted": False, "resumed": call.peer.resumed > 0}


async def drop_link(call):
    peer = call.peer

    async def drop():
        while call.id in peer.theirs or not peer.writable.is_set():  # until the answer is out
            await asyncio.sleep(0)
        peer.link.transport.abort()

    peer.leaving = peer.loop.create_task(drop())


async def drain(call):
    call.peer.leaving = call.peer.loop.create_task(call.peer.drain(call.argument("deadline_ms", int) / 1000))


METHODS = {f.__name__: f for f in (echo, fail, sleep, count, collect, callback)}
METHODS |= {f"test.{f.__name__}": f for f in (cancelled, whoami, drop_link, drain)}
