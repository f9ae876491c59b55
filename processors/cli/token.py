"""`orchestrator token`: a token of one's own making, for development."""

from __future__ import annotations

import re
import time
from enum import StrEnum
from typing import Annotated

import typer

from processors.cli.exits import Code, Failed, explained

UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
LIFE_DAYS_MAX = 366


class Given(StrEnum):
    """The roles that a token can have."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    DESIGNER = "designer"
    ADMIN = "admin"
    AGENT = "agent"


def token(
    role: Annotated[list[Given], typer.Option(help="May be given more than once.")],
    tenant: Annotated[str, typer.Option(help="Whose; `*` is all, for admins.")] = "default",
    ttl: Annotated[str, typer.Option(help="How long it lasts: 90s, 15m, 1h, 30d.")] = "1h",
    subject: Annotated[str, typer.Option(help="Who shows it; the audit trail names it.")] = "me",
    agent: Annotated[
        list[str] | None,
        typer.Option(help="An agent that it speaks for; `crew-*` is all that begin so."),
    ] = None,
    task_role: Annotated[
        list[str] | None, typer.Option(help="Only tasks of this role; else of any.")
    ] = None,
) -> None:
    """Print a token, signed with the first key of AGENTCORE_AUTH_KEY or AGENTCORE_AUTH_KEY_FILE.

    For development and for small installations; elsewhere tokens come from who knows the people.

    Example:  orchestrator token --role operator --tenant acme --ttl 1h
    """
    with explained():
        from processors.access.principal import ANY_TENANT
        from processors.access.tokens import sign
        from processors.settings import read_settings
        from streams.codec import TENANT

        keys = read_settings().shared_keys()
        if not keys:
            raise Failed("Set AGENTCORE_AUTH_KEY or AGENTCORE_AUTH_KEY_FILE.", Code.USAGE)
        if tenant == ANY_TENANT and Given.ADMIN not in role:
            raise Failed("Only an admin's token may be for all tenants.", Code.USAGE)
        if tenant != ANY_TENANT and not TENANT.fullmatch(tenant):
            raise Failed("A tenant is 1 to 64 letters, digits, `.`, `_` or `-`.", Code.USAGE)
        typer.echo(
            sign(
                keys[0],
                subject=subject,
                tenant=tenant,
                roles=[one.value for one in role],
                agents=agent or (),
                task_roles=task_role or (),
                now=time.time(),
                life_s=_seconds(ttl),
                expected=read_settings().expected,
            )
        )


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d{1,7})([smhd])", text.strip())
    seconds = int(found[1]) * UNITS[found[2]] if found else 0
    if not 0 < seconds <= LIFE_DAYS_MAX * UNITS["d"]:
        raise Failed(f"{text!r} is no time like 90s, 15m, 1h or 30d, up to a year.", Code.USAGE)
    return float(seconds)
