"""The command line: one file per command, imported when it is asked for."""


def main() -> None:
    """The entry point `orchestrator`."""
    from processors.cli.app import app
    from processors.cli.exits import explained

    with explained():
        app()
