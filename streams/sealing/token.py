"""What a sealed value looks like in JSON, and how it is told from a clear one; no keys here.

A value becomes `{"$sealed": "<version>.<field>.<base64>"}`, a text keeps its error's name and has
`sealed:<version>.<field>.<base64>` for the rest. The version is that of the tenant's data key, the
base64 holds the nonce and the ciphertext.
"""

from __future__ import annotations

import re
from typing import Any, TypeGuard

MARK = "$sealed"
IN_TEXT = "sealed:"

_HEAD = re.compile(r"[1-9][0-9]{0,8}\.[a-z]{1,16}\.")
_TEXT = re.compile(r"sealed:([1-9][0-9]{0,8}\.[a-z]{1,16}\.[A-Za-z0-9+/]+={0,2})")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,63}(?=: )")

_OVERHEAD = 28  # nonce and tag


def wrap(token: str) -> dict[str, str]:
    """The token as the JSON value that takes the clear one's place."""
    return {MARK: token}


def is_sealed(value: Any) -> TypeGuard[dict[str, str]]:
    """Whether a JSON value has the form of a sealed one; only a key tells whether it is one."""
    return (
        type(value) is dict
        and len(value) == 1
        and type(token := value.get(MARK)) is str
        and _HEAD.match(token) is not None
    )


def is_sealed_text(text: str) -> bool:
    """Whether a text has a sealed part."""
    return IN_TEXT in text and _TEXT.search(text) is not None


def named(text: str) -> tuple[str, str]:
    """An error's name with its colon, which stays in clear, and the rest, which does not.

    Retry policies and people who count errors go by the name: one word before the first colon.
    """
    found = _NAME.match(text)
    if found is None:
        return "", text
    end = found.end() + 2
    return text[:end], text[end:]


def parts(text: str) -> list[str]:
    """The text cut at its tokens: clear, token, clear, token …, clear."""
    return _TEXT.split(text)


def clear_bytes(token: str) -> int:
    """How many bytes were sealed."""
    text = token[token.rfind(".") + 1 :]
    return max(0, len(text) * 3 // 4 - text.count("=", -2) - _OVERHEAD)
