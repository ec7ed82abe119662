"""Finds, loads and uploads models by name: in the package, in a file or folder, or on the Hugging Face hub."""

import json
import re
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fewshotseg._checks import shown
from fewshotseg._io import StrPath, write_atomically
from fewshotseg.models.backbones import AnyBackbone
from fewshotseg.models.checkpoints import load_model, save_model
from fewshotseg.models.saved_model import plain
from fewshotseg.models.scnet import SCNet
from fewshotseg.models.segmenter import PrototypeSegmenter
from fewshotseg.models.weight_files import exists

FOLDER = Path(__file__).parents[1] / "pretrained"
"""The folder of the package's pretrained models, a file for each name."""

DEFAULT_MODEL = "scnet-lite2"
"""The model that is taken when none is named."""

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
FILES = ["config.json", "model.safetensors"]


def list_pretrained() -> list[str]:
    """List the names of the package's pretrained models, for `load_pretrained`."""
    return sorted(file.stem for file in FOLDER.glob("*.pth"))


def load_pretrained(name: StrPath, *, backbone: AnyBackbone | None = None) -> SCNet | PrototypeSegmenter:
    """Load a trained model.

    Args:
        name: A file or folder of `save_model`; a name of `list_pretrained`; or ``"owner/name"`` on the Hugging Face hub
            (extra ``hub``), which is downloaded once and then used from the cache, also without a network.
        backbone: If the model was built on your own module: a module of the same kind; see `load_model`.

    Returns:
        The model in evaluation mode, on the CPU.

    Raises:
        ValueError: If there is no such model, its file is damaged, or its backbone's weights do not match.
        FileNotFoundError: If there is no such file.
        ImportError: If a package that the model needs is not installed.
    """
    return load_model(find_model(name), backbone=backbone)


def find_model(name: StrPath) -> Path:
    """Return the file or folder of a model, downloaded if needed; see `load_pretrained`."""
    if not isinstance(name, str | PathLike):
        raise TypeError(f"name must be the name, file or folder of a model, got {type(name).__name__}")
    path = Path(name)
    if exists(path) or path.suffix in {".pth", ".pt"}:
        return path
    if str(name) in list_pretrained():
        return FOLDER / f"{name}.pth"
    if HUB_NAME.fullmatch(str(name)):
        return _downloaded(str(name))
    raise ValueError(
        f"name must be a file, a folder, owner/name on the Hugging Face hub, or one of {', '.join(list_pretrained())}, "
        f"got {shown(str(name))}"
    )


def save_pretrained(
    model: SCNet | PrototypeSegmenter, folder: StrPath, *, origin: dict[str, Any] | None = None
) -> None:
    """Save a model as a folder for the Hugging Face hub: ``config.json``, ``model.safetensors`` and a model card.

    The card is ``README.md``; one that is there already is kept, as somebody may have edited it.

    Args:
        model: The model to save; the backbone's weights are included.
        folder: The folder to write; it is created.
        origin: A record of how the weights were trained, in plain values; shown on the card.

    Raises:
        ImportError: If safetensors is not installed.
        ValueError: As `save_model`.
    """
    folder = Path(folder)
    if folder.suffix in {".pth", ".pt"}:
        raise ValueError(f"folder must be a folder, got {folder}; save_model writes single files")
    save_model(model, folder, origin=origin)
    if not (folder / "README.md").exists():
        write_atomically(folder / "README.md", _card(model, origin, "OWNER/NAME").encode())


def push_to_hub(
    model: SCNet | PrototypeSegmenter, name: str, *, private: bool = False, origin: dict[str, Any] | None = None
) -> str:
    """Upload a model to the Hugging Face hub, as `save_pretrained` writes it; ``hf auth login`` stores the token.

    Args:
        model: The model to upload.
        name: ``"owner/name"`` of the repository, which is created if it does not exist.
        private: Whether a new repository is visible to its owner only.
        origin: See `save_pretrained`.

    Returns:
        The address of the uploaded commit.

    Raises:
        ImportError: If the extra ``hub`` is not installed.
        ValueError: If the name is not ``owner/name``, or the upload fails.
    """
    if not HUB_NAME.fullmatch(name):
        raise ValueError(f"name must be owner/name, got {shown(name)}")
    client = _client(name)
    with TemporaryDirectory() as folder:
        save_pretrained(model, folder, origin=origin)
        Path(folder, "README.md").write_text(_card(model, origin, name), encoding="utf-8")
        try:
            client.create_repo(name, private=private, exist_ok=True)
            return str(client.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload model"))
        except Exception as error:  # the client raises many kinds of errors
            raise ValueError(f"{name} could not be uploaded: {_first_line(error)}") from error


def _downloaded(name: str) -> Path:
    client = _client(name)
    try:
        return Path(client.snapshot_download(name, allow_patterns=FILES))
    except Exception as error:
        raise ValueError(
            f"name must be a model on the Hugging Face hub that can be reached or is in the cache, got {name[:80]!r}: "
            f"{_first_line(error)}"
        ) from error


def _client(name: str) -> Any:
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise ImportError(f'{name} needs the Hugging Face hub: pip install "fewshotseg[hub]"') from error
    return HfApi(library_name="fewshotseg")


def _first_line(error: Exception) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return "".join(letter for letter in line[:300] if letter.isprintable())


def _card(model: SCNet | PrototypeSegmenter, origin: dict[str, Any] | None, name: str) -> str:
    """Write the model card; ``name`` is what to load the model by."""
    loaded_by = f'"{name}"' + (", backbone=YourModule()" if model.config.backbone is None else "")
    settings = "\n".join(f"| {name} | `{value}` |" for name, value in model.config.to_dict().items())
    made = (
        f"```json\n{json.dumps(plain('origin', origin), indent=1, ensure_ascii=False)}\n```"
        if origin
        else "Nothing was recorded."
    )
    return f"""---
library_name: fewshotseg
pipeline_tag: image-segmentation
tags:
- few-shot-segmentation
- {"scnet" if isinstance(model, SCNet) else "training-free"}
---

# A few-shot segmentation model

Segments objects of a class that is shown to it in one to a few annotated photographs.

```python
from fewshotseg import FewShotPredictor

predictor = FewShotPredictor.from_pretrained({loaded_by})
predictor.set_support("example.jpg", "mask.png")
mask = predictor.predict("photograph.jpg").mask
```

## Settings

| setting | value |
|---|---|
{settings}

## How the weights were trained

{made}
"""
