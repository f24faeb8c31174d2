"""What stands before the service: who may ask, from where, and how much they may send.

A service on this machine alone is asked by every program on it, and by every web page that a
browser on it has open. So without a key a request must name this machine as its host, and a page of
another origin is refused: neither a stranger's form nor a name that was bent to 127.0.0.1 reaches
it.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pirn_jax.deploy.service.measures import Measures
from pirn_jax.errors import ConfigError
from pirn_jax.storage import read_regular

_LARGEST = 1 << 16  # bytes of a file of keys
_SHORTEST = 16  # letters of a key
_SMALL = 1 << 16  # bytes of a body that brings no part
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


def read_keys(path: Path) -> tuple[bytes, ...]:
    """The keys of a file, one a line; empty lines and those that begin with # are passed over.

    Raises:
        BadInputError: it cannot be read.
        ConfigError: it has none, or one that is soon guessed.
    """
    lines = (line.strip() for line in read_regular(path, _LARGEST).splitlines())
    keys = tuple(line for line in lines if line and not line.startswith(b"#"))
    if not keys or min(map(len, keys)) < _SHORTEST:
        raise ConfigError(
            f"expected keys of {_SHORTEST} letters or more, one a line",
            "python -c 'import secrets; print(secrets.token_urlsafe())' makes one",
            path,
        )
    return keys


def is_this_machine(host: str) -> bool:
    """Whether a host is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_bind(host: str, keys: Sequence[bytes]) -> None:
    """Refuse to be reached from other machines by whoever asks.

    Raises:
        ConfigError: another host than this machine's own, and no key.
    """
    if not keys and not is_this_machine(host):
        raise ConfigError(
            f"--host {host} can be reached from other machines, and there is no key",
            "give --key-file FILE, or leave --host out",
        )


class Guard:
    """Checks who asks and from where, caps what they may send, and forbids the page the rest.

    Who is refused is refused before a byte of the body is read.

    Args:
        app: that is guarded.
        keys: one is needed, as `X-API-Key: KEY` or `Authorization: Bearer KEY`; none: by nobody.
        open_paths: where none is needed.
        largest: bytes of the body that brings a part; of others it is 64 KiB.
        local: refuse requests that name another host than this machine.
        measures: count the refusals.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Sequence[bytes],
        open_paths: Collection[str],
        largest: int,
        local: bool,
        measures: Measures,
    ):
        self._app, self._keys, self._open = app, tuple(keys), frozenset(open_paths)
        self._largest, self._local, self._measures = largest, local, measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        brings = (scope["method"], scope["path"]) == ("POST", "/v1/judge")
        most = self._largest if brings else _SMALL
        refused = self._refused(scope["path"], Headers(scope=scope), most)
        if refused is not None:
            self._measures.refused(refused.status_code)
            await refused(scope, receive, send)
            return
        come = 0

        async def capped() -> Message:
            nonlocal come
            message = await receive()
            come += len(message.get("body", b""))
            if come > most:
                raise HTTPException(413, f"more than {most:,} bytes")
            return message

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [
                    (b"content-security-policy", _POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self._app(scope, capped, secured)

    def _refused(self, path: str, headers: Headers, most: int) -> JSONResponse | None:
        host = headers.get("host", "")
        if self._local and not is_this_machine(urlsplit(f"//{host}").hostname or ""):
            return _answer(421, "this service answers to its own machine's name alone")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return _answer(403, "pages of another origin may not ask")
        if self._keys and path not in self._open and not self._has_key(headers):
            words = "a key is needed, as header X-API-Key"
            return _answer(401, words, {"WWW-Authenticate": "Bearer"})
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > most:
            return _answer(413, f"more than {most:,} bytes")
        return None

    def _has_key(self, headers: Headers) -> bool:
        bearer = headers.get("authorization", "")
        given = headers.get("x-api-key") or bearer.removeprefix("Bearer ")
        # All are compared, and each in the same time.
        return any([hmac.compare_digest(given.encode(), key) for key in self._keys])


def _answer(status: int, words: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": words}, status, headers)
