"""The page: upload or pick, paint, fill, compare, download, go on with the result."""

import functools
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from fastapi import HTTPException
from gradio.components.image_editor import AcceptBlobs, EditorDataBlobs
from PIL import Image

from gicinpaint.demo.filler import MAX_GROW, BusyError, Filler
from gicinpaint.demo.storage import Storage

TITLE = "gicinpaint"
_INTRODUCTION = """# Fill holes in a picture
Upload a picture or pick one, paint over what should go, and press **Fill**. Everything stays on this machine."""
_API = """```
curl -F image=@picture.png -F mask=@mask.png -F grow=0 -F blend=none {address}/api/fill -o filled.png
```
White in the mask is the hole. The answer is a PNG, or JSON with an `error`. `{address}/api` lists all of it."""
_LEAST_SECONDS = 1.0
_EDITOR_BYTES = 256_000_000  # of drawings that the browser has sent and no fill has taken yet


class Blobs(dict[str, EditorDataBlobs]):
    """Drawings under way, the oldest forgotten where they take too much memory; gradio's own keeps them for ever."""

    def __setitem__(self, key: str, value: EditorDataBlobs) -> None:
        super().__setitem__(key, value)
        while len(self) > 1 and sum(map(_size, self.values())) > _EDITOR_BYTES:
            del self[next(iter(self))]


def bounded(editor: gr.ImageEditor) -> gr.ImageEditor:
    """Bound what a client may send to an editor, whose own code allocates whatever layer number it is told.

    A subclass would be shorter, but gradio writes a stub file beside the source of each.
    """
    accept = editor.accept_blobs

    @functools.wraps(accept)  # carries the mark of a function that the page may call
    def accept_bounded(data: AcceptBlobs) -> None:
        index = str(data.data.get("index") or "null")
        if index not in ("null", "0") or len(data.files) != 1:
            raise HTTPException(400, "the drawing has more layers than this page")
        accept(data)

    editor.accept_blobs = accept_bounded
    editor.blob_storage = Blobs()
    return editor


class Events:
    """What the page's buttons do.

    Args:
        filler: Fills.
        storage: Where uploads and results lie.
        examples: Pictures to pick from.
    """

    def __init__(self, filler: Filler, storage: Storage, examples: Sequence[Path]) -> None:
        self.filler = filler
        self.storage = storage
        self.examples = examples

    def upload(self, path: str | None) -> tuple[Any, ...]:
        """Show an uploaded picture."""
        if path is None:
            return (gr.skip(),) * 3
        return self._show(self._read(path))

    def pick(self, event: gr.SelectData) -> tuple[Any, ...]:
        """Show an example."""
        index = event.index if isinstance(event.index, int) else -1
        if not 0 <= index < len(self.examples):
            raise gr.Error("there is no such example", print_exception=False)
        return self._show(self.examples[index].read_bytes())

    def reuse(self, result: str | None) -> tuple[Any, ...]:
        """Show the result as the next input."""
        if result is None:
            raise gr.Error("there is no result yet; press Fill first", print_exception=False)
        return self._show(self._read(result))

    def fill(
        self, picture: str | None, drawing: dict[str, Any] | None, mask: str | None, grow: float, blend: str
    ) -> tuple[Any, ...]:
        """Fill what was painted or uploaded as a mask, and show it."""
        if picture is None:
            raise gr.Error("there is no picture yet; upload one or pick an example", print_exception=False)
        file = self._read(picture)
        try:
            hole: bytes | np.ndarray = self._read(mask) if mask else _painted(drawing, file)
            answer = self.filler.submit(file, hole, grow=int(grow), blend=blend).result()  # type: ignore[arg-type]
        except (ValueError, TypeError, BusyError) as error:
            raise gr.Error(str(error), print_exception=False) from error
        filled = self.storage.save(answer.image, "filled")
        used = self.storage.save(answer.mask, "mask")
        copied = self.storage.save(answer.copied, "copied_from") if answer.copied else None
        return (picture, filled), filled, used, copied, answer.text, filled

    def _read(self, path: str) -> bytes:
        try:
            return self.storage.read(path, 4 * self.filler.limits.upload)  # results are PNG, larger than a JPEG upload
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    def _show(self, file: bytes) -> tuple[Any, ...]:
        try:
            picture = self.storage.save(self.filler.read(file, "that was uploaded"), "picture")
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return {"background": picture, "layers": [], "composite": picture}, picture, None


def build_page(events: Events, address: str) -> gr.Blocks:
    """Return the page; `address` is shown in the API's example."""
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        picture, result = gr.State(None), gr.State(None)
        gr.Markdown(_INTRODUCTION)
        with gr.Row():
            with gr.Column():
                upload = gr.File(label="Picture", file_types=["image"], height=125, elem_id="upload")
                examples = gr.Gallery(
                    [str(path) for path in events.examples],
                    label="or pick an example",
                    columns=len(events.examples) or 1,
                    height=175,
                    allow_preview=False,
                    buttons=[],
                    interactive=False,
                    elem_id="examples",
                )
                editor = gr.ImageEditor(
                    type="pil",
                    image_mode="RGBA",
                    format="png",
                    label="Paint over what should go",
                    sources=(),
                    transforms=(),
                    layers=False,
                    brush=gr.Brush(default_size=32, colors=["#ff3b8d"], color_mode="fixed"),
                    elem_id="editor",
                )
                mask = gr.File(
                    label="or upload a mask, white in the hole", file_types=["image"], height=125, elem_id="mask"
                )
                with gr.Row():
                    grow = gr.Slider(0, MAX_GROW, value=0, step=1, label="Grow the hole by pixels", elem_id="grow")
                    blend = gr.Radio(["none", "feather", "poisson"], value="none", label="Blending", elem_id="blend")
                fill = gr.Button("Fill", variant="primary", elem_id="fill")
            with gr.Column():
                slider = gr.ImageSlider(
                    type="filepath",
                    format="png",
                    label="Before and after",
                    interactive=False,
                    buttons=["fullscreen"],
                    elem_id="slider",
                )
                text = gr.Markdown(elem_id="text")
                with gr.Row():
                    filled = gr.DownloadButton("Download the result", elem_id="download")
                    used = gr.DownloadButton("Download the mask", elem_id="download-mask")
                reuse = gr.Button("Use the result as the next picture", elem_id="reuse")
                copied = gr.Image(
                    type="filepath",
                    format="png",
                    label="Where the attention copied from: the hue is the direction, the saturation the distance",
                    interactive=False,
                    buttons=[],
                    height=320,
                    elem_id="copied",
                )
                with gr.Accordion("Use it from a program", open=False):
                    gr.Markdown(_API.format(address=address))
        bounded(editor)
        shown = [editor, picture, mask]
        private: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "model", "concurrency_limit": 1}
        upload.change(unhurried(events.upload), upload, shown, **private)
        examples.select(unhurried(events.pick), None, shown, **private)
        reuse.click(unhurried(events.reuse), result, shown, **private)
        fill.click(
            unhurried(events.fill),
            [picture, editor, mask, grow, blend],
            [slider, filled, used, copied, text, result],
            **private,
        )
    page.queue(max_size=events.filler.limits.waiting, api_open=False)
    return page


def unhurried(event: Callable[..., Any]) -> Callable[..., Any]:
    """Return an event that takes a second at least, errors too.

    gradio's page now and then loses an answer that is there before the page has opened its stream, and then shows
    its clock for ever.
    """

    @functools.wraps(event)
    def slowed(*arguments: Any) -> Any:
        end = time.monotonic() + _LEAST_SECONDS
        try:
            return event(*arguments)
        finally:
            time.sleep(max(0.0, end - time.monotonic()))

    return slowed


def _painted(drawing: dict[str, Any] | None, picture: bytes) -> np.ndarray:
    """Return what was painted as a hole, bool (H, W), of the picture's size."""
    size = Image.open(BytesIO(picture)).size
    hole = np.zeros(size[::-1], bool)
    for layer in (drawing or {}).get("layers") or []:
        alpha = layer.getchannel("A")
        if alpha.size != size:
            alpha = alpha.resize(size, Image.Resampling.NEAREST)
        hole |= np.asarray(alpha) > 0
    return hole


def _size(blobs: EditorDataBlobs) -> int:
    return sum(len(part) for part in (blobs.background, blobs.composite, *blobs.layers) if part is not None)
