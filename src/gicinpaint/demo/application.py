"""The page and the API as one ASGI application, with a bound on everything that reaches it."""

import asyncio
import contextlib
import ipaddress
import uuid
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gicinpaint.config.validation import JobError
from gicinpaint.demo.filler import AbandonedError, Answer, BusyError, Filler, TooLargeError, png, sources, wheel

try:
    from starlette.datastructures import Headers, UploadFile
    from starlette.exceptions import HTTPException
    from starlette.formparsers import MultiPartException, MultiPartParser
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import FileResponse, JSONResponse, Response
    from starlette.types import Message, Receive, Scope, Send
except ImportError as error:
    raise JobError("the demo needs more packages; install them with pip install 'gicinpaint[demo]'") from error

_STATIC = {"/": "page.html", "/api": "openapi.json"} | {
    f"/{name}": name for name in ("page.css", "page.js", "result.js")
}
_FORM_BYTES = 100_000  # of a form beside its files
_FIELD_BYTES = 1000
_BODY_SECONDS = 120.0  # in which a request must have arrived
_KEPT_ANSWERS, _KEPT_BYTES = 64, 256_000_000  # whose masks and sources can be asked for
_SPOOLED_BYTES = 2**16  # of an upload in memory; the rest is on disk, in a file without a name that ends with its use
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Application:
    """The page and the API, which fills images.

    Args:
        filler: Fills.
        examples: Image files to pick from.
        names: Names of the server that requests may use, beside `localhost` and addresses in numbers. With any name, a
            foreign page could let its own name point here and read what it likes.
    """

    def __init__(self, filler: Filler, examples: list[Path], names: tuple[str, ...] = ()) -> None:
        self.filler = filler
        self.examples = examples
        self.names = {"localhost", *(name.lower() for name in names)}
        self._arriving = 0  # bytes of requests that are being received or wait
        self._answers: dict[str, Answer] = {}
        MultiPartParser.spool_max_size = _SPOOLED_BYTES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an HTTP request."""
        try:
            response = await self._respond(scope, receive)
        except ClientDisconnect:
            return
        except (AbandonedError, asyncio.CancelledError):
            response = _refused(503, "the server has ended")
        response.headers.update(_HEADERS)
        await response(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        try:
            self._check_origin(Headers(scope=scope))
            method, path = scope["method"], scope["path"]
            if path == "/api/fill":
                _require(method == "POST", 405, f"{method} is not answered here, POST is")
                return await self._fill(scope, receive)
            _require(method in ("GET", "HEAD"), 405, f"{method} is not answered here, GET is")
            return await self._get(path, Request(scope).query_params)
        except HTTPException as error:
            return _refused(error.status_code, error.detail)
        except (TooLargeError, BusyError) as error:
            return _refused(413 if isinstance(error, TooLargeError) else 503, str(error))
        except (ValueError, MultiPartException) as error:
            return _refused(400, str(error) or getattr(error, "message", ""))
        except OSError as error:
            return _refused(503, f"the server has no room for the files: {error.strerror}")

    def _check_origin(self, headers: Headers) -> None:
        """Refuse names that are not the server's own, and pages of other servers."""
        host = headers.get("host", "")
        name = (urlsplit(f"//{host}").hostname or "").lower()
        _require(
            name in self.names or is_address(name),
            403,
            f"{name or 'a request without a host'} is no name of this server; start it with names=[{name}] to allow it",
        )
        origin = headers.get("origin")
        _require(origin is None or urlsplit(origin).netloc == host, 403, "pages of other servers may not ask")

    async def _get(self, path: str, query: Any) -> Response:
        if path in _STATIC:
            return FileResponse(str(resources.files("gicinpaint.demo").joinpath("static", _STATIC[path])))
        if path == "/settings":
            filler = self.filler
            more = {"guided": filler.guided, "attends": filler.attends, "models": list(filler.models)}
            return JSONResponse({**filler.limits._asdict(), "examples": len(self.examples), **more})
        if path == "/api/wheel":
            return Response(wheel(), media_type="image/png")
        kind, _, rest = path.strip("/").partition("/")
        if kind == "examples" and rest in map(str, range(len(self.examples))):
            return FileResponse(str(self.examples[int(rest)]))
        token, _, part = rest.removeprefix("answers/").partition("/")
        if kind != "api" or (answer := self._answers.get(token)) is None:
            raise HTTPException(404, "there is no such page")
        if part == "sources" and answer.attention is not None:
            place = (int(query.get("x", -1)), int(query.get("y", -1)))
            return JSONResponse(await asyncio.to_thread(sources, answer.attention, answer.mask, *place, answer.cell))
        content = await asyncio.to_thread(png, answer.mask) if part == "mask" else None
        content = answer.copied if part == "copied" else content
        _require(content is not None, 404, "there is no such part of the answer")
        return Response(content, media_type="image/png")

    async def _fill(self, scope: Scope, receive: Receive) -> Response:
        headers = Headers(scope=scope)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        _require(kind == "multipart/form-data", 415, f"expected multipart/form-data, got {kind or 'no content type'}")
        async with self._body(headers.get("content-length"), receive) as limited:
            request = Request(scope, limited)
            async with asyncio.timeout(_BODY_SECONDS):
                form = await request.form(max_files=4, max_fields=3, max_part_size=_FIELD_BYTES)
            try:
                files = {name: form.get(name) for name in ("image", "mask", "sketch", "source")}
                for name, upload in files.items():
                    absent = upload is None and name in ("sketch", "source")
                    _require(absent or isinstance(upload, UploadFile), 400, f"{name}: expected a file")
                grow = str(form.get("grow", "0"))
                _require(grow.removeprefix("-").isdecimal() and len(grow) < 9, 400, "grow: expected a whole number")
                blend: Any = str(form.get("blend", "none"))
                opened: Any = {name: one.file for name, one in files.items() if isinstance(one, UploadFile)}
                future = self.filler.submit(**opened, grow=int(grow), blend=blend, model=str(form.get("model", "")))
                answer = await self._wait(future, receive)
            finally:
                await form.close()
        token = self._keep(answer)
        sent = {"x-method": answer.text, "x-answer": token, "x-sources": str(int(answer.attention is not None))}
        return Response(answer.image, media_type="image/png", headers=sent)

    async def _wait(self, future: Any, receive: Receive) -> Answer:
        """Return the answer, or leave the queue when the client leaves or the server ends."""
        answer, left = asyncio.wrap_future(future), asyncio.ensure_future(receive())  # nothing but its end is to come
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())  # so that none counts as lost
        try:
            await asyncio.wait([answer, left], return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise ClientDisconnect
            return answer.result()
        finally:
            left.cancel()
            self.filler.abandon([future])

    @contextlib.asynccontextmanager
    async def _body(self, length: str | None, receive: Receive) -> AsyncIterator[Receive]:
        """Yield a source of the body that ends above the limit, of this request or of all together."""
        most = (2 + self.filler.guided + self.filler.attends) * self.filler.limits.upload + _FORM_BYTES
        too_large = TooLargeError(f"the request is larger than the limit of {most:,} bytes, max_upload for each file")
        if length is not None and (not length.isdecimal() or int(length) > most):
            raise too_large
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            size = len(message.get("body", b""))
            received += size
            self._arriving += size
            if received > most:
                raise too_large
            if self._arriving > self.filler.limits.disk:
                raise BusyError("the files that wait take all of max_disk; try again in a minute")
            return message

        try:
            yield limited
        except TimeoutError:
            raise HTTPException(408, f"the request must arrive within {_BODY_SECONDS:.0f} seconds") from None
        finally:
            self._arriving -= received

    def _keep(self, answer: Answer) -> str:
        token = uuid.uuid4().hex
        self._answers[token] = answer._replace(image=b"")
        sizes = [one.size for one in self._answers.values()]
        while len(sizes) > 1 and (len(sizes) > _KEPT_ANSWERS or sum(sizes) > _KEPT_BYTES):  # the page needs the last
            del self._answers[next(iter(self._answers))], sizes[0]
        return token


def _require(condition: bool, status: int, reason: str) -> None:
    if not condition:
        raise HTTPException(status, reason)


def _refused(status: int, reason: str) -> JSONResponse:
    return JSONResponse({"error": reason}, status, {"connection": "close"} if status in (408, 413) else None)


def is_address(host: str) -> bool:
    """Return whether a host is an address in numbers rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
