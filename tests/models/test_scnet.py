"""The model's promises: sizes, stages, branches, frozen norms, precision, devices, compilation."""

import copy
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

import fewshotseg as fs
from _models import tiny
from fewshotseg.models import scnet


def batch(size=(48, 40), *, episodes=2, shots=1, query_size=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    query_size = query_size or size

    def masks(*shape):
        labels = torch.randint(0, 2, shape, generator=generator)
        labels[..., :3] = 255
        return labels

    return (
        torch.rand(episodes, shots, 3, *size, generator=generator),
        masks(episodes, shots, *size),
        torch.rand(episodes, 3, *query_size, generator=generator),
        masks(episodes, *query_size),
    )


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    return model


# Shapes and stages


@pytest.mark.parametrize("backbone", ["resnet50", "vgg16_bn", "mobilenet_v2", "resnet50s"])
@pytest.mark.parametrize(("size", "query_size"), [((32, 32), (32, 32)), ((65, 97), (47, 33))])
def test_any_size_from_32_pixels_up(backbone, size, query_size):
    model = fs.build_scnet(backbone, hidden_channels=8).eval()
    support, support_masks, query, query_masks = batch(size, episodes=1, shots=2, query_size=query_size)
    with torch.no_grad():
        output = model(support, support_masks, query, query_masks)
    assert output.logits.shape == (1, 2, *query_size)
    assert output.logits.isfinite().all()
    assert output.loss.isfinite()


def test_stages_give_what_forward_gives():
    model = tiny().eval()
    support, support_masks, query, _ = batch(shots=3, query_size=(33, 64))
    with torch.no_grad():
        encoded = model.encode_support(support, support_masks)
        staged = model.segment(encoded, model.encode_query(query))
        assert torch.equal(staged, model(support, support_masks, query).logits)


def test_one_support_serves_many_queries():
    model = tiny().eval()
    support, support_masks, query, _ = batch(episodes=3)
    with torch.no_grad():
        one = model.encode_support(support[:1], support_masks[:1])
        together = model.segment(one, model.encode_query(query))
        apart = [model.segment(one, model.encode_query(image[None])) for image in query]
    assert_close(together, torch.cat(apart))
    with pytest.raises(ValueError, match="support must have batch 1 or the query's, 3, got 2"):
        model.segment(model.encode_support(support[:2], support_masks[:2]), model.encode_query(query))


def test_both_roles_at_once_are_the_two_apart():
    model, images, masks = tiny().eval(), torch.rand(2, 3, 40, 48), torch.randint(0, 2, (2, 40, 48))
    support, query = model.encode_both(images, masks)
    assert_close(support, model.encode_support(images[:, None], masks[:, None]))
    assert_close(query, model.encode_query(images))
    with pytest.raises(ValueError, match=r"masks must have the B of images, 2, got shape"):
        model.encode_both(images, masks[:1])


def test_five_copies_of_a_support_are_one_support():
    model = tiny().eval()
    support, support_masks, query, _ = batch()
    with torch.no_grad():
        once = model(support, support_masks, query).logits
        copies = model(support.expand(-1, 5, -1, -1, -1), support_masks.expand(-1, 5, -1, -1), query).logits
    assert_close(copies, once, atol=1e-6, rtol=1e-5)


def test_shots_are_averaged():
    model = tiny().eval()
    support, support_masks, _, _ = batch(shots=3)
    with torch.no_grad():
        together = model.encode_support(support, support_masks)
        apart = [model.encode_support(support[:, [k]], support_masks[:, [k]]) for k in range(3)]
    assert_close(together.prototype, torch.stack([shot.prototype for shot in apart]).mean(0))
    assert torch.equal(together.high, torch.cat([shot.high for shot in apart], dim=1))


def test_bool_masks_and_float_weights_are_masks_too():
    model = tiny().eval()
    support, support_masks, query, _ = batch()
    with torch.no_grad():
        expected = model(support, support_masks, query).logits
        foreground = support_masks == 1
        assert torch.equal(model(support, foreground, query).logits, expected)
        assert torch.equal(model(support, foreground.float(), query).logits, expected)


# What the second branch may and may not change


@pytest.mark.parametrize(
    "settings",
    [
        {"num_prototypes": 0},
        {"num_prototypes": 5},
        {"self_contrast_weight": 0.0},
        {"self_contrast_weight": 1.0},
        {"grid_bins": 4},
        {"num_prototypes": 1, "background_source": "support"},
        {"background_reducer": "support", "background_prior": "complement"},
    ],
    ids=str,
)
@pytest.mark.parametrize("with_masks", [False, True])
def test_eval_output_does_not_depend_on_the_second_branch_by_one_bit(settings, with_masks):
    reference, other = tiny().eval(), tiny(**settings).eval()
    other.load_state_dict(reference.state_dict())
    support, support_masks, query, query_masks = batch()
    masks = query_masks if with_masks else None
    with torch.no_grad():
        torch.manual_seed(1)
        expected = reference(support, support_masks, query).logits
        torch.manual_seed(2)
        found = other(support, support_masks, query, masks).logits
    assert torch.equal(found, expected)


def test_inference_draws_nothing():
    model = tiny().eval()
    support, support_masks, query, _ = batch()
    before = torch.get_rng_state()
    model(support, support_masks, query)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_loss_is_equation_9(weight, training):
    model = without_dropout(tiny(self_contrast_weight=weight, aux_weight=0.7)).train(training)
    output = model(*batch(), generator=torch.Generator().manual_seed(3))
    parts = output.losses
    first = parts["main"] + 0.7 * parts["aux"]
    second = parts["self_contrast_main"] + 0.7 * parts["self_contrast_aux"]
    assert_close(output.loss, (1 - weight) * first + weight * second)

    baseline = without_dropout(tiny(num_prototypes=0, aux_weight=0.7)).train(training)
    assert_close(baseline(*batch()).loss, first)


def test_one_pass_and_two_passes_agree():
    model = without_dropout(tiny())
    together = model.train()(*batch(), generator=torch.Generator().manual_seed(3))
    apart = model.eval()(*batch(), generator=torch.Generator().manual_seed(3))
    assert_close(together.logits, apart.logits)
    for name, value in apart.losses.items():
        assert_close(together.losses[name], value)


@pytest.mark.parametrize("setting", [{"num_prototypes": 0}, {"self_contrast_weight": 0.0}], ids=str)
def test_without_the_branch_nothing_of_it_runs(setting):
    model = tiny(**setting)
    before = torch.get_rng_state()
    output = without_dropout(model)(*batch())
    assert torch.equal(torch.get_rng_state(), before)
    assert set(output.losses) == {"main", "aux"}


def test_second_branch_is_the_self_contrastive_loss_with_the_shared_head():
    model = without_dropout(tiny())
    support, support_masks, query, query_masks = batch()
    output = model(support, support_masks, query, query_masks, generator=torch.Generator().manual_seed(5))
    encoded = model.encode_query(query)

    def compare(features, prototype_map):
        no_prior = torch.zeros(len(features), 1, *features.shape[2:])
        return model.head(features, prototype_map, no_prior).logits

    alone = fs.SelfContrastiveLoss(3)(
        encoded.features, encoded.high, query_masks, compare, generator=torch.Generator().manual_seed(5)
    )
    assert_close(output.losses["self_contrast_main"], alone)


@pytest.mark.parametrize(
    "settings",
    [
        {"background_prior": "shared"},
        {"background_prior": "complement"},
        {"background_reducer": "support"},
        {"grid_bins": 2},
        {"num_prototypes": 1, "background_source": "support"},
        {"num_prototypes": 1},
    ],
    ids=str,
)
def test_every_choice_of_the_second_branch_changes_its_loss_only(settings):
    def losses(**settings):
        support, support_masks, query, query_masks = batch()
        model = without_dropout(tiny(**settings)).double()
        generator = torch.Generator().manual_seed(3)
        return model(support.double(), support_masks, query.double(), query_masks, generator=generator).losses

    expected, found = losses(), losses(**settings)
    assert_close(found["main"], expected["main"])
    assert abs(found["self_contrast_main"] - expected["self_contrast_main"]) > 1e-7


def test_background_of_supports_is_only_encoded_for_table_4():
    support, support_masks, _, _ = batch()
    assert tiny().encode_support(support, support_masks).background is None


def test_support_background_is_pooled_from_the_support():
    model = without_dropout(tiny(num_prototypes=1, background_source="support"))
    support, support_masks, _, _ = batch()
    encoded = model.encode_support(support, support_masks)
    deepest, shallow = model.backbone.mid(support[:, 0])
    features = model.reduce_support(torch.cat([deepest, shallow], dim=1))
    from fewshotseg.ops import foreground_weights

    weights = foreground_weights(support_masks[:, 0] == 0, features.shape[2:])
    assert_close(encoded.background, fs.masked_average_pool(features, weights, eps=5e-4))


# Degenerate episodes


@pytest.mark.parametrize("value", [0, 1, 255])
@pytest.mark.parametrize("which", ["support", "query"])
@pytest.mark.parametrize(
    "settings", [{}, {"num_prototypes": 1, "background_source": "support"}], ids=["query", "support"]
)
def test_masks_of_one_value_give_finite_losses_and_gradients(value, which, settings):
    model = tiny(**settings)
    support, support_masks, query, query_masks = batch()
    (support_masks if which == "support" else query_masks)[:] = value
    output = model(support, support_masks, query, query_masks)
    output.loss.backward()
    assert output.logits.isfinite().all()
    assert output.loss.isfinite()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    if which == "query" and value == 255:
        assert output.loss == 0


def test_empty_support_gives_zero_prototype():
    support, support_masks, _, _ = batch()
    encoded = tiny().eval().encode_support(support, torch.zeros_like(support_masks))
    assert not encoded.prototype.any()
    assert not encoded.weights.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: lambda x: x[0]}, r"support images must have shape \(B, S, 3, H, W\), got"),
        ({0: lambda x: x[:, :0], 1: lambda x: x[:, :0]}, "support images must have shape .* and hold something, got"),
        ({0: lambda x: x[:, :, :2]}, "support images must have 3 channels"),
        ({0: lambda x: x[..., :16], 1: lambda x: x[..., :16]}, "sides of at least 32 pixels"),
        ({1: lambda x: x[..., :-1]}, "support masks must have the W of support images"),
        ({2: lambda x: x[0]}, r"query_images must have shape \(B, 3, H, W\), got"),
        ({2: lambda x: x[:1], 3: lambda x: x[:1]}, "support images must have the B of query_images, 1, got"),
        ({3: lambda x: x[:1]}, "query_masks must have the B of query_images, 2, got"),
        ({3: lambda x: x[:, None]}, r"query_masks must have shape \(B, H, W\), got"),
    ],
)
def test_wrong_shapes_are_refused_in_one_sentence(change, message):
    arguments = list(batch())
    for position, function in change.items():
        arguments[position] = function(arguments[position])
    with pytest.raises(ValueError, match=message):
        tiny()(*arguments)


def test_no_shots_are_refused():
    with pytest.raises(ValueError, match="shots must hold at least one support, got none"):
        fs.SCNet.merge_shots([])


def test_integer_images_are_refused():
    support, support_masks, query, _ = batch()
    with pytest.raises(
        TypeError, match=r"query images must be a floating-point tensor of 16 bits or more, got torch.uint8"
    ):
        tiny()(support, support_masks, query.byte())


# Frozen backbone


def test_frozen_backbone_stays_frozen_under_a_parent():
    model = tiny()
    parent = nn.ModuleDict({"model": model}).train()
    before = copy.deepcopy(model.backbone.state_dict())
    assert not model.backbone.training
    output = parent["model"](*batch())
    output.loss.backward()
    assert all(torch.equal(value, before[key]) for key, value in model.backbone.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    trained = [parameter for name, parameter in model.named_parameters() if not name.startswith("backbone.")]
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in trained)


def test_batch_statistics_are_used_and_updated_in_training_only():
    model = tiny(norm_stats="batch")
    model.eval()(*batch())
    assert model.backbone.deep[1].num_batches_tracked == 0
    model.train()(*batch(shots=2))
    assert model.backbone.deep[1].num_batches_tracked == 3


# Precision, devices, compilation


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_models_of_other_dtypes_train_and_infer(dtype):
    model = tiny().to(dtype)
    support, support_masks, query, query_masks = batch()
    output = model(support.to(dtype), support_masks, query.to(dtype), query_masks)
    output.loss.backward()
    assert output.logits.dtype == dtype
    assert output.loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    assert model.eval()(support.to(dtype), support_masks, query.to(dtype)).logits.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_trains_near_the_float32_loss(dtype):
    model = without_dropout(tiny())
    expected = model(*batch(), generator=torch.Generator().manual_seed(1)).loss
    with torch.autocast("cpu", dtype=dtype):
        output = model(*batch(), generator=torch.Generator().manual_seed(1))
    output.loss.backward()
    assert output.loss.dtype == torch.float32
    assert_close(output.loss, expected, atol=2e-2, rtol=0)
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    "settings", [{}, {"grid_bins": 3}, {"num_prototypes": 1, "background_source": "support"}], ids=str
)
def test_fake_cuda_tensors_go_through_forward_and_loss_without_synchronisation(settings):
    with FakeTensorMode(), torch.device("cuda"):
        model = fs.build_scnet("mobilenet_v2", hidden_channels=8, **settings)
        images, labels = torch.rand(2, 2, 3, 65, 65), torch.zeros(2, 2, 65, 65, dtype=torch.long)
        output = model(images, labels, images[:, 0], labels[:, 0])
        assert output.loss.device.type == "cuda"
        assert output.logits.device.type == "cuda"
        assert model.eval()(images, labels, images[:, 0]).logits.shape == (2, 2, 65, 65)


def test_compiles_without_a_graph_break():
    model = without_dropout(tiny(num_prototypes=1))  # one cluster: the random start does not matter
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert_close(compiled(*batch()).loss, model(*batch()).loss)
    model.eval()
    support, support_masks, query, _ = batch(shots=2)
    with torch.no_grad():
        assert_close(compiled(support, support_masks, query).logits, model(support, support_masks, query).logits)


def test_exports():
    model = tiny().eval()
    arguments = batch(shots=2)[:3]
    exported = torch.export.export(model, arguments).module()
    assert_close(exported(*arguments).logits, model(*arguments).logits)


def test_gradients_of_both_branches_are_right():
    model = without_dropout(tiny(num_prototypes=1, hidden_channels=2, bins=(1.0,))).double()
    support, support_masks, query, query_masks = batch((32, 32), episodes=1)
    weight = model.reduce_query[0].weight

    def loss(values):
        arguments = (support.double(), support_masks, query.double(), query_masks)
        return torch.func.functional_call(model, {"reduce_query.0.weight": values}, arguments).loss

    assert torch.autograd.gradcheck(loss, weight.detach().clone().requires_grad_(), nondet_tol=0.0)


@pytest.mark.parametrize("amp", [False, True])
def test_an_episode_can_be_learned(amp):
    torch.manual_seed(0)
    model = without_dropout(tiny(hidden_channels=16))
    images = torch.rand(2, 3, 48, 48) * 0.2
    masks = torch.zeros(2, 48, 48, dtype=torch.long)
    masks[0, 8:32, 8:32] = masks[1, 16:40, 16:40] = 1
    images += masks[:, None] * torch.tensor([0.8, 0.2, 0.0])[:, None, None]
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(60):
        with torch.autocast("cpu", dtype=torch.bfloat16) if amp else nullcontext():
            output = model(images[:1, None], masks[:1, None], images[1:], masks[1:])
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    found = model.eval()(images[:1, None], masks[:1, None], images[1:]).logits.argmax(dim=1)
    overlap = ((found == 1) & (masks[1:] == 1)).sum() / ((found == 1) | (masks[1:] == 1)).sum()
    assert overlap > 0.7


# Density of the supports' points


def test_the_density_ratio_adds_to_the_logit_of_the_foreground():
    support, support_masks, query, _ = batch(shots=3, query_size=(33, 64))
    head = tiny().eval()
    with torch.no_grad():
        before = head(support, support_masks, query).logits
        head.config = replace(head.config, density_weight=0.25)
        after = head(support, support_masks, query).logits
        free = fs.PrototypeSegmenter(
            head.backbone, fs.PrototypeConfig(score="density", kappa=40.0, scale=40.0, bias=0.0)
        )
        densities = free.eval()(support, support_masks, query)
    assert_close(after[:, 0], before[:, 0])
    assert_close(after[:, 1] - before[:, 1], 0.25 * (densities[:, 1] - densities[:, 0]), atol=1e-4, rtol=1e-4)
    assert (after[:, 1] - before[:, 1]).abs().max() > 0.01


def test_densities_tell_the_head_where_to_look():
    support, support_masks, query, query_masks = batch(shots=2)
    model = without_dropout(tiny(prior="density"))
    free = fs.PrototypeSegmenter(model.backbone, fs.PrototypeConfig(score="density", kappa=40.0, scale=20.0, bias=0.0))
    with torch.no_grad():
        answer = free.segment(
            free.encode_support(support, support_masks), free.encode_query(query)._replace(size=(6, 5))
        )
        seen = []
        model.head.register_forward_pre_hook(lambda head, inputs, options: seen.append(inputs[2]), with_kwargs=True)
        model.eval()(support, support_masks, query)
    assert_close(seen[0], answer.softmax(dim=1)[:, 1:], atol=1e-4, rtol=1e-4)
    model.train()(support, support_masks, query, query_masks).loss.backward()
    assert_close(seen[1][:2], seen[0], atol=1e-4, rtol=1e-4)
    assert model.head.fuse[0].weight.grad.isfinite().all()


def test_points_must_be_there_where_they_are_compared():
    model = tiny().eval()
    support, support_masks, query, _ = batch()
    encoded = model.encode_support(support, support_masks), model.encode_query(query)
    model.config = replace(model.config, density_weight=0.5)
    with pytest.raises(ValueError, match="support and query must be encoded by a model with the settings of this one"):
        model.segment(*encoded)


def test_points_of_shots_are_put_together_in_any_order():
    model = tiny(density_weight=0.5).eval()
    support, support_masks, query, _ = batch(shots=3)
    with torch.no_grad():
        together = model.encode_support(support, support_masks)
        apart = [model.encode_support(support[:, [k]], support_masks[:, [k]]) for k in (2, 0, 1)]
        expected = model.segment(together, model.encode_query(query))
        assert_close(model.segment(model.merge_shots(apart), model.encode_query(query)), expected, atol=1e-4, rtol=1e-4)
        both, as_query = model.encode_both(support[:, 0], support_masks[:, 0])
        one = model.encode_support(support[:, :1], support_masks[:, :1])
        assert_close(both, one)
        assert_close(as_query, model.encode_query(support[:, 0]))


def test_the_background_counts_in_the_faster_form_too():
    model = fs.build_scnet("mobilenet_v2", hidden_channels=8, bins=(1.0,), density_weight=0.5).eval()
    support, support_masks, query, _ = batch(size=(192, 192), episodes=1)
    support_masks[:] = 0
    support_masks[..., :20, :20] = 1
    with torch.no_grad():
        expected = model(support, support_masks, query).logits
        assert_close(model.fuse()(support, support_masks, query).logits, expected, atol=1e-4, rtol=1e-4)


def test_a_model_without_a_density_weight_keeps_no_points():
    support, support_masks, query, _ = batch()
    model = tiny().eval()
    assert model.encode_support(support, support_masks).points is None
    assert model.encode_query(query).deepest is None


def test_the_loss_does_not_know_of_densities():
    def loss(**settings):
        model = without_dropout(tiny(**settings))
        return model(*batch(), generator=torch.Generator().manual_seed(3)).loss

    assert_close(loss(density_weight=0.5), loss())


def test_densities_are_computed_once(monkeypatch):
    model = tiny(prior="density", density_weight=0.5).eval()
    calls, compute = [], scnet.density_logits
    monkeypatch.setattr(scnet, "density_logits", lambda *given: calls.append(1) or compute(*given))
    images, masks, queries, _ = batch()
    model.segment(model.encode_support(images, masks), model.encode_query(queries))
    assert len(calls) == 1


# What the prior of densities does not need


def test_the_last_stage_of_the_backbone_runs_only_in_training():
    model = tiny(prior="density")
    calls = []
    high = model.backbone.high
    model.backbone.high = lambda deepest: calls.append(1) or high(deepest)
    supports, masks, query, query_masks = batch()
    with torch.no_grad():
        support, encoded = model.eval().encode_support(supports, masks), model.encode_query(query)
        model.segment(support, encoded)
        model.encode_both(query, query_masks)
    assert not calls
    assert support.high is None
    assert encoded.high is None
    model.train()(supports, masks, query, query_masks)
    assert len(calls) == 1


def test_a_training_step_needs_what_only_it_keeps():
    model = tiny(prior="density")
    assert model.encode_query(batch()[2], for_loss=True).high is not None


def test_encodings_without_high_level_features_are_no_input_of_the_other_prior():
    model, other = tiny(prior="density"), tiny()
    supports, masks, query, _ = batch()
    with pytest.raises(
        ValueError, match="by a model with the settings of this one, got them without high-level features"
    ):
        other.segment(model.encode_support(supports, masks), model.encode_query(query))
