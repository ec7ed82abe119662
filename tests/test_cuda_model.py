"""The model on a GPU: the answers of a CPU in every precision, no waiting, determinism where asked, graphs, files.

From a checkout, with torch, torchvision, numpy, pillow, einops, typing-extensions and pytest alone:
`PYTHONPATH=src python -m pytest tests/test_cuda.py tests/test_cuda_model.py -W default`.
"""

import copy
import functools
import os
from contextlib import contextmanager, nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

import fewshotseg as fs
from _evaluation_process import CLASSES, episodes
from _models import tiny
from fewshotseg.models.backbones import make_backbone
from fewshotseg.models.fast.backbone import FoldedBackbone

DEVICE = "cuda"
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

BACKBONES = ["resnet50s", "resnet50", "vgg16_bn", "mobilenet_v2"]


@pytest.fixture(autouse=True)
def full_precision():
    """No TF32 unless a test asks for it."""
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    yield
    torch.backends.cudnn.allow_tf32 = before[0]
    torch.set_float32_matmul_precision(before[1])


def built(backbone="resnet50s", **settings):
    torch.manual_seed(0)
    model = fs.build_scnet(make_backbone(backbone), **{"hidden_channels": 32, **settings})
    with torch.no_grad():  # norms take on the statistics of what they see, so that signals don't die away
        for module in model.backbone.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
                module.train()
        model.backbone.high(model.backbone.mid(torch.randn(2, 3, 97, 97))[0])
    return model.eval()


def batch(device, *, shots=1, size=2):
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(size, shots + 1, 3, 97, 97, generator=generator)
    masks = torch.zeros(size, shots + 1, 97, 97, dtype=torch.long)
    masks[..., 20:70, 30:60] = 1
    masks[..., 70:72, :] = 255
    return [part.to(device) for part in (images[:, 1:], masks[:, 1:], images[:, 0], masks[:, 0])]


def agree(found, expected, tolerance):
    found, expected = found.float().cpu(), expected.float()
    assert found.isfinite().all()
    assert float((found - expected).abs().max() / expected.abs().max()) < tolerance


@contextmanager
def no_waiting():
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("shots", [1, 5])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_logits_are_those_of_a_cpu(backbone, shots, fused):
    model = built(backbone)
    support, masks, query, _ = batch("cpu", shots=shots)
    with torch.no_grad():
        expected = model(support, masks, query).logits
        model.to(DEVICE)
        if fused:
            model.fuse()
        agree(model(support.to(DEVICE), masks.to(DEVICE), query.to(DEVICE)).logits, expected, 1e-3)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16", "float16"])
@pytest.mark.parametrize("fused", [False, True])
def test_lower_precisions_are_near(precision, fused):
    model = built()
    with torch.no_grad():
        expected = model(*batch("cpu")[:3]).logits
        model.to(DEVICE)
        if fused:
            model.fuse()
        tensors = batch(DEVICE)[:3]
        if precision == "tf32":
            torch.backends.cudnn.allow_tf32 = True
            torch.set_float32_matmul_precision("high")
        else:
            dtype = getattr(torch, precision)
            model.to(dtype)
            tensors[0], tensors[2] = tensors[0].to(dtype), tensors[2].to(dtype)
        agree(model(*tensors).logits, expected, 0.3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_autocast(dtype, training, fused):
    model = built().to(DEVICE).train(training)
    if fused:
        model.fuse()
    with torch.autocast(DEVICE, dtype):
        output = model(*batch(DEVICE))
        if fused:
            assert isinstance(model.fast.current(), FoldedBackbone)
    assert output.logits.isfinite().all()
    assert output.loss.dtype == torch.float32
    output.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("training", [False, True])
def test_a_channels_last_model_keeps_its_layout(training):
    model = built().train(training)
    expected = copy.deepcopy(model).eval()(*batch("cpu")[:3]).logits
    model.to(DEVICE, memory_format=torch.channels_last)
    seen = []
    model.head.refine[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    support, masks, query, query_masks = batch(DEVICE)
    query = query.contiguous(memory_format=torch.channels_last)
    output = model(support, masks, query, query_masks)
    assert all(maps.is_contiguous(memory_format=torch.channels_last) for maps in seen)
    if not training:
        agree(output.logits.detach(), expected.detach(), 1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_residual_blocks_run_in_fused_kernels(dtype, monkeypatch):
    torch.backends.cudnn.allow_tf32 = True
    differences = {"cudnn_convolution_relu": [], "cudnn_convolution_add_relu": []}

    def compared(name, maps, weight, *others):
        found = kernels[name](maps, weight, *others)
        shortcut, _, *rest = others if "add" in name else (torch.zeros_like(found), 1.0, *others)
        bias, *settings = rest
        exact = F.relu(F.conv2d(maps.double(), weight.double(), bias.double(), *settings) + shortcut.double())
        differences[name].append(float((found - exact).abs().max() / exact.abs().max()))
        return found

    kernels = {name: getattr(torch, name) for name in differences}
    model = built().to(DEVICE, dtype).fuse()
    images = batch(DEVICE)[2].to(dtype)
    with torch.no_grad():
        with monkeypatch.context() as patch:
            for name in kernels:
                patch.setattr(torch, name, functools.partial(compared, name))
            model.encode_query(images)
        assert [len(found) for found in differences.values()] == [32, 16]
        assert all(difference < 2e-2 for found in differences.values() for difference in found)

        def refused(*given):
            raise RuntimeError("no engine")

        for name in kernels:
            monkeypatch.setattr(torch, name, refused)
        assert model.encode_query(images).high.isfinite().all()


def test_gradients_are_those_of_a_cpu():
    # In float64: in float32 rounding decides which units next to 0 ReLU lets through.
    settings = {"reducer_dropout": 0.0, "classifier_dropout": 0.0, "grid_bins": 2}
    on_cpu, on_gpu = built(**settings).double().train(), built(**settings).double().train().to(DEVICE)
    for model, device in ((on_cpu, "cpu"), (on_gpu, DEVICE)):
        tensors = [part.double() if part.is_floating_point() else part for part in batch(device)]
        model(*tensors, generator=torch.Generator().manual_seed(1)).loss.backward()
    for name, parameter in on_cpu.named_parameters():
        if parameter.grad is not None:
            assert_close(on_gpu.get_parameter(name).grad.cpu(), parameter.grad, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("shots", [1, 5])
@pytest.mark.parametrize("fused", [False, True])
def test_inference_never_waits(shots, fused):
    model, tensors = built().to(DEVICE), batch(DEVICE, shots=shots)[:3]
    if fused:
        model.fuse()
    with torch.no_grad():
        model(*tensors)
        with no_waiting():
            model(*tensors)


@pytest.mark.parametrize("own_generator", [None, "cpu", "cuda"])
@pytest.mark.parametrize("amp", [False, True])
def test_a_training_step_never_waits(amp, own_generator):
    model, tensors = built().train().to(DEVICE).fuse(), batch(DEVICE)
    generator = own_generator and torch.Generator(own_generator)
    optimizer = torch.optim.SGD([part for part in model.parameters() if part.requires_grad], lr=1e-4, momentum=0.9)

    def step():
        optimizer.zero_grad()
        with torch.autocast(DEVICE, torch.bfloat16, enabled=amp):
            loss = model(*tensors, generator=generator).loss
        loss.backward()
        optimizer.step()

    step()
    with no_waiting():
        step()


def test_the_metric_never_waits():
    metric = fs.FewShotIoU([1, 2])
    logits, target = torch.randn(4, 2, 33, 33, device=DEVICE), batch(DEVICE, size=4)[3][:, :33, :33]
    ids = torch.tensor([1, 2, 2, 1], device=DEVICE)
    metric.update(logits, target, ids)
    with no_waiting():
        metric.update(logits, target, ids)
    assert metric.compute().episodes == 8


@pytest.mark.parametrize(
    "options", [{}, {"batch_size": 4}, {"workers": 2}, {"cache_device": "cpu"}, {"cache_bytes": 0}]
)
def test_evaluate_reports_what_it_does_on_a_cpu(options):
    expected = fs.evaluate(tiny(), episodes(2), fs.FewShotIoU(CLASSES))
    found = fs.evaluate(tiny(), episodes(2), fs.FewShotIoU(CLASSES), device=DEVICE, **options)
    assert found.episodes_per_class == expected.episodes_per_class
    assert_close(found.miou, expected.miou, atol=2e-3, rtol=0)


def test_the_predictor_answers_as_on_a_cpu():
    model = built("mobilenet_v2")
    photo = (torch.rand(3, 60, 80, generator=torch.Generator().manual_seed(0)) * 255).byte()
    mask = torch.zeros(60, 80, dtype=torch.bool)
    mask[15:45, 20:50] = True
    found = []
    for device in ("cpu", DEVICE):
        predictor = fs.FewShotPredictor(model, size=97, device=device)
        predictor.set_support(photo, mask)
        found.append(predictor.predict(photo))
    assert found[1].mask.device.type == "cpu"
    assert_close(found[1].probability, found[0].probability, atol=1e-2, rtol=0)


def test_the_predictor_takes_lists():
    predictor = fs.FewShotPredictor(built("mobilenet_v2"), size=97, device=DEVICE)
    photos = [(torch.rand(3, 60 + 9 * n, 80) * 255).byte() for n in range(5)]
    mask = torch.zeros(60, 80, dtype=torch.bool)
    mask[15:45, 20:50] = True
    predictor.set_support(photos[0], mask)
    for photo, found in zip(photos, predictor.predict(photos), strict=True):
        assert_close(found.probability, predictor.predict(photo).probability, atol=1e-3, rtol=0)


def test_files_go_between_devices(tmp_path):
    with pytest.warns(UserWarning, match="random weights"):
        model = fs.build_scnet("mobilenet_v2", hidden_channels=8).to(DEVICE)
    fs.save_model(model, tmp_path / "model.pth")
    again = fs.load_model(tmp_path / "model.pth")
    assert next(again.parameters()).device.type == "cpu"
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value.cpu())
    fs.load_weights(model, tmp_path / "model.pth")
    assert next(model.parameters()).device.type == DEVICE


@pytest.mark.parametrize("kmeans", [True, False])
def test_training_is_deterministic_where_it_is_asked_to_be(kmeans):
    if os.environ.get("CUBLAS_WORKSPACE_CONFIG") is None:
        pytest.skip("needs CUBLAS_WORKSPACE_CONFIG=:4096:8")
    losses = []
    for _ in range(2):
        model = built(grid_bins=None if kmeans else 2, bins=(1.0, 0.5, 0.3)).train().to(DEVICE)
        optimizer = torch.optim.SGD([part for part in model.parameters() if part.requires_grad], lr=1e-2)
        torch.manual_seed(5)
        torch.use_deterministic_algorithms(True)
        try:
            for _ in range(3):
                optimizer.zero_grad()
                model(*batch(DEVICE)).loss.backward()
                optimizer.step()
        finally:
            torch.use_deterministic_algorithms(False)
        losses.append([part.clone() for part in model.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*losses, strict=True))


def test_inference_as_a_cuda_graph():
    model, tensors = built().to(DEVICE).fuse(), batch(DEVICE)[:3]
    with torch.no_grad():
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                expected = model(*tensors).logits
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = model(*tensors).logits
        graph.replay()
    torch.cuda.synchronize()
    assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_kmeans_as_a_cuda_graph():
    points = torch.randn(2, 900, 64, device=DEVICE)
    fs.cosine_kmeans(points, points[:, :3])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = fs.cosine_kmeans(points, points[:, :3])
    graph.replay()
    assert torch.equal(found.labels, fs.cosine_kmeans(points, points[:, :3]).labels)


@pytest.mark.parametrize("training", [False, True])
def test_compiled_whole(training):
    model = built("mobilenet_v2").to(DEVICE).train(training)
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True)
    tensors = batch(DEVICE)
    with nullcontext() if training else torch.no_grad():
        output = compiled(*tensors)
    assert output.loss.isfinite()
    if not training:
        assert_close(output.logits, model(*tensors).logits.detach(), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_prior_of_half_precision_is_that_of_a_cpu(dtype):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 64, 20, 20, generator=generator).to(dtype)
    support = torch.randn(2, 2, 64, 20, 20, generator=generator).to(dtype)
    masks = torch.zeros(2, 2, 80, 80, dtype=torch.long)
    masks[..., 10:50, 20:40] = 1
    expected = fs.prior_mask(query, support, masks)
    assert_close(
        fs.prior_mask(query.to(DEVICE), support.to(DEVICE), masks.to(DEVICE)).cpu(), expected, atol=1e-4, rtol=0
    )
