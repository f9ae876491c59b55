"""R60: that nobody is asked who he is, is said in yellow."""

from __future__ import annotations

import typer

from processors.cli import output


def test_it_is_said_in_yellow_and_what_to_do(capsys, monkeypatch):
    monkeypatch.delenv("AGENTCORE_SUPERVISED", raising=False)
    monkeypatch.setattr(typer, "secho", lambda text, fg, err: typer.echo(f"{fg} {text}", err=err))
    output.without_tokens()
    said = capsys.readouterr().err
    assert said.startswith("yellow AGENTCORE_AUTH=none: ")
    assert "AGENTCORE_AUTH=token" in said
