"""Kernels compiled apart from those that call them: each for itself, and both at the same time.

Cold to load, hot to call: a load and an indirect call. A *library* is one function
``(table, command, what, a, b) -> int64``: addresses of a state's table and of a COMMAND record, a
number that says what is wanted, two arguments. Its callers know it by name only, so a change in it
does not make them anew. They find it through a cell: eight bytes of this process that the linker
knows by name. engine/jit.py fills it before a kernel that may call it runs for the first time.

Only where APART: the flavour `check` and plain Python call the functions themselves, because a
broken bound has to reach Python as an exception.
"""

import ctypes
import importlib
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from engine.jit import APART, compile_apart, helper, libraries

_I64 = ir.IntType(64)
_SIGNATURE = types.int64(types.int64, types.int64, types.int64, types.int64, types.int64)


@intrinsic
def _address_of(typingctx, thing):
    # Of an array's first item, or of a record.
    def codegen(context, builder, sig, args):
        pointer = args[0]
        if isinstance(sig.args[0], types.Array):
            pointer = context.make_array(sig.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(pointer, _I64)

    return types.int64(thing), codegen


def record_at(dtype: np.dtype) -> Any:
    """A function for kernels: address -> the record there."""
    if not APART:
        return None
    kind = numba.from_dtype(dtype)

    @intrinsic
    def record(typingctx, address):
        def codegen(context, builder, sig, args):
            return builder.inttoptr(args[0], context.get_value_type(kind))

        return kind(address), codegen

    return record


def words_at(length: int) -> Any:
    """A function for kernels: address -> the array of so many int64 there."""
    if not APART:
        return None
    kind = types.Array(types.int64, 1, "C", aligned=True)

    @intrinsic
    def words(typingctx, address):
        def codegen(context, builder, sig, args):
            view = context.make_array(kind)(context, builder)
            eight = context.get_constant(types.intp, 8)
            context.populate_array(
                view,
                data=builder.inttoptr(args[0], view.data.type),
                shape=[context.get_constant(types.intp, length)],
                strides=[eight],
                itemsize=eight,
                meminfo=None,
            )
            return view._getvalue()

        return kind(address), codegen

    return words


_functions: dict[str, Callable[..., int]] = {}


def library(function: Callable[..., int]) -> Callable[..., int]:
    """Make a function of a module the library of its name."""
    _functions[function.__name__] = function
    return function


def library_caller(module: str, name: str) -> tuple[Any, Any]:
    """What kernels call a library by: (s, c, what, a, b) and, without command, (s, what, a, b)."""
    cell = ctypes.c_int64(0)
    symbol = f"ringbook_{name}"
    binding.add_symbol(symbol, ctypes.addressof(cell))
    kept: list[Any] = [cell]  # cell and code live as long as the process

    def load() -> None:
        if cell.value == 0:
            importlib.import_module(module)
            kept.append(compile_apart(_functions[name], _SIGNATURE))
            cell.value = kept[-1].address

    libraries[module] = load

    @intrinsic
    def call(typingctx, table, command, what, a, b):
        def codegen(context, builder, sig, args):
            address = builder.load(cgutils.add_global_variable(builder.module, _I64, symbol))
            kind = ir.FunctionType(_I64, [_I64] * 5)
            return builder.call(builder.inttoptr(address, kind.as_pointer()), args)

        return _SIGNATURE, codegen

    @helper
    def library_command(s, c, what, a, b):
        return call(_address_of(s), _address_of(c), what, a, b)

    @helper
    def library_go(s, what, a, b):
        return call(_address_of(s), 0, what, a, b)

    return library_command, library_go
