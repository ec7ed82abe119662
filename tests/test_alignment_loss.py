import pytest
import torch
from torch.testing import assert_close

import _reference_pieces as reference
from _inputs import label_masks, normal
from fewshotseg import alignment_loss


def inputs(shots=2, dtype=torch.float64):
    return (
        normal(3, 4, 3, 4, dtype=dtype),
        normal(3, 2, 5, 4, seed=1, dtype=dtype),
        normal(3, shots, 4, 4, 3, seed=2, dtype=dtype),
        label_masks(3, shots, 9, 7),
    )


@pytest.mark.parametrize("shots", [1, 3])
@pytest.mark.parametrize("scale", [20.0, 3.0])
def test_equals_the_loss_written_out(shots, scale):
    query, logits, support, masks = inputs(shots)
    logits[1, 1] -= 100  # nothing was found in the second
    loss = alignment_loss(query, logits, support, masks, scale=scale)
    expected = reference.alignment_loss(*(tensor.numpy() for tensor in (query, logits, support, masks)), scale)
    assert loss.shape == ()
    assert_close(loss.item(), expected)


def test_twenty_unless_told():
    assert alignment_loss(*inputs()) == alignment_loss(*inputs(), scale=20.0, ignore_index=255)


def test_features_that_agree_have_no_loss():
    masks = torch.zeros(1, 1, 6, 6, dtype=torch.long)
    masks[..., :3] = 1
    features = torch.stack([masks[0] == 1, masks[0] == 0], dim=1).float()
    answer = torch.stack([1 - features[:, 0], features[:, 0]], dim=1)
    assert alignment_loss(features, answer, features[:, None], masks) < 1e-6
    assert alignment_loss(features, answer.flip(1), features[:, None], masks) > 5


@pytest.mark.parametrize("case", ["nothing found", "void"])
def test_where_nothing_counts_the_loss_is_zero(case):
    query, logits, support, masks = inputs(dtype=torch.float32)
    if case == "void":
        masks = torch.full_like(masks, -7)
    else:
        logits[:, 1] -= 100
    query.requires_grad_()
    support.requires_grad_()
    ignore_index = -7 if case == "void" else 255
    loss = alignment_loss(query, logits, support, masks, ignore_index=ignore_index)
    assert loss == 0
    loss.backward()
    assert query.grad is not None
    assert (query.grad == 0).all()
    assert (support.grad == 0).all()


def test_everything_found_has_a_zero_background_prototype():
    query, logits, support, masks = inputs()
    logits[:, 1] += 100
    expected = reference.alignment_loss(*(tensor.numpy() for tensor in (query, logits, support, masks)), 20.0)
    assert_close(alignment_loss(query, logits, support, masks).item(), expected)


def test_gradients():
    query, logits, support, masks = inputs()
    query.requires_grad_()
    support.requires_grad_()
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda q, s: alignment_loss(q, logits, s, masks), (query, support))
    alignment_loss(query, logits, support, masks).backward()
    assert logits.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    query, logits, support, masks = inputs(dtype=dtype)
    loss = alignment_loss(query.requires_grad_(), logits, support, masks)
    assert loss.dtype == torch.float32
    loss.backward()
    assert query.grad is not None
    assert query.grad.isfinite().all()


QUERY, LOGITS, SUPPORT, MASKS = inputs()


@pytest.mark.parametrize(
    ("arguments", "settings", "error", "name"),
    [
        ((QUERY[0], LOGITS, SUPPORT, MASKS), {}, ValueError, "query_features"),
        ((QUERY.long(), LOGITS, SUPPORT, MASKS), {}, TypeError, "query_features"),
        ((QUERY, LOGITS[:, :1], SUPPORT, MASKS), {}, ValueError, "query_logits"),
        ((QUERY, LOGITS[:1], SUPPORT, MASKS), {}, ValueError, "query_logits"),
        ((QUERY, LOGITS, SUPPORT[:, 0], MASKS), {}, ValueError, "support_features"),
        ((QUERY, LOGITS, SUPPORT[:, :, :3], MASKS), {}, ValueError, "support_features"),
        ((QUERY, LOGITS, SUPPORT, MASKS[:, 0]), {}, ValueError, "support_masks"),
        ((QUERY, LOGITS, SUPPORT, MASKS[:, :1]), {}, ValueError, "support_masks"),
        ((QUERY, LOGITS, SUPPORT, MASKS.float()), {}, TypeError, "support_masks"),
        ((QUERY, LOGITS, SUPPORT, MASKS + 1), {}, ValueError, "support_masks"),
        ((QUERY, LOGITS, SUPPORT, MASKS), {"scale": -1}, ValueError, "scale"),
        ((QUERY, LOGITS, SUPPORT, MASKS), {"ignore_index": 1}, ValueError, "ignore_index"),
    ],
)
def test_bad_input_is_refused(arguments, settings, error, name):
    with pytest.raises(error, match=rf"\b{name}\b.* must"):
        alignment_loss(*arguments, **settings)
