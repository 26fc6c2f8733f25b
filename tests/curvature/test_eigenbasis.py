"""Eigenbases rebuild their covariance, in order, and refuse what is not finite by name."""

import itertools
import threading
import time
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from gindex.curvature.eigenbasis import decomposed, eigenbasis
from gindex.errors import NonFiniteError
from gindex.workers import side_by_side, singly


def covariance(size: int, tokens: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(size)
    x = torch.randn(tokens, size, generator=generator, dtype=torch.float64)
    x *= torch.logspace(0, -6, size, dtype=torch.float64)  # eigenvalues over 12 decades
    return (x.T @ x / tokens).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("size", "tokens"), [(1, 5), (12, 100), (12, 3), (40, 7)], ids=str)
def test_reconstruction_order_and_orthonormality(size, tokens, dtype):
    matrix = covariance(size, tokens, dtype)
    values, vectors = eigenbasis(matrix, "x")
    assert values.dtype == vectors.dtype == torch.float64
    assert (values.diff() <= 0).all() and (values >= 0).all()
    # Backward error of a float64 eigensolver: a few units in the last place times the size.
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(size).double(), rtol=0, atol=1e-13)
    # Clamping cuts negative eigenvalues: of rounding in the matrix's own format, times its norm.
    bound = 4 * torch.finfo(dtype).eps * float(values.max()) * size**0.5
    symmetric = (matrix.double() + matrix.double().T) / 2
    torch.testing.assert_close(vectors @ values.diag() @ vectors.T, symmetric, rtol=0, atol=bound)


@pytest.fixture
def thread_counts() -> Iterator[tuple[int, ...]]:
    before = torch.get_num_threads()
    yield 1, 2, 3
    torch.set_num_threads(before)


def test_any_number_of_threads_finds_the_same_bits(thread_counts):
    pieces = [covariance(size, 300) for size in (150, 3, 40, 151, 1, 90)]
    found = []
    for threads, room in itertools.product(thread_counts, (0, 1 << 30)):
        torch.set_num_threads(threads)
        made = list(decomposed(lambda x: eigenbasis(x, "x"), pieces, 151, pieces[0].device, room))
        assert [len(values) for values, _ in made] == [len(piece) for piece in pieces]
        found.append(torch.cat([torch.cat([values, vectors.flatten()]) for values, vectors in made]))
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_one_thread_works_on_a_matrix(thread_counts):
    """Even where torch was told a number of threads: all processor time is that of the thread that works."""
    matrix = covariance(600, 700)
    torch.set_num_threads(2)

    def spent() -> tuple[float, float]:
        before = time.thread_time(), time.process_time()
        eigenbasis(matrix, "x")
        return time.thread_time() - before[0], time.process_time() - before[1]

    own, whole = min((singly(spent) for _ in range(3)), key=lambda times: times[1])
    assert whole <= 1.3 * own  # two threads share the work about equally


def test_matrices_wait_for_room_and_errors_arrive(thread_counts):
    present, most = 0, 0
    lock = threading.Lock()

    def act(piece: int) -> int:
        nonlocal present, most
        with lock:
            present += 1
            most = max(most, present)
        time.sleep(0.01)
        with lock:
            present -= 1
        return 1 // piece

    torch.set_num_threads(4)
    assert list(side_by_side(act, iter([1] * 12), 2)) == [1] * 12 and most == 2
    found = side_by_side(act, [1, 1, 0, 1], 4)
    assert [next(found), next(found)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_a_singular_covariance_has_exact_rank():
    values, _ = eigenbasis(covariance(12, 3), "x")
    assert (values[:3] > 0).all()
    assert (values[3:] <= 1e-15 * values[0]).all()  # float64 rounding of the largest


def test_the_input_is_not_changed():
    matrix = covariance(5, 9)
    before = matrix.clone()
    eigenbasis(matrix, "x")
    assert torch.equal(matrix, before)


def test_an_asymmetry_of_rounding_is_averaged():
    matrix = covariance(6, 20)
    skew = torch.triu(torch.full((6, 6), 1e-9, dtype=torch.float64), 1)
    values, vectors = eigenbasis(matrix + skew - skew.T, "x")
    torch.testing.assert_close(vectors @ values.diag() @ vectors.T, matrix, rtol=0, atol=1e-14)


def test_a_zero_covariance():
    values, vectors = eigenbasis(torch.zeros(4, 4), "x")
    assert values.tolist() == [0] * 4
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(4).double(), rtol=0, atol=1e-15)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_not_finite_names_the_layer(bad):
    matrix = covariance(5, 9)
    matrix[1, 2] = bad
    with pytest.raises(NonFiniteError, match=r"^model\.layers\.3\.mlp: expected a finite covariance"):
        eigenbasis(matrix, "model.layers.3.mlp")


def test_a_solver_that_never_converges_names_the_layer(monkeypatch):
    def fail(_matrix: Tensor) -> None:
        raise torch.linalg.LinAlgError

    monkeypatch.setattr(torch.linalg, "eigh", fail)
    with pytest.raises(NonFiniteError, match=r"^layer 7: expected an eigendecomposition that converges, found none"):
        eigenbasis(covariance(5, 9), "layer 7")


def test_a_solver_that_returns_nan_is_not_believed(monkeypatch):
    monkeypatch.setattr(torch.linalg, "eigh", lambda m: (m[0], m * float("nan")))
    with pytest.raises(NonFiniteError, match="expected an eigendecomposition that converges, found none"):
        eigenbasis(covariance(5, 9), "x")
