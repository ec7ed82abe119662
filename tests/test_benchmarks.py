"""Every benchmark runs, its results hold what they promise, and what it compares with computes the same."""

import contextlib
import json
import time
from functools import partial

import pytest
import torch
from torch import nn

import evaluation
import forward
import gpu
import imports
import memory
import segmenter
import timing
import train_step
from cases import difference, ellipse, episode, make_plain, make_scnet

IMPORTS_MIB = 100
"""What Python with PyTorch takes at the very least."""


@pytest.fixture(scope="module")
def models():
    plain = make_plain(8).eval()
    return plain, make_scnet(plain, self_contrast_weight=0.0).eval()


@pytest.mark.parametrize(("size", "shots", "batch"), [(33, 1, 2), (65, 2, 1)])
def test_plain_pfenet_gives_the_same(models, size, shots, batch):
    plain, ours = models
    tensors = episode(size, shots=shots, batch=batch)
    tensors[3][:, :4] = 255
    with torch.no_grad():
        logits, main_loss, aux_loss = plain(*tensors)
        output = ours(*tensors)
        assert difference(output.logits, logits)["difference"] < 1e-5
        assert difference(plain(*tensors[:3]), logits)["difference"] == 0
        torch.testing.assert_close(output.losses["main"], main_loss, rtol=1e-5, atol=0)
        torch.testing.assert_close(output.losses["aux"], aux_loss, rtol=1e-5, atol=0)

        # Not because nothing matters: another support is another answer, some of it foreground.
        support_images, support_masks, *_ = episode(size, shots=shots, batch=batch, seed=1)
        other = plain(support_images, support_masks, tensors[2])
        assert difference(other, logits)["changed_pixels"] > 0.01
        assert 0.05 < logits.argmax(dim=1).float().mean() < 0.95


def test_official_training_mode_gives_the_same():
    plain = make_plain(8)
    ours = make_scnet(plain, self_contrast_weight=0.0, norm_stats="batch")
    for module in (*plain.modules(), *ours.modules()):
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    tensors = episode(33, batch=2)
    _, main_loss, aux_loss = plain.train()(*tensors)
    output = ours.train()(*tensors)
    torch.testing.assert_close(output.loss, main_loss + aux_loss, rtol=1e-4, atol=0)
    (main_loss + aux_loss).backward()
    output.loss.backward()
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters() if parameter.requires_grad}
    for name, parameter in plain.named_parameters():
        if parameter.requires_grad:
            scale = parameter.grad.abs().max()
            torch.testing.assert_close(gradients[name] / scale, parameter.grad / scale, rtol=0, atol=2e-3)
    state = ours.state_dict()
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(state[name], buffer, rtol=1e-4, atol=1e-4)


def test_models_are_in_their_faster_form(models):
    assert models[1].fast is not None


def test_weights_go_both_ways(models):
    plain, ours = models
    assert plain.state_dict().keys() == ours.state_dict().keys()
    assert not any(parameter.requires_grad for parameter in plain.backbone.parameters())


@pytest.mark.parametrize("area", [0.05, 0.15, 0.4])
def test_objects_have_the_size_asked_for(area):
    masks = torch.stack([ellipse(200, area) for _ in range(20)])
    assert masks.float().mean((1, 2)).sub(area).abs().max() < 0.01
    assert masks.unique().tolist() == [0, 1]


def run(module, path, *options):
    """The result, which is also what the file says."""
    out = path / "results" / "result.json"
    result = module.main(["--quick", "--out", str(out), *options])
    assert json.loads(out.read_text()) == json.loads(json.dumps(result))
    assert {"command", "date", "torch", "cpu", "threads", "native_bfloat16"} <= result["environment"].keys()
    return result


def check_rows(rows, baseline):
    assert rows[baseline]["times_as_fast"] == 1
    for row in rows.values():
        assert row["seconds"] > 0
        assert row["times_as_fast"] > 0


def test_forward(tmp_path, monkeypatch):
    monkeypatch.setattr(forward, "native_bfloat16", lambda device: False)
    result = run(forward, tmp_path, "--area", "0.2")
    assert result["peak_gflops"]["float32"]["convolution"] > 0
    assert len(result["cases"]) == 3
    for rows in result["cases"].values():
        assert rows.keys() == {"plain float32", "fewshotseg float32", "known support float32"}
        check_rows(rows, "plain float32")
        for row in rows.values():
            assert 0 <= row["difference"] < 1e-5
            assert row["share_of_peak"] == pytest.approx(
                row["gflop"] / row["seconds"] / result["peak_gflops"]["float32"]["convolution"]
            )
        assert rows["known support float32"]["gflop"] < rows["plain float32"]["gflop"]


def test_forward_scaling(tmp_path):
    result = run(forward, tmp_path, "--scaling")
    assert result["scaling"].keys() == {"size", "shots", "batch"}
    for part in result["scaling"].values():
        assert part["power"].keys() == {"plain", "fewshotseg"}
        assert len(part["seconds"]) == 2


def test_train_step(tmp_path):
    result = run(train_step, tmp_path, "--batch", "2")
    assert result["steps"].keys() == {"plain, batch norms", "plain, frozen norms", "PFENet", "SCNet"}
    check_rows(result["steps"], "plain, frozen norms")
    assert result["branch_overhead"] > 0
    assert result["losses"]["main"] > 0


@pytest.mark.parametrize("real", [False, True], ids=["synthetic", "folders"])
def test_evaluation(real, tmp_path, monkeypatch):
    options = []
    if real:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        options = ["--data", *map(str, _folders(tmp_path)), "--ways", "cache"]
    result = run(evaluation, tmp_path, *options)
    assert result["ways"].keys() == {"cache", "plain loop"} | (set() if real else {"no cache", "loop"})
    check_rows(result["ways"], "plain loop")
    assert len({round(row["miou"], 3) for row in result["ways"].values()}) == 1
    assert result["ways"]["cache"]["miou"] > 0
    encodings = result["encodings"]
    assert 0 < encodings["images"] <= encodings["cache"] <= encodings["no cache"] == 8


def _folders(path):
    from PIL import Image

    from fewshotseg.data import SyntheticSource

    source = SyntheticSource(24, num_classes=4, size=48)
    for part in ("a", "b"):
        for name in ("images", "masks"):
            (path / part / name).mkdir(parents=True)
    for index in range(24):
        image, mask = source.load(index)
        folder = path / "ab"[index % 2]
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / "images" / f"{index}.jpg")
        Image.fromarray(mask.byte().numpy()).save(folder / "masks" / f"{index}.png")
    return path / "a", path / "b"


def test_imports(tmp_path, monkeypatch):
    for name in ("torch", "fewshotseg.data"):
        monkeypatch.delitem(imports.STATEMENTS, name)
    result = run(imports, tmp_path, "--cpu-time")
    assert result["imports"].keys() == {"python", "torchvision", "fewshotseg"}
    assert result["ratio"] > 0
    assert isinstance(result["extra_milliseconds"], float)


def test_all_on_one_card_in_one_file(tmp_path):
    result = run(gpu, tmp_path, "--device", "cpu")
    assert result["errors"] == {}
    parts = ["limits", "kmeans", "prior", "forward", "training", "evaluation", "compiled", "compiled_training"]
    assert [*result["parts"]] == parts
    assert result["parts"]["prior"]["batch 1, bfloat16"]["share_of_peak"] > 0


def test_a_part_that_fails_leaves_the_others(tmp_path, monkeypatch):
    for name in ("forward", "training", "evaluation", "prior", "compiled", "compiled_training"):
        monkeypatch.setattr(gpu, name, lambda options, parts: {"done": 1})
    monkeypatch.setattr(gpu, "kmeans", lambda options, parts: 1 / 0)
    result = run(gpu, tmp_path, "--device", "cpu")
    assert "ZeroDivisionError" in result["errors"]["kmeans"]
    others = {"limits", "prior", "forward", "training", "evaluation", "compiled", "compiled_training"}
    assert result["parts"].keys() == others


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("module", [forward, train_step, evaluation], ids=lambda module: module.__name__)
def test_on_cuda(module, tmp_path):
    result = run(module, tmp_path, "--device", "cuda")
    assert result["environment"]["device"] == torch.cuda.get_device_name()


def test_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CASES", {"1 shot, batch 1": {}})
    monkeypatch.setattr(memory, "peak_memory", lambda function: float(len(str(function))))  # no process a case
    result = run(memory, tmp_path)
    assert result["peak_mib"].keys() == {"model", "1 shot, batch 1"}
    assert result["peak_mib"]["model"]["share"] > 0


@pytest.mark.parametrize("who", ["plain", "fewshotseg"])
@pytest.mark.parametrize("case", ["1 shot, batch 1", "training, batch 4"])
def test_memory_cases(who, case):
    memory.run_case(who, case, 33, 8, 0.15, "cpu")


def test_peak_memory_is_that_of_the_process():
    assert 1000 < timing.peak_memory(partial(torch.ones, 1000 * 2**18)) - IMPORTS_MIB < 2000
    with pytest.raises(RuntimeError, match="ended its process"):
        timing.peak_memory(partial(torch.ones, -1))


def test_cuda_is_timed_by_its_events(monkeypatch):
    log = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            log.append("record")

        def elapsed_time(self, end):
            return 1500.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: log.append("wait"))
    assert timing.seconds_of(lambda: log.append("call"), "cuda", clock=None) == 1.5
    assert log == ["wait", "record", "call", "record", "wait"]


def test_flops_of_a_convolution_and_its_gradient():
    image, kernel = torch.rand(1, 8, 10, 10), torch.rand(4, 8, 3, 3, requires_grad=True)

    def step():
        nn.functional.conv2d(image, kernel, padding=1).sum().backward()

    assert timing.count_gflop(lambda: nn.functional.conv2d(image, kernel.detach(), padding=1)) == 57.6e-6
    assert timing.count_gflop(step) == 2 * 57.6e-6


def test_flops_are_those_of_the_faster_form(models):
    _, ours = models
    support, masks, query, _ = episode(97, area=0.02)
    with torch.no_grad():
        small = timing.count_gflop(lambda: ours(support, masks, query))
        whole = timing.count_gflop(lambda: ours(support, torch.ones_like(masks), query))
    assert small < 0.9 * whole


def test_interleaving():
    calls = []
    functions = {name: partial(calls.append, name) for name in "abc"}
    seconds = timing.interleaved(functions, rounds=3, warmup=2)
    assert sorted(calls) == sorted("abc" * 5)
    assert [calls[3 * turn] for turn in range(2, 5)] == ["a", "b", "c"]
    assert all(len(taken) == 3 for taken in seconds.values())


def test_interleaving_measures_with_the_clock_that_is_asked_for():
    def busy(duration):
        end = time.process_time() + duration
        while time.process_time() < end:
            pass

    functions = {"sleep": lambda: time.sleep(0.02), "busy": lambda: busy(0.02)}
    seconds = timing.interleaved(functions, rounds=2, clock=time.process_time)
    assert max(seconds["sleep"]) < 0.01 < min(seconds["busy"])


def test_ratios_are_those_within_a_round():
    seconds = {"ours": [1.0, 10.0, 3.0], "theirs": [2.0, 40.0, 9.0]}
    assert timing.ratio(seconds, "theirs", "ours") == 3
    rows = timing.summary(seconds, "theirs")
    assert rows["ours"] == {"seconds": 3.0, "quartiles": [2.0, 6.5], "rounds": 3, "times_as_fast": 3.0}
    assert rows["theirs"]["times_as_fast"] == 1
    assert [line.split()[1] for line in timing.table(rows).splitlines()] == ["|", "------", "ours", "theirs"]


def test_segmenter(tmp_path):
    arguments = [
        "--quick",
        "--backbone",
        "tiny",
        "--size",
        "64",
        "--shots",
        "1",
        "4",
        "--out",
        str(tmp_path / "a.json"),
    ]
    content = segmenter.main(arguments)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == content
    rows = content["rows"]
    assert list(rows) == ["backbone", "as far as needed", "1 shot", "4 shots"]
    assert content["times_the_backbone"].keys() == rows.keys() - {"backbone"}
    assert rows["4 shots"]["support MiB"] == pytest.approx(4 * rows["1 shot"]["support MiB"])
