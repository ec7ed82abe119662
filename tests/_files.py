"""What every reader of files owes: the right model, or a refusal in one sentence that names the file."""

import copy
import random
import warnings
import zipfile
from pathlib import Path

import torch

LONGEST = 600
FOREIGN = ("weights_only", "torch.load", "pickle", "add_safe_globals", "Traceback", "PytorchStream", "\x1b", "\n", "\r")


def refusal(call, path, error=ValueError):
    """What a call raised, if it raised what it may; None if it gave something."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "the frozen backbone has random weights")
        try:
            call()
        except error as refused:
            text = str(refused)
            assert Path(path).name in text, text
            assert len(text) < LONGEST, text
            assert not [word for word in FOREIGN if word in text], text
            return text
    return None


def snapshot(module):
    """All that a refused file must leave alone."""
    tensors = {key: (id(value), value.clone()) for key, value in module.state_dict(keep_vars=True).items()}
    flags = {name: part.training for name, part in module.named_modules()}
    return tensors, flags, {name: parameter.requires_grad for name, parameter in module.named_parameters()}


def is_untouched(module, before):
    tensors, flags, gradients = before
    now = module.state_dict(keep_vars=True)
    return (
        now.keys() == tensors.keys()
        and all(id(value) == tensors[key][0] and same(value, tensors[key][1]) for key, value in now.items())
        and {name: part.training for name, part in module.named_modules()} == flags
        and {name: parameter.requires_grad for name, parameter in module.named_parameters()} == gradients
    )


def same(tensor, other):
    """Bit for bit."""
    one, two = (each.detach().contiguous().reshape(-1).view(torch.uint8) for each in (tensor, other))
    return tensor.dtype == other.dtype and tensor.shape == other.shape and torch.equal(one, two)


def equal_states(state, other):
    return state.keys() == other.keys() and all(same(value, other[key]) for key, value in state.items())


def flips(content, count, seed=0):
    """Copies of a file with one bit turned over; many in its first and last bytes, where the structure is."""
    draw, size = random.Random(seed), len(content)
    spans = [(0, min(2000, size)), (max(size - 6000, 0), size), (0, size)]
    for number in range(count):
        low, high = spans[number % 3]
        damaged, place = bytearray(content), draw.randrange(low, high)
        damaged[place] ^= 1 << draw.randrange(8)
        yield f"bit of byte {place}", bytes(damaged)


def cuts(content):
    """Beginnings and ends of a file."""
    size = len(content)
    for length in (1, 2, 4, 10, 100, size // 4, size // 2, size - 5000, size - 100, size - 22, size - 2, size - 1):
        yield f"first {length} bytes", content[: max(length, 1)]
        yield f"last {length} bytes", content[-max(length, 1) :]


def zip_tricks(path):
    """Archives of the same records, put together in ways that torch does not."""
    with zipfile.ZipFile(path) as archive:
        records = [(info.filename, archive.read(info)) for info in archive.infolist()]

    def archive_of(entries, **settings):
        target = path.with_suffix(".trick")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that come twice
            with zipfile.ZipFile(target, "w", **settings) as made:
                for name, content in entries:
                    made.writestr(name, content)
        content = target.read_bytes()
        target.unlink()
        return content

    largest = max((name for name, _ in records if "/data/" in name), key=lambda name: len(dict(records)[name]))
    zeros = bytes(len(dict(records)[largest]))
    whole = path.read_bytes()
    yield "the same", archive_of(records)
    yield "deflated", archive_of(records, compression=zipfile.ZIP_DEFLATED)
    yield "a record twice, zeros first", archive_of([(largest, zeros), *records])
    yield "a record twice, zeros last", archive_of([*records, (largest, zeros)])
    yield "a record missing", archive_of([record for record in records if record[0] != largest])
    yield "a record of another name", archive_of([(name.replace("/data/0", "/data/x"), part) for name, part in records])
    yield "zeros in place of a record", archive_of([(n, zeros if n == largest else part) for n, part in records])
    yield "records in reverse", archive_of(records[::-1])
    yield "no records", archive_of([])
    yield "other records", archive_of([("a/b", b"c")])
    for count in (1, 30, 70_000):
        yield f"{count} bytes behind", whole + b"x" * count
        yield f"{count} bytes in front", b"x" * count + whole
    yield "twice", whole + whole


def damaged(path, count):
    """All of these, of one file."""
    content = path.read_bytes()
    yield from flips(content, count)
    yield from cuts(content)
    yield from zip_tricks(path)


def copied(model):
    return {key: copy.deepcopy(value) for key, value in model.state_dict().items()}
