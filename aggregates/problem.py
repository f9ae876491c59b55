"""Why something was refused, as an RFC 9457 problem: a code, one bounded sentence, the place.

Codes are part of the interface: scripts and tests match on them, people read the detail.
"""

from __future__ import annotations

from typing import Any

from streams.sealing.token import is_sealed_text, parts

DETAIL_CHARS_MAX = 500
LIST_ITEMS_MAX = 20
TOKEN_CHARS_MAX = 8_192  # the sealed part of a text, which cannot be cut: far above any error


class Refused(Exception):
    """A command or a document was understood and refused; nothing has been stored."""

    def __init__(self, code: str, detail: str, pointer: str | None = None, **facts: Any) -> None:
        self.code = code
        self.detail = bounded(detail)
        self.pointer = pointer
        self.facts = {k: v[:LIST_ITEMS_MAX] if isinstance(v, list) else v for k, v in facts.items()}
        super().__init__(f"{code}: {self.detail}")

    def problem(self) -> dict[str, Any]:
        """The refusal as a problem document (RFC 9457); `pointer` is a JSON pointer (RFC 6901)."""
        document: dict[str, Any] = {
            "type": f"urn:agentcore:problem:{self.code.lower().replace('_', '-')}",
            "title": self.code.replace("_", " ").capitalize(),
            "code": self.code,
            "detail": self.detail,
        }
        if self.pointer is not None:
            document["pointer"] = self.pointer
        return document | self.facts


def bounded(text: str, limit: int = DETAIL_CHARS_MAX) -> str:
    """The text, cut to `limit` characters, with control characters made visible.

    A sealed part (the first) stays whole, or could not be opened any more.
    """
    if is_sealed_text(text):
        before, token, after, *_ = parts(text)
        if len(token) <= TOKEN_CHARS_MAX:
            return f"{bounded(before, limit)}sealed:{token}{bounded(after, limit)}"
    clean = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: limit + 1])
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
