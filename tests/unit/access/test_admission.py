"""R60, F36, I14: what the engine lets in, and as whose."""

from __future__ import annotations

from typing import Any

import pytest

from aggregates.definition import validate
from processors.access.admission import Admission, not_theirs
from processors.access.own import RENEWED_S, SignedTokens
from processors.access.principal import Unauthenticated
from processors.access.tokens import LEEWAY_S
from streams.codec import TOKEN_CHARS_MAX, Poison, decode_command, encode_command, redacted, stamped
from streams.message import Command
from tests.access import ENGINE, NOW, token, tokens
from tests.executions import done, start, undone
from tests.flows import ROLE, blueprint, document
from tests.spec import after


def command(
    kind: str = "StartExecution",
    aggregate: str = "execution",
    root: str = "x",
    data: dict[str, Any] | None = None,
    **more: Any,
) -> Command:
    return Command("c", kind, aggregate, root, data or {}, **more)


def admit(said: Command, raw: str | None, now: float = NOW) -> str | None:
    """The code of what refuses it; None where it is admitted."""
    said.token = raw
    refused = Admission(tokens()).admit(said, now)
    assert said.token is None, "nothing behind the admission sees a token"
    return refused.code if refused else None


def test_the_token_says_tenant_and_actor():
    said = command(actor="somebody else")
    assert admit(said, token("operator")) is None
    assert (said.tenant, said.actor) == ("acme", "ann")


@pytest.mark.parametrize("raw", [None, "", "x.y.z", token("operator", life_s=-60.0)])
def test_nobody_is_let_in_without_a_valid_token(raw):
    with pytest.raises(Unauthenticated):
        admit(command(), raw)


def test_what_was_let_in_is_not_once_its_token_has_expired():
    """Though it is remembered, and the command before it was let in with the same bytes."""
    admission, raw = Admission(tokens()), token("operator")
    expired = NOW + 600 + LEEWAY_S
    for when in (NOW, expired - 0.1):
        assert admission.admit(command(token=raw), when) is None
    with pytest.raises(Unauthenticated, match="expired"):
        admission.admit(command(token=raw), expired)


def test_another_tenant_than_the_tokens_is_refused_and_recorded_under_the_tokens():
    said = command(tenant="victim", actor="victim's admin")
    assert admit(said, token("admin")) == "FORBIDDEN"
    assert (said.tenant, said.actor) == ("acme", "ann")


def test_an_admin_of_all_tenants_names_one():
    said = command(tenant="acme", actor="x")
    assert admit(said, token("admin", tenant="*")) is None
    assert (said.tenant, said.actor) == ("acme", "ann")


def test_who_may_not_is_refused_and_known_by_name():
    said = command("CreateWorkflow", "workflow")
    assert admit(said, token("operator", "viewer")) == "FORBIDDEN"
    assert (said.tenant, said.actor) == ("acme", "ann")
    assert admit(command("TimeOutTask"), token("admin")) == "FORBIDDEN"


def test_a_command_that_is_none_is_left_to_whoever_knows_all_commands():
    assert admit(command("Nonsense", "execution"), token("viewer")) is None
    assert admit(command("Nonsense", "nothing"), token("viewer")) is None


def test_the_engine_speaks_as_who_it_says_and_only_where_it_may():
    """Managers act for every tenant; what carries a dead letter does for the letter's only."""
    engine = SignedTokens(ENGINE, clock=lambda: NOW)
    said = command("TimeOutTask", tenant="acme", actor="deadlines")
    assert admit(said, engine()) is None
    assert (said.tenant, said.actor) == ("acme", "deadlines")
    assert admit(command("CompleteTask", tenant="acme"), engine.of("acme")) is None
    assert admit(command("CompleteTask", tenant="other"), engine.of("acme")) == "FORBIDDEN"


def test_the_engine_renews_its_tokens_long_before_they_expire():
    now = [NOW]
    engine = SignedTokens(ENGINE, clock=lambda: now[0])
    first = engine()
    assert engine() == first
    now[0] += RENEWED_S
    assert engine() != first
    assert admit(command("TimeOutTask"), first, now[0] + RENEWED_S - 1) is None


# Agents -----------------------------------------------------------------------------------------


def answer(agent: Any = "bot", kind: str = "CompleteTask") -> Command:
    return command(kind, data={"task": "a", "attempt": 1, "agent": agent})


def test_an_agent_answers_in_its_own_name_only():
    """F36."""
    mine = token("agent", subject="host-1", agents=["bot", "crew/*"], task_roles=["coder"])
    said = answer()
    assert admit(said, mine) is None
    assert (said.actor, said.task_roles) == ("bot", {"coder"})
    assert admit(answer("crew/7"), mine) is None
    assert admit(answer("other"), mine) == "FORBIDDEN"
    assert admit(answer(7), mine) is None, "what is no name, the check of its fields refuses"
    assert admit(answer(), token("operator", "admin")) == "FORBIDDEN"


def test_an_agent_registers_itself_and_for_its_roles_only():
    mine = token("agent", subject="bot", task_roles=["coder"])

    def register(root: str, *roles: str) -> Command:
        return command("RegisterAgent", "agent", root, {"name": "n", "roles": list(roles)})

    assert admit(register("bot", "coder"), mine) is None
    assert admit(register("bot", "coder", "judge"), mine) == "FORBIDDEN"
    assert admit(register("other", "coder"), mine) == "FORBIDDEN"
    assert admit(register("other", "judge"), token("operator")) is None
    assert admit(register("other", "judge"), token("agent", "operator")) is None
    assert admit(command("OpenCircuit", "agent", "bot"), mine) == "FORBIDDEN"


def test_an_agent_answers_tasks_of_its_roles_only():
    """F36: whoever asks for it; what is not there is left to the decision."""
    flow = document({"a": {"compensation_action": "undoer/revert"}})
    flow["agents"]["undoer"] = {}
    state = after(start(blueprint(validate(flow)))).state
    mine, others = frozenset({ROLE}), frozenset({"undoer"})
    assert not_theirs(state, done("a"), mine) is None
    assert not_theirs(state, done("a"), others).code == "NOT_YOURS"
    assert not_theirs(state, undone("a"), mine).code == "NOT_YOURS"
    assert not_theirs(state, undone("a"), others) is None
    assert not_theirs(state, done("no such task"), frozenset()) is None
    assert not_theirs(object(), done("a"), frozenset()) is None


# The token on its way ----------------------------------------------------------------------------


def test_a_token_travels_in_the_envelope_and_shows_nowhere():
    raw = stamped(encode_command(command()), token("operator"))
    said = decode_command(raw)
    assert said.token == token("operator")
    assert said.token not in repr(said)
    assert stamped(b"{}", None) == b"{}"
    for bad in (7, ["x"], "x" * (TOKEN_CHARS_MAX + 1)):
        with pytest.raises(Poison):
            decode_command(encode_command(command(token=bad)))


def test_what_is_kept_of_a_command_has_no_token():
    secret = token("operator")
    raw = stamped(encode_command(command()), secret)
    assert secret.encode() not in redacted(raw)
    assert decode_command(redacted(raw)).token == "***"
    broken = b'{"token" : "' + secret.encode() + b'", '
    assert secret.encode() not in redacted(broken)
    plain = encode_command(command(data={"input": "no token here. none. at.all"}))
    assert redacted(plain) == plain
