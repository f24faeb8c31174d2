"""What stands before the service: who may ask, from where, and how much they may send.

A service on this machine alone is asked by every program on it, and by every web page that a
browser on it has open. So without a key a request must name this machine as its host, and a page of
another origin is refused: neither a stranger's form nor a name that was bent to 127.0.0.1 reaches
it.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import HTTPException, Request
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pirn_jax.errors import ConfigError
from pirn_jax.storage import read_regular

_LARGEST = 1 << 16  # bytes of a file of keys
_SHORTEST = 16  # letters of a key
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


class KeyCheck:
    """Lets pass who has a key, as `X-API-Key: KEY` or `Authorization: Bearer KEY`."""

    def __init__(self, keys: Sequence[bytes]):
        self._keys = tuple(keys)

    def __call__(self, request: Request) -> None:
        """See `fastapi.Depends`."""
        if not self._keys:
            return
        bearer = request.headers.get("authorization", "")
        given = request.headers.get("x-api-key") or bearer.removeprefix("Bearer ")
        # All are compared, and each in the same time.
        matches = [hmac.compare_digest(given.encode(), key) for key in self._keys]
        if not any(matches):
            raise HTTPException(
                401, "a key is needed, as header X-API-Key", {"WWW-Authenticate": "Bearer"}
            )


class Guard:
    """Caps what a request may send, checks where it comes from, and forbids the page the rest.

    Args:
        app: that is guarded.
        largest: bytes of a request's body.
        local: refuse requests that name another host than this machine.
    """

    def __init__(self, app: ASGIApp, largest: int, local: bool):
        self._app, self._largest, self._local = app, largest, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refused = self._refused(headers)
        if refused is not None:
            await refused(scope, receive, send)
            return
        come = 0

        async def capped() -> Message:
            nonlocal come
            message = await receive()
            come += len(message.get("body", b""))
            if come > self._largest:
                raise HTTPException(413, f"more than {self._largest:,} bytes")
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

    def _refused(self, headers: Headers) -> JSONResponse | None:
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self._largest:
            return _answer(413, f"more than {self._largest:,} bytes")
        host = headers.get("host", "")
        if self._local and not is_this_machine(urlsplit(f"//{host}").hostname or ""):
            return _answer(421, "this service answers to its own machine's name alone")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return _answer(403, "pages of another origin may not ask")
        return None


def _answer(status: int, words: str) -> JSONResponse:
    return JSONResponse({"error": words}, status)
