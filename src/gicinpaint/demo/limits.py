"""What reaches the server at all: known routes, small bodies, files of its own folder."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

from gicinpaint.demo.storage import Storage

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# What the page needs of gradio, and no more: its other routes fetch foreign addresses, run code or show statistics.
_GET = re.compile(
    r"/|/config/?|/api|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt|/(assets|static)/.+|"
    r"/gradio_api/(info|app_id|startup-events|theme\.css|upload_progress|queue/data|heartbeat/\w+|file=.+)/?"
)
_POST = re.compile(r"/api/fill|/gradio_api/(upload|queue/join|component_server|cancel|reset)/?")
_HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
        b"frame-ancestors 'none'; form-action 'self'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class TooLargeError(Exception):
    """A body went over the limit."""


class Guard:
    """An ASGI layer that answers 404 for unknown routes, 403 for foreign files and 413 for large bodies.

    It also tells the browser to load nothing from anywhere else.

    Args:
        app: What it guards.
        storage: Where files may be read from.
        most_bytes: Of a request's body.
    """

    def __init__(self, app: App, storage: Storage, most_bytes: int) -> None:
        self.app = app
        self.storage = storage
        self.most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with a refusal."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif refusal := self._refusal(scope):
            await _answer(send, *refusal)
        else:
            await self._pass(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        method, path = scope["method"], scope["path"]
        routes = {"GET": _GET, "HEAD": _GET, "POST": _POST}.get(method)
        if routes is None:
            return 405, f"{method} is not answered here"
        if ".." in path.split("/") or not routes.fullmatch(path):
            return 404, "there is no such page"
        _, found, file = path.partition("/gradio_api/file=")
        if found and not all(self.storage.holds(name) for name in (file, unquote(file))):
            return 403, "only files of the demo's own folder can be read"
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.most_bytes:
            return 413, f"the request is larger than the limit of {self.most_bytes:,} bytes"
        return None

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        received, begun = 0, False

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.most_bytes:
                raise TooLargeError
            return message

        async def with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        try:
            source: Receive = counted
            if scope["path"].startswith("/gradio_api/queue/join"):
                body = await _body(counted)
                if not self._names_own_files(body):
                    await _answer(send, 403, "only files of the demo's own folder can be used")
                    return
                source = _replayed(body, counted)
            await self.app(scope, source, with_headers)
        except asyncio.CancelledError:  # the server ends while a page is still open
            return
        except TooLargeError:
            if not begun:
                await _answer(send, 413, f"the request is larger than the limit of {self.most_bytes:,} bytes")

    def _names_own_files(self, body: bytes) -> bool:
        """Tell whether an event names files of the folder only; gradio would look up and fetch others."""
        try:
            waiting = [json.loads(body)]
        except (ValueError, RecursionError):
            return False
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict):
                path = value.get("path")
                if path is not None and not (isinstance(path, str) and self.storage.holds(path)):
                    return False
                waiting.extend(value.values())
            elif isinstance(value, list):
                waiting.extend(value)
        return True


async def _body(receive: Receive) -> bytes:
    """Return a request's whole body."""
    parts = []
    while (message := await receive())["type"] == "http.request":
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            break
    return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a function that hands a body out once more, and then what comes."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


async def _answer(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
