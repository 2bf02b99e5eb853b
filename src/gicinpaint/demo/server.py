"""The page and the API as one guarded application."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import gradio as gr
from fastapi import FastAPI, Form, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from PIL import Image

from gicinpaint.demo.filler import MAX_GROW, BusyError, Filler
from gicinpaint.demo.limits import Guard
from gicinpaint.demo.page import TITLE, Events, build_page
from gicinpaint.demo.storage import Storage

_SWEEP_SECONDS = 60
_FORM_BYTES = 100_000  # of a form beside its two files


def build_application(filler: Filler, storage: Storage, examples: list[Path], address: str) -> Guard:
    """Return the ASGI application.

    Args:
        filler: Fills.
        storage: Where uploads and results lie; gradio's own folder too.
        examples: Pictures to pick from.
        address: Where it will be reached, as shown on the page.
    """
    limits = filler.limits
    Image.MAX_IMAGE_PIXELS = (
        limits.pixels // 2
    )  # gradio decodes drawings before this package sees them; twice is refused

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(_sweep(storage))
        yield
        sweeping.cancel()

    app = FastAPI(title=TITLE, lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url="/api")
    _add_api(app, filler)
    page = build_page(Events(filler, storage, examples), address)
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=limits.upload,
        ssr_mode=False,
        enable_monitoring=False,
        theme=gr.themes.Default(font=["sans-serif"], font_mono=["monospace"]),  # fonts of its own, none fetched
    )
    storage.pin()  # gradio has put the examples there
    return Guard(app, storage, 2 * limits.upload + _FORM_BYTES)


def _add_api(app: FastAPI, filler: Filler) -> None:
    @app.post(
        "/api/fill",
        response_class=Response,
        responses={200: {"content": {"image/png": {}}, "description": "The filled picture, RGB, of the same size."}},
    )
    async def fill(
        image: UploadFile,
        mask: UploadFile,
        grow: Annotated[int, Form(ge=0, le=MAX_GROW)] = 0,
        blend: Annotated[str, Form(pattern="^(none|feather|poisson)$")] = "none",
    ) -> Response:
        """Fill the white part of a mask in an image: both files of the same size, of at most the server's limits."""
        if max(image.size or 0, mask.size or 0) > filler.limits.upload:
            return _refused(413, f"a file is larger than the limit of {filler.limits.upload:,} bytes")
        try:
            future = filler.submit(image.file, mask.file, grow=grow, blend=blend)  # type: ignore[arg-type]
            answer = await asyncio.wrap_future(future)
        except BusyError as error:
            return _refused(503, str(error))
        except (ValueError, TypeError) as error:
            return _refused(400, str(error))
        content = await asyncio.to_thread(_png, answer.image)
        return Response(content, media_type="image/png", headers={"x-method": answer.text})

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Any, error: RequestValidationError) -> JSONResponse:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors())
        return _refused(400, wrong)


def _png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _refused(status: int, reason: str) -> JSONResponse:
    return JSONResponse({"error": reason}, status_code=status)


async def _sweep(storage: Storage) -> None:
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        with contextlib.suppress(OSError):  # files come and go meanwhile
            await asyncio.to_thread(storage.sweep)
