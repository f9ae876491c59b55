"""R60: keys that an issuer publishes, in a file and at an address, which may be anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from processors.access import published
from processors.access.admission import tokens_of
from processors.access.principal import Unauthenticated
from processors.access.published import reader
from processors.access.settings import AccessSettings, BadKey
from processors.access.tokens import UnknownKey
from tests.access import ED, NOW, RSA, SECRET, claims, encoded, jwks

OLD = encoded(claims(), RSA, "RS256", kid="one")
NEW = encoded(claims(), ED, "EdDSA", kid="two")
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def issuer(answer: Answer) -> AsyncIterator[str]:
    """The address of a real server that answers so."""
    app = web.Application()
    app.router.add_get("/{name:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        [address] = runner.addresses
        yield f"http://127.0.0.1:{address[1]}/keys"
    finally:
        await runner.cleanup()


def asked(source: str) -> AccessSettings:
    return AccessSettings(auth="token", auth_jwks=source, engine_key=SECRET.decode())


@pytest.mark.parametrize("of", ["file", "address"])
async def test_tokens_of_both_public_kinds_are_good_wherever_the_keys_lie(of, tmp_path: Path):
    document = jwks(one=RSA)

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=document)

    async with issuer(answer) as address:
        path = tmp_path / "keys.json"
        path.write_bytes(document)
        tokens, keys = tokens_of(asked(address if of == "address" else str(path)))
        assert keys is not None
        now = [0.0]
        keys.clock = lambda: now[0]
        await keys.start()
        try:
            assert tokens.principal(OLD, NOW).tenant == "acme"
            with pytest.raises(UnknownKey):
                tokens.principal(NEW, NOW)
            document = jwks(two=ED)
            path.write_bytes(document)
            assert not await keys.renewed(), "not so soon after the last look"
            now[0] += published.AGAIN_S
            assert await keys.renewed()
            assert tokens.principal(NEW, NOW).tenant == "acme"
            with pytest.raises(Unauthenticated):
                tokens.principal(OLD, NOW)
            document = b"no keys"
            path.write_bytes(document)
            now[0] += published.AGAIN_S
            assert not await keys.renewed(), "and what cannot be read changes nothing"
            assert tokens.principal(NEW, NOW).tenant == "acme"
        finally:
            await keys.stop()


async def test_an_address_that_leads_elsewhere_or_never_ends_is_refused(monkeypatch):
    monkeypatch.setattr(published, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(published, "DOCUMENT_BYTES_MAX", 4_096)
    asked_for: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked_for.append(request.path)
        match request.path:
            case "/keys/elsewhere":
                raise web.HTTPFound("/secret")
            case "/keys/large":
                return web.Response(body=b" " * 5_000)
            case "/keys/slow":
                await asyncio.sleep(5)
        return web.Response(body=jwks(one=RSA))

    async with issuer(answer) as address:
        for name, why in (("elsewhere", "302"), ("large", "large"), ("slow", "Timeout")):
            with pytest.raises(BadKey, match=why):
                await reader(f"{address}/{name}")()
    assert "/secret" not in asked_for
    with pytest.raises(BadKey, match="Connector"):
        await reader(address)()


@pytest.mark.parametrize("address", ["http://keys.example.com/", "ftp://localhost/", "file:///x"])
def test_keys_come_over_https_or_from_this_machine(address):
    with pytest.raises(ValueError, match="https://"):
        asked(address)
