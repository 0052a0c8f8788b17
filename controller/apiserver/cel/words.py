"""What went wrong when an expression ran, in the words of Kubernetes' CEL library."""

from __future__ import annotations

import re

NO_OVERLOAD = "no such overload"
_STATUS = re.compile(r"\A[A-Z_]+: ")
_WORDS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"\ANo matching overloads found.*", NO_OVERLOAD),
        (r'\AKey not found in map : "(.*)"', r"no such key: \1"),
        (r"\AIndex error: index=(-?\d+).*", r"index out of bounds: \1"),
        (r"\A(?:divide|modulus) by zero", "division by zero"),
        (r"\Acannot convert (\w+) to (\w+)", r"type conversion error from '\1' to '\2'"),
        (r"\Aint64 out of uint64 range", "unsigned integer overflow"),
        (
            r"\AString to Duration conversion failed",
            "type conversion error from 'string' to 'google.protobuf.Duration'",
        ),
        (r"\Ainvalid regular expression: ", "error parsing regexp: "),
        (r"\AApplying SELECT to non-message type", "no such key"),
    )
)


def of_failure(text: str) -> str:
    """``text`` is the C++ library's; what is not known here is its own words."""
    text = _STATUS.sub("", text).removesuffix("]").strip()
    text = re.sub(r" \[[A-Z_]+\Z", "", text)
    for pattern, words in _WORDS:
        if pattern.match(text):
            return pattern.sub(words, text)
    return text
