import pytest
import torch
from torch.testing import assert_close

from _inputs import normal
from fewshotseg.ops._kmeans_cpu import inverse_lengths
from fewshotseg.ops._precision import inverse_norm

MAGNITUDES = {torch.float32: [1e-36, 1e-20, 1e-10, 1.0, 1e10, 1e20, 1e36], torch.float64: [1e-300, 1e-160, 1.0, 1e300]}


def mixed(dtype):
    """Vectors of every magnitude, some of zeros; (8, 6, 33), along the last dimension."""
    vectors = normal(8, 6, 33, dtype=torch.float64)
    scales = torch.tensor([*MAGNITUDES[dtype], 0.0] * 10, dtype=torch.float64)[:48].reshape(8, 6, 1)
    return (vectors * scales).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", ["in a piece", "apart"])
@pytest.mark.parametrize("dim", [-1, 1])
def test_every_length_is_safe(dim, layout, dtype):
    vectors = mixed(dtype)
    largest = vectors.double().abs().amax(dim=-1, keepdim=True)
    safe = torch.where(largest > 0, largest, 1)
    lengths = (vectors.double() / safe).norm(dim=-1, keepdim=True) * safe
    expected = torch.where(largest > 0, 1 / lengths, 0).to(dtype)
    if layout == "apart":
        vectors = vectors.mT.contiguous().mT
    if dim == 1:
        vectors, expected = vectors.mT, expected.mT
    assert_close(inverse_norm(vectors, dim), expected, rtol=1e-6 if dtype == torch.float32 else 1e-14, atol=0)


@pytest.mark.parametrize("odd", [0.0, 1e-30, 1e30])
def test_one_vector_does_not_depend_on_another(odd):
    vectors = normal(5, 40)
    alone = inverse_norm(vectors[:4])
    vectors[4] *= odd
    assert_close(inverse_norm(vectors)[:4], alone, rtol=0, atol=0)


@pytest.mark.parametrize("dim", [-1, 1])
def test_traced_it_gives_the_same(dim):
    vectors = mixed(torch.float32)
    exported = torch.export.export(Inverse(dim), (vectors,)).module()
    assert_close(exported(vectors), inverse_norm(vectors, dim), rtol=1e-6, atol=0)


class Inverse(torch.nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, vectors):
        return inverse_norm(vectors, self.dim)


def test_no_vector_at_all():
    assert inverse_norm(torch.zeros(0, 3)).shape == (0, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_look_gives_the_same(dtype):
    for rows in (mixed(dtype).flatten(0, 1), normal(7, 33).to(dtype)):
        assert_close(inverse_lengths(rows), inverse_norm(rows), rtol=1e-6 if dtype == torch.float32 else 1e-14, atol=0)
