"""Models of timm of every family as backbones: timm's own features, and a training step; or one sentence of refusal.

A few small ones run always, all of them with FEWSHOTSEG_TIMM=1 (about half an hour on one core).
"""

import os
import warnings

import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

import fewshotseg as fs
from fewshotseg.models.backbones import can_be_cut, timm_backbone

CUT = ["convnext_atto", "mobilenetv3_small_050", "pvt_v2_b0", "resnet18"]
WHOLE = ["hrnet_w18_small", "test_vit", "vit_tiny_patch16_224"]
FIXED = ["levit_128s", "mixer_s32_224"]

MORE_CUT = """
caformer_s18 convnext_tiny convnextv2_atto cs3darknet_s davit_tiny densenet121 dpn48b edgenext_xx_small efficientnet_b0
efficientnet_lite0 efficientvit_b0 efficientvit_m0 ese_vovnet19b_dw fasternet_t0 fastvit_t8 focalnet_tiny_srf gernet_s
ghostnet_050 hgnetv2_b0 inception_next_atto mobilenetv2_050 mobilenetv4_conv_small mobileone_s0 mobilevit_xxs
nf_resnet26 poolformer_s12 rdnet_tiny regnetx_002 regnety_002 repghostnet_050 repvit_m0_9 res2net50_26w_4s resnest14d
resnet50 resnet50s resnetv2_50 resnext26ts rexnet_100 seresnext26d_32x4d shvit_s1 skresnet18 starnet_s1
swiftformer_xs tf_efficientnetv2_b0 tiny_vit_5m_224 tinynet_e vgg11_bn vgg16 wide_resnet50_2
convnext_tiny.dinov3_lvd1689m
"""
MORE_WHOLE = """
convmixer_768_32 deit3_small_patch16_224 deit_tiny_distilled_patch16_224 deit_tiny_patch16_224 dla34
eva02_tiny_patch14_224 inception_v3 mambaout_femto maxvit_tiny_tf_224
naflexvit_base_patch16_gap sam2_hiera_tiny samvit_base_patch16 selecsls42 swin_tiny_patch4_window7_224
swinv2_cr_tiny_224 swinv2_tiny_window8_256 tresnet_m twins_svt_small vit_base_patch16_clip_224
vit_base_patch16_siglip_224 vit_small_patch14_dinov2 vit_small_patch14_reg4_dinov2 vit_small_patch16_dinov3
vit_small_plus_patch16_dinov3 vitamin_small_224 xcit_nano_12_p16_224
xception71
"""
MORE_FIXED = """
beit_base_patch16_224 cait_xxs24_224 coat_lite_tiny coatnet_nano_rw_224 convit_tiny efficientformer_l1
efficientformerv2_s0 gcvit_xxtiny hiera_tiny_224 mvitv2_tiny nest_tiny_jx pit_ti_224 tnt_s_patch16_224
visformer_tiny vit_relpos_small_patch16_224 volo_d1_224
"""


def opt_in(names):
    mark = pytest.mark.skipif("FEWSHOTSEG_TIMM" not in os.environ, reason="all families: FEWSHOTSEG_TIMM=1")
    return [pytest.param(name, marks=mark) for name in names.split()]


def timm_weights(name):
    """A plain model of timm, and its weights with norm statistics that are not trivial."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = timm.create_model(name)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None:
            nn.init.uniform_(part.running_mean, -0.1, 0.1)
            nn.init.uniform_(part.running_var, 0.9, 1.1)
    return net.eval(), net.state_dict()


def train_one_step(backbone, height, width):
    torch.manual_seed(1)
    model = fs.build_scnet(backbone, hidden_channels=8, bins=(1.0, 0.5), reducer_dropout=0.0).train()
    images, masks = torch.randn(2, 1, 3, height, width), torch.zeros(2, 1, height, width, dtype=torch.int64)
    masks[..., 8 : height // 2, 8 : width // 2] = 1
    optimizer = torch.optim.SGD([part for part in model.parameters() if part.requires_grad], lr=0.1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    output = model(images, masks, images[:, 0].flip(3), masks[:, 0].flip(2))
    assert output.logits.shape == (2, 2, height, width)
    assert output.loss.isfinite()
    output.loss.backward()
    optimizer.step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert {"reduce_query.0.weight", "reduce_support.0.weight", "head.merge.0.0.weight"} <= changed
    assert not any(key.startswith("backbone.") for key in changed)


@pytest.mark.parametrize("name", [*CUT, *opt_in(MORE_CUT)])
def test_cut_models_give_the_features_of_timms_extractor(name):
    _, state = timm_weights(name)
    backbone = timm_backbone(f"timm/{name}", state).eval()
    assert can_be_cut(backbone)
    images = torch.randn(1, 3, 97, 161)
    with torch.no_grad():
        shallow, deep, high = backbone.extractor(images)[-3:]
        mid = backbone.mid(images)
        assert_close(mid[0], deep)
        assert_close(mid[1], shallow)
        assert_close(backbone.high(mid[0]), high)
    plain = {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": state}, "features_only": True}
    extractor = timm.create_model(name, **plain, **({"output_stride": 8} if is_dilated(backbone) else {})).eval()
    with torch.no_grad():
        assert_close(extractor(images)[-1], high)
    for height, width in ((97, 97), (241, 241), (97, 161)):
        train_one_step(backbone, height, width)


def is_dilated(backbone):
    return max(backbone.extractor.feature_info.reduction()) == 8


@pytest.mark.parametrize("name", [*WHOLE, *opt_in(MORE_WHOLE)])
def test_whole_models_give_the_features_of_timm(name):
    net, state = timm_weights(name)
    backbone = timm_backbone(f"timm/{name}", state).eval()
    assert not can_be_cut(backbone)
    side = net.pretrained_cfg["input_size"][-1]
    side += -side % backbone.multiple
    images = torch.randn(1, 3, side, side)
    with torch.no_grad():
        expected = net.forward_intermediates(images, norm=backbone.norm, output_fmt="NCHW", intermediates_only=True)
        mid, high = backbone.mid_and_high(images)
    assert len(mid) == 2
    for found, block in zip((high, *mid), reversed(backbone.blocks), strict=True):
        wanted = expected[block][..., : found.shape[2], : found.shape[3]]
        assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    for height, width in ((97, 97), (241, 241), (97, 161)):
        train_one_step(backbone, height, width)


@pytest.mark.parametrize("name", [*FIXED, *opt_in(MORE_FIXED)])
def test_models_for_one_size_are_refused(name):
    with pytest.raises(ValueError, match=r"^backbone must be a model that gives three maps of images of") as error:
        fs.build_scnet(f"timm/{name}")
    assert len(str(error.value)) < 280
    assert "\n" not in str(error.value)
