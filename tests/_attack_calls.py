"""A good call of every public name, for attack.py to spoil."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import torch

import fewshotseg as fs
from _inputs import choice, label_masks, normal, subset, uniform
from _models import tiny
from fewshotseg import data, ops
from fewshotseg.models import ComparisonHead, ConcatConv1x1, SCNetConfig

Call = tuple[str, Callable[..., Any], dict[str, Any]]

FEATURES, LABELS, MASKS = normal(2, 6, 5, 4), choice(range(3), 2, 5, 4), label_masks(2, 17, 13)


def calls() -> Iterator[Call]:
    """Names, functions and good arguments."""
    yield from operations()
    yield from losses_and_metrics()
    yield from models()
    yield from data_settings()


def operations() -> Iterator[Call]:
    """Functions on tensors."""
    yield "masked_average_pool", ops.masked_average_pool, {
        "features": FEATURES, "masks": uniform(2, 5, 4), "eps": 0.1, "resize": "masks"}  # fmt: skip
    yield "sample_centroids", ops.sample_centroids, {
        "points": normal(2, 20, 6), "num_clusters": 3, "valid": subset(2, 20), "generator": None}  # fmt: skip
    yield "cosine_kmeans", ops.cosine_kmeans, {
        "points": normal(2, 20, 6), "init": normal(2, 3, 6), "valid": subset(2, 20), "num_iters": 2}  # fmt: skip
    yield "background_regions", ops.background_regions, {
        "labels": LABELS, "masks": label_masks(2, 5, 4), "num_regions": 3, "ignore_index": 255}  # fmt: skip
    yield "expand_prototypes", ops.expand_prototypes, {"prototypes": normal(2, 6), "size": (5, 4)}
    yield "assign_prototypes", ops.assign_prototypes, {"prototypes": normal(2, 3, 6), "labels": LABELS}
    yield "prior_mask", ops.prior_mask, {
        "query": FEATURES, "support": normal(2, 2, 6, 3, 7), "support_masks": label_masks(2, 2, 9, 13)}  # fmt: skip
    yield "cosine_logits", ops.cosine_logits, {
        "features": FEATURES, "prototypes": normal(2, 3, 4, 6), "scale": 10.0, "bias": 0.1}  # fmt: skip
    yield "density_logits", ops.density_logits, {
        "features": FEATURES, "points": normal(2, 9, 6), "foreground": subset(2, 9), "background": uniform(2, 9),
        "kappa": 40.0}  # fmt: skip
    yield "correlation", ops.correlation, {
        "query_maps": [FEATURES], "support_maps": [normal(2, 6, 3, 2)], "support_masks": MASKS}  # fmt: skip
    yield "self_support_masks", ops.self_support_masks, {
        "logits": normal(2, 2, 5, 4), "background": 0.6, "foreground": 0.7, "fallback": 12}  # fmt: skip
    yield "local_prototypes", ops.local_prototypes, {"features": FEATURES, "masks": subset(2, 5, 4), "scale": 2.0}
    yield "vote_shots", ops.vote_shots, {"masks": choice([0, 1], 2, 3, 5, 4)}
    yield "gram_distance", ops.gram_distance, {"query": FEATURES, "support": normal(2, 2, 6, 4, 3)}
    yield "resize_bilinear", ops.resize_bilinear, {"maps": FEATURES, "size": (9, 3)}
    yield "sample_nearest", ops.sample_nearest, {"labels": MASKS, "size": (5, 4)}
    yield "foreground_weights", ops.foreground_weights, {"masks": MASKS, "size": (5, 4)}
    yield "fitted_size", ops.fitted_size, {"original": (30, 40), "size": 20, "multiple": 2}
    yield "restore_size", ops.restore_size, {"maps": normal(1, 2, 9, 9), "original": (30, 40), "inner": (7, 9)}
    yield "CosineKMeans", ops.CosineKMeans, {"num_regions": 3, "num_iters": 2}
    yield "CosineKMeans()", ops.CosineKMeans(3, num_iters=2), {
        "cluster_features": FEATURES, "valid": subset(2, 5, 4), "generator": None}  # fmt: skip
    yield "GridPartition", ops.GridPartition, {"bins": 3}
    yield "GridPartition()", ops.GridPartition(2), {"cluster_features": FEATURES}


def losses_and_metrics() -> Iterator[Call]:
    """Losses, the metric, intervals."""
    yield "segmentation_loss", fs.segmentation_loss, {
        "logits": normal(2, 2, 5, 4), "target": MASKS, "ignore_index": 255}  # fmt: skip
    yield "self_contrastive_pairs", fs.self_contrastive_pairs, {
        "features": FEATURES, "cluster_features": normal(2, 8, 3, 3), "query_masks": MASKS,
        "partition": ops.CosineKMeans(3, num_iters=2), "generator": None, "ignore_index": 255}  # fmt: skip
    yield "SelfContrastiveLoss", fs.SelfContrastiveLoss, {
        "num_prototypes": 3, "num_iters": 2, "partition": None, "aux_weight": 1.0, "ignore_index": 255}  # fmt: skip
    yield "SelfContrastiveLoss()", fs.SelfContrastiveLoss(3, num_iters=2), {
        "features": FEATURES, "cluster_features": normal(2, 8, 3, 3), "query_masks": MASKS,
        "compare": lambda features, prototypes: (features * prototypes)[:, :2]}  # fmt: skip
    yield "alignment_loss", fs.alignment_loss, {
        "query_features": FEATURES, "query_logits": normal(2, 2, 5, 4), "support_features": normal(2, 1, 6, 5, 4),
        "support_masks": MASKS[:, None], "scale": 20.0, "ignore_index": 255}  # fmt: skip
    yield "FewShotIoU", fs.FewShotIoU, {"class_ids": [1, 2], "ignore_index": 255, "class_names": {1: "a", 2: "b"}}
    yield "FewShotIoU.update", _updated, {
        "prediction": normal(2, 2, 17, 13), "target": MASKS, "class_ids": [1, 2]}  # fmt: skip
    yield (
        "mean_and_interval",
        lambda values, level: fs.mean_and_interval(values, level=level),
        {"values": [0.1, 0.2, 0.4], "level": 0.95},
    )


def models() -> Iterator[Call]:
    """Models, their settings, the predictor and evaluation."""
    for name, value in SCNetConfig(mean=(0.5,) * 3, std=(0.5,) * 3, backbone="tiny").to_dict().items():
        yield "SCNetConfig", SCNetConfig, {name: value}
    yield "build_scnet", fs.build_scnet, {"backbone": "tiny", "backbone_weights": None, "weights": None}
    yield "build_scnet", fs.build_scnet, {"backbone": "tiny", "hidden_channel": 16}
    episode = {
        "support_images": uniform(2, 1, 3, 33, 40), "support_masks": label_masks(2, 1, 33, 40),
        "query_images": uniform(2, 3, 33, 40), "query_masks": label_masks(2, 33, 40), "generator": None,
    }  # fmt: skip
    yield "SCNet.forward", tiny().eval(), episode
    yield "SCNet.encode_support", tiny().eval().encode_support, {
        "images": episode["support_images"], "masks": episode["support_masks"]}  # fmt: skip
    yield "SCNet.encode_query", tiny().eval().encode_query, {"images": episode["query_images"]}
    yield "ComparisonHead", ComparisonHead, {"channels": 4, "bins": (1.0, 0.5), "dropout": 0.1}
    yield "ConcatConv1x1", ConcatConv1x1, {"inputs": 4, "outputs": 2}
    yield "FeatureMemory", fs.FeatureMemory, {"max_bytes": 1000, "dtype": torch.float16}
    yield "FewShotPredictor", fs.FewShotPredictor, {"model": tiny(), "size": 64, "device": "cpu"}
    yield "FewShotPredictor.from_pretrained", fs.FewShotPredictor.from_pretrained, {"name": "scnet-lite0", "size": 64}
    photo, mask = np.zeros((40, 50, 3), np.uint8), np.zeros((40, 50), bool)
    mask[10:30, 10:30] = True
    for kind, image in bad_arrays(photo):
        yield f"predict, {kind}", _predicted, {"image": image}
        yield f"set_support, {kind}", _supported, {"images": image, "masks": mask}
    for kind, bad in bad_arrays(mask):
        yield f"set_support, {kind}", _supported, {"images": photo, "masks": bad}
    yield "predict", _predicted, {"image": photo, "threshold": 0.5}
    yield "evaluate", fs.evaluate, {
        "model": tiny(), "episodes": _episodes(), "metric": fs.FewShotIoU([1, 2]), "scoring": "resized",
        "batch_size": 1, "device": "cpu", "cache_bytes": 1000, "cache_dtype": torch.float16, "threshold": 0.5,
    }  # fmt: skip


def data_settings() -> Iterator[Call]:
    """Sources, splits, episodes, transforms, protocols."""
    source = data.SyntheticSource(12, num_classes=3, size=40)
    yield "SyntheticSource", data.SyntheticSource, {
        "length": 4, "num_classes": 3, "size": 40, "seed": 0, "border": 1}  # fmt: skip
    yield "EpisodeDataset", data.EpisodeDataset, {
        "source": source, "class_ids": [1, 2], "shots": 1, "length": 4, "seed": 0, "transform": None, "min_area": 1,
        "ignore_classes": (3,)}  # fmt: skip
    yield "EpisodeDataset.from_specs", data.EpisodeDataset.from_specs, {
        "source": source, "specs": _episodes().specs[:2], "seed": 0, "ignore_classes": ()}  # fmt: skip
    yield "pfenet_episodes", data.pfenet_episodes, {
        "source": source, "class_ids": [1, 2], "shots": 1, "length": 4, "max_passes": 2, "seed": 1, "workers": 2,
        "min_area": 1}  # fmt: skip
    yield "pascal5i", data.pascal5i, {"fold": 0}
    yield "coco20i", data.coco20i, {"fold": 0, "layout": "interleaved"}
    yield "episode_mask", data.episode_mask, {"mask": MASKS[0], "class_id": 1, "ignore_classes": [2]}
    yield "episodes_hash", data.episodes_hash, {"specs": list(_episodes().specs[:2])}
    yield "hidden_novel_share", data.hidden_novel_share, {"source": source, "split": data.ClassSplit((1, 2), (3,))}
    yield "without_classes", data.without_classes, {"source": source, "class_ids": [1]}
    yield "SubsetSource", data.SubsetSource, {"source": source, "keep": [0, 2]}
    yield "ConcatSource", data.ConcatSource, {}
    transforms = {"size": 40, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    drawn = {"degrees": 10.0, "rotate_p": 0.5, "flip_p": 0.5, "keep": 0.85, "max_redraws": 3}
    yield "pfenet_train", data.pfenet_train, {
        **transforms, **drawn, "scale": (0.9, 1.1), "blur_kernel": 5, "blur_sigma": 1.1, "blur_p": 0.5}  # fmt: skip
    yield "scnet_train", data.scnet_train, {**transforms, **drawn}
    yield "pfenet_eval", data.pfenet_eval, {**transforms, "multiple": 8, "color": (0.0, 0.0, 0.0)}
    yield "padded_eval", data.padded_eval, transforms
    yield "hsnet_eval", data.hsnet_eval, transforms
    protocol = data.PROTOCOLS["scnet-pascal"]
    fields = {name: getattr(protocol, name) for name in protocol.__dataclass_fields__}
    yield "EvaluationProtocol", data.EvaluationProtocol, fields
    for name in ("FolderSource", "COCOSource"):
        yield name, getattr(data, name), {"images": "no folder", "masks" if name[0] == "F" else "annotations": "none"}
    yield "VOCSource", data.VOCSource, {"root": "no folder", "split": "val"}
    yield "FSS1000Source", data.FSS1000Source, {"root": "no folder"}
    yield "read_episodes", data.read_episodes, {"path": "no file"}


def bad_arrays(good: np.ndarray) -> Iterator[tuple[str, Any]]:
    """Arrays that are no image or mask, or one in an unusual form."""
    for dtype in (np.int8, np.uint16, np.int64, np.float32, np.float64, np.complex64, ">u2", ">f8", object):
        yield f"{np.dtype(dtype)}", good.astype(dtype)
    for value in (np.nan, np.inf, -1.0, 3.0, 1e30):
        yield f"all {value}", np.full(good.shape, value)
    yield "transposed", good.T
    yield "no pixels", good[:0]
    yield "one pixel", good[:1, :1]
    yield "one more axis", good[None]
    yield "one less axis", good[0]
    yield "backwards", good[::-1, ::-1]
    yield "all 255", np.full(good.shape, 255, np.uint8)


@cache
def _episodes() -> data.EpisodeDataset:
    source = data.SyntheticSource(12, num_classes=3, size=40)
    return data.EpisodeDataset(source, [1, 2], length=2, transform=data.padded_eval(40))


def _updated(prediction: Any, target: Any, class_ids: Any) -> Any:
    metric = fs.FewShotIoU([1, 2])
    metric.update(prediction, target, class_ids)
    return metric.compute().miou


@cache
def _predictor() -> fs.FewShotPredictor:
    predictor = fs.FewShotPredictor(tiny().eval(), size=64)
    photo, mask = np.zeros((40, 50, 3), np.uint8), np.zeros((40, 50), bool)
    mask[10:30, 10:30] = True
    predictor.set_support(photo, mask)
    return predictor


def _predicted(image: Any, threshold: Any = None) -> Any:
    return _predictor().predict(image, threshold=threshold)


def _supported(images: Any, masks: Any) -> Any:
    return fs.FewShotPredictor(tiny().eval(), size=64).set_support(images, masks)
