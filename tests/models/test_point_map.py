"""Densities after a learned map: what it computes, what it learns from, and what it leaves alone."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

import _reference
import fewshotseg as fs
from _models import TinyBackbone, tiny
from fewshotseg.losses import segmentation_loss
from fewshotseg.models.point_map import CLUTTER, CLUTTER_OF_IMAGE, CLUTTER_SHARE, KAPPA, STEP, PointMap
from fewshotseg.ops import density_logits


def learned(**settings):
    """A model whose map is no longer the identity."""
    model = tiny(**{"prior": "density", "learned_points": True, **settings})
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout2d):
            module.p = 0.0
    return moved(model)


def moved(module):
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "linear" in name:
                parameter.normal_()
            elif name.endswith("log_kappa"):
                parameter.fill_(math.log(7.0))
            elif name.endswith("point_map.bias") or name == "bias":
                parameter.fill_(-0.4)
    return module


def batch(*, shots=2, side=48):
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(0, 2, (2, shots + 1, side, side), generator=generator)
    masks[..., :5] = 255
    images = torch.rand(2, shots + 1, 3, side, side, generator=generator)
    return images[:, 1:], masks[:, 1:], images[:, 0], masks[:, 0]


def inputs(dtype=torch.float64, *, channels=4):
    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    foreground = torch.rand(2, 6, generator=generator, dtype=torch.float64).to(dtype)
    return normal(2, channels, 3, 2), normal(2, 6, channels), foreground, (1 - foreground) * 0.5


def test_the_definition():
    point_map = moved(PointMap(4).double())
    features, points, foreground, background = inputs()
    weight, bias = (np.asarray(part.detach()) for part in (point_map.linear.weight, point_map.linear.bias))

    def move(vector):
        vector = vector / np.linalg.norm(vector)
        return vector + STEP * (weight @ vector + bias)

    found = point_map(features, points, foreground, background).detach()
    assert found.shape == (2, 1, 3, 2)
    for image in range(2):
        maps = np.apply_along_axis(move, 0, np.asarray(features[image]))
        examples = np.apply_along_axis(move, 1, np.asarray(points[image]))
        for place in np.ndindex(3, 2):
            location = maps[:, *place]

            def density(weights, location=location, examples=examples):
                kernels = [
                    w * math.exp(7.0 * _reference.cosine(location, p)) for w, p in zip(weights, examples, strict=True)
                ]
                return math.log(sum(kernels) / float(sum(weights)))

            expected = density(foreground[image]) - density(background[image]) - 0.4
            assert float(found[image, 0, *place]) == pytest.approx(expected, abs=1e-9)


def test_before_training_it_compares_the_points_as_they_are():
    features, points, foreground, background = inputs()
    densities = density_logits(features, points, foreground, background, kappa=KAPPA)
    found = PointMap(4).double()(features, points, foreground, background)
    assert_close(found, densities[:, 1:] - densities[:, :1], rtol=1e-6, atol=1e-6)  # the log of kappa is rounded
    assert not PointMap(4).linear.weight.any()


def test_gradients():
    point_map = moved(PointMap(3).double())
    tensors = inputs(channels=3)
    names = [name for name, _ in point_map.named_parameters()]

    def run(*values):
        return torch.func.functional_call(point_map, dict(zip(names, values, strict=True)), tensors)

    assert torch.autograd.gradcheck(run, tuple(point_map.parameters()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtypes_and_layouts(dtype):
    point_map = moved(PointMap(4))
    exact = copy.deepcopy(point_map).double()(*inputs())
    features, points, *shares = inputs(dtype)
    tolerance = 0.2 if dtype == torch.bfloat16 else 0.03 if dtype == torch.float16 else 1e-4
    found = point_map(features.mT.contiguous().mT, points.mT.contiguous().mT, *shares)
    assert found.dtype == torch.float32
    assert_close(found.double(), exact, rtol=0, atol=tolerance)


def test_degenerate_inputs():
    point_map = moved(PointMap(4))
    features, points, foreground, background = inputs(torch.float32)
    features[0, :, 0, 0] = torch.nan
    features[0, :, 1, 1] = 0
    points[0, 0], points[0, 1] = torch.inf, 0
    for shares in [(foreground, background), (0 * foreground, background), (foreground, 0 * background)]:
        found = point_map(features, points, *shares)
        assert found.isfinite().all()
        found.sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in point_map.parameters())
    nothing = point_map(features, points, 0 * foreground, background)
    assert (nothing < 0).all()
    assert point_map(features[:0], points[:0], foreground[:0], background[:0]).shape == (0, 1, 3, 2)
    with pytest.raises(ValueError, match="channels must be at least 1, got 0"):
        PointMap(0)


def test_on_cuda_nothing_waits():
    with FakeTensorMode(), torch.device("cuda"):
        point_map = PointMap(4)
        found = point_map(torch.rand(2, 4, 3, 2), torch.rand(2, 6, 4), torch.rand(2, 6), torch.rand(2, 6))
        point_map.remember(torch.rand(2, 4, 3, 2), torch.zeros(2, 5, 5).long())
    assert found.device.type == point_map.clutter.device.type == "cuda"


# Clutter


def test_clutter_is_a_fifth_of_the_background():
    features, points, foreground, background = inputs()
    plain, point_map = PointMap(4).double().eval(), PointMap(4).double().eval()
    point_map.clutter[:3] = torch.nn.functional.normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(2)))
    clutter = point_map.clutter[:3].expand(2, -1, -1)
    only_clutter = plain(
        features,
        torch.cat([points, clutter], dim=1),
        *(
            torch.cat(sides, dim=1)
            for sides in [(foreground, torch.zeros(2, 3)), (torch.zeros_like(background), torch.ones(2, 3))]
        ),
    )
    foreground_over_each = torch.stack([plain(features, points, foreground, background), only_clutter])
    shares = torch.tensor([1 - CLUTTER_SHARE, CLUTTER_SHARE], dtype=torch.float64).log()[:, None, None, None, None]
    assert_close(point_map(features, points, foreground, background), -(shares - foreground_over_each).logsumexp(dim=0))
    assert_close(point_map(features, points, foreground, 0 * background), only_clutter)
    # The loss is that of the example's own background.
    assert torch.equal(*(each.train()(features, points, foreground, background) for each in (plain, point_map)))


def test_clutter_has_the_same_share_however_many_points_an_example_has():
    features, points, foreground, background = inputs()
    point_map = PointMap(4).double().eval()
    point_map.clutter[0, 0] = 1
    many = (part.repeat(1, 30000, *[1] * (part.ndim - 2)) for part in (points, foreground, background))
    assert_close(point_map(features, *many), point_map(features, points, foreground, background))


def test_the_latest_points_of_labelled_places_are_remembered():
    point_map = PointMap(2)
    features = torch.zeros(3, 2, 2, 4)
    features[:, 0, :, 0], features[:, 1, :, 1:] = 5, 7
    masks = torch.full((3, 2, 4), 255)
    masks[..., 0] = 1  # labelled where features point along the first axis
    point_map.remember(features, masks)
    drawn = 3 * CLUTTER_OF_IMAGE
    assert point_map.clutter[:drawn].tolist() == [[1.0, 0.0]] * drawn
    assert not point_map.clutter[drawn:].any()
    for _ in range(CLUTTER // drawn):
        point_map.remember(features, torch.where(masks == 1, 255, 0))
    assert point_map.oldest == (CLUTTER // drawn + 1) * drawn % CLUTTER
    assert point_map.clutter[: point_map.oldest].tolist() == [[0.0, 1.0]] * int(point_map.oldest)
    assert point_map.clutter[point_map.oldest : drawn].tolist() == [[1.0, 0.0]] * int(drawn - point_map.oldest)
    point_map.remember(features.repeat(200, 1, 1, 1), masks.repeat(200, 1, 1))  # more than there is room for
    assert point_map.clutter.tolist() == [[1.0, 0.0]] * CLUTTER


def test_points_that_are_not_finite_are_no_clutter():
    point_map = PointMap(2)
    point_map.remember(torch.full((1, 2, 2, 2), torch.nan), torch.zeros(1, 2, 2).long())
    assert not point_map.clutter.any()


def test_a_model_remembers_clutter_in_training_alone():
    model = learned()
    before = model.point_map.clutter.clone()
    model.eval()(*batch())
    assert torch.equal(model.point_map.clutter, before)
    first, second = (copy.deepcopy(model).train() for _ in range(2))
    for each in (first, second):
        each(*batch(), generator=torch.Generator().manual_seed(0)).loss.backward()
    assert (first.point_map.clutter[: 2 * CLUTTER_OF_IMAGE] != 0).any(dim=1).all()
    assert torch.equal(first.point_map.clutter, second.point_map.clutter)


# In SCNet


def test_its_loss_is_added_and_moves_nothing_else():
    model, plain = learned(), learned(learned_points=False)
    plain.load_state_dict(model.state_dict(), strict=False)
    support, query = model.encode_support(*batch()[:2]), model.encode_query(batch()[2])
    parts = support.points, support.point_foreground, support.point_background
    ratio = model.point_map(query.deepest, *(part.flatten(1, 2) for part in parts))
    outputs = [each(*batch(), generator=torch.Generator().manual_seed(3)) for each in (model, plain)]
    expected = segmentation_loss(torch.cat([torch.zeros_like(ratio), ratio], dim=1), batch()[3])
    assert_close(outputs[0].losses["points"], expected)
    assert_close(outputs[0].loss, outputs[1].loss + expected)
    for output in outputs:
        output.loss.backward()
    for name, parameter in plain.named_parameters():
        if parameter.grad is not None:
            assert_close(model.get_parameter(name).grad, parameter.grad)
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.point_map.parameters())


def test_the_weight_weighs_the_density_after_the_map():
    model = learned().eval()
    supports, masks, query, _ = batch()
    with torch.no_grad():
        support, encoded = model.encode_support(supports, masks), model.encode_query(query)
        without = model.segment(support, encoded)
        model.config = replace(model.config, density_weight=1.5)
        parts = support.points, support.point_foreground, support.point_background
        ratio = model.point_map(encoded.deepest, *(part.flatten(1, 2) for part in parts))
        added = model.segment(support, encoded) - without
    assert_close(added[:, 0], torch.zeros_like(added[:, 0]), atol=1e-5, rtol=0)
    assert_close(added[:, 1:], fs.ops.resize_bilinear(1.5 * ratio, (48, 48)), atol=1e-4, rtol=1e-4)


def test_without_a_weight_the_map_changes_no_logits():
    model, plain = learned().eval(), learned(learned_points=False).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    with torch.no_grad():
        assert_close(model(*batch()[:3]).logits, plain(*batch()[:3]).logits)


@pytest.mark.parametrize("prior", ["similarity", "density"])
def test_points_are_those_of_the_map_that_the_backbone_gives(prior):
    model = tiny(prior=prior, learned_points=True)
    assert model.point_map.linear.in_features == 12
    assert model.train()(*batch()).losses["points"].isfinite()
    whole = fs.build_scnet("timm/convnext_atto", backbone_weights=None, hidden_channels=8, learned_points=True)
    assert whole.eval()(*batch(side=64)).losses["points"].isfinite()


def test_building_it_leaves_the_backbone_as_it_was():
    torch.manual_seed(0)
    backbone = TinyBackbone()
    before = copy.deepcopy(backbone.state_dict())
    fs.SCNet(backbone, fs.SCNetConfig(hidden_channels=8, bins=(1.0,), learned_points=True))
    assert_close(backbone.state_dict(), before, rtol=0, atol=0)


def test_it_is_saved_with_the_model(tmp_path):
    model = moved(fs.build_scnet("tiny", backbone_weights=None, hidden_channels=8, bins=(1.0,), learned_points=True))
    fs.save_model(model, tmp_path / "model.pth")
    again = fs.load_model(tmp_path / "model.pth")
    assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)
    own = moved(tiny(learned_points=True))
    fs.save_model(own, tmp_path / "own.pth")
    assert_close(fs.load_model(tmp_path / "own.pth", backbone=TinyBackbone()).state_dict(), own.state_dict())
    other = fs.build_scnet("tiny", backbone_weights=None, hidden_channels=8, bins=(1.0,))
    with pytest.raises(ValueError, match="point_map"):
        fs.load_weights(other, tmp_path / "model.pth")


def test_compiles_without_a_graph_break():
    model = learned(num_prototypes=1, density_weight=1.0)
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend="eager")
    for seed in range(2):  # the second step has clutter of the first
        losses = []
        for each in (compiled, model):
            torch.manual_seed(seed)
            losses.append(each(*batch()).loss)
        assert_close(*losses)
    model.eval()
    compiled.eval()
    with torch.no_grad():
        assert_close(compiled(*batch()[:3]).logits, model(*batch()[:3]).logits)


def test_the_setting_is_a_bool():
    with pytest.raises(TypeError, match="learned_points must be True or False, got str"):
        fs.SCNetConfig(learned_points="yes")
