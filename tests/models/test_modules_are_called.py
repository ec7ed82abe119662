"""Every module of a model is called as the module that it is now: hooks, replaced and wrapped layers, changed weights.

Each change comes after a first call, in evaluation and in training, so that no copy of what was before may answer.
"""

import copy
import functools

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.testing import assert_close

import fewshotseg as fs
from _models import TinyBackbone, tiny
from fewshotseg.ops import foreground_weights

BACKBONES = ["resnet50", "mobilenet_v2", "tiny"]
SIDE = 65


@functools.cache
def _built(backbone, channels):
    torch.manual_seed(0)
    model = fs.build_scnet(
        TinyBackbone() if backbone == "tiny" else backbone, hidden_channels=channels, bins=(1.0, 0.5)
    )
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
        elif isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
        elif isinstance(module, nn.Conv2d) and not name.startswith("backbone"):
            nn.init.kaiming_normal_(module.weight)
    # Norms take on the statistics of what they see: in a random network signals would die away otherwise.
    with torch.no_grad():
        network = model.backbone.train()
        network.high(network.mid(torch.randn(2, 3, SIDE, SIDE))[0])
    return model


def build(backbone="tiny", *, training=False, channels=8):
    """The same at every call. Nothing is dropped, so that a training step has one answer."""
    return copy.deepcopy(_built(backbone, channels)).train(training)


def batch(count=1):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, count, 3, SIDE, SIDE, generator=generator)
    masks = torch.zeros(count, SIDE, SIDE, dtype=torch.long)
    masks[:, 12:40, 20:50] = 1
    return images[0][:, None], masks[:, None], images[1], masks.flip(1)


def step(model, count=1):
    return model(*batch(count), generator=torch.Generator().manual_seed(2))


def as_answer(output):
    """All that a call with masks gives, scaled so that a relative change of any of it counts."""
    return [output.logits.detach() / output.logits.std().detach(), *output.losses.values()]


@torch.no_grad()
def answer(model):
    return as_answer(step(model))


def differ(answers, others):
    return any(not torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(answers, others, strict=True))


def of_type(model, kinds, *paths):
    """Names of modules of some kinds below the paths given."""
    return [name for name, part in model.named_modules() if isinstance(part, kinds) and name.startswith(paths)]


def spread(names, count):
    """The first, the last, and some between."""
    return [names[number * (len(names) - 1) // (count - 1)] for number in range(count)]


PARTS = ("backbone", "reduce_query", "reduce_support", "head")
modes = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
backbones = pytest.mark.parametrize("backbone", BACKBONES)


# Hooks


def with_parameters(model):
    return {name: part for name, part in model.named_modules() if [*part.parameters(recurse=False)]}


@backbones
@modes
@pytest.mark.parametrize("called_before", [False, True])
def test_hooks_on_every_module_with_parameters_fire(backbone, training, called_before):
    model, fired, entered = build(backbone, training=training), set(), set()
    if called_before:
        answer(model)
    modules = with_parameters(model)
    for name, module in modules.items():
        module.register_forward_pre_hook(lambda *_, name=name: entered.add(name))
        module.register_forward_hook(lambda *_, name=name: fired.add(name))
    answer(model)
    assert not modules.keys() - fired
    assert not modules.keys() - entered


@pytest.mark.parametrize("count", [1, 2])
def test_hooks_on_every_module_of_a_wide_head_fire_in_a_step(count):
    """Wide layers have a gradient of their own."""
    model, fired = build(training=True, channels=128), set()
    step(model, count).loss.backward()
    modules = with_parameters(model)
    for name, module in modules.items():
        module.register_forward_hook(lambda *_, name=name: fired.add(name))
    step(model, count).loss.backward()
    assert not modules.keys() - fired


@backbones
@modes
def test_a_late_hook_may_change_what_a_module_gives(backbone, training):
    model = build(backbone, training=training)
    before = answer(model)
    for part in PARTS:
        for name in spread(of_type(model, nn.Conv2d, part), count=2):
            handle = model.get_submodule(name).register_forward_hook(lambda module, inputs, output: output * 0.5 + 0.1)
            assert differ(answer(model), before), name
            handle.remove()
    assert not differ(answer(model), before)


def record(module, call):
    """What the modules of a backbone with parameters give during a call: name to one tensor over the whole batch."""
    seen = {}
    handles = [
        part.register_forward_hook(
            lambda _, inputs, output, name=name: seen.setdefault(name, []).append(output.clone())
        )
        for name, part in with_parameters(module).items()
    ]
    with torch.no_grad():
        call()
    for handle in handles:
        handle.remove()
    return {name: torch.cat(outputs) for name, outputs in seen.items()}


def assert_same_outputs(found, expected):
    assert found.keys() == expected.keys()
    for name, plain in expected.items():
        assert found[name].shape == plain.shape, name
        assert_close(found[name], plain, rtol=1e-4, atol=1e-4 * plain.abs().max().item(), msg=f"{name}: {{}}".format)


@backbones
@modes
@pytest.mark.parametrize("count", [1, 2])
def test_hooks_see_what_the_plain_backbone_gives_of_queries(backbone, training, count):
    model = build(backbone, training=training)
    network, (_, _, images, _) = model.backbone, batch(count)
    expected = record(network, lambda: network.high(network.mid(images)[0]))
    for _ in range(2):
        assert_same_outputs(record(network, lambda: model.encode_query(images)), expected)


@backbones
@modes
@pytest.mark.parametrize("count", [1, 2])
def test_hooks_see_what_the_plain_backbone_gives_of_supports(backbone, training, count):
    """The whole image, and its masked features, not what lies around the object alone."""
    model = build(backbone, training=training)
    network, (images, masks, _, _) = model.backbone, batch(count)

    def plain():
        deepest = network.mid(images[:, 0])[0]
        network.high(deepest * foreground_weights(masks[:, 0], tuple(deepest.shape[2:]))[:, None])

    expected = record(network, plain)
    for _ in range(2):
        assert_same_outputs(record(network, lambda: model.encode_support(images, masks)), expected)


class Tapped(nn.Module):
    """A backbone that takes its features with hooks of its own."""

    mid_channels = 12

    def __init__(self):
        super().__init__()
        self.net, self.kept = TinyBackbone(), {}
        self.net.deep.register_forward_hook(lambda module, inputs, output: self.kept.update(deep=output))

    def mid(self, images):
        self.net.mid(images)
        return (self.kept["deep"],)

    def high(self, deepest):
        return self.net.high(deepest)


@modes
def test_a_backbone_may_take_its_features_with_hooks(training):
    torch.manual_seed(0)
    backbone = Tapped()
    model = fs.build_scnet(backbone, hidden_channels=8, bins=(1.0, 0.5)).train(training)
    model.reduce_query[2].p = 0.0
    for seed in range(3):
        images = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            found = model.encode_query(images)
            (deepest,) = backbone.mid(images)
            assert_close(found.features, model.reduce_query(deepest), rtol=1e-4, atol=1e-4)
            assert_close(found.high, backbone.high(deepest), rtol=1e-4, atol=1e-4)


# Replaced modules


ACTIVATIONS = (nn.ReLU, nn.ReLU6)


@modes
@pytest.mark.parametrize("channels", [8, 128])
def test_any_activation_of_head_and_reducers_may_be_replaced(training, channels):
    model = build(training=training, channels=channels)
    before, names = answer(model), of_type(model, ACTIVATIONS, *PARTS[1:])
    assert len(names) >= 10
    for name in names:
        kept = model.get_submodule(name)
        model.set_submodule(name, nn.Softplus())
        assert differ(answer(model), before), name
        model.set_submodule(name, kept)
    assert not differ(answer(model), before)


@backbones
@modes
def test_activations_of_the_backbone_may_be_replaced(backbone, training):
    model = build(backbone, training=training)
    before = answer(model)
    for name in spread(of_type(model, ACTIVATIONS, "backbone"), count=3):
        kept = model.get_submodule(name)
        model.set_submodule(name, nn.Softplus())
        assert differ(answer(model), before), name
        model.set_submodule(name, kept)
    assert not differ(answer(model), before)


def dilate(conv):
    conv.dilation = (2, 2)
    conv.padding = (2, 2)


@modes
@pytest.mark.parametrize("channels", [8, 128])
def test_convolutions_of_the_head_may_be_dilated(training, channels):
    """With a gradient too, which is when wide ones run otherwise."""
    model = build(training=training, channels=channels)
    names = [name for name in of_type(model, nn.Conv2d, "head") if model.get_submodule(name).kernel_size == (3, 3)]
    before = answer(model)
    assert names
    for name in names:
        changed = copy.deepcopy(model)
        dilate(changed.get_submodule(name))
        output = step(changed)
        assert differ(as_answer(output), before), name
        assert not differ(as_answer(output), answer(changed)), name
        output.loss.backward()


@backbones
@modes
def test_convolutions_of_the_backbone_may_be_dilated(backbone, training):
    model = build(backbone, training=training)
    before, network = answer(model), model.backbone
    names = [
        name
        for name in of_type(network, nn.Conv2d, "")
        if (conv := network.get_submodule(name)).kernel_size == (3, 3)
        and conv.stride == conv.dilation == conv.padding == (1, 1)
    ]
    for name in {names[0], names[-1]}:
        changed = copy.deepcopy(model)
        answer(changed)
        dilate(changed.backbone.get_submodule(name))
        assert differ(answer(changed), before), name
        assert_features_of_the_plain_backbone(changed)


def assert_features_of_the_plain_backbone(model):
    _, _, images, _ = batch()
    with torch.no_grad():
        found, expected = model.encode_query(images).high, model.backbone.high(model.backbone.mid(images)[0])
    assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


# Wrapped convolutions


class LowRank(nn.Module):
    """A convolution and a low-rank addition to it, zero at first, as adapters have it."""

    def __init__(self, conv):
        super().__init__()
        self.conv = conv
        shape = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation}
        self.down = nn.Conv2d(conv.in_channels, 2, conv.kernel_size, bias=False, **shape)
        self.up = nn.Conv2d(2, conv.out_channels, 1, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, maps):
        return self.conv(maps) + self.up(self.down(maps))


def assert_may_be_wrapped(model, names):
    before = answer(model)
    torch.manual_seed(3)
    wrappers = {name: LowRank(model.get_submodule(name)) for name in names}
    for name, wrapper in wrappers.items():
        model.set_submodule(name, wrapper)
    assert not differ(answer(model), before)
    for name, wrapper in wrappers.items():
        nn.init.normal_(wrapper.up.weight)
        assert differ(answer(model), before), name
        nn.init.zeros_(wrapper.up.weight)
    assert not differ(answer(model), before)


@modes
@pytest.mark.parametrize("channels", [8, 128])
def test_any_convolution_of_head_and_reducers_may_be_wrapped_and_learns(training, channels):
    model = build(training=training, channels=channels)
    names = of_type(model, nn.Conv2d, *PARTS[1:])
    assert len(names) >= 15
    assert_may_be_wrapped(model, names)
    step(model).loss.backward()
    for name in names:
        grad = model.get_submodule(name).up.weight.grad
        assert grad is not None, name
        assert grad.any(), name


@backbones
@modes
def test_convolutions_of_the_backbone_may_be_wrapped(backbone, training):
    model = build(backbone, training=training)
    assert_may_be_wrapped(model, list(dict.fromkeys(spread(of_type(model, nn.Conv2d, "backbone"), count=4))))
    assert_features_of_the_plain_backbone(model)


# Changed weights


def scale(tensor):
    tensor.mul_(1.5)


def copy_into(tensor):
    tensor.copy_(1.5 * tensor)


def scale_data(tensor):
    tensor.data.mul_(1.5)


def replace_data(tensor):
    tensor.data = 1.5 * tensor.data


def assert_changes_are_seen(model, names, change):
    before = answer(model)
    for name in names:
        weight = model.get_submodule(name).weight
        kept = weight.detach().clone()
        with torch.no_grad():
            change(weight)
        assert differ(answer(model), before), name
        weight.data = kept
    assert not differ(answer(model), before)


changes = pytest.mark.parametrize("change", [scale, copy_into, scale_data, replace_data])


@backbones
@modes
@changes
def test_weights_of_the_backbone_changed_in_place_are_seen(backbone, training, change):
    model = build(backbone, training=training)
    assert_changes_are_seen(model, spread(of_type(model, nn.Conv2d, "backbone"), count=2), change)


@modes
@changes
def test_weights_of_head_and_reducers_changed_in_place_are_seen(training, change):
    model = build(training=training)
    assert_changes_are_seen(model, of_type(model, nn.Conv2d, *PARTS[1:]), change)


@backbones
@modes
def test_norms_changed_in_place_are_seen(backbone, training):
    model = build(backbone, training=training)
    before = answer(model)
    norms = of_type(model, nn.BatchNorm2d, "backbone")
    for name in (norms[0], norms[-1]):
        for part in ("weight", "bias", "running_mean", "running_var"):
            tensor = getattr(model.get_submodule(name), part)
            kept = tensor.detach().clone()
            tensor.data.mul_(1.5).add_(0.5)
            assert differ(answer(model), before), f"{name}.{part}"
            tensor.data.copy_(kept)
    model.get_submodule(norms[-1]).eps = 1.0
    assert differ(answer(model), before)


@modes
def test_loaded_weights_are_seen(training):
    model, other = build(training=training), tiny(seed=7)
    answer(model)
    model.load_state_dict(other.state_dict())
    for module in other.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    assert not differ(answer(model), answer(other.train(training)))


# Reparametrised weights


@backbones
@modes
@pytest.mark.parametrize("called_before", [False, True])
def test_weight_norm_on_a_convolution_of_the_backbone(backbone, training, called_before):
    model = build(backbone, training=training)
    before = answer(build(backbone, training=training))
    if called_before:
        answer(model)
    for name in spread(of_type(model, nn.Conv2d, "backbone"), count=2):
        conv = parametrizations.weight_norm(model.get_submodule(name))
        assert not differ(answer(model), before), name
        with torch.no_grad():
            conv.parametrizations.weight.original0.mul_(1.5)
        assert differ(answer(model), before), name
        assert_features_of_the_plain_backbone(model)
        with torch.no_grad():
            conv.parametrizations.weight.original0.div_(1.5)


@backbones
@modes
@pytest.mark.parametrize("called_before", [False, True])
def test_spectral_norm_on_a_convolution_of_the_backbone(backbone, training, called_before):
    model = build(backbone, training=training)
    before = answer(build(backbone, training=training))
    if called_before:
        answer(model)
    for name in spread(of_type(model, nn.Conv2d, "backbone"), count=2):
        changed = copy.deepcopy(model)
        if called_before:
            answer(changed)
        parametrizations.spectral_norm(changed.get_submodule(name)).eval()
        assert differ(answer(changed), before), name
        assert_features_of_the_plain_backbone(changed)


@modes
@pytest.mark.parametrize("reparametrise", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_reparametrised_convolutions_of_the_head_and_the_reducers_learn(training, reparametrise):
    model = build(training=training)
    answer(model)
    names = of_type(model, nn.Conv2d, *PARTS[1:])
    for name in names:
        reparametrise(model.get_submodule(name))
    step(model).loss.backward()
    for name in names:
        learned = [*model.get_submodule(name).parametrizations.parameters()]
        assert any(weight.grad is not None and weight.grad.any() for weight in learned), name
