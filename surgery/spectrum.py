"""One factorisation of a state, shared by every measure: singular values, numerical rank, what lies outside its spaces."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property

import torch

from ..patches.errors import LostattnError

_RESOLVED = 1e-5  # singular values below this share of the largest are not read off a float64 Gram matrix
_GRAM_TOLERANCE = 2 * _RESOLVED
_CHUNK = 1 << 22  # float64 numbers of a matrix that are held at once


class Factors:
    """What the measures need of a state x of shape (..., S, H), each part computed on first use and kept.

    Keeps x itself, and per matrix one square of min(S, H)^2 float64 numbers; make it once per state, hand it to every
    measure, drop it. Small or float64 matrices, and tolerances below 2e-5, go through a true SVD. Anything else goes
    through the float64 Gram matrix of the smaller side, which is about ten times faster: squaring costs half the
    digits, so that singular values are good to 1e-8 of the largest, where the tolerance of float32 input
    is max(S, H) * 1.2e-7; those below 1e-5 are computed again from their own subspace, where nothing large hides them.
    """

    def __init__(self, x: torch.Tensor, eps: float | None, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.x = _checked(x, dtype)
        self.tolerance = _tolerance(x, eps, dtype)
        self.entropies: dict[tuple[object, ...], torch.Tensor] = {}

    @property
    def batch(self) -> torch.Size:
        return self.x.shape[:-2]

    @cached_property
    def values(self) -> torch.Tensor:
        """Singular values, descending, shape (..., min(S, H)), float64; infinite where float64 cannot hold them."""
        smaller = min(self.x.shape[-2:])
        return self._per_matrix([one.values for one in self._matrices], (smaller,))

    @cached_property
    def shares(self) -> torch.Tensor:
        """Singular values as shares of their sum, shape (..., min(S, H)), float64; all 0 if x = 0.

        Taken before the matrix gets its size back, so that no size over- or underflows.
        """
        smaller = min(self.x.shape[-2:])
        values = self._per_matrix([one.scaled_values for one in self._matrices], (smaller,))
        total = values.sum(-1, keepdim=True)
        return values / torch.where(total > 0, total, 1.0)

    @cached_property
    def rank(self) -> torch.Tensor:
        """How many singular values exceed the tolerance times the largest, shape (...), int64."""
        return self._per_matrix([torch.tensor(one.rank) for one in self._matrices]).to(torch.int64)

    def outside(self, x_new: Factors) -> tuple[torch.Tensor, torch.Tensor]:
        """||(I - P_C) X'||_F / ||X'||_F and ||X' (I - P_R)||_F / ||X'||_F, shape (...) each, float64.

        Both lie in [0, 1]: exactly 0 if X' = 0, or if X has full rank on that side; 1 if X = 0 and X' does not.
        """
        results = [one.outside(new) for one, new in zip(self._matrices, x_new.matrices(), strict=True)]
        columns, rows = ([pair[side] for pair in results] for side in (0, 1))
        return self._per_matrix(columns), self._per_matrix(rows)

    def matrices(self) -> Iterator[torch.Tensor]:
        """The states one by one, (S, H)."""
        return iter(self.x.reshape(math.prod(self.batch), *self.x.shape[-2:]))

    @cached_property
    def _matrices(self) -> list[_Factored]:
        by_gram = self.x.dtype != torch.float64 and self.tolerance >= _GRAM_TOLERANCE
        kind: Callable[[torch.Tensor, float], _Factored] = _ByGram if by_gram else _BySvd
        return [kind(matrix, self.tolerance) for matrix in self.matrices()]

    def _per_matrix(self, found: list[torch.Tensor], shape: tuple[int, ...] = ()) -> torch.Tensor:
        stacked = torch.stack(found) if found else torch.zeros(0, *shape, dtype=torch.float64)
        return stacked.reshape((*self.batch, *shape)).to(self.x.device)


def factorize(x: torch.Tensor, *, eps: float | None = None, dtype: torch.dtype | None = None) -> Factors:
    """Prepare a state for all measures; lazy, so this call itself only looks for NaN.

    Args:
        x: (..., S, H), any float dtype.
        eps: a singular value counts towards the rank if above max(S, H) * eps * the largest. None: that of x's dtype,
            or of `dtype` if coarser; float32's for half precision, where the product would exceed 1 and no rank remain.
        dtype: float64 (None) or float32: of the results, and of the cosines in the mixing entropy. Factorisations and
            residuals run in float64 always; with float32, float64 input is first rounded.

    Raises:
        LostattnError: not a float tensor of at least one token and feature, NaN or infinity in it, or a senseless eps.
    """
    return Factors(x, eps, torch.float64 if dtype is None else dtype)


def _checked(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if dtype not in (torch.float64, torch.float32):
        raise LostattnError(f"dtype is {dtype}: the measures compute in torch.float64 or torch.float32")
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        raise LostattnError(f"a state must be a tensor of floats, this is {getattr(x, 'dtype', type(x).__name__)}")
    if x.ndim < 2 or 0 in x.shape[-2:]:
        raise LostattnError(
            f"a state has shape (..., tokens, features) with at least one of each, not {tuple(x.shape)}"
        )
    x = x.detach()
    rounded = x.to(dtype) if x.dtype == torch.float64 else x
    if not bool(torch.isfinite(rounded).all()):
        raise LostattnError(
            f"the state holds NaN or infinity as {str(rounded.dtype)[6:]}: measure it where it is still finite"
        )
    if rounded.dtype != x.dtype and _lost(x, rounded):
        raise LostattnError("the state is too small for float32: measure it with dtype=torch.float64")
    return rounded


def _lost(x: torch.Tensor, rounded: torch.Tensor) -> bool:
    """Whether a matrix that is not zero has only entries that float32 rounds to zero or holds with few digits."""
    if x.numel() == 0:
        return False
    faint = rounded.abs().amax((-2, -1)) < torch.finfo(torch.float32).tiny
    return bool((faint & (x.abs().amax((-2, -1)) > 0)).any())


def _tolerance(x: torch.Tensor, eps: float | None, dtype: torch.dtype) -> float:
    """Smallest share of the largest singular value that still counts towards the rank."""
    single = torch.finfo(torch.float32).eps
    if eps is None:
        eps = max(min(torch.finfo(x.dtype).eps, single), torch.finfo(dtype).eps)
    longest = max(x.shape[-2:])
    if not 0 <= eps * longest < 1:
        raise LostattnError(f"eps = {eps:g} must lie in [0, 1 / {longest}), or no singular value would ever count")
    return eps * longest


class _Lying:
    """A matrix seen with its smaller side first (m, n), m <= n, scaled by a power of two, read in float64 pieces.

    Every measure is free of scale, so the scaling costs nothing and keeps squares from over- and underflowing.
    """

    def __init__(self, matrix: torch.Tensor) -> None:
        self.columns_first = matrix.shape[0] <= matrix.shape[1]  # then the small side is that of the column space
        self.matrix = matrix if self.columns_first else matrix.mT
        largest = float(matrix.abs().max())
        exponent = torch.frexp(torch.tensor(largest, dtype=torch.float64)).exponent
        self.scale = 2.0 ** -max(int(exponent), -1000)

    def whole(self) -> torch.Tensor:
        return self.matrix.to(torch.float64) * self.scale

    def pieces(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Consecutive (m, w) pieces along the long side."""
        smaller, longer = self.matrix.shape
        width = max(1, _CHUNK // smaller)
        for start in range(0, longer, width):
            part = slice(start, start + width)
            yield part, self.matrix[:, part].to(torch.float64) * self.scale

    def times(self, other: _Lying) -> torch.Tensor:
        """This (m, n) times other's transpose, (m, m)."""
        product = self.matrix.new_zeros(len(self.matrix), len(other.matrix), dtype=torch.float64)
        for part, piece in self.pieces():
            product.addmm_(piece, (other.matrix[:, part].to(torch.float64) * other.scale).mT)
        return product

    def lower_gram(self) -> torch.Tensor:
        """This times its own transpose, (m, m), in strips that leave out most of the upper triangle."""
        size = len(self.matrix)
        product = self.matrix.new_zeros(size, size, dtype=torch.float64)
        strip = max(128, -(-size // 8))
        for _, piece in self.pieces():
            for start in range(0, size, strip):
                stop = min(start + strip, size)
                product[start:stop, :stop].addmm_(piece[start:stop], piece[:stop].mT)
        return product

    def norm(self) -> torch.Tensor:
        return _root_of_squares(piece for _, piece in self.pieces())


def _root_of_squares(pieces: Iterator[torch.Tensor]) -> torch.Tensor:
    return torch.stack([torch.linalg.vector_norm(piece) for piece in pieces]).norm()


class _Factored:
    """A matrix A (m, n), m <= n = U diag(s) V'; the children differ in how they find U, s, V."""

    def __init__(self, matrix: torch.Tensor, tolerance: float) -> None:
        self.a = _Lying(matrix)
        self.tolerance = tolerance

    @cached_property
    def scaled_values(self) -> torch.Tensor:
        raise NotImplementedError

    def outside_small(self, b: _Lying) -> torch.Tensor:
        """||(I - U_r U_r') B||_F with U_r the first r columns, as ||U_rest' B||_F: no difference is taken at all."""
        raise NotImplementedError

    def outside_long(self, b: _Lying) -> torch.Tensor:
        """||B (I - V_r V_r')||_F from the explicit residual."""
        raise NotImplementedError

    @property
    def values(self) -> torch.Tensor:
        return self.scaled_values / self.a.scale

    @cached_property
    def rank(self) -> int:
        return int((self.scaled_values > self.tolerance * self.scaled_values[0]).sum())

    def outside(self, matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        b = _Lying(matrix)
        norm = b.norm()
        zero, one = torch.zeros_like(norm), torch.ones_like(norm)
        if norm == 0 or self.rank == 0:
            both = zero if norm == 0 else one
            return both, both
        smaller, longer = self.a.matrix.shape
        small = zero if self.rank == smaller else torch.minimum(self.outside_small(b) / norm, one)
        long = zero if self.rank == longer else torch.minimum(self.outside_long(b) / norm, one)
        return (small, long) if self.a.columns_first else (long, small)


class _BySvd(_Factored):
    @cached_property
    def scaled_values(self) -> torch.Tensor:
        return torch.linalg.svdvals(self.a.whole())

    @cached_property
    def bases(self) -> tuple[torch.Tensor, torch.Tensor]:
        """U (m, m) and V' (m, n)."""
        left, _, right = torch.linalg.svd(self.a.whole(), full_matrices=False)
        return left, right

    def outside_small(self, b: _Lying) -> torch.Tensor:
        rest = self.bases[0][:, self.rank :]
        return _root_of_squares(rest.mT @ piece for _, piece in b.pieces())

    def outside_long(self, b: _Lying) -> torch.Tensor:
        basis = self.bases[1][: self.rank]  # (r, n)
        whole = b.whole()
        return torch.linalg.vector_norm(whole - (whole @ basis.mT) @ basis)


class _ByGram(_Factored):
    @cached_property
    def gram(self) -> torch.Tensor:
        """A A', of which only the lower triangle may be read: the rest is not all filled."""
        return self.a.lower_gram()

    @cached_property
    def eigen(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Eigenvalues, descending, and their vectors as columns."""
        result, vectors = torch.linalg.eigh(self._last_use_of_gram())
        return result.flip(0), vectors.flip(1)

    @cached_property
    def scaled_values(self) -> torch.Tensor:
        squares = torch.linalg.eigvalsh(self.gram).flip(0)
        clear = int((squares > _RESOLVED**2 * squares[0]).sum())
        if clear == len(squares):
            return squares.sqrt()
        if clear == 0:
            return torch.zeros_like(squares)
        return torch.cat([squares[:clear].sqrt(), self._faint(clear)])

    def _faint(self, clear: int) -> torch.Tensor:
        """Singular values behind the first `clear`: those of A seen from the rest of its left singular vectors."""
        rest = self.eigen[1][:, clear:]
        gram = rest.new_zeros(rest.shape[1], rest.shape[1])
        for _, piece in self.a.pieces():
            seen = rest.mT @ piece
            gram.addmm_(seen, seen.mT)
        return torch.linalg.eigvalsh(gram).flip(0).clamp_min(0).sqrt()

    def outside_small(self, b: _Lying) -> torch.Tensor:
        rest = self.eigen[1][:, self.rank :]
        return _root_of_squares(rest.mT @ piece for _, piece in b.pieces())

    def outside_long(self, b: _Lying) -> torch.Tensor:
        """||B N||_F, N the complement, if that is small; else of B - W A: V_r V_r' = A' (A A')^-1 A on r eigenvectors."""
        smaller, longer = self.a.matrix.shape
        if self.rank == smaller and 2 * (longer - smaller) <= smaller:
            return torch.linalg.vector_norm(b.whole() @ self.complement)
        weights = self._divide(b.times(self.a))
        pieces = zip(b.pieces(), self.a.pieces(), strict=True)
        return _root_of_squares(new.addmm_(weights, old, alpha=-1) for (_, new), (_, old) in pieces)

    @cached_property
    def complement(self) -> torch.Tensor:
        """Orthonormal basis (n, n - m) of what is orthogonal to the rows of a full-rank A."""
        del self.gram
        smaller, longer = self.a.matrix.shape
        reflectors, factors = torch.geqrf(self.a.whole().mT)
        last = torch.eye(longer, longer - smaller, dtype=torch.float64, device=reflectors.device).roll(smaller, 0)
        return torch.ormqr(reflectors, factors, last)

    def _divide(self, product: torch.Tensor) -> torch.Tensor:
        """product (m, m) times the inverse of the Gram matrix on its first r eigenvectors."""
        if self.rank == len(product):
            return torch.cholesky_solve(product.mT, self.cholesky).mT
        squares, vectors = (part[..., : self.rank] for part in self.eigen)
        return ((product @ vectors) / squares) @ vectors.mT

    @cached_property
    def cholesky(self) -> torch.Tensor:
        return torch.linalg.cholesky(self._last_use_of_gram())

    def _last_use_of_gram(self) -> torch.Tensor:
        """Full rank needs only its Cholesky factor from here on, anything else only its eigenvectors."""
        gram = self.gram
        del self.gram
        return gram
