"""With lambda = 0 or n = 0 the model is PFENet: numbers of the official release for weights made from integers."""

import pytest
import torch
from torch.testing import assert_close

import fewshotseg as fs
from _pfenet import episodes, normal, random_episodes, resnet_entries, state_dict, uniform

RATIOS = (1.0, 0.5, 0.25, 0.125)
CELLS = (60, 30, 15, 8)

# backbone, side, shots, bins; mean, std, min, max of the logits; three of their pixels
CASES = {
    "resnet-1shot-ratios": (
        ("resnet50s", 97, 1, RATIOS),
        (-0.745207, 15.092428, -26.039158, 20.602167),
        ((1.43412, -0.06614), (14.99461, -14.1812), (15.41776, -16.99468)),
    ),
    "resnet-2shot-ratios": (
        ("resnet50s", 97, 2, RATIOS),
        (-0.691893, 14.833645, -26.004267, 20.082422),
        ((1.50444, -0.10659), (14.67483, -14.27613), (15.50468, -16.51377)),
    ),
    "resnet-1shot-cells": (
        ("resnet50s", 97, 1, CELLS),
        (-6.623217, 15.194640, -38.586452, 28.161764),
        ((4.8888, 5.2889), (3.79063, -17.70634), (11.72329, -25.35064)),
    ),
    "vgg-1shot-ratios": (
        ("vgg16_bn", 129, 1, RATIOS),
        (-14.882705, 8.580955, -32.831394, 20.326683),
        ((6.3088, 0.92284), (-8.90272, -23.6169), (-9.7352, -20.87375)),
    ),
}

# Every 48th pixel of the logits
GOLDEN_RESNET = (
    1.63021,
    0.985140,
    1.46322,
    1.84595,
    1.51562,
    1.7226,
    2.01202,
    1.7854,
    1.88315,
    2.511,
    3.14267,
    3.63958,
    4.48675,
    5.05499,
    4.67533,
    4.48198,
    5.10122,
    5.03824,
    1.61125,
    0.876162,
    1.54164,
    1.58418,
    1.51361,
    1.49808,
    1.90684,
    1.72222,
    2.02106,
    2.522,
    3.12227,
    3.62541,
    4.42035,
    5.10568,
    4.91981,
    4.43449,
    5.18413,
    5.30767,
)
GOLDEN_VGG = (
    5.16644,
    4.68833,
    10.8535,
    4.78786,
    7.16739,
    10.8579,
    8.29136,
    11.3611,
    11.5997,
    5.52578,
    11.0485,
    10.5659,
    13.1003,
    22.656,
    22.393,
    14.0406,
    24.0686,
    19.7499,
    5.92825,
    5.51445,
    11.8205,
    6.21604,
    7.96339,
    12.7018,
    7.5769,
    10.4934,
    12.7727,
    6.47198,
    10.7023,
    10.5352,
    14.6004,
    26.2764,
    24.7164,
    13.8904,
    24.8496,
    21.4559,
)


def test_the_integer_hash_is_the_documented_one():
    assert_close(torch.tensor(uniform(0, (3,))), torch.tensor([0.76662162, -0.13694401, -0.94713246]).double())
    assert_close(torch.tensor(uniform(331, (2,))), torch.tensor([-0.67459042, 0.99525144]).double())
    support, support_masks, query, query_masks = episodes(97, 1)
    assert_close(query[0, 0, 0, :3], torch.tensor([1.158286, -0.870499, -0.556012]), atol=1e-6, rtol=0)
    assert_close(query.double().sum().item(), -997.9056, atol=1e-2, rtol=0)
    assert_close(support.double().sum().item(), 4809.3381, atol=1e-2, rtol=0)
    counts = [
        int((masks == value).sum()) for masks, value in ((support_masks, 1), (query_masks, 1), (query_masks, 255))
    ]
    assert counts == [3072, 3120, 1552]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Official-looking checkpoint files, one a backbone."""
    folder = tmp_path_factory.mktemp("pfenet")

    def path(backbone):
        file = folder / f"{backbone}.pth"
        if not file.exists():
            torch.save({"epoch": 1, "state_dict": state_dict(backbone), "optimizer": {}}, file)
        return file

    return path


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("setting", [{"self_contrast_weight": 0.0}, {"num_prototypes": 0}], ids=["lambda0", "n0"])
def test_logits_are_the_official_ones(case, setting, checkpoint):
    (backbone, side, shots, bins), statistics, pixels = CASES[case]
    model = fs.build_scnet(backbone, bins=bins, weights=checkpoint(backbone), **setting).eval()
    support, support_masks, query, query_masks = episodes(side, shots)
    with torch.no_grad():
        logits = model(support, support_masks, query, query_masks).logits
    measured = torch.stack([logits.mean(), logits.std(), logits.min(), logits.max()])
    assert_close(measured, torch.tensor(statistics), atol=1e-4, rtol=0)
    found = torch.stack([logits[0, :, 0, 0], logits[0, :, 48, 48], logits[1, :, 96, 30]])
    assert_close(found, torch.tensor(pixels), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("backbone", "seed", "pixels", "losses"),
    [
        ("resnet50s", 11, GOLDEN_RESNET, (2.3791000843048096, 0.7084795236587524)),
        ("vgg16_bn", 12, GOLDEN_VGG, (8.357484817504883, 3.2548141479492188)),
    ],
)
def test_losses_are_the_official_ones(backbone, seed, pixels, losses):
    model = fs.build_scnet(backbone, num_prototypes=0).eval()
    model.load_state_dict(fs.remap_pfenet_state_dict(state_dict(backbone, fill=normal)))
    with torch.no_grad():
        output = model(*random_episodes(seed, batch=2, shots=1, size=121))
    assert_close(output.logits[:, :, 12::48, 12::48].flatten(), torch.tensor(pixels), atol=1e-4, rtol=0)
    assert_close(output.losses["main"].item(), losses[0], rtol=1e-5, atol=0)
    assert_close(output.losses["aux"].item(), losses[1], rtol=1e-5, atol=0)
    assert_close(output.loss, output.losses["main"] + output.losses["aux"])


def test_batch_norm_mode_of_pfenet(checkpoint):
    model = fs.build_scnet(
        "resnet50s", bins=RATIOS, weights=checkpoint("resnet50s"), norm_stats="batch", num_prototypes=0
    )
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout2d):
            module.p = 0.0
    support, support_masks, query, query_masks = episodes(97, 1)
    model.train()(support, support_masks, query, query_masks)
    means = model.backbone.conv1[1].running_mean[:3]
    assert_close(means, torch.tensor([0.005014, -0.03089, -0.059435]), atol=2e-6, rtol=0)
    variances = model.backbone.layer4[2].bn3.running_var[:3]
    assert_close(variances, torch.tensor([1.018155, 0.944574, 1.014252]), atol=2e-6, rtol=0)
    assert model.backbone.layer4[2].bn3.num_batches_tracked == 2


def test_entry_counts_are_the_official_ones():
    assert len(state_dict("vgg16_bn")) == 126
    assert len([*resnet_entries()]) + 35 == 365
    assert len([*resnet_entries((3, 4, 23, 3))]) + 35 == 671


@pytest.mark.parametrize(
    ("backbone", "trainable", "total"),
    [
        ("resnet50s", 10_817_034, 34_448_842),
        ("resnet101s", 10_817_034, 53_440_970),
        ("vgg16_bn", 10_423_818, 25_146_954),
    ],
)
def test_parameter_counts_are_the_official_ones(backbone, trainable, total):
    with torch.device("meta"):
        model = fs.build_scnet(backbone)
    assert sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) == trainable
    assert sum(parameter.numel() for parameter in model.parameters()) == total


def test_remap_leaves_its_input_alone():
    state = {"module.cls.3.bias": torch.zeros(2), "module.layer0.7.weight": torch.ones(128)}
    assert list(fs.remap_pfenet_state_dict(state)) == ["head.classifier.3.bias", "backbone.bn1.weight"]
    assert list(state) == ["module.cls.3.bias", "module.layer0.7.weight"]
