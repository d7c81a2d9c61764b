#!/usr/bin/env python3
"""A FLUXAR peer over TCP in plain Python: a model for ports to other languages. The wire: cbor.py, wire.py and link.py;
how a link begins: handshake.py and auth.py; what goes on until the end: session.py and upkeep.py, and resume.py for
longer than a link; what it is for: calls.py, streams.py, pubsub.py; both ends: client.py and server.py.

    peer.py call HOST PORT METHOD [JSON] [--timeout MS]     updates and the answer as JSON, one per line
    peer.py stream HOST PORT METHOD [JSON] [--items JSON] [--window N] [--take N] [--timeout MS]
                                                            sends items; those that come, and the final value
    peer.py sub HOST PORT FILTER [--qos N] [--group G] [--inflight N] [--count N] [--nack N]
                                                            messages, acknowledged; of the first --nack not at once
    peer.py pub HOST PORT TOPIC JSON... [--qos N] [--retain]
            [--auth SCHEME=SECRET] [--psk ID=HEX] [--no-resume]         for all of these; after a lost link they go on
    peer.py serve PORT [--limits JSON] [--resume-ms N] [--auth-ms N]
            [--auth SCHEME=SECRET:IDENTITY]... [--psk ID=HEX]...
                                                            prints its port; a hub; methods: METHODS, STREAMS
    peer.py probe HOST PORT [--only PART]                   checks a server against SPEC.md (probe.py)

It needs Python 3.11 and nothing else. § numbers name the sections of SPEC.md.
"""
import argparse
import asyncio
import importlib
import json
import sys

from auth import Credentials, psk_of
from cbor import decode, plain
from client import come_back, connect
from methods import METHODS
from server import Site
from session import Peer
from wire import UNAVAILABLE, Error


def show(word, value):
    print(json.dumps({word: plain(value)}), flush=True)


async def call(peer, args):
    def on_update(payload):
        show("update", decode(payload))

    timeout = args.timeout and args.timeout / 1000
    show("result", decode(await peer.call(args.method, args.json, timeout, on_update)))


async def stream(peer, args):
    stream = peer.stream(args.method, args.json, args.timeout and args.timeout / 1000, args.window)

    async def send():
        for item in args.items:
            await stream.send(item)
        await stream.end()

    sending, taken = asyncio.ensure_future(send()), 0
    sending.add_done_callback(lambda sending: sending.cancelled() or sending.exception())  # who receives knows why
    while taken != args.take and (item := await stream.next()) is not None:
        show("item", decode(item))
        taken += 1
    if taken == args.take:
        stream.cancel()
        return show("cancelled", decode(await peer.call("test.cancelled")))
    show("final", decode(stream.last))
    await sending


async def sub(peer, args):
    subscription = await peer.subscribe(args.filter, args.qos, args.inflight, args.group)
    show("confirmed", subscription.granted)
    for number in range(args.count):
        message = await subscription.next()
        if number < args.nack:
            message.nack(Error(UNAVAILABLE, "not yet", retry_after_ms=1))
            continue
        message.ack()
        seen = {name: getattr(message, name) for name in ("topic", "qos", "dup", "attempt", "retained")}
        show("message", seen | {"payload": decode(message.payload)})
    subscription.unsubscribe()
    while subscription.id in peer.subscriptions:  # what was acknowledged is there before the end
        subscription.news.clear()
        await subscription.news.wait()


async def pub(peer, args):
    for payload in args.json:
        attempts = await peer.publish(args.topic, json.loads(payload), args.qos, args.retain)
        if attempts:
            show("accepted", attempts)


async def run(command, args):
    peer = Peer(METHODS, True, args.limits)
    peer.credentials, peer.psk = args.auth and Credentials(args.auth), args.psk and psk_of(args.psk)
    if not args.no_resume:
        come_back(peer, args.host, args.port)
    try:
        await connect(peer, args.host, args.port)
        await command(peer, args)
        return 0
    except OSError as error:
        show("error", Error(UNAVAILABLE, str(error), processed=False).map)
        return 1
    except Error as error:
        show("error", error.map)
        return 1
    finally:
        while peer.sent_messages:  # what is acknowledged is released, too
            await asyncio.sleep(0.01)
        if peer.resumed:
            show("resumed", {"times": peer.resumed, "resent": peer.resent})
        peer.close()
        await peer.gone


def parser():
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    commands = parser.add_subparsers(dest="command", required=True)
    words = {"call": "method", "stream": "method", "sub": "filter", "pub": "topic", "probe": "", "serve": ""}
    for name, more in words.items():
        command = commands.add_parser(name)
        for word in (("" if name == "serve" else "host ") + "port " + more).split():
            command.add_argument(word, type=int if word == "port" else str)
        command.add_argument("--limits", type=json.loads, metavar="JSON")
        action = {"action": "append", "default": []} if name == "serve" else {}
        command.add_argument("--auth", **action)
        command.add_argument("--psk", **action)
        command.add_argument("--no-resume", action="store_true")
    options = {
        "call": {"--timeout": int},
        "stream": {"--timeout": int, "--window": int, "--take": int, "--items": json.loads},
        "sub": {"--qos": int, "--inflight": int, "--count": int, "--nack": int, "--group": str},
        "pub": {"--qos": int},
        "serve": {"--resume-ms": int, "--auth-ms": int},
    }
    defaults = {"--qos": 0, "--count": 1, "--nack": 0, "--items": [], "--resume-ms": 30_000}
    for name, more in options.items():
        for option, kind in more.items():
            commands.choices[name].add_argument(option, type=kind, default=defaults.get(option))
    for name in ("call", "stream"):
        commands.choices[name].add_argument("json", nargs="?", type=json.loads)
    commands.choices["pub"].add_argument("json", nargs="+")
    commands.choices["pub"].add_argument("--retain", action="store_true")
    commands.choices["probe"].add_argument("--only", choices=("core", "streams", "pubsub", "sessions"))
    return parser


async def serve(site, port):
    await Site(METHODS, *site).serve(port)


def main():
    args = parser().parse_args()
    if args.command == "probe":
        import probe
        for part in ("streams", "pubsub", "sessions"):
            importlib.import_module(f"probe_{part}")
        sys.exit(probe.main(args.host, args.port, args.only))
    if args.command == "serve":
        site = (args.limits, args.auth, args.psk, args.resume_ms, args.auth_ms)
        return asyncio.run(serve(site, args.port))
    sys.exit(asyncio.run(run({"call": call, "stream": stream, "sub": sub, "pub": pub}[args.command], args)))


if __name__ == "__main__":
    main()
