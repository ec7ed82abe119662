"""Attack every public name with bad input, deterministically, and print how the library answered.

    python tests/attack.py             # all of it, some minutes
    python tests/attack.py --short     # every tenth, as the test suite runs it

Each bad input has to be refused in one clear sentence (`ValueError`, `TypeError`, or `OSError`, `ImportError` and
`IndexError` where they say more), or to give a documented result. Anything else is a failure: a raw error of Python or
torch, a model half loaded, code of a file executed, a hang, or NaN from numbers. (Features that are NaN
themselves give NaN where they count, as everywhere in torch: a gradient scaler needs that.)
"""

import argparse
import contextlib
import io
import itertools
import resource
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor

from _attack_calls import calls
from _attack_files import checkpoint_attacks, image_attacks

SECONDS = 20
MEMORY = 8 * 2**30
LONGEST_SENTENCE = 700
REFUSALS = (ValueError, TypeError, OSError, ImportError, IndexError)
FOREIGN_WORDS = (
    "not supported between",
    "unsupported operand",
    "object has no attribute",
    "unexpected keyword",
    "missing 1 required",
    "is not iterable",
    "not subscriptable",
    "invalid literal",
    "could not be converted",
    "expected scalar type",
    "Expected all tensors",
    "size of tensor",
    "cannot be interpreted",
    "weights_only",
    "\x1b",
)
"""Parts of messages of Python and torch that name no argument of ours."""


class Attack(NamedTuple):
    """One bad input: a name for it, the call that is made with it, and whether NaN comes in."""

    name: str
    call: Callable[[], Any]
    takes_nan: bool = False


class Answer(NamedTuple):
    """How the library answered: a kind, and what to print of it."""

    kind: str
    words: str


def bad_values(good: Any) -> Iterator[tuple[str, Any]]:
    """What could be given in place of a good argument."""
    plain: dict[str, Any] = {
        "None": None, "text": "x", "empty text": "", "-1": -1, "0": 0, "nan": float("nan"), "inf": float("inf"),
        "True": True, "2.5": 2.5, "10**12": 10**12, "list": [], "dict": {}, "object": object(), "bytes": b"x",
    }  # fmt: skip
    yield from plain.items()
    if isinstance(good, Tensor):
        yield from bad_tensors(good)


def bad_tensors(good: Tensor) -> Iterator[tuple[str, Any]]:
    """The same for a tensor: other axes, sizes, dtypes, layouts and values."""
    yield "one axis less", good[0]
    yield "one axis more", good[None]
    yield "empty batch", good[:0]
    yield "no columns", good[..., :0]
    yield "other batch", torch.cat([good, good, good])
    yield "one column less", good[..., 1:]
    yield "array", good.numpy()
    yield "list of lists", good.tolist()
    for dtype in (torch.int32, torch.uint8, torch.bool, torch.complex64, torch.float16, torch.float64):
        yield str(dtype), good.to(dtype)
    yield "meta", good.to("meta")
    yield "sparse", good.to_sparse()
    if good.is_floating_point():
        for value in (float("nan"), float("inf"), 1e15):
            yield f"all {value}", torch.full_like(good, value)
        yield "one nan", good.clone().index_fill_(-1, torch.tensor([0]), float("nan"))
    else:
        for value in (7, -1, 255, 10**9):
            yield f"all {value}", torch.full_like(good, value)


def attacks() -> Iterator[Attack]:
    """Every public call with one argument at a time replaced by something bad."""
    for name, function, arguments in calls():
        for key, good in arguments.items():
            for kind, bad in bad_values(good):
                changed = {**arguments, key: bad}
                yield Attack(f"{name}({key}={kind})", lambda f=function, a=changed: f(**a), not_finite(bad))


def answer(attack: Attack) -> Answer:
    """Make the call, and say of what kind the answer is."""

    def too_long(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            result = attack.call()
    except TimeoutError:
        return Answer("hang", f"longer than {SECONDS} s")
    except REFUSALS as error:
        return judge(error)
    except Exception as error:
        return Answer("raw error", f"{type(error).__name__}: {str(error)[:120]}")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    if isinstance(result, Answer):
        return result
    return Answer("NaN", "") if holds_nan(result) and not attack.takes_nan else Answer("result", "")


def judge(error: Exception) -> Answer:
    """Whether a refusal is one clear sentence."""
    words = str(error)
    raw = "[Errno" in words and not isinstance(error, FileNotFoundError)
    if raw or any(part in words for part in FOREIGN_WORDS) or "\n" in words:
        return Answer("raw error", f"{type(error).__name__}: {words[:120]}")
    if not 10 <= len(words) <= LONGEST_SENTENCE:
        return Answer("raw error", f"{type(error).__name__} of {len(words)} characters: {words[:80]}")
    return Answer("refused", words)


def not_finite(value: Any) -> bool:
    """Whether a tensor holds NaN or infinity."""
    dense = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
    return dense and not bool(value.isfinite().all())


def holds_nan(result: Any) -> bool:
    """Whether a tensor in a result holds NaN."""
    if isinstance(result, Tensor):
        return result.device.type != "meta" and (result.is_floating_point() and bool(result.isnan().any()))
    if isinstance(result, dict):
        return any(map(holds_nan, result.values()))
    if isinstance(result, tuple | list):
        return any(map(holds_nan, result))
    return False


def run(every: int = 1, *, show: bool = True) -> dict[str, Counter[str]]:
    """Make the attacks, all or every so many, and count the answers by kind."""
    found: dict[str, Counter[str]] = {}
    with TemporaryDirectory() as folder:
        groups = {
            "bad inputs": attacks(),
            "checkpoints": (Attack(*each) for each in checkpoint_attacks(Path(folder))),
            "image and annotation files": (Attack(*each) for each in image_attacks(Path(folder))),
        }
        for group, its in groups.items():
            step = 1 if group.startswith("image") else every
            found[group] = Counter()
            for attack in itertools.islice(its, 0, None, step):
                kind, words = answer(attack)
                found[group][kind] += 1
                if show and kind not in {"refused", "result"}:
                    print(f"{kind}: {attack.name}: {words}", flush=True)
    return found


def main() -> None:
    """Attack, print the figures, and exit with 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="make every tenth attack only")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    found = run(10 if parser.parse_args().short else 1)
    failed = 0
    for group, kinds in found.items():
        print(f"{group}: {sum(kinds.values())}: " + ", ".join(f"{count} {kind}" for kind, count in kinds.items()))
        failed += sum(count for kind, count in kinds.items() if kind not in {"refused", "result"})
    print(f"{failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
