"""R50, R60: tenants and their keys over HTTP."""

from __future__ import annotations

import os
import time
from base64 import b64encode

from processors.settings import Addresses
from tests.access import SECRET
from tests.access import token as signed
from tests.system.api import api, at
from tests.system.engine import definition, engine

ASKED = {"auth": "token", "auth_key": SECRET.decode()}
HERE = "/api/v1/tenants"


def by(role: str, tenant: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {signed(role, tenant=tenant, now=time.time())}"}


async def test_a_tenant_is_named_rotated_and_erased_by_its_own(database: str, redis_url: str):
    addresses, kek = Addresses(database, redis_url), b64encode(os.urandom(32)).decode()
    mine, everywhere = by("admin", "acme"), by("admin", "*")
    async with (
        engine(addresses, kek=kek, **ASKED) as on,
        api(addresses, kek=kek, **ASKED) as http,
    ):
        flow = {"json": definition(), "headers": mine}
        assert (await http.post("/api/v1/workflows", **flow)).status_code == 201
        named = await http.put(f"{HERE}/acme", json={"name": "Acme Ltd"}, headers=mine)
        assert named.status_code == 200, named.text
        shown = (await http.get(f"{HERE}/acme", headers=mine, params=at(named))).json()
        assert (shown["name"], shown["status"], shown["key_version"]) == ("Acme Ltd", "active", 1)

        for version, status, changed in ((3, 422, None), (2, 200, True), (2, 200, False)):
            said = {"key_version": version, "reason": "as every year"}
            done = await http.post(f"{HERE}/acme/rotate", json=said, headers=mine)
            assert (done.status_code, done.json().get("changed")) == (status, changed), done.text
        versions = "SELECT version FROM tenant_keys WHERE tenant = 'acme' ORDER BY 1"
        assert [row[0] for row in await on.pool.fetch(versions)] == [1, 2]

        strange = {"json": {"name": "x"}, "headers": by("admin", "other")}
        assert (await http.put(f"{HERE}/acme", **strange)).status_code == 404
        assert (await http.put(f"{HERE}/other", **strange)).status_code == 200
        weak = await http.get(HERE, headers=by("operator", "acme"))
        assert weak.status_code == 403
        for who, seen in ((mine, ["acme"]), (everywhere, ["acme", "other"])):
            rows = (await http.get(HERE, headers=who, params=at(named))).json()["items"]
            assert [row["tenant"] for row in rows if row["tenant"] in ("acme", "other")] == seen

        erased = await http.post(
            f"{HERE}/acme/erase", json={"reason": "it has ended"}, headers=everywhere
        )
        assert erased.status_code == 200, erased.text
        shown = (await http.get(f"{HERE}/acme", headers=everywhere, params=at(erased))).json()
        assert (shown["status"], shown["erased_why"]) == ("erased", "it has ended")
        assert await on.pool.fetchval("SELECT count(wrapped) FROM tenant_keys") == 1
        gone = await http.post("/api/v1/workflows", **flow)
        assert (gone.status_code, gone.json()["code"]) == (410, "TENANT_ERASED")
