"""Settings and tensors that cannot be meant are refused where they are given: one sentence that names the argument."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

import fewshotseg as fs
from _inputs import normal
from _tiny_source import three_classes
from fewshotseg import data
from fewshotseg.data.episodes.hard import HardSpecs
from fewshotseg.data.geometry import Blur, FitSquare, ForegroundCrop, RandomScale
from fewshotseg.metrics import FewShotIoU
from fewshotseg.models.fast.lru import LeastRecentlyUsed
from fewshotseg.ops import fitted_size, foreground_weights, resize_bilinear, restore_size, sample_nearest

FEATURES, MASKS, LABELS = normal(2, 4, 5, 5), torch.tensor([[[0, 1, 255]]]), torch.tensor([[[0, 1, 1]]])
POINTS = normal(2, 9, 4)
LOGITS, TARGET = normal(1, 2, 3, 3), torch.zeros(1, 6, 6, dtype=torch.int64)
QUERY_MASKS = TARGET.expand(2, -1, -1)
IMAGE, MASK = tv_tensors.Image(torch.zeros(3, 9, 12)), tv_tensors.Mask(torch.zeros(9, 12, dtype=torch.int64))
SOURCE = three_classes()
SPEC = data.EpisodeSpec(2, "image-002", ("image-003",))

NO_NUMBER = [None, "1", True, np.bool_(True), 1j, [1], math.nan, math.inf, -math.inf]
NOT_WHOLE = [*NO_NUMBER, 1.5, np.float64(2.0), Fraction(1, 2), torch.tensor(1)]
NO_VOID = [*NOT_WHOLE, 0, 1, 2**31, -(2**40)]
NO_SHARE = [*NO_NUMBER, -0.1, 1.1, np.float32(2.0), 10**400]
NO_SIZE = [None, 5, "55", (5,), (5, 5, 5), (0, 5), (5, -1), (5.0, 5), (5, True), (math.nan, 5), (10**9, 5), 2.5, ()]
NO_CLASSES = [
    None,
    1,
    "12",
    b"12",
    [1.5],
    [True],
    ["1"],
    [None],
    [math.nan],
    [2**80 + 0.5],
    np.array([1.0]),
    torch.tensor(1),
]
NO_GENERATOR = [0, 7, "cpu", np.random.default_rng(0), torch.default_generator.get_state()]
NO_CALL = [5, "name", torch.zeros(1)]


def whole(low, high=None):
    """What is no whole number from ``low`` to ``high``."""
    return [*NOT_WHOLE, low - 1, np.int64(low - 1), -(10**30), *([] if high is None else [high + 1, 10**30])]


def numbers(count, low, high):
    """What is not ``count`` numbers from ``low`` to ``high``."""
    inside = (low + high) / 2
    wrong = [each for each in NO_NUMBER if not isinstance(each, list)]
    lists = [[inside] * (count - 1) + [each] for each in [*wrong, low - 1, high + 1, 10**400]]
    return [None, inside, "abc", [inside] * (count - 1), [inside] * (count + 1), np.array(inside), *lists]


def spoilt(tensor, *, floating):
    """What cannot stand for a tensor: of another kind, number of axes, dtype or device, or without anything in it."""
    of_dtypes = [torch.complex64, torch.float8_e4m3fn, *([torch.int64, torch.bool] if floating else [torch.float32])]
    axes = range(1, tensor.ndim)
    return [
        None,
        tensor.numpy(),
        tensor.tolist(),
        tensor[0],
        tensor[None],
        tensor.to_sparse(),
        *(tensor.to(dtype) for dtype in of_dtypes),
        *(tensor.narrow(axis, 0, 0) for axis in axes),
    ]


def unlike(tensor, *axes):
    """The same on another device, and larger along each axis."""
    return [tensor.to("meta"), *(torch.cat([tensor, tensor], dim=axis) for axis in axes)]


def partition(labels, num_regions=2):
    """A partition that gives these labels."""

    def cut(cluster_features, *, valid=None, generator=None):
        return labels

    cut.num_regions = num_regions
    return cut


def loss(features=FEATURES, cluster_features=FEATURES, query_masks=QUERY_MASKS, compare=None, **settings):
    def answer(features, prototype_map):
        return features[:, :2]

    call = {"generator": settings.pop("generator")} if "generator" in settings else {}
    return fs.SelfContrastiveLoss(**settings)(features, cluster_features, query_masks, compare or answer, **call)


def pairs(features=FEATURES, cluster_features=FEATURES, query_masks=QUERY_MASKS, partition=None, **settings):
    made = fs.CosineKMeans(2) if partition is None else partition
    return fs.self_contrastive_pairs(features, cluster_features, query_masks, partition=made, **settings)


def counted(prediction=TARGET, target=TARGET, class_ids=1, **settings):
    metric = FewShotIoU(settings.pop("of", [1, 3]), **settings)
    metric.update(prediction, target, class_ids)
    return metric


def episodes(source=SOURCE, class_ids=(2, 5), **settings):
    return data.EpisodeDataset(source, class_ids, **settings)


def listed(specs, **settings):
    return data.EpisodeDataset.from_specs(SOURCE, specs, **settings)


def hard(**settings):
    settings = {
        "usual": [SPEC],
        "source": data.SyntheticSource(12),
        "class_ids": [1, 2],
        "share": 0.5,
        "seed": 0,
        **settings,
    }
    return HardSpecs(settings.pop("usual"), settings.pop("source"), settings.pop("class_ids"), **settings)


class Without(type(SOURCE)):
    """A source that lacks something."""

    def __init__(self, **changes):
        vars(self).update(vars(SOURCE))
        vars(self).update(changes)


SIDE = torch.ones(2, 9)
NO_SIDE = [
    None,
    SIDE[0],
    *unlike(SIDE, 0, 1),
    SIDE.to(torch.complex64),
    torch.full((2, 9), 255),
    torch.full((2, 9), -0.5),
    torch.full((2, 9), math.nan),
]
NO_FACTOR = [*NO_NUMBER, 1e7, torch.ones(2), torch.ones(1, 1), torch.ones(9, dtype=torch.int64)]
NO_SOURCE = [
    None,
    "folder",
    [SOURCE],
    Without(class_areas=SOURCE.class_areas[1:]),
    Without(ids=["same"] * len(SOURCE.ids)),
]
NO_SPECS = [
    None,
    5,
    "abc",
    [],
    [None],
    ["abc"],
    [(2, "image-002")],
    [(2.0, "image-002", ("image-003",))],
    [(True, "image-002", ("image-003",))],
    [(255, "image-002", ("image-003",))],
    [(0, "image-002", ("image-003",))],
    [(2, 2, ("image-003",))],
    [(2, "image-002", "image-003")],
    [(2, "image-002", (3,))],
    [(2, "image-002", None)],
    [(2, "x" * 10_000, ("image-003",))],
]
SETTINGS = {
    # Operations
    "masked_average_pool eps": (
        lambda v: fs.masked_average_pool(FEATURES, torch.ones(2, 5, 5), eps=v),
        [*NO_NUMBER, -1e-9],
    ),
    "masked_average_pool features": (
        lambda v: fs.masked_average_pool(v, torch.ones(2, 5, 5)),
        spoilt(FEATURES, floating=True),
    ),
    "masked_average_pool masks": (
        lambda v: fs.masked_average_pool(FEATURES, v),
        [
            None,
            torch.ones(5, 5),
            torch.ones(2, 0, 5, 5),
            *unlike(torch.ones(2, 5, 5), 0, 1, 2),
            *unlike(torch.ones(2, 3, 5, 5), 0, 2, 3),
            torch.ones(2, 5, 5, dtype=torch.complex64),
            torch.ones(2, 5, 5).to(torch.float8_e4m3fn),
            torch.full((2, 5, 5), 255),
            torch.full((2, 5, 5), 255.0),
            torch.full((2, 5, 5), -0.5),
            torch.full((2, 5, 5), math.nan),
        ],
    ),
    "cosine_logits features": (lambda v: fs.cosine_logits(v, POINTS), spoilt(FEATURES, floating=True)),
    "cosine_logits prototypes": (
        lambda v: fs.cosine_logits(FEATURES, v),
        [*spoilt(POINTS, floating=True), *unlike(POINTS, 0, 2), *unlike(POINTS[:, :, None], 0, 3), POINTS[0]],
    ),
    "cosine_logits scale": (lambda v: fs.cosine_logits(FEATURES, POINTS, scale=v), NO_FACTOR),
    "cosine_logits bias": (lambda v: fs.cosine_logits(FEATURES, POINTS, bias=v), NO_FACTOR),
    "density_logits features": (lambda v: fs.density_logits(v, POINTS, SIDE, SIDE), spoilt(FEATURES, floating=True)),
    "density_logits points": (
        lambda v: fs.density_logits(FEATURES, v, SIDE, SIDE),
        [*spoilt(POINTS, floating=True), *unlike(POINTS, 0, 2)],
    ),
    "density_logits foreground": (lambda v: fs.density_logits(FEATURES, POINTS, v, SIDE), NO_SIDE),
    "density_logits background": (lambda v: fs.density_logits(FEATURES, POINTS, SIDE, v), NO_SIDE),
    "density_logits kappa": (
        lambda v: fs.density_logits(FEATURES, POINTS, SIDE, SIDE, kappa=v),
        [*NO_NUMBER, -1e-9, 1e5, torch.ones(2), torch.tensor(1)],
    ),
    "sample_centroids points": (lambda v: fs.sample_centroids(v, 2), spoilt(POINTS, floating=True)),
    "sample_centroids num_clusters": (lambda v: fs.sample_centroids(POINTS, v), whole(1, 2**16)),
    "sample_centroids generator": (lambda v: fs.sample_centroids(POINTS, 2, generator=v), NO_GENERATOR),
    "sample_centroids valid": (
        lambda v: fs.sample_centroids(POINTS, 2, valid=v),
        [[True] * 9, torch.ones(2, 9), torch.ones(9).bool(), *unlike(torch.ones(2, 9).bool(), 0, 1)],
    ),
    "cosine_kmeans points": (lambda v: fs.cosine_kmeans(v, POINTS[:, :2]), spoilt(POINTS, floating=True)),
    "cosine_kmeans init": (
        lambda v: fs.cosine_kmeans(POINTS, v),
        [*spoilt(POINTS[:, :2], floating=True), *unlike(POINTS[:, :2], 0, 2)],
    ),
    "cosine_kmeans num_iters": (lambda v: fs.cosine_kmeans(POINTS, POINTS[:, :2], num_iters=v), whole(0, 10_000)),
    "CosineKMeans num_regions": (fs.CosineKMeans, whole(1, 2**16)),
    "CosineKMeans num_iters": (lambda v: fs.CosineKMeans(num_iters=v), whole(0, 10_000)),
    "CosineKMeans cluster_features": (fs.CosineKMeans(2), spoilt(FEATURES, floating=True)),
    "CosineKMeans generator": (lambda v: fs.CosineKMeans(2)(FEATURES, generator=v), NO_GENERATOR),
    "CosineKMeans valid": (
        lambda v: fs.CosineKMeans(2)(FEATURES, valid=v),
        [5, torch.ones(2, 5, 5), torch.ones(2, 25).bool(), *unlike(torch.ones(2, 5, 5).bool(), 0, 1, 2)],
    ),
    "GridPartition bins": (fs.GridPartition, whole(1, 256)),
    "GridPartition cluster_features": (fs.GridPartition(2), [None, FEATURES[0], FEATURES[:, :, :0]]),
    "background_regions num_regions": (lambda v: fs.background_regions(LABELS, MASKS, v), whole(1, 2**16)),
    "background_regions ignore_index": (lambda v: fs.background_regions(LABELS, MASKS, 2, ignore_index=v), NO_VOID),
    "background_regions labels": (
        lambda v: fs.background_regions(v, MASKS, 2),
        [*spoilt(LABELS, floating=False), LABELS + 1, -LABELS],
    ),
    "background_regions masks": (
        lambda v: fs.background_regions(LABELS, v, 2),
        [*spoilt(MASKS, floating=False), *unlike(MASKS, 0, 1, 2)],
    ),
    "expand_prototypes size": (lambda v: fs.expand_prototypes(torch.ones(1, 2), v), NO_SIZE),
    "expand_prototypes prototypes": (
        lambda v: fs.expand_prototypes(v, (2, 2)),
        [None, [[1.0]], torch.ones(2), torch.ones(1, 1, 2), torch.ones(1, 0)],
    ),
    "assign_prototypes prototypes": (
        lambda v: fs.assign_prototypes(v, LABELS),
        [None, torch.ones(2, 3), torch.ones(1, 0, 3), torch.ones(1, 2, 0)],
    ),
    "assign_prototypes labels": (
        lambda v: fs.assign_prototypes(torch.ones(1, 2, 3), v),
        [*spoilt(LABELS, floating=False), LABELS.int(), LABELS + 1, LABELS - 1, *unlike(LABELS, 0)],
    ),
    "prior_mask query": (
        lambda v: fs.prior_mask(v, FEATURES[:, None], torch.ones(2, 1, 5, 5)),
        spoilt(FEATURES, floating=True),
    ),
    "prior_mask support": (
        lambda v: fs.prior_mask(FEATURES, v, torch.ones(2, 1, 5, 5)),
        [*spoilt(FEATURES[:, None], floating=True), *unlike(FEATURES[:, None], 0, 2)],
    ),
    "prior_mask support_masks": (
        lambda v: fs.prior_mask(FEATURES, FEATURES[:, None], v),
        [None, torch.ones(2, 5, 5), torch.ones(2, 1, 0, 5), *unlike(torch.ones(2, 1, 5, 5), 0, 1)],
    ),
    "prior_mask masks": (
        lambda v: fs.prior_mask(FEATURES, FEATURES[:, None], v),
        [torch.full((2, 1, 5, 5), value) for value in (255.0, math.nan, -1.0, 1j)],
    ),
    "resize_bilinear maps": (lambda v: resize_bilinear(v, (3, 3)), spoilt(FEATURES, floating=True)),
    "resize_bilinear size": (lambda v: resize_bilinear(FEATURES, v), NO_SIZE),
    "sample_nearest labels": (lambda v: sample_nearest(v, (3, 3)), [None, LABELS[0], LABELS[None], LABELS[:, :0]]),
    "sample_nearest size": (lambda v: sample_nearest(LABELS, v), NO_SIZE),
    "foreground_weights size": (lambda v: foreground_weights(LABELS, v), NO_SIZE),
    "foreground_weights masks": (
        lambda v: foreground_weights(v, (3, 3)),
        [None, LABELS[0], LABELS[:, :0], LABELS * 1j, LABELS * 255.0, LABELS * math.nan, -LABELS.float()],
    ),
    # Losses
    "background_target query_masks": (fs.background_target, [*spoilt(MASKS, floating=False), MASKS + 1]),
    "background_target ignore_index": (lambda v: fs.background_target(MASKS, ignore_index=v), NO_VOID),
    "self_contrastive_pairs features": (
        lambda v: pairs(features=v),
        [*spoilt(FEATURES, floating=True), *unlike(FEATURES, 0)],
    ),
    "self_contrastive_pairs cluster_features": (
        lambda v: pairs(cluster_features=v),
        [*spoilt(FEATURES, floating=True), *unlike(FEATURES, 0)],
    ),
    "self_contrastive_pairs query_masks": (
        lambda v: pairs(query_masks=v),
        [
            *spoilt(QUERY_MASKS, floating=False),
            QUERY_MASKS + 2,
            *unlike(TARGET, 0)[:1],
            TARGET,
        ],
    ),
    "self_contrastive_pairs ignore_index": (lambda v: pairs(ignore_index=v), NO_VOID),
    "self_contrastive_pairs generator": (
        lambda v: pairs(partition=fs.GridPartition(2), generator=v),
        NO_GENERATOR,
    ),
    "self_contrastive_pairs partition": (
        lambda v: pairs(partition=v),
        [
            *NO_CALL,
            lambda features: features,
            partition(torch.zeros(2, 5, 5).long(), num_regions=0),
            partition(torch.zeros(2, 5, 5).long(), num_regions="2"),
            partition(None),
            partition(torch.zeros(2, 5, 5)),
            partition(torch.zeros(2, 25).long()),
            partition(torch.zeros(1, 5, 5).long()),
            partition(torch.zeros(2, 5, 5, device="meta").long()),
            partition(torch.full((2, 5, 5), 2)),
            partition(torch.full((2, 5, 5), -1)),
        ],
    ),
    "SelfContrastiveLoss num_prototypes": (fs.SelfContrastiveLoss, whole(1, 2**16)),
    "SelfContrastiveLoss num_iters": (lambda v: fs.SelfContrastiveLoss(num_iters=v), whole(0, 10_000)),
    "SelfContrastiveLoss ignore_index": (lambda v: fs.SelfContrastiveLoss(ignore_index=v), NO_VOID),
    "SelfContrastiveLoss partition": (
        lambda v: fs.SelfContrastiveLoss(partition=v),
        [*NO_CALL, lambda features: features],
    ),
    "SelfContrastiveLoss aux_weight": (lambda v: fs.SelfContrastiveLoss(aux_weight=v), [*NO_NUMBER, -1e-9]),
    "SelfContrastiveLoss generator": (lambda v: loss(generator=v), NO_GENERATOR),
    "SelfContrastiveLoss compare": (
        lambda v: loss(compare=v),
        [
            *NO_CALL[:2],
            lambda features, prototype_map: None,
            lambda features, prototype_map: (features, features),
            lambda features, prototype_map: (),
            lambda features, prototype_map: (features[:, :2], None),
            lambda features, prototype_map: [features[:, :2], features[:1, :2]],
            lambda features, prototype_map: features[:, :1],
            lambda features, prototype_map: features[:, :3],
            lambda features, prototype_map: features[0],
            lambda features, prototype_map: features[:1, :2],
            lambda features, prototype_map: features[:, :2].long(),
            lambda features, prototype_map: features[:, :2, :0],
            lambda features, prototype_map: features[:, :2].to("meta"),
        ],
    ),
    "segmentation_loss logits": (
        lambda v: fs.segmentation_loss(v, TARGET),
        [*spoilt(LOGITS, floating=True), *unlike(LOGITS, 1)[1:], LOGITS[:, :1]],
    ),
    "segmentation_loss target": (
        lambda v: fs.segmentation_loss(LOGITS, v),
        [*spoilt(TARGET, floating=False), TARGET + 2, TARGET - 1, *unlike(TARGET, 0)],
    ),
    "segmentation_loss ignore_index": (lambda v: fs.segmentation_loss(LOGITS, TARGET, ignore_index=v), NO_VOID),
    # The metric
    "FewShotIoU class_ids": (FewShotIoU, [*NO_CLASSES, [-1], [], [3, 3], list(range(10_000)) * 2]),
    "FewShotIoU ignore_index": (lambda v: FewShotIoU([1], ignore_index=v), NO_VOID),
    "FewShotIoU class_names": (
        lambda v: FewShotIoU([1, 2], class_names=v),
        [5, "cat", ["cat"], {1: 5}, {1: None}, {1: "cat", 2: "cat"}],
    ),
    "update prediction": (
        lambda v: counted(prediction=v),
        [
            *spoilt(TARGET, floating=False),
            TARGET + 2,
            TARGET - 1,
            torch.zeros(1, 3, 6, 6),
            torch.full((1, 2, 6, 6), math.nan),
            torch.zeros(1, 2, 6, 6).index_fill_(3, torch.tensor(4), math.nan),
        ],
    ),
    "update target": (
        lambda v: counted(target=v),
        [*spoilt(TARGET, floating=False), TARGET + 2, *unlike(TARGET, 0, 1, 2)],
    ),
    "update class_ids": (
        lambda v: counted(class_ids=v),
        [
            None,
            "1",
            "13",
            1.0,
            True,
            2,
            [1, 3],
            [[1]],
            [1.0],
            [None],
            [True],
            ["1"],
            [2**70],
            torch.tensor([1.0]),
            {1},
            math.nan,
        ],
    ),
    # Transforms
    "fitted_size original": (lambda v: fitted_size(v, 9), NO_SIZE),
    "fitted_size size": (lambda v: fitted_size((5, 5), v), whole(1, 2**14)),
    "fitted_size multiple": (lambda v: fitted_size((5, 5), 9, multiple=v), whole(1, 2**14)),
    "restore_size maps": (lambda v: restore_size(v, (3, 3)), spoilt(FEATURES, floating=True)),
    "restore_size original": (lambda v: restore_size(FEATURES, v), NO_SIZE),
    "restore_size inner": (
        lambda v: restore_size(FEATURES, (3, 3), inner=v),
        [*(each for each in NO_SIZE if each is not None), (6, 5), (5, 6)],
    ),
    "RandomScale scale": (RandomScale, [*numbers(2, 0.01, 10), (1.1, 0.9)]),
    "ForegroundCrop size": (lambda v: ForegroundCrop(v, color=(0,)), whole(1, 2**14)),
    "ForegroundCrop color": (
        lambda v: ForegroundCrop(4, color=v),
        [None, 0, "red", [], [None], [math.nan], [True], ["0"]],
    ),
    "ForegroundCrop keep": (lambda v: ForegroundCrop(4, color=(0,), keep=v), NO_SHARE),
    "ForegroundCrop max_redraws": (lambda v: ForegroundCrop(4, color=(0,), max_redraws=v), whole(0, 10_000)),
    "FitSquare size": (lambda v: FitSquare(v, color=(0,)), whole(1, 2**14)),
    "FitSquare multiple": (lambda v: FitSquare(9, color=(0,), multiple=v), whole(1, 2**14)),
    "FitSquare color": (lambda v: FitSquare(9, color=v), [None, 0, "red", [], [None], [math.inf], [True]]),
    "FitSquare antialias": (lambda v: FitSquare(9, color=(0,), antialias=v), [None, 0, 1, "no", 1.0]),
    "Blur blur_kernel": (lambda v: Blur(v, 1.0), [*whole(1, 99), 4]),
    "Blur blur_sigma": (lambda v: Blur(3, v), [*NO_NUMBER, 0, -1.0, 1e-9, 1e9]),
    "pfenet_train size": (data.pfenet_train, whole(1, 2**14)),
    "pfenet_train scale": (
        lambda v: data.pfenet_train(9, scale=v),
        [*(each for each in numbers(2, 0.01, 10) if each is not None), (2, 1)],
    ),
    "pfenet_train degrees": (lambda v: data.pfenet_train(9, degrees=v), [*NO_NUMBER, -1.0, 181]),
    "pfenet_train rotate_p": (lambda v: data.pfenet_train(9, rotate_p=v), NO_SHARE),
    "pfenet_train blur_kernel": (lambda v: data.pfenet_train(9, blur_kernel=v), [*whole(1, 99), 4]),
    "pfenet_train blur_sigma": (lambda v: data.pfenet_train(9, blur_sigma=v), [*NO_NUMBER, 0, -1.0]),
    "pfenet_train blur_p": (lambda v: data.pfenet_train(9, blur_p=v), NO_SHARE),
    "pfenet_train flip_p": (lambda v: data.pfenet_train(9, flip_p=v), NO_SHARE),
    "pfenet_train keep": (lambda v: data.pfenet_train(9, keep=v), NO_SHARE),
    "pfenet_train max_redraws": (lambda v: data.pfenet_train(9, max_redraws=v), whole(0, 10_000)),
    "scnet_train degrees": (lambda v: data.scnet_train(9, degrees=v), [*NO_NUMBER, -1.0, 181]),
    "scnet_train flip_p": (lambda v: data.scnet_train(9, flip_p=v), NO_SHARE),
    "pfenet_eval size": (data.pfenet_eval, [*whole(8, 2**14), 0]),
    "pfenet_eval multiple": (lambda v: data.pfenet_eval(64, multiple=v), whole(1, 2**14)),
    "pfenet_eval color": (lambda v: data.pfenet_eval(64, color=v), numbers(3, 0, 1)),
    **{
        f"{preset.__name__} {name}": (lambda v, preset=preset, name=name: preset(64, **{name: v}), numbers(3, low, 1))
        for preset, (name, low) in itertools.product(
            (data.pfenet_train, data.scnet_train, data.pfenet_eval, data.padded_eval, data.hsnet_eval),
            (("mean", 0), ("std", 0.001)),
        )
    },
    "hsnet_eval size": (data.hsnet_eval, whole(1, 2**14)),
    "padded_eval size": (data.padded_eval, whole(1, 2**14)),
    **{
        f"{number}: {type(transform).__name__} {name}": (call, wrong)
        for number, (transform, takes_images_alone) in enumerate(
            (
                (data.hsnet_eval(8), True),
                (data.pfenet_train(8), False),
                (data.scnet_train(8), False),
                (FitSquare(9, color=(0,)), True),
                (RandomScale((1, 1)), False),
                (ForegroundCrop(8, color=(0,)), False),
            )
        )
        for name, call, wrong in (
            (
                "image",
                lambda v, transform=transform: transform(v, MASK),
                [
                    None,
                    IMAGE.numpy(),
                    IMAGE.as_subclass(torch.Tensor),
                    MASK,
                    tv_tensors.Image(IMAGE[None]),
                    tv_tensors.Image(IMAGE[:, :0]),
                    tv_tensors.Image(IMAGE.long()),
                    tv_tensors.Image(IMAGE.bool()),
                ],
            ),
            (
                "mask",
                lambda v, transform=transform: transform(IMAGE, v),
                [
                    *([] if takes_images_alone else [None]),
                    MASK.numpy(),
                    MASK.as_subclass(torch.Tensor),
                    IMAGE,
                    tv_tensors.Mask(MASK[None]),
                    tv_tensors.Mask(MASK[:8]),
                    tv_tensors.Mask(MASK.float()),
                    tv_tensors.Mask(MASK.bool()),
                    tv_tensors.Mask(MASK.to(torch.int8)),
                ],
            ),
        )
    },
    "preset image": (
        lambda v: data.padded_eval(9)(v, MASK),
        [tv_tensors.Image(IMAGE[:1]), tv_tensors.Image(IMAGE[:2])],
    ),
    "crop color": (lambda v: ForegroundCrop(20, color=v)(IMAGE, MASK), [(0, 0), (0, 0, 0, 0)]),
    # Episodes
    "EpisodeDataset source": (lambda v: episodes(source=v), NO_SOURCE),
    "EpisodeDataset class_ids": (
        lambda v: episodes(class_ids=v),
        [*NO_CLASSES, [], [0], [-2], [255], [99], range(100, 5000)],
    ),
    "EpisodeDataset shots": (lambda v: episodes(shots=v), whole(1)),
    "EpisodeDataset length": (lambda v: episodes(length=v), whole(1, 2**31 - 1)),
    "EpisodeDataset seed": (lambda v: episodes(seed=v), whole(0, 2**63 - 1)),
    "EpisodeDataset min_area": (lambda v: episodes(min_area=v), whole(1)),
    "EpisodeDataset transform": (lambda v: episodes(transform=v), NO_CALL[:2]),
    "EpisodeDataset ignore_classes": (lambda v: episodes(ignore_classes=v), [*NO_CLASSES, [0], [255], [2]]),
    "of a transform": (
        lambda v: episodes(transform=lambda image, mask: v)[0],
        [None, IMAGE, (IMAGE,), (IMAGE, None), (IMAGE.numpy(), MASK), {"image": IMAGE, "mask": MASK}],
    ),
    "spec number": (lambda v: episodes().spec(v), [None, "0", 1.5, slice(2), 1000, -1001]),
    "item number": (lambda v: episodes()[v], [None, "0", 1.5, slice(2), 1000, -1001]),
    "sample image_id": (lambda v: episodes().sample(v, 2), [None, 0, "elsewhere", "x" * 10_000]),
    "sample class_id": (lambda v: episodes().sample("image-002", v), [*whole(1), 255]),
    "from_specs specs": (listed, NO_SPECS),
    "from_specs source": (lambda v: data.EpisodeDataset.from_specs(v, [SPEC]), NO_SOURCE),
    "from_specs seed": (lambda v: listed([SPEC], seed=v), whole(0, 2**63 - 1)),
    "from_specs transform": (lambda v: listed([SPEC], transform=v), NO_CALL[:2]),
    "from_specs ignore_classes": (lambda v: listed([SPEC], ignore_classes=v), [*NO_CLASSES, [2]]),
    "episodes_hash specs": (data.episodes_hash, [each for each in NO_SPECS[:-1] if each != []]),
    "write_episodes specs": (
        lambda v: data.write_episodes("unused", v),
        [each for each in NO_SPECS[:-1] if each != []],
    ),
    "write_episodes path": (lambda v: data.write_episodes(v, [SPEC]), [None, 5, b"file", ["file"]]),
    "read_episodes path": (data.read_episodes, [None, 5, b"file", ["file"]]),
    "episode_mask mask": (
        lambda v: data.episode_mask(v, 1),
        [*spoilt(LABELS[0], floating=False)[:3], LABELS, LABELS[0, :0], LABELS[0].float()],
    ),
    "episode_mask class_id": (lambda v: data.episode_mask(LABELS[0], v), [*whole(1), 255]),
    "episode_mask ignore_classes": (
        lambda v: data.episode_mask(LABELS[0], 1, ignore_classes=v),
        [*NO_CLASSES, [0], [255], [1]],
    ),
    "pfenet_episodes source": (lambda v: data.pfenet_episodes(v, [2], min_area=1), NO_SOURCE),
    "pfenet_episodes class_ids": (lambda v: data.pfenet_episodes(SOURCE, v, min_area=1), [*NO_CLASSES, [], [255]]),
    **{
        f"pfenet_episodes {name}": (
            lambda v, name=name: data.pfenet_episodes(SOURCE, [2], **{"min_area": 1, name: v}),
            wrong,
        )
        for name, wrong in {
            "shots": whole(1),
            "length": whole(1, 10**7),
            "max_passes": whole(1, 10**7),
            "seed": whole(0, 2**63 - 1),
            "workers": whole(0, 1024),
            "min_area": whole(1),
        }.items()
    },
    "HardSpecs share": (lambda v: hard(share=v), NO_SHARE),
    "HardSpecs seed": (lambda v: hard(seed=v), whole(0, 2**63 - 1)),
    "HardSpecs source": (lambda v: hard(source=v), NO_SOURCE),
    "HardSpecs usual": (lambda v: hard(usual=v), [None, 5, []]),
    "HardSpecs class_ids": (lambda v: hard(class_ids=v), [*NO_CLASSES, [], [99], [255]]),
    # Choices: True and 1.0 are no 1
    "pascal5i fold": (data.pascal5i, [None, "1", True, 1.0, 1.5, math.nan, 4, -1, [1]]),
    "coco20i fold": (data.coco20i, [None, "1", True, 1.0, 4]),
    "coco20i layout": (lambda v: data.coco20i(1, layout=v), [None, 1, True, "other", "x" * 10_000]),
    # The store of tensors
    "LeastRecentlyUsed max_bytes": (LeastRecentlyUsed, whole(0)),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_it_is_refused_in_one_sentence(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, wrong = SETTINGS[name]
    for value in wrong:
        try:
            result = call(value)
        except (TypeError, ValueError, IndexError) as error:
            message = str(error)
        else:
            raise AssertionError(f"{name}: {value!r} was taken and gave {result!r}")
        assert name.split()[-1] in message, message
        assert " must " in message, message
        assert "\n" not in message, message
        assert len(message) < 400, message
    assert not list(tmp_path.iterdir())


def test_numpy_numbers_mean_the_same():
    one, two, half = np.int64(1), np.uint8(2), np.float32(0.5)
    assert data.pascal5i(one) == data.pascal5i(1)
    assert type(fs.CosineKMeans(two, num_iters=one).num_regions) is int
    assert fs.GridPartition(two).num_regions == 4
    assert fs.sample_centroids(POINTS, two).shape == (2, 2, 4)
    assert fs.cosine_kmeans(POINTS, POINTS[:, :2], num_iters=one).labels.shape == (2, 9)
    assert fs.masked_average_pool(FEATURES, torch.ones(2, 5, 5), eps=half).shape == (2, 4)
    assert fs.background_regions(LABELS, MASKS, two, ignore_index=np.int64(255)).shape == (1, 2, 1, 3)
    assert resize_bilinear(FEATURES, np.array([3, 2])).shape == (2, 4, 3, 2)
    assert sample_nearest(LABELS, torch.tensor([3, 2])).shape == (1, 3, 2)
    assert fs.SelfContrastiveLoss(two, ignore_index=np.int32(-1)).ignore_index == -1
    assert FewShotIoU(np.array([3, 1])).class_ids == (3, 1)
    assert FewShotIoU(torch.tensor([3, 1])).class_ids == (3, 1)
    assert data.pfenet_train(np.int64(9), keep=half, mean=np.full(3, 0.5), std=torch.full((3,), 0.5))
    assert fitted_size(np.array([375, 500]), np.int64(473), multiple=np.int64(8)) == (352, 472)
    drawn = episodes(class_ids=np.array([2, 5]), shots=two, length=np.int64(3), seed=np.uint64(3))
    assert list(drawn.specs) == list(episodes(shots=2, length=3, seed=3).specs)
    assert drawn.spec(np.int64(1)) == drawn.spec(1) == drawn.spec(torch.tensor(1))
    row = (np.int64(2), "image-002", ["image-003"])
    assert data.episodes_hash([row]) == data.episodes_hash([SPEC])
    assert data.pfenet_episodes(SOURCE, {two}, min_area=one, length=np.int64(2)) == data.pfenet_episodes(
        SOURCE, [2], min_area=1, length=2
    )


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16, torch.uint32, torch.uint64]
)
@pytest.mark.parametrize("void", [255, 7, 300, -1, -100])
def test_labels_of_any_integers_are_not_wrapped_round(dtype, void):
    # 44 and 156 are what 300 and -100 become in eight bits: labels of their own, neither void nor unknown.
    masks, labels = torch.tensor([[[0, 1, 1, 0]]]), torch.tensor([[[0, 1, 0, 1]]])
    expected = fs.background_regions(labels, masks, 2, ignore_index=void)
    assert torch.equal(fs.background_regions(labels.to(dtype), masks.to(dtype), 2, ignore_index=void), expected)
    assert torch.equal(fs.background_target(masks.to(dtype), ignore_index=void), 1 - masks)
    logits = normal(1, 2, 1, 4)
    assert fs.segmentation_loss(logits, masks.to(dtype), ignore_index=void) == fs.segmentation_loss(logits, masks)
    metric = FewShotIoU([1], ignore_index=void)
    metric.update(masks.to(dtype), masks.to(dtype), 1)
    assert metric.compute().fb_iou == 1.0
    if dtype in (torch.uint8, torch.uint16, torch.uint32, torch.uint64) and void in (300, -100):
        wrapped = torch.tensor([[[0, 1, void % 256, 0]]])
        with pytest.raises(ValueError, match="target must hold 0"):
            fs.segmentation_loss(logits, wrapped.to(dtype), ignore_index=void)


def test_a_large_class_in_a_mask_of_bytes_is_not_there():
    assert data.episode_mask(torch.tensor([[44, 1]], dtype=torch.uint8), 300).tolist() == [[0, 0]]
    assert data.episode_mask(torch.tensor([[300, 1]]), 300, ignore_classes=[1]).tolist() == [[1, 255]]


@pytest.mark.parametrize(
    "call",
    [
        lambda n: fs.masked_average_pool(FEATURES[:n], torch.ones(n, 5, 5)),
        lambda n: fs.masked_average_pool(FEATURES[:n], torch.ones(n, 3, 5, 5)),
        lambda n: fs.sample_centroids(POINTS[:n], 3),
        lambda n: fs.cosine_kmeans(POINTS[:n], POINTS[:n, :2]).labels,
        lambda n: fs.CosineKMeans(2)(FEATURES[:n]),
        lambda n: fs.GridPartition(2)(FEATURES[:n]),
        lambda n: fs.background_regions(LABELS[:n], MASKS[:n], 2),
        lambda n: fs.assign_prototypes(torch.ones(n, 2, 3), LABELS[:n]),
        lambda n: fs.expand_prototypes(torch.ones(n, 2), (2, 2)),
        lambda n: fs.prior_mask(FEATURES[:n], FEATURES[:n, None], torch.ones(n, 1, 5, 5)),
        lambda n: fs.cosine_logits(FEATURES[:n], POINTS[:n]),
        lambda n: fs.density_logits(FEATURES[:n], POINTS[:n], SIDE[:n], SIDE[:n]),
        lambda n: fs.correlation([FEATURES[:n]], [FEATURES[:n]], LABELS[:n])[0],
        lambda n: fs.self_support_masks(FEATURES[:n, :2]),
        lambda n: fs.local_prototypes(FEATURES[:n], torch.ones(n, 5, 5).bool()),
        lambda n: fs.vote_shots(LABELS[:n, None]),
        lambda n: fs.gram_distance(FEATURES[:n], FEATURES[:n, None]),
        lambda n: resize_bilinear(FEATURES[:n], (3, 3)),
        lambda n: sample_nearest(LABELS[:n], (3, 3)),
        lambda n: foreground_weights(LABELS[:n], (3, 3)),
        lambda n: fs.background_target(LABELS[:n]),
        lambda n: pairs(FEATURES[:n], FEATURES[:n], QUERY_MASKS[:n]).prototypes,
    ],
)
def test_no_image_gives_no_result(call):
    assert call(0).shape == (0, *call(1).shape[1:])
    assert call(0).dtype == call(1).dtype


def test_no_image_gives_no_loss():
    empty = FEATURES[:0].clone().requires_grad_()
    for result in (
        fs.segmentation_loss(empty[:, :2], TARGET[:0]),
        loss(empty, empty, TARGET[:0]),
        fs.alignment_loss(empty, empty[:, :2], empty[:, None], TARGET[:0, None]),
    ):
        assert result == 0
        result.backward()


# Masks that are white on black


@pytest.fixture
def unsaid():
    from fewshotseg.ops import _values

    _values._warn_of_white_masks.cache_clear()
    yield
    _values._warn_of_white_masks.cache_clear()


WHITE = torch.tensor([[[0, 255]], [[255, 0]]])


@pytest.mark.usefixtures("unsaid")
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("target", lambda masks: fs.segmentation_loss(normal(2, 2, 1, 2), masks)),
        ("query_masks", lambda masks: pairs(FEATURES, FEATURES, masks)),
        ("query_masks", lambda masks: loss(FEATURES, FEATURES, masks)),
        ("query_masks", fs.background_target),
    ],
)
def test_white_on_black_is_warned_of_once(name, call, recwarn):
    with pytest.warns(UserWarning, match=f"{name} hold 255 but no 1 .* pass masks > 127") as said:
        call(WHITE)
    assert len(said) == 1
    call(WHITE)
    assert not recwarn


@pytest.mark.usefixtures("unsaid")
@pytest.mark.parametrize(
    "masks",
    [
        WHITE // 255,
        torch.tensor([[[0, 255]], [[1, 0]]]),
        torch.full((2, 1, 2), 255),
        torch.zeros(2, 1, 2).long(),
        WHITE == 255,
    ],
)
def test_other_masks_are_not_warned_of(masks, recwarn):
    fs.segmentation_loss(normal(2, 2, 1, 2), masks)
    loss(FEATURES, FEATURES, masks)
    FewShotIoU([1]).update(masks == 1, WHITE, 1)
    fs.segmentation_loss(normal(2, 2, 1, 2), torch.tensor([[[0, 7]], [[7, 0]]]), ignore_index=7)
    assert not recwarn
