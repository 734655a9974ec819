"""Products of matrices in registers, as LLVM code that numba links in: its own loops reach half of their speed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..cache.pages import LANES

FLOAT, BYTE, SHORT, INT, LONG = ir.FloatType(), *(ir.IntType(bits) for bits in (8, 16, 32, 64))
MOST = 4  # rows at once
# eight sums hide how long an addition takes; AVX-512 has registers for eight of 16 numbers, other CPUs for eight of 8
WIDE = 32 if get_host_cpu_features().get("avx512f") else LANES


@intrinsic(prefer_literal=True)
def add_product(  # type: ignore[no-untyped-def]
    typing, rows, steps, width, out, out_at, w, w_at, w_row, x, ahead, x_at, x_row
) -> tuple[Any, Callable[..., Any]]:
    """out[r, l] += sum over i of w[r, i] x[i, l] for rows r, steps i >= 1 and columns l, four rows at most.

    All arrays are flat: [r, l] of `out` is out[out_at + r width + l], [r, i] of `w` w[w_at + r w_row + i], [i, l] of `x`
    x[x_at + i x_row + l]. `out` and `w` are float32, `x` float32 or the uint16 bits of bfloat16. The same places of `ahead`,
    which is read next, are fetched into the cache meanwhile. `width`, a multiple of LANES, `w_row` and `x_row` are constants.
    """

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        kinds = signature.args

        def number(n: int) -> Any:
            return context.cast(builder, args[n], kinds[n], types.int64)

        def start(array: int, at: int) -> Any:
            return builder.gep(context.make_array(kinds[array])(context, builder, args[array]).data, [number(at)])

        columns, *strides = (kinds[n].literal_value for n in (2, 7, 11))
        whole = columns - columns % WIDE
        places, count, length = (start(3, 4), start(5, 6), start(8, 10), start(9, 10)), number(0), number(1)
        _columns(builder, places, count, length, WIDE, range(0, whole, WIDE), columns, *strides)
        _columns(builder, places, count, length, LANES, range(whole, columns, LANES), columns, *strides)
        return context.get_dummy_value()

    return types.void(rows, steps, width, out, out_at, w, w_at, w_row, x, ahead, x_at, x_row), generate


def _columns(builder: Any, places: Any, rows: Any, steps: Any, lanes: int, columns: range, *strides: int) -> None:
    """Tiles side by side, each for as many rows as there are."""
    out, w, x, ahead = places
    with cgutils.for_range(builder, LONG(len(columns))) as loop:
        at = [builder.add(LONG(columns.start), builder.mul(loop.index, LONG(lanes)))]
        here = builder.gep(out, at), w, builder.gep(x, at), builder.gep(ahead, at)
        for count in range(1, MOST + 1):
            with builder.if_then(builder.icmp_signed("==" if count < MOST else ">=", rows, LONG(count))):
                _product(builder, *here, steps, lanes, count, *strides)


def _product(
    builder: Any,
    out: Any,
    w: Any,
    x: Any,
    ahead: Any,
    steps: Any,
    lanes: int,
    rows: int,
    out_row: int,
    w_row: int,
    x_row: int,
) -> None:
    places = [builder.gep(out, [LONG(r * out_row)]) for r in range(rows)]
    before = builder.block
    first = [_vector(builder, place, lanes) for place in places]
    loop, after = builder.append_basic_block("tile"), builder.append_basic_block("tile.end")
    builder.branch(loop)
    builder.position_at_end(loop)
    i = builder.phi(LONG)
    sums = [builder.phi(one.type) for one in first]
    at = builder.mul(i, LONG(x_row))
    _fetch(builder, builder.gep(ahead, [at]))
    values = _vector(builder, builder.gep(x, [at]), lanes)
    new = []
    for r in range(rows):
        weight = builder.load(builder.gep(w, [builder.add(i, LONG(r * w_row))]))
        product = builder.fmul(_spread(builder, weight, lanes), values, flags=("contract",))
        new.append(builder.fadd(product, sums[r], flags=("contract",)))
    following = builder.add(i, LONG(1))
    for phi, old, result in zip([i, *sums], [LONG(0), *first], [following, *new], strict=True):
        phi.add_incoming(old, before)
        phi.add_incoming(result, loop)
    builder.cbranch(builder.icmp_signed("<", following, steps), loop, after)
    builder.position_at_end(after)
    for place, result in zip(places, new, strict=True):
        builder.store(result, builder.bitcast(place, result.type.as_pointer())).align = 4


def _vector(builder: Any, place: Any, lanes: int) -> Any:
    """Numbers from a place on, as float32."""
    stored = place.type.pointee
    result = builder.load(builder.bitcast(place, ir.VectorType(stored, lanes).as_pointer()))
    result.align = 4 if stored == FLOAT else 2
    if stored == FLOAT:
        return result
    bits = ir.VectorType(INT, lanes)
    high = builder.shl(builder.zext(result, bits), ir.Constant(bits, [16] * lanes))
    return builder.bitcast(high, ir.VectorType(FLOAT, lanes))


def _spread(builder: Any, number: Any, lanes: int) -> Any:
    nothing = ir.Constant(ir.VectorType(FLOAT, lanes), ir.Undefined)
    single = builder.insert_element(nothing, number, INT(0))
    return builder.shuffle_vector(single, nothing, ir.Constant(ir.VectorType(INT, lanes), [0] * lanes))


def _fetch(builder: Any, place: Any) -> None:
    """To be read soon: read access, kept in the second-level cache, data."""
    kind = ir.FunctionType(ir.VoidType(), [BYTE.as_pointer(), INT, INT, INT])
    prefetch = builder.module.declare_intrinsic("llvm.prefetch", [BYTE.as_pointer()], kind)
    builder.call(prefetch, [builder.bitcast(place, BYTE.as_pointer()), INT(0), INT(2), INT(1)])
