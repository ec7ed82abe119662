"""The page in gradio: its parts and the handler of each. Only this machine can open it."""

import hashlib
import os
import socket
import tempfile
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from fewshotseg._io import reason, write_atomically
from fewshotseg.app.handlers import ANSWERS, BOX, OUTLINE, Handlers, Place, View, told
from fewshotseg.app.workbench import Picture, Workbench
from fewshotseg.cli.exports import FORMATS
from fewshotseg.cli.pictures import KINDS
from fewshotseg.models.segmentation_model import threshold_of

HELP = """
1. Choose a photograph, name what you mark, and mark it: paint over the whole object, click two opposite corners of a
   box around it, or click points around it. The tighter the mark, the better the answers.
2. Look at what is found in the other photographs. Mark another one where it went wrong, or name another class.
3. Move the threshold, and save.
"""


def serve(
    workbench: Workbench,
    *,
    port: int | None = None,
    browser: bool = True,
    started: Callable[[str], None] = lambda url: None,
    ended: threading.Event,
) -> None:
    """Show the page until ``ended`` is set.

    Args:
        workbench: The photographs and the predictor.
        port: Port of the page; a free one by default.
        browser: Whether to open the page in the browser.
        started: Is called with the address.
        ended: Event that ends the page.

    Raises:
        ImportError: If gradio is not installed.
        OSError: If the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="fewshotseg-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder, "sent"))  # of what the page is sent, and sends
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(["127.0.0.1", *_without_proxy()])
        import gradio

        page = build(workbench, Path(folder)).queue(default_concurrency_limit=1)
        _, url, _ = page.launch(
            server_name="127.0.0.1",
            server_port=_checked_port(port),
            inbrowser=browser,
            prevent_thread_lock=True,
            share=False,
            quiet=True,
            theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),  # none is fetched
            footer_links=[],
        )
        try:
            started(url)
            ended.wait()
        finally:
            page.close(verbose=False)


def build(workbench: Workbench, folder: Path) -> Any:
    """The page of a workbench, not yet shown; its pictures are written to a folder."""
    import gradio as gr

    parts: dict[str, Any] = {}
    with gr.Blocks(title="fewshotseg annotate", analytics_enabled=False) as page:
        gr.Markdown(HELP)
        with gr.Row():
            with gr.Column():
                _put_marking(gr, parts, [*workbench.photos])
            with gr.Column():
                _put_answers(gr, parts, threshold_of(workbench.predictor.model, None))
        parts["points"] = gr.State([])
        _connect(gr, page, parts, Handlers(workbench), folder)
    return page


def _put_marking(gr: Any, parts: dict[str, Any], photos: list[str]) -> None:
    """The half where photographs are marked."""
    with gr.Row():
        first = photos[0] if photos else None
        parts["photo"] = gr.Dropdown(photos, value=first, label="Photograph", elem_id="photo")
        parts["class"] = gr.Textbox("object", label="Class", elem_id="class")
    with gr.Tab("Paint"):
        parts["editor"] = gr.ImageEditor(
            type="numpy", label="Paint over the object", elem_id="paint", height=620,
            sources=(), transforms=(), format="png", layers=gr.LayerOptions(allow_additional_layers=False),
            brush=gr.Brush(default_size=24, colors=["#e4002b"], color_mode="fixed"),
        )  # fmt: skip
        parts["add"] = gr.Button("Add what is painted", variant="primary", elem_id="add")
    with gr.Tab("Box or outline"):
        parts["way"] = gr.Radio([BOX, OUTLINE], value=BOX, label="Click", elem_id="way")
        parts["clicks"] = gr.Image(
            label="Click on the photograph", elem_id="clicks", interactive=False, format="png", buttons=[]
        )
        parts["close"] = gr.Button("Close the outline", elem_id="close")
    parts["clear"] = gr.Button("Clear this class on this photograph", elem_id="clear")
    parts["upload"] = gr.UploadButton("Add photographs", file_count="multiple", file_types=["image"], elem_id="upload")


def _put_answers(gr: Any, parts: dict[str, Any], threshold: float) -> None:
    """The half where answers are seen and saved."""
    parts["answers"] = gr.Gallery(
        label="Found", elem_id="answers", columns=2, height=620, object_fit="contain", format="png", buttons=[]
    )
    parts["status"] = gr.Textbox("Nothing is marked yet.", label="Status", elem_id="status", interactive=False)
    parts["threshold"] = gr.Slider(
        0.01, 0.99, value=threshold, step=0.01, label="Threshold", elem_id="threshold", buttons=[]
    )
    parts["turn"] = gr.Number(1, label=f"Photographs, {ANSWERS} at a time", minimum=1, precision=0, elem_id="turn")
    parts["kinds"] = gr.CheckboxGroup(
        [*KINDS, *FORMATS], value=["mask", "overlay", "coco"], label="Save for each photograph", elem_id="kinds"
    )
    parts["save"] = gr.Button("Save", variant="primary", elem_id="save")


def _connect(gr: Any, page: Any, parts: dict[str, Any], handlers: Handlers, folder: Path) -> None:
    """Say what each part calls, and where the result is shown."""
    place = [parts[name] for name in ("photo", "threshold", "turn")]
    everything = [parts[name] for name in ("editor", "clicks", "answers", "status", "points")]

    def on(event: Any, handler: Any, inputs: list[Any], outputs: list[Any], **how: Any) -> None:
        # One after the other, in their order: an earlier answer that came later would take back what a click marked.
        event(told(handler, refuse), inputs, outputs, api_visibility="private", concurrency_id="page", **how)

    def refuse(said: str) -> Exception:
        error: Exception = gr.Error(said, print_exception=False)
        return error

    def changes(event: Any, handler: Callable[..., View], *inputs: str) -> None:
        """The handler gets the place and these inputs, and everything follows."""

        def call(*given: Any) -> list[Any]:
            return show(handler(Place(*given[:3]), *given[3:]))

        on(event, call, [*place, *(parts[name] for name in inputs)], everything)

    def show(view: View) -> list[Any]:
        file = None if view.picture is None else picture_file(view.picture, folder)
        editor = file and {"background": file, "layers": [], "composite": file}
        return [editor, file, files(view.answers), view.said, view.points]

    def files(answers: list[tuple[Picture, str]]) -> list[tuple[str, str]]:
        return [(picture_file(picture, folder), caption) for picture, caption in answers]

    def paint(at: Place, name: str, editor: Any) -> View:
        return handlers.paint(at, name, (editor or {}).get("layers") or [])

    # The type of the last argument tells gradio to pass where somebody clicked.
    def click(photo: str, threshold: float, turn: float, name: str, way: str, points: Any, event: Any) -> list[Any]:
        point = (event.index[0], event.index[1])
        view = handlers.click(Place(photo, threshold, turn), name, way, points, point)
        if view is not None:
            return show(view)
        points = [*points, point]
        crossed = picture_file(handlers.with_points(photo, points), folder)
        return [gr.skip(), crossed, gr.skip(), f"{len(points)} clicked.", points]

    click.__annotations__["event"] = gr.SelectData

    def answer(photo: str, threshold: float, turn: float) -> list[Any]:
        shown, said = handlers.answers(Place(photo, threshold, turn))
        return [files(shown), said]

    def upload(photo: str | None, threshold: float, turn: float, files: list[str]) -> list[Any]:
        names = handlers.upload(files)
        at = Place(photo or names[0], threshold, turn)
        return [gr.update(choices=[*handlers.workbench.photos], value=at.photo), *show(handlers.view(at))]

    changes(page.load, handlers.view)
    changes(parts["photo"].input, handlers.view)
    changes(parts["way"].input, handlers.view)
    changes(parts["add"].click, paint, "class", "editor")
    changes(parts["close"].click, handlers.close, "class", "points")
    changes(parts["clear"].click, handlers.clear, "class")
    clicked = [*place, parts["class"], parts["way"], parts["points"]]
    on(parts["clicks"].select, click, clicked, everything, trigger_mode="multiple")  # somebody may click fast
    for name in ("threshold", "turn"):
        on(parts[name].change, answer, place, [parts["answers"], parts["status"]], trigger_mode="always_last")
    on(parts["save"].click, handlers.save, [parts["threshold"], parts["kinds"]], [parts["status"]])
    on(parts["upload"].upload, upload, [*place, parts["upload"]], [parts["photo"], *everything])


def picture_file(picture: Picture, folder: Path) -> str:
    """A picture as a file that is named by its content and written once, as a browser may be reading it."""
    path = folder / f"{hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).hexdigest()}.png"
    if not path.exists():
        content = BytesIO()
        Image.fromarray(picture).save(content, "png", compress_level=1)
        write_atomically(path, content.getvalue())
    return str(path)


def _without_proxy() -> list[str]:
    """The hosts that are asked without a proxy, as this machine is too: gradio looks whether the page is there."""
    return [os.environ[name] for name in ("no_proxy", "NO_PROXY") if os.environ.get(name)][:1]


def _checked_port(port: int | None) -> int:
    """The port, or a free one; raise `OSError` if it is taken or not allowed."""
    with socket.socket() as found:
        try:
            found.bind(("127.0.0.1", port or 0))
        except OSError as error:
            raise OSError(
                f"port must be free, but {port} is not ({reason(error)}); without it a free one is taken"
            ) from error
        free: int = found.getsockname()[1]
        return free
