"""Reads and writes files of weights: tensors and plain values only, written atomically, checked for damage."""

import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewshotseg._checks import shown
from fewshotseg._io import StrPath, replacing, write_atomically

DAMAGED = "it is damaged or cut off; copy or download it again"
ZIP_START = b"PK\x03\x04"


def save_atomically(content: object, path: StrPath) -> None:
    """Save with ``torch.save``; after a crash the file is either the old or the new one, never half written.

    Args:
        content: What to save.
        path: The file, in an existing folder. An existing file is replaced atomically.

    Raises:
        OSError: If the file cannot be written.
    """
    with replacing(Path(path)) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            cause = error.__context__  # torch's writer hides why a write failed
            raise cause if isinstance(cause, OSError) else OSError(f"{path} could not be written") from error
        file.flush()
        os.fsync(file.fileno())


def read_safely(path: StrPath, *, what: str = "a file of weights") -> Any:
    """Load a file of ``torch.save`` that holds tensors, numbers, strings and containers of them, onto the CPU.

    No code in the file is executed. Checksums are verified first.

    Args:
        path: The file.
        what: What messages say that the file should be.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or holds anything else; the message names it.
    """
    path = Path(path)
    with open_file(path, what) as file:
        try:
            if file.read(4) == ZIP_START:
                _check_archive(file)
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
        except MemoryError:
            raise
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path} must be {what}, but {DAMAGED}") from error
        except pickle.UnpicklingError as error:
            raise ValueError(f"{path} must be {what}, but {_what_it_holds(str(error))}") from error
        except Exception as error:  # damaged files fail in many ways
            raise ValueError(f"{path} must be {what}, but {DAMAGED}") from error


def _check_archive(file: Any) -> None:
    """Raise `zipfile.BadZipFile` unless all records are unique and uncompressed and match their checksums."""
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        stored = all(record.compress_type == zipfile.ZIP_STORED for record in records)
        if not stored or len({record.filename for record in records}) < len(records) or archive.testzip() is not None:
            raise zipfile.BadZipFile


def read_safetensors(path: StrPath) -> dict[str, Tensor]:
    """Load the tensors of a ``.safetensors`` file onto the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or something else; the message names it.
        ImportError: If safetensors is not installed.
    """
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ImportError(f'{path} needs safetensors: pip install "fewshotseg[hub]"') from error
    with open_file(Path(path)):
        try:
            return dict(load_file(path))
        except Exception as error:
            raise ValueError(f"{path} must be a safetensors file, but {DAMAGED}") from error


def write_safetensors(state: Mapping[str, Tensor], path: StrPath) -> None:
    """Write tensors as a ``.safetensors`` file, atomically; its folder is created.

    Raises:
        ImportError: If safetensors is not installed.
        OSError: If the file cannot be written.
    """
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise ImportError(f'{path} needs safetensors: pip install "fewshotseg[hub]"') from error
    tensors = {key: value.detach().cpu().clone().contiguous() for key, value in state.items()}
    write_atomically(Path(path), save(tensors, metadata={"format": "pt"}))


def exists(path: Path) -> bool:
    """Whether a file or folder exists; False for names that the system does not allow."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def open_file(path: Path, what: str = "a file of weights") -> Any:
    """Open a regular file for reading; others, such as a named pipe, could block for ever.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a regular file, or empty.
    """
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "no regular file"
        raise ValueError(f"{path} must be {what}, but it is {kind}")
    file = path.open("rb")
    if os.fstat(file.fileno()).st_size == 0:
        file.close()
        raise ValueError(f"{path} must be {what}, but it is empty")
    return file


def state_dict_in(content: Any, path: StrPath) -> dict[str, Tensor]:
    """Find the state dict in a checkpoint: the checkpoint itself, or the entry under one of the usual keys.

    Raises:
        ValueError: If there is none; the message names the checkpoint's keys.
    """
    for key in ("state_dict", "model_state_dict", "model", "net"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if isinstance(content, Mapping) and content:
        names = list(content)
        if all(isinstance(name, str) and isinstance(content[name], Tensor) for name in names):
            return dict(content)
        entries = ", ".join(shown(name) for name in names[:5]) + (", ..." if len(names) > 5 else "")
        raise ValueError(
            f"{path} must hold a state dict of tensors, alone or under 'state_dict' or 'model', but it holds "
            f"{entries}; save the model's state_dict() alone"
        )
    raise ValueError(f"{path} must hold a state dict of tensors, but it holds {_name(content)}")


def _what_it_holds(message: str) -> str:
    """Rephrase the message with which torch rejects a pickle."""
    found = re.search(r"GLOBAL ([\w.]+)", message)
    if found:
        return f"it holds an object of {found[1][:80]}; save the model's state_dict() alone"
    return DAMAGED


def _name(content: object) -> str:
    return f"an empty {type(content).__name__}" if content in ({}, [], ()) else type(content).__name__
