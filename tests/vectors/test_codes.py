"""Codes keep the inner product with their own direction, and lose as little of others as their bits allow."""

import math

import pytest
import torch
from torch import Tensor

from gindex.errors import ShapeError
from gindex.store.vectors import code_bytes
from gindex.vectors.codes import decode, encode

BITS = (1, 2, 4, 8, 16)
SLICES = [(0, 64), (64, 72), (72, 128)]


def gaussian(documents: int, width: int = 128, seed: int = 0) -> Tensor:
    return torch.randn(documents, width, generator=torch.Generator().manual_seed(seed))


def heavy_tailed(documents: int, width: int = 128, seed: int = 0) -> Tensor:
    """Return Student's t with 3 degrees of freedom: finite variance, infinite fourth moment."""
    generator = torch.Generator().manual_seed(seed)
    normal, chi = (torch.randn(n, documents, width, generator=generator) for n in (1, 3))
    return normal[0] / (chi.square().mean(0)).sqrt()


def round_trip(v: Tensor, bits: int, slices: list[tuple[int, int]] = SLICES) -> Tensor:
    return decode(*encode(v, bits, slices), bits, slices)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("make", [gaussian, heavy_tailed])
def test_inner_product_with_itself_is_kept_in_every_slice(bits, make):
    v = make(50)
    decoded = round_trip(v, bits)
    for a, b in SLICES:
        for x, y in zip(decoded[:, a:b].double(), v[:, a:b].double(), strict=True):
            # Exact but for rounding: float32 scales (2**-24, sums of 64), or float16 coordinates (2**-11).
            assert float(x @ y) == pytest.approx(float(y @ y), rel=2**-11 if bits == 16 else 1e-5)


# Least mean cosine, in slices of 2,048. Gaussian: 1 bit keeps sqrt(2 / pi) = .798; the best even steps leave .1188 and
# .01154 of the variance at 2 and 4 bits (Max 1960) and .00007 at 8, so a cosine of .9387, .9942 and .99996.
# Student t with 3 degrees of freedom: 1 bit keeps E|x| / sqrt(E x^2) = 2 / pi = .637; at 2, 4 and 8 bits the figures
# measured are .821, .948 and .9995, where the Gaussian step alone reaches .820, .922 and .958: it cuts the tails.
# float16 rounds to 2**-11, which costs a cosine less than 2**-22.
LEAST_COSINE = {
    "gaussian": {1: 0.79, 2: 0.935, 4: 0.993, 8: 0.9999, 16: 1 - 2**-20},
    "heavy-tailed": {1: 0.63, 2: 0.81, 4: 0.94, 8: 0.999, 16: 1 - 2**-20},
}


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("name", "make"), [("gaussian", gaussian), ("heavy-tailed", heavy_tailed)])
def test_direction_is_kept_as_well_as_the_bits_allow(bits, name, make):
    v = make(40, 2048)
    decoded = round_trip(v, bits, [(0, 2048)])
    cosine = torch.nn.functional.cosine_similarity(decoded.double(), v.double(), dim=1).mean()
    assert float(cosine) >= LEAST_COSINE[name][bits]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("make", [gaussian, heavy_tailed])
def test_the_few_steps_tried_are_nearly_the_best(bits, make):
    """Reference: every step on a fine grid."""
    v, largest = make(20, 2048), 2**bits - 1
    best = torch.zeros(20)
    rms = v.square().mean(1, keepdim=True).sqrt()
    for power in range(250):  # half distances from .002 to 2.3 times the root mean square, 3% apart
        step = rms * 0.002 * 1.03**power
        levels = 2 * (((v / step + largest) / 2).round().clamp(0, largest)) - largest
        best = torch.maximum(best, torch.nn.functional.cosine_similarity(levels, v, dim=1))
    got = torch.nn.functional.cosine_similarity(round_trip(v, bits, [(0, 2048)]), v, dim=1)
    assert (got <= best + 0.001).all()  # a grid 3% apart misses the top by less than this
    assert float((best - got).mean()) < 0.005  # measured: .003 for heavy tails at 4 bits, below .001 elsewhere


@pytest.mark.parametrize("make", [gaussian, heavy_tailed])
def test_more_bits_are_never_worse(make):
    v = make(40, 512)
    errors = [float((round_trip(v, bits, [(0, 512)]) - v).norm()) for bits in BITS]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("make", [gaussian, heavy_tailed])
def test_scores_of_independent_queries_are_unbiased(bits, make):
    """The error of a score is orthogonal to the vector, so over random queries it averages to nothing."""
    v = make(20, 256).double()
    decoded = round_trip(v.float(), bits, [(0, 128), (128, 256)]).double()
    queries = torch.randn(4000, 256, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    errors = queries @ (decoded - v).T  # [queries, documents]
    standard_error = errors.std(0) / math.sqrt(len(queries))
    assert (errors.mean(0).abs() < 4.5 * standard_error + 1e-12).all()
    # And the part of a query along the vector is kept: the regression of decoded on exact scores has slope 1.
    exact = queries @ v.T
    slope = (exact * (exact + errors)).sum(0) / exact.square().sum(0)
    spread = errors.std(0) / exact.std(0) / math.sqrt(len(queries))
    assert ((slope - 1).abs() < 4.5 * spread + 2**-11).all()  # 2**-11: float16 coordinates


@pytest.mark.parametrize("bits", BITS)
def test_error_of_a_score_is_bounded_by_the_part_that_is_lost(bits):
    """|<decoded - v, q>| <= |q| |v| tan(angle): the error is orthogonal to v."""
    v, q = heavy_tailed(30, 256), gaussian(30, 256, seed=4)
    decoded = round_trip(v, bits, [(0, 256)]).double()
    cosine = torch.nn.functional.cosine_similarity(decoded, v.double(), dim=1).clamp(max=1)
    bound = q.double().norm(dim=1) * v.double().norm(dim=1) * ((1 - cosine**2).clamp(min=0).sqrt() / cosine + 2**-11)
    assert (((decoded - v) * q).sum(1).abs() <= bound).all()


@pytest.mark.parametrize("bits", BITS)
def test_zero_vectors_decode_to_zero(bits):
    decoded = round_trip(torch.zeros(3, 128), bits)
    assert torch.equal(decoded, torch.zeros(3, 128))


@pytest.mark.parametrize("bits", BITS)
def test_a_zero_slice_decodes_to_zero_and_leaves_the_others(bits):
    v = gaussian(4)
    whole = round_trip(v, bits)
    v[:, 64:72] = 0
    decoded = round_trip(v, bits)
    assert not decoded[:, 64:72].any()
    assert torch.equal(decoded[:, :64], whole[:, :64]) and torch.equal(decoded[:, 72:], whole[:, 72:])


@pytest.mark.parametrize("bits", BITS)
def test_one_nonzero_coordinate(bits):
    """All of the norm in one coordinate: every other level is noise, but the score with itself is still exact."""
    v = torch.zeros(1, 128)
    v[0, 17] = -3
    decoded = round_trip(v, bits)
    assert float(decoded[0] @ v[0]) == pytest.approx(9, rel=1e-5)  # float32


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("size", [1e-15, 1e15])
def test_scale_does_not_matter(bits, size):
    v = gaussian(5)
    # float32 squares of 1e-30 and 1e30 are still normal numbers; rounding may move a coordinate at a boundary.
    torch.testing.assert_close(round_trip(v * size, bits) / size, round_trip(v, bits), rtol=2e-3, atol=2e-3)


def test_huge_values_do_not_overflow_at_16_bits():
    v = gaussian(5) * 1e30  # float16 ends at 65,504
    decoded = round_trip(v, 16)
    assert torch.isfinite(decoded).all()
    torch.testing.assert_close(decoded, v, rtol=2**-10, atol=1e30 * 2**-13)


def loop_codes(levels: list[int], bits: int) -> list[int]:
    """Pack levels, first coordinate in the lowest bits, in plain Python."""
    packed = []
    for start in range(0, len(levels), 8 // bits):
        byte = 0
        for place, level in enumerate(levels[start : start + 8 // bits]):
            byte |= ((level + 2**bits - 1) // 2) << (place * bits)
        packed.append(byte)
    return packed


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_layout_of_the_bytes(bits):
    """Vectors made of the odd levels themselves, evenly used, so that the coarsest step fits them exactly."""
    largest = 2**bits - 1
    levels = list(range(-largest, largest + 1, 2)) * (512 // 2**bits)
    order = torch.randperm(512, generator=torch.Generator().manual_seed(0)).tolist()
    levels = [levels[n] for n in order]
    codes, scales = encode(torch.tensor([levels]).float() * 0.25, bits, [(0, 512)])
    assert codes.dtype == torch.uint8 and scales.dtype == torch.float32
    assert codes.tolist() == [loop_codes(levels, bits)]
    assert float(scales[0, 0]) == pytest.approx(0.25, rel=1e-6)  # float32
    assert codes.shape[1] == code_bytes(512, bits)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_decoding_matches_a_loop(bits):
    codes = torch.randint(256, (3, 16 * bits), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    scales = torch.tensor([[1.0, 2.0, 0.5]]).repeat(3, 1)
    decoded = decode(codes, scales, bits, SLICES)
    for row, got in zip(codes.tolist(), decoded.tolist(), strict=True):
        expected = []
        for byte in row:
            for place in range(8 // bits):
                expected.append(2 * ((byte >> (place * bits)) % 2**bits) - (2**bits - 1))
        for (a, b), scale in zip(SLICES, (1.0, 2.0, 0.5), strict=True):
            assert got[a:b] == [scale * level for level in expected[a:b]]


@pytest.mark.parametrize("bits", BITS)
def test_deterministic_and_independent_of_neighbours(bits):
    v = heavy_tailed(9)
    codes, scales = encode(v, bits, SLICES)
    again, scales_again = encode(v.clone(), bits, SLICES)
    assert torch.equal(codes, again) and torch.equal(scales, scales_again)
    for n in range(9):
        alone, scale = encode(v[n : n + 1], bits, SLICES)
        assert torch.equal(alone[0], codes[n])
        torch.testing.assert_close(scale[0], scales[n], rtol=1e-6, atol=0)  # float32 sums


def test_code_bytes():
    assert [code_bytes(1024, bits) for bits in BITS] == [128, 256, 512, 1024, 2048]
    codes, _ = encode(gaussian(2), 16, SLICES)
    assert codes.dtype == torch.float16 and codes.shape == (2, 128)


@pytest.mark.parametrize(("width", "scales"), [(15, 3), (16, 2)])
def test_codes_of_another_shape_are_refused(width, scales):
    with pytest.raises(ShapeError, match="expected codes of 128 coordinates and 3 scales"):
        decode(torch.zeros(2, width, dtype=torch.uint8), torch.ones(2, scales), 1, SLICES)


@pytest.mark.parametrize("bits", BITS)
def test_no_documents(bits):
    codes, scales = encode(torch.zeros(0, 128), bits, SLICES)
    assert scales.shape == (0, 3)
    assert decode(codes, scales, bits, SLICES).shape == (0, 128)


def test_encoding_leaves_the_vectors_alone():
    v = gaussian(3)
    before = v.clone()
    for bits in BITS:
        codes, scales = encode(v, bits, SLICES)
        decode(codes, scales, bits, SLICES)
    assert torch.equal(v, before)


def test_decoding_at_16_bits_leaves_the_codes_alone():
    codes, scales = encode(gaussian(3), 16, SLICES)
    before = codes.clone()
    decode(codes, scales, 16, SLICES)
    assert torch.equal(codes, before)
