"""The faster form of a backbone: the same model to rounding, asked for, never stale, never in a copy or a file."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

import fewshotseg as fs
from _evaluation_process import CLASSES, episodes
from fewshotseg.models.backbones import make_backbone
from fewshotseg.models.fast.backbone import FastBackbone, FoldedBackbone
from fewshotseg.models.fast.folding import folded
from fewshotseg.models.frozen import FrozenBackbone

NAMES = ["resnet50", "vgg16_bn", "mobilenet_v2", "efficientnet_lite0", "timm resnet18", "timm tf_efficientnet_lite0"]


def network(name):
    torch.manual_seed(0)
    kind, _, timms = name.partition(" ")
    made = fs.TimmBackbone(timm.create_model(timms, features_only=True)) if timms else make_backbone(kind)
    with torch.no_grad():  # norms take on the statistics of what they see, so that signals don't die away
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        made.high(made.train().mid(torch.randn(2, 3, 65, 65))[0])
    return made


def model_of(name, **settings):
    backbone = network(name)
    torch.manual_seed(1)
    settings = {"hidden_channels": 8, "bins": (1.0, 0.5), "reducer_dropout": 0.0, "classifier_dropout": 0.0, **settings}
    return fs.build_scnet(backbone, **settings)


def batch():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 2, 3, 65, 65, generator=generator)
    masks = torch.zeros(2, 65, 65, dtype=torch.long)
    masks[:, 20:40, 10:30] = 1
    return images[0][:, None], masks[:, None], images[1], masks.flip(1)


def answer(model):
    output = model(*batch(), generator=torch.Generator().manual_seed(2))
    return output.logits, output.loss


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_fused_model_is_the_plain_one_to_rounding(name, training):
    model = model_of(name).train(training)
    expected = answer(model)
    before = {key: (id(value), value.clone()) for key, value in model.state_dict(keep_vars=True).items()}
    assert model.fuse() is model
    assert isinstance(model.fast.current(), FoldedBackbone)
    found = answer(model)
    assert_close(found[1], expected[1], atol=1e-5, rtol=1e-5)
    assert_close(found[0], expected[0], atol=1e-4, rtol=1e-4)
    assert not torch.equal(found[0], expected[0])  # it is another way to compute them
    after = model.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(id(value) == before[key][0] for key, value in after.items())
    assert all(torch.equal(value, before[key][1]) for key, value in after.items())


def test_it_is_made_once():
    model = model_of("mobilenet_v2").eval().fuse()
    first = model.fast.current()
    answer(model)
    assert model.fast.current() is first


def test_gradients_are_those_of_the_plain_model():
    model, fused = model_of("mobilenet_v2"), model_of("mobilenet_v2").fuse()
    answer(model)[1].backward()
    answer(fused)[1].backward()
    for name, parameter in fused.named_parameters():
        expected = model.get_parameter(name).grad
        assert (parameter.grad is None) == (expected is None) == name.startswith("backbone."), name
        if expected is not None:
            assert_close(parameter.grad, expected, atol=1e-5, rtol=1e-3)


def scale(model):
    with torch.no_grad():
        model.backbone.last[0].weight.mul_(2)


def shift_statistics(model):
    model.backbone.deep[0][1].running_mean.add_(1)


def replace(model):
    model.backbone.last[2] = nn.Softplus()


def replace_the_backbone(model):
    model.backbone = network("tiny").eval().requires_grad_(False)
    scale(model)


def hook(model):
    model.backbone.last[0].register_forward_hook(lambda module, inputs, output: output + 1)


def load(model):
    model.load_state_dict(model_of("tiny", hidden_channels=8).state_dict())
    shift_statistics(model)


@pytest.mark.parametrize("change", [scale, shift_statistics, replace, replace_the_backbone, hook, load])
def test_no_stale_copy_answers(change):
    model, plain = model_of("tiny").eval().fuse(), model_of("tiny").eval()
    before = answer(model)
    change(model)
    change(plain)
    found, expected = answer(model), answer(plain)
    assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found[0], before[0], atol=1e-4, rtol=1e-4)


def test_other_dtypes_and_back():
    model = model_of("tiny").eval().fuse()
    expected = answer(model)
    support, support_masks, query, _ = batch()
    assert model.double()(support.double(), support_masks, query.double()).logits.dtype == torch.float64
    assert_close(answer(model.float()), expected)


def test_batch_statistics_move_in_a_fused_model_too():
    model, plain = (model_of("tiny", norm_stats="batch").train() for _ in range(2))
    model.fuse()
    assert torch.equal(answer(model)[1], answer(plain)[1])
    assert_close(model.state_dict(), plain.state_dict(), rtol=0, atol=0)
    assert model.backbone.last[1].num_batches_tracked == 1 + 2


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_of_a_fused_model_are_fused_models_of_their_own(copied):
    model = model_of("tiny").eval().fuse()
    model.memory = fs.FeatureMemory(2**20)
    expected = answer(model)
    other = copied(model)
    assert other.fast.backbone is other.backbone is not model.backbone
    assert_close(answer(other), expected)
    with torch.no_grad():
        other.backbone.last[0].weight.mul_(2)
    assert not torch.allclose(answer(other)[0], expected[0], atol=1e-4)
    assert_close(answer(model), expected)


def test_a_file_of_a_fused_model_is_that_of_the_plain_one(tmp_path):
    model = model_of("tiny").eval()
    fs.save_model(model, tmp_path / "plain.pth")
    answer(model.fuse())
    fs.save_model(model, tmp_path / "fused.pth")
    assert fs.load_model(tmp_path / "fused.pth", backbone=make_backbone("tiny")).fast is None
    assert (tmp_path / "fused.pth").stat().st_size == (tmp_path / "plain.pth").stat().st_size


def test_what_was_made_goes_with_the_model():
    model = model_of("tiny").eval().fuse()
    made = weakref.ref(model.fast.current().backbone)
    del model
    gc.collect()
    assert made() is None


def test_a_backbone_that_does_not_fit_runs_as_it_is():
    class Own(nn.Module):
        mid_channels = 3

        def mid(self, images):
            return (images[:, :, ::8, ::8],)

        def high(self, deepest):
            return deepest

    own = Own().eval()
    assert type(FastBackbone(own).current()) is FrozenBackbone
    assert FastBackbone(own).current().backbone is own


def storages(model):
    return {key: (id(t), t.data_ptr(), t.stride(), t._version) for key, t in model.state_dict(keep_vars=True).items()}


def predict(model):
    predictor = fs.FewShotPredictor(model, size=65)
    photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    mask = np.zeros((60, 80), bool)
    mask[10:40, 10:40] = True
    predictor.set_support(photo, mask)
    predictor.predict(photo)


def evaluate(model):
    fs.evaluate(model, episodes(), fs.FewShotIoU(CLASSES))


@pytest.mark.parametrize("name", ["tiny", "mobilenet_v2", "timm resnet18"])
@pytest.mark.parametrize("use", [predict, evaluate])
def test_use_leaves_a_model_and_its_tensors_as_they_were(use, name):
    model = model_of(name).train()
    modules, before = dict(model.named_modules()), storages(model)
    use(model)
    assert model.fast is None
    assert storages(model) == before
    assert dict(model.named_modules()) == modules
    assert vars(model).keys() == vars(model_of("tiny")).keys()


@pytest.mark.parametrize("use", [predict, evaluate])
def test_use_runs_the_faster_form_and_calls_what_is_hooked(use, monkeypatch):
    runs, model = [], model_of("tiny").eval()
    run = FoldedBackbone._run
    monkeypatch.setattr(FoldedBackbone, "_run", lambda *args: runs.append(1) or run(*args))
    use(model)
    assert runs
    runs.clear()
    model.backbone.last[0].register_forward_hook(lambda *_: None)
    use(model)
    assert not runs


def test_under_autocast_weights_are_cast_once_and_features_stay(monkeypatch):
    model = model_of("mobilenet_v2").eval().fuse()
    images = batch()[2]
    kept = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.autocast("cpu", torch.bfloat16):
        first = model.fast.current()
        found = model.encode_query(images)
        assert model.fast.current() is first
        uncast = FoldedBackbone(folded(model.backbone))
        assert torch.equal(found.high, uncast.high(uncast.maps(images)[0]))
    kinds = {module.weight.dtype for module in first.backbone.modules() if isinstance(module, nn.Conv2d)}
    assert kinds == {torch.bfloat16}
    assert model.fast.current() is not first
    assert model.encode_query(images).high.dtype == torch.float32
    assert all(
        value.dtype == kept[key].dtype and torch.equal(value, kept[key]) for key, value in model.state_dict().items()
    )


def test_under_autocast_shared_modules_are_not_cast():
    model = model_of("tiny").eval().fuse()
    with torch.autocast("cpu", torch.bfloat16):
        model.fast.current()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_model_of_half_precision_is_not_cast_again():
    model = model_of("tiny").eval().bfloat16().fuse()
    plain = model.fast.current()
    with torch.autocast("cpu", torch.float16):
        assert model.fast.current() is plain


def test_a_channels_last_model_stays_so_on_an_accelerator():
    with torch.device("meta"):
        network_ = network("tiny").to(memory_format=torch.channels_last).eval()
    made = folded(network_)
    weights = [
        module.weight for module in made.modules() if isinstance(module, nn.Conv2d) and module.weight.shape[1] > 1
    ]
    assert weights
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


def test_fused_models_run_on_meta_and_fake_tensors_and_under_vmap():
    images = torch.rand(2, 3, 64, 64)
    model = model_of("tiny").eval().fuse()
    expected = model.encode_query(images).high
    weights = dict(model.named_parameters())
    twice = {name: torch.stack([weight, 2 * weight]) for name, weight in weights.items()}

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, batch):
            return self.model.encode_query(batch).high

    found = torch.vmap(
        lambda tensors: torch.func.functional_call(
            Encoder(), {f"model.{name}": tensor for name, tensor in tensors.items()}, (images,)
        )
    )(twice)
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found[1], expected)
    with FakeTensorMode():
        fake = model_of("tiny").eval().fuse()
        for _ in range(2):
            assert fake.encode_query(torch.rand(2, 3, 64, 64)).high.shape == expected.shape
    assert model.to("meta").encode_query(images.to("meta")).high.shape == expected.shape
