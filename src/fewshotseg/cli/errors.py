"""Turns exceptions into the one line that a command prints."""

MAX_LENGTH = 600

EXTRAS = {
    "gradio": "app",
    "huggingface_hub": "hub",
    "matplotlib": "train",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "pycocotools": "coco",
    "safetensors": "hub",
    "scipy": "train",
    "tensorboard": "train",
    "timm": "timm",
    "tqdm": "train",
}
"""Optional module -> the extra that installs it."""

EXPECTED = (OSError, ValueError, ImportError, ArithmeticError, MemoryError)
"""What the package raises for input that it cannot use, or for too little memory; anything else is a bug."""


def sentence(error: BaseException) -> str:
    """Describe an error in one line.

    Example:
        >>> sentence(FileNotFoundError(2, "No such file or directory", "last.pth"))
        'last.pth: No such file or directory'
        >>> sentence(ModuleNotFoundError("No module named 'onnx'", name="onnx"))
        'onnx must be installed: pip install "fewshotseg[onnx]"'
    """
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        return f'{error.name} must be installed: pip install "fewshotseg[{EXTRAS[error.name]}]"'
    if isinstance(error, MemoryError):
        return "the memory of this machine is not enough: use a smaller --size, or --batch where the command has it"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    text = next(iter(str(error).splitlines()), "") or type(error).__name__
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 3]}..."


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is PyTorch's error for too little memory, on an accelerator or on the CPU."""
    return any(words in str(error) for words in ("out of memory", "can't allocate memory"))
