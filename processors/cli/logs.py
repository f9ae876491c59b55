"""Where the engine's processes log: stderr, one JSON object a line, or plainly on a terminal."""

from __future__ import annotations

import logging
import sys


def configure_quiet(level: str) -> None:
    """For a command that answers a person: nothing, unless everything was asked for.

    What goes wrong is said in one sentence at the end; libraries would say it in many.
    """
    configure("DEBUG" if level == "DEBUG" else "CRITICAL")


def configure(level: str) -> None:
    """Set up structlog, and the standard library's logging for what uses that."""
    import structlog

    number = logging.getLevelNamesMapping()[level]
    terminal = sys.stderr.isatty()
    renderer = structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # What the libraries say at INFO (Faust's start and stop) is of no use to an operator.
    logging.basicConfig(
        level=max(number, logging.WARNING) if level != "DEBUG" else logging.DEBUG,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
