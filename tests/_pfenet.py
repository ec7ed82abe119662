"""Weights and inputs that anyone can make again from numbers and names, in PFENet's own names and order of entries."""

import zlib

import numpy as np
import torch


def uniform(tensor_number, shape):
    """Numbers in -1..1 from a 64-bit integer hash of (tensor number, flat index), the same on every platform."""
    with np.errstate(over="ignore"):
        index = np.arange(int(np.prod(shape)), dtype=np.uint64)
        h = (index + np.uint64(1) + np.uint64(tensor_number * 1000003)) * np.uint64(0x9E3779B97F4A7C15)
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        h ^= h >> np.uint64(31)
    return (2 * ((h >> np.uint64(11)) / 2.0**53) - 1).reshape(shape)


def resnet_entries(blocks=(3, 4, 6, 3)):
    for conv, shape in ((0, (64, 3, 3, 3)), (3, (64, 64, 3, 3)), (6, (128, 64, 3, 3))):
        yield f"layer0.{conv}.weight", shape
        yield from norm_entries(f"layer0.{conv + 1}", shape[0])
    channels = 128
    for stage, (count, planes) in enumerate(zip(blocks, (64, 128, 256, 512), strict=True), start=1):
        for block in range(count):
            name = f"layer{stage}.{block}"
            shapes = ((planes, channels, 1, 1), (planes, planes, 3, 3), (4 * planes, planes, 1, 1))
            for number, shape in enumerate(shapes, start=1):
                yield f"{name}.conv{number}.weight", shape
                yield from norm_entries(f"{name}.bn{number}", shape[0])
            if block == 0:
                yield f"{name}.downsample.0.weight", (4 * planes, channels, 1, 1)
                yield from norm_entries(f"{name}.downsample.1", 4 * planes)
            channels = 4 * planes


def vgg_entries():
    channels = 3
    for layer, (convs, width) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))):
        for number in range(convs):
            yield f"layer{layer}.{3 * number}.weight", (width, channels, 3, 3)
            yield f"layer{layer}.{3 * number}.bias", (width,)
            yield from norm_entries(f"layer{layer}.{3 * number + 1}", width)
            channels = width


def norm_entries(name, channels):
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{leaf}", (channels,)
    yield f"{name}.num_batches_tracked", ()


def head_entries(mid_channels):
    def classifier(name):
        return [(f"{name}.0.weight", (256, 256, 3, 3)), (f"{name}.3.weight", (2, 256, 1, 1)), (f"{name}.3.bias", (2,))]

    yield from classifier("cls")
    yield "down_query.0.weight", (256, mid_channels, 1, 1)
    yield "down_supp.0.weight", (256, mid_channels, 1, 1)
    for i in range(4):
        yield f"init_merge.{i}.0.weight", (256, 513, 1, 1)
    for i in range(4):
        yield f"beta_conv.{i}.0.weight", (256, 256, 3, 3)
        yield f"beta_conv.{i}.2.weight", (256, 256, 3, 3)
    for i in range(4):
        yield from classifier(f"inner_cls.{i}")
    yield "res1.0.weight", (256, 1024, 1, 1)
    yield "res2.0.weight", (256, 256, 3, 3)
    yield "res2.2.weight", (256, 256, 3, 3)
    for j in range(3):
        yield f"alpha_conv.{j}.0.weight", (256, 512, 1, 1)


def state_dict(backbone, fill=None):
    """A state dict as official checkpoints hold it, filled from integers or by ``fill(number, key, shape)``."""
    fill = fill or hashed
    if backbone == "vgg16_bn":
        entries = [*vgg_entries(), *head_entries(768)]
    else:
        entries = [*resnet_entries(), *head_entries(1536)]
    return {f"module.{key}": fill(number, key, shape) for number, (key, shape) in enumerate(entries)}


def normal(number, key, shape):
    """Normal numbers seeded by the entry's name."""
    values = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if len(shape) > 1:
        values *= np.float32(np.sqrt(2 / np.prod(shape[1:])))
    elif key.endswith("running_var"):
        values = 1 + 0.1 * np.abs(values)
    elif key.endswith(("running_mean", ".bias")):
        values = 0.1 * values
    else:
        last_of_block = ".bn3." in key or ".downsample." in key
        values = (0.3 if last_of_block else 1.0) * (1 + 0.1 * values)
    return torch.tensor(values, dtype=torch.float32)


def random_episodes(seed, *, batch, shots, size):
    """Smooth noise with elliptic objects in a void ring: support images and masks, query images and masks."""
    rng = np.random.default_rng(seed)

    def images(count):
        side = size // 16 + 2
        coarse = rng.standard_normal((count, 3, side, side)).astype(np.float32)
        fine = rng.standard_normal((count, 3, size, size)).astype(np.float32)
        return np.kron(coarse, np.ones((16, 16), np.float32))[..., :size, :size] + 0.3 * fine

    def masks(count):
        rows, columns = np.mgrid[:size, :size]
        labels = np.zeros((count, size, size), np.int64)
        for label in labels:
            centre = rng.uniform(0.3, 0.7, 2) * size
            radii = rng.uniform(0.15, 0.3, 2) * size
            distance = ((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2
            label[distance < 1.1] = 255
            label[distance < 1] = 1
        return labels

    query, support = images(batch), images(batch * shots).reshape(batch, shots, 3, size, size)
    query_masks, support_masks = masks(batch), masks(batch * shots).reshape(batch, shots, size, size)
    arrays = (support.astype(np.float32), support_masks, query.astype(np.float32), query_masks)
    return tuple(map(torch.tensor, arrays))


def hashed(number, key, shape):
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    values = uniform(number, shape)
    if len(shape) == 4:
        values = values * np.sqrt(6 / np.prod(shape[1:]))
    elif key.endswith("bn3.weight"):
        values = 0.2 + 0.05 * values
    elif key.endswith("running_var"):
        values = 1 + 0.1 * values
    elif key.endswith(("running_mean", ".bias")):
        values = 0.1 * values
    else:
        values = 1 + 0.1 * values
    return torch.tensor(values, dtype=torch.float32)


def episodes(size, shots):
    """Two episodes: support images, support masks, query images, query masks."""
    row = np.arange(size, dtype=np.float32)[:, None]
    column = np.arange(size, dtype=np.float32)[None, :]
    query = (2 * uniform(9001, (2, 3, size, size))).astype(np.float32)
    query += np.sin(6 * row / size + 4 * column / size).astype(np.float32)
    support = (2 * uniform(9002, (2, shots, 3, size, size))).astype(np.float32)
    support += np.cos(5 * row / size - 3 * column / size).astype(np.float32)
    query_masks = np.zeros((2, size, size), np.int64)
    support_masks = np.zeros((2, shots, size, size), np.int64)
    for b in range(2):
        for k in range(shots):
            top, left = size // 5 + 2 * b, size // 4 + 3 * k
            support_masks[b, k, top : top + size // 2, left : left + size // 3] = 1
            support_masks[b, k, : size // 10] = 255
        query_masks[b, size // 3 : 2 * (size // 3) + b, size // 6 : size // 6 + size // 2] = 1
        query_masks[b, -(size // 12) :] = 255
    return tuple(map(torch.tensor, (support, support_masks, query, query_masks)))
