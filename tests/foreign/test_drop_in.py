"""The loss and the pieces in models of other methods: numbers are those of their own code, and they train."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close
from torch.utils.data import default_collate

import fewshotseg as fs
from _foreign import Hsnet, Mining, Panet, Pfenet, Ssp, bam_weights, bilinear, hsnet_votes
from _inputs import choice, generator
from fewshotseg.data import EpisodeDataset, SyntheticSource, padded_eval

STEPS = 40


@pytest.fixture(scope="module")
def batch():
    """Four episodes of two shots, without void."""
    source = SyntheticSource(30, num_classes=3, size=64)
    episodes = EpisodeDataset(source, [1, 2, 3], shots=2, length=4, transform=padded_eval(65))
    found = default_collate([episodes[number] for number in range(4)])
    support_masks, query_mask = (
        torch.where(masks == 255, 0, masks) for masks in (found.support_masks, found.query_mask)
    )
    return found.support_images, support_masks, found.query_image, query_mask


def made(kind):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind()


def falls(model, losses, *, without=("none of them",)):
    """Whether each loss falls in some steps on their sum, in which every parameter takes part, finitely."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    history = []
    for _ in range(STEPS):
        parts = losses()
        optimizer.zero_grad()
        sum(parts).backward()
        for name, parameter in model.named_parameters():
            assert name.startswith(without) or parameter.grad.isfinite().all(), name
        optimizer.step()
        history.append([part.item() for part in parts])
    first, last = (torch.tensor(part).mean(dim=0) for part in (history[:5], history[-5:]))
    return bool((last < first).all())


# Two prototypes: MiningFSS, PANet, SSP


def threshold_compare(scale):
    """What the loss's page says is meant for heads without layers of their own."""

    def compare(features, prototype_map):
        same = torch.cosine_similarity(features, prototype_map, dim=1)
        return scale * torch.stack([torch.full_like(same, 0.5), same], dim=1)

    return compare


@pytest.mark.parametrize(("kind", "resize"), [(Mining, "features"), (Panet, "features"), (Ssp, "masks")])
def test_prototypes_and_cosines_are_their_own(batch, kind, resize):
    support, masks, query, _ = batch
    model = made(kind)
    supports, features = model.features(support, query)
    sides = torch.stack([masks == 0, masks == 1], dim=2).flatten(0, 1)
    pooled = fs.masked_average_pool(supports.flatten(0, 1), sides, eps=1e-5, resize=resize)
    prototypes = pooled.unflatten(0, (4, 2)).mean(dim=1)
    assert_close(prototypes, torch.stack(model.prototypes(supports, masks), dim=1), rtol=1e-4, atol=1e-5)
    logits = fs.cosine_logits(features, prototypes, scale=model.scale)
    assert_close(logits, model(support, masks, query), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [Mining, Panet])
def test_the_loss_in_two_prototype_models(batch, kind):
    support, masks, query, target = batch
    model, self_contrastive, draws = made(kind), fs.SelfContrastiveLoss(), generator(0)
    compare = threshold_compare(model.scale)

    def losses():
        _, features = model.features(support, query)
        own = fs.segmentation_loss(model(support, masks, query), target)
        return own, self_contrastive(features, features.detach(), target, compare, generator=draws)

    assert falls(model, losses)


def test_the_alignment_of_panet(batch):
    support, masks, query, target = batch
    model = made(Panet)
    supports, features = model.features(support, query)
    logits = model(support, masks, query)
    logits[1, 1] -= 100  # nothing was found in the second
    own = model.alignment(features, logits, supports, masks)
    ours = fs.alignment_loss(features, logits, supports, masks)
    assert_close(ours * 3 / 4, own, rtol=1e-4, atol=1e-5)  # PANet divides by what was not counted too

    def losses():
        supports, features = model.features(support, query)
        logits = model(support, masks, query)
        return fs.segmentation_loss(logits, target), fs.alignment_loss(features, logits, supports, masks)

    assert falls(model, losses)


@pytest.mark.parametrize("sharpness", [1.0, 0.01])
def test_the_self_support_of_ssp(batch, sharpness):
    support, masks, query, target = batch
    model = made(Ssp)
    _, features = model.features(support, query)
    logits = sharpness * model(support, masks, query)  # unsure of all, it falls back to the most probable
    foreground, background, local = model.self_support(features, logits)
    sure = fs.self_support_masks(logits)
    assert_close(fs.masked_average_pool(features, sure), torch.stack([background, foreground], dim=1))
    assert_close(fs.local_prototypes(features, sure[:, 0]), local)

    def losses():
        supports, features = model.features(support, query)
        prototypes = model.prototypes(supports, masks)
        sure = fs.self_support_masks(model.compare(features, *prototypes))
        own_background, own_foreground = fs.masked_average_pool(features, sure).unbind(1)
        own = own_foreground, own_background, fs.local_prototypes(features, sure[:, 0])
        first = fs.segmentation_loss(model.second_answer(features, prototypes[1], own), target)
        compare = threshold_compare(10)
        return first, fs.SelfContrastiveLoss()(features, features.detach(), target, compare, generator=generator(0))

    assert falls(model, losses)


# Heads with layers of their own: PFENet, BAM


def prior_of(model, support, masks, query):
    return bilinear(fs.prior_mask(query, support, masks), query.shape[-2:])


def test_the_loss_of_pfenet_with_its_deep_supervision(batch):
    support, masks, query, target = batch
    model, self_contrastive, draws = made(Pfenet), fs.SelfContrastiveLoss(), generator(0)

    def compare(features, prototype_map):
        main, aux = model.head(features, prototype_map, torch.zeros_like(features[:, :1]))
        return main, *aux

    def losses():
        shots = model.encoder(support.flatten(0, 1))[2]
        features = model.encoder(query)[2]
        pooled = fs.masked_average_pool(shots, masks.flatten(0, 1), eps=5e-4, resize="masks")
        prototype = pooled.unflatten(0, (4, 2)).mean(dim=1)[:, :, None, None].expand_as(features)
        prior = fs.prior_mask(features, shots.unflatten(0, (4, 2)), masks)
        own = model.loss(model.head(features, prototype, prior), target)
        return own, self_contrastive(features, features.detach(), target, compare, generator=draws)

    # Its own pooling, and its own loss of the second branch.
    features = model.encoder(query)[2]
    own = model.pool(features, target)
    assert_close(fs.masked_average_pool(features, target, eps=5e-4, resize="masks"), own, rtol=1e-4, atol=1e-5)
    pairs = self_contrastive.pairs(features, features, target, generator=generator(5))
    expected = model.loss(model.head(features, pairs.prototype_map, torch.zeros(4, 1, 9, 9)), pairs.target)
    second = self_contrastive(features, features, target, compare, generator=generator(5))
    assert_close(second, expected, rtol=1e-5, atol=1e-6)
    assert falls(model, losses)


def test_a_head_that_takes_one_vector_gives_the_same_for_its_map():
    model, features, vector = made(Pfenet), torch.randn(2, 16, 9, 9), torch.randn(2, 16, 1, 1)
    prior = torch.rand(2, 1, 9, 9)
    main, _ = model.head(features, vector.expand_as(features), prior)
    assert_close(main, model.head(features, vector, prior)[0], rtol=1e-4, atol=1e-5)


def test_the_weights_and_the_lambda_of_bam(batch):
    support, masks, query, target = batch
    model, self_contrastive, draws = made(Pfenet), fs.SelfContrastiveLoss(), generator(0)
    low, _, features = model.encoder(query)
    lows, _, shots = (maps.unflatten(0, (4, 2)) for maps in model.encoder(support.flatten(0, 1)))
    distances = fs.gram_distance(low, lows)
    assert_close(distances, bam_weights(low, lows), rtol=1e-4, atol=1e-5)
    weights = distances.neg().softmax(dim=1)
    priors = torch.cat([fs.prior_mask(features, shots[:, [s]], masks[:, [s]]) for s in range(2)], dim=1)
    assert ((weights[:, :, None, None] * priors).sum(dim=1) <= 1 + 1e-6).all()

    def losses():
        features = model.encoder(query)[2]
        second = self_contrastive(
            features,
            features.detach(),
            target,
            lambda *maps: model.head(*maps, torch.zeros_like(features[:, :1]))[0],
            generator=draws,
        )
        return (second,)

    assert falls(model, losses, without=("scores",))


# Correlation: HSNet


def test_the_correlation_and_votes_of_hsnet(batch):
    support, masks, query, target = batch
    model = made(Hsnet)
    ours, theirs = model.encoder(query), model.encoder(support[:, 0])
    volumes = fs.correlation(ours, theirs, masks[:, 0])
    for volume, own in zip(volumes, model.correlations(ours, theirs, masks[:, 0].float()), strict=True):
        assert_close(volume, own, rtol=0, atol=1e-4)  # HSNet adds 1e-5 to lengths

    answers = choice([0, 0, 1], 3, 5, 9, 9)
    assert torch.equal(fs.vote_shots(answers) >= 0.5, hsnet_votes(answers))

    def losses():
        logits = model.answer(fs.correlation(model.encoder(query), model.encoder(support[:, 0]), masks[:, 0]))
        background = fs.background_target(target)
        return fs.segmentation_loss(logits, target), fs.segmentation_loss(
            model(query, query, (background == 1).float()), background
        )

    assert falls(model, losses)


# What the pages warn of


def test_a_cross_entropy_of_its_own_is_nan_without_a_pixel():
    logits, void = torch.zeros(1, 2, 9, 9), torch.full((1, 9, 9), 255)
    assert nn.CrossEntropyLoss(ignore_index=255)(logits, void).isnan()
    assert fs.segmentation_loss(logits, void) == 0


def test_attention_over_a_mask_of_ones_answers_the_same_everywhere():
    # As DCAMA's: why the loss is not meant for it.
    query, prototypes = torch.randn(1, 81, 16), torch.randn(1, 3, 16)
    answer = F.scaled_dot_product_attention(query, prototypes, torch.ones(1, 3, 1))
    assert_close(answer, torch.ones_like(answer))
