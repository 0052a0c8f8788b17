"""URLs as Go reads them: https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-url-library"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote

from controller.apiserver.cel.functions import Function, Opaque, T, member, plain

URL = Opaque("kubernetes.URL")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)\Z", re.DOTALL)
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOST = re.compile(r"[A-Za-z0-9\-_.~!$&'()*+,;=:<>\"%\[\]\x80-\U0010ffff]*\Z")
_PORT = re.compile(r"(:\d*)?\Z")


@dataclass(frozen=True)
class Parsed:
    scheme: str
    host: str
    path: str
    query: str

    @property
    def split(self) -> tuple[str, str]:
        """The host's name, without brackets, and the port."""
        if self.host.startswith("["):
            name, _, port = self.host[1:].rpartition("]")
            return name, port.removeprefix(":")
        name, _, port = self.host.partition(":")
        return name, port


def parse(text: str) -> Parsed:
    """An absolute URL or an absolute path. Raises ValueError."""
    shown = json.dumps(text, ensure_ascii=False)
    if not text or any(ord(char) < 0x20 or char == "\x7f" for char in text):
        raise ValueError(f"parse {shown}: empty url or invalid control character in URL")
    if text.startswith(":"):
        raise ValueError(f"parse {shown}: missing protocol scheme")
    match = _SCHEME.match(text)
    scheme, rest = (match.group(1).lower(), match.group(2)) if match else ("", text)
    rest = rest.partition("#")[0]
    rest, _, query = rest.partition("?")
    if not rest.startswith("/"):
        if not scheme:
            raise ValueError(f"parse {shown}: invalid URI for request")
        return Parsed(scheme, "", "", query)
    host = ""
    if rest.startswith("//") and (scheme or not rest.startswith("///")):
        host, slash, path = rest[2:].partition("/")
        host, rest = _host(shown, host.rpartition("@")[2]), slash + path
    if _BAD_ESCAPE.search(rest):
        raise ValueError(f"parse {shown}: invalid URL escape")
    return Parsed(scheme, host, quote(rest, safe="/%:@!$&'()*+,;=~-._[]"), query)


def _host(shown: str, host: str) -> str:
    port = host.rpartition("]")[2] if host.startswith("[") else host[host.find(":") :]
    port = port if ":" in host else ""
    if host.startswith("[") and "]" not in host:
        raise ValueError(f"parse {shown}: missing ']' in host")
    if not _PORT.match(port) or not _HOST.match(host) or _BAD_ESCAPE.search(host):
        raise ValueError(f"parse {shown}: invalid character in host name, or invalid port")
    return host


def is_url(text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def _make(text: str) -> Any:
    try:
        parse(text)
    except ValueError as error:
        raise ValueError(f"URL parse error during conversion from string: {error}") from None
    return URL.wrap(text)


def _of(value: Any) -> Parsed:
    return parse(URL.unwrap(value))


_U, _S = URL.type, T.STRING
FUNCTIONS: tuple[Function, ...] = (
    plain("url", _make, ("string_to_url", _U, (_S,))),
    plain("isURL", is_url, ("is_url_string", T.BOOL, (_S,))),
    member("getScheme", lambda v: _of(v).scheme, ("url_get_scheme", _S, (_U,))),
    member("getHost", lambda v: _of(v).host, ("url_get_host", _S, (_U,))),
    member("getHostname", lambda v: _of(v).split[0], ("url_get_hostname", _S, (_U,))),
    member("getPort", lambda v: _of(v).split[1], ("url_get_port", _S, (_U,))),
    member("getEscapedPath", lambda v: _of(v).path, ("url_get_escaped_path", _S, (_U,))),
    member("getQuery", lambda v: parse_qs(_of(v).query, keep_blank_values=True),
           ("url_get_query", T.Map(_S, T.List(_S)), (_U,))),
)  # fmt: skip
