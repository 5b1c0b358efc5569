"""Memory order, bit tricks and system calls for kernels, as LLVM instructions.

Hot. Plain NumPy loads and stores are not enough between processes: LLVM hoists a load out of a spin
loop (which then never ends) and moves payload stores past a "flag" store; both measured. Every word
that two processes share is touched only through these functions. Arrays are one-dimensional,
C-contiguous, int64 and 8-byte aligned.

With NUMBA_DISABLE_JIT=1 plain Python stands in: correct for one thread, which is what that mode is
for.
"""

import os
import platform
import time
import weakref

import numba
import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

CLOCK_REALTIME = 0
CLOCK_MONOTONIC = 1
_X86 = platform.machine() in ("x86_64", "AMD64")
_I64 = ir.IntType(64)
_I32 = ir.IntType(32)


def _word(context, builder, sig, args):
    array_type = sig.args[0]
    if (
        not isinstance(array_type, types.Array)
        or array_type.layout != "C"
        or not array_type.aligned
    ):
        raise TypeError("shared words must be an aligned C-contiguous array")
    array = context.make_array(array_type)(context, builder, args[0])
    return cgutils.get_item_pointer(
        context,
        builder,
        array_type,
        array,
        [args[1]],
        wraparound=False,
        boundscheck=context.enable_boundscheck,
    )


@intrinsic
def load_acquire(typingctx, words, index):
    """words[index]; no later load or store of this thread moves before it."""

    def codegen(context, builder, sig, args):
        return builder.load_atomic(_word(context, builder, sig, args), "acquire", 8)

    return words.dtype(words, types.intp), codegen


@intrinsic
def load_relaxed(typingctx, words, index):
    """words[index], whole and fresh, without order."""

    def codegen(context, builder, sig, args):
        return builder.load_atomic(_word(context, builder, sig, args), "monotonic", 8)

    return words.dtype(words, types.intp), codegen


@intrinsic
def store_release(typingctx, words, index, value):
    """words[index] = value; no earlier load or store of this thread moves after it."""

    def codegen(context, builder, sig, args):
        builder.store_atomic(args[2], _word(context, builder, sig, args), "release", 8)
        return context.get_dummy_value()

    return types.void(words, types.intp, words.dtype), codegen


@intrinsic
def store_relaxed(typingctx, words, index, value):
    """words[index] = value, whole, without order."""

    def codegen(context, builder, sig, args):
        builder.store_atomic(args[2], _word(context, builder, sig, args), "monotonic", 8)
        return context.get_dummy_value()

    return types.void(words, types.intp, words.dtype), codegen


@intrinsic
def fetch_add(typingctx, words, index, value):
    """Add to words[index], sequentially consistent; returns the value before."""

    def codegen(context, builder, sig, args):
        return builder.atomic_rmw("add", _word(context, builder, sig, args), args[2], "seq_cst")

    return words.dtype(words, types.intp, words.dtype), codegen


@intrinsic
def compare_swap(typingctx, words, index, expected, value):
    """words[index] = value if it is `expected`; returns whether it was."""

    def codegen(context, builder, sig, args):
        pointer = _word(context, builder, sig, args)
        result = builder.cmpxchg(pointer, args[2], args[3], "seq_cst", "seq_cst")
        return builder.extract_value(result, 1)

    return types.boolean(words, types.intp, words.dtype, words.dtype), codegen


def _fence(ordering):
    @intrinsic
    def fence(typingctx):
        def codegen(context, builder, sig, args):
            builder.fence(ordering)
            return context.get_dummy_value()

        return types.void(), codegen

    return fence


fence_acquire = _fence("acquire")
fence_release = _fence("release")
fence_seq_cst = _fence("seq_cst")


@intrinsic
def prefetch_line(typingctx, array, index, line):
    """Ask for a cache line, the one where array[index] begins or the `line`-th behind it: no fault,
    no wait, no effect on results.
    """

    def codegen(context, builder, sig, args):
        view = context.make_array(sig.args[0])(context, builder, args[0])
        item = cgutils.get_item_pointer(
            context, builder, sig.args[0], view, [args[1]], wraparound=False
        )
        start = builder.bitcast(item, ir.IntType(8).as_pointer())
        offset = builder.shl(args[2], ir.Constant(args[2].type, 6))
        pointer = builder.gep(start, [offset])
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, _I32, _I32, _I32])
        function = builder.module.declare_intrinsic("llvm.prefetch", (pointer.type,), kind)
        builder.call(function, [pointer, *(ir.Constant(_I32, value) for value in (1, 3, 1))])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), codegen


@intrinsic
def cpu_pause(typingctx):
    """Tell the core that this is a spin loop (x86 `pause`; nothing elsewhere)."""

    def codegen(context, builder, sig, args):
        if _X86:
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", (), kind), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def trailing_zeros(typingctx, bits):
    """Index of the lowest set bit of a uint64, as int64; undefined for 0."""

    def codegen(context, builder, sig, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), codegen


@intrinsic
def leading_zeros(typingctx, bits):
    """63 minus the index of the highest set bit of a uint64, as int64; undefined for 0."""

    def codegen(context, builder, sig, args):
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), codegen


@intrinsic
def crc32c_word(typingctx, crc, word):
    """One step of CRC32C over a uint64, the processor's own instruction (engine/crc32c.py)."""

    def codegen(context, builder, sig, args):
        kind = ir.FunctionType(_I64, [_I64, _I64])
        function = cgutils.get_or_insert_function(
            builder.module, kind, "llvm.x86.sse42.crc32.64.64"
        )
        return builder.call(function, args)

    return types.uint64(types.uint64, types.uint64), codegen


def has_crc32c() -> bool:
    """Whether `crc32c_word` may be used here."""
    return _X86 and bool(binding.get_host_cpu_features().get("sse4.2", False))


@intrinsic
def clock_ns(typingctx, clock_id):
    """clock_gettime(clock_id) in nanoseconds (27 to 54 ns a call through the vDSO)."""

    def codegen(context, builder, sig, args):
        timespec = cgutils.alloca_once(builder, ir.ArrayType(_I64, 2))
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_I32, [_I32, timespec.type]), "clock_gettime"
        )
        builder.call(function, [builder.trunc(args[0], _I32), timespec])
        seconds = builder.load(cgutils.gep_inbounds(builder, timespec, 0, 0))
        nanoseconds = builder.load(cgutils.gep_inbounds(builder, timespec, 0, 1))
        return builder.add(builder.mul(seconds, ir.Constant(_I64, 1_000_000_000)), nanoseconds)

    return types.int64(types.int64), codegen


@intrinsic
def eventfd_signal(typingctx, fd):
    """Add 1 to an eventfd: wakes whoever sleeps on it. Returns what write() returned."""

    def codegen(context, builder, sig, args):
        one = cgutils.alloca_once_value(builder, ir.Constant(_I64, 1))
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_I64, [_I32, one.type, _I64]), "write"
        )
        return builder.call(function, [builder.trunc(args[0], _I32), one, ir.Constant(_I64, 8)])

    return types.int64(types.int64), codegen


@intrinsic
def sched_yield(typingctx):
    """Let another runnable thread of this core go first."""

    def codegen(context, builder, sig, args):
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_I32, []), "sched_yield"
        )
        builder.call(function, [])
        return context.get_dummy_value()

    return types.void(), codegen


if numba.config.DISABLE_JIT:

    def load_acquire(words, index):
        return int(words[index])

    load_relaxed = load_acquire

    def store_release(words, index, value):
        words[index] = value

    store_relaxed = store_release

    def fetch_add(words, index, value):
        before = int(words[index])
        words[index] = before + value
        return before

    def compare_swap(words, index, expected, value):
        if int(words[index]) != expected:
            return False
        words[index] = value
        return True

    def fence_acquire():
        return None

    fence_release = fence_seq_cst = cpu_pause = fence_acquire

    def prefetch_line(array, index, line):
        return None

    def trailing_zeros(bits):
        return (int(bits) & -int(bits)).bit_length() - 1

    def leading_zeros(bits):
        return 64 - int(bits).bit_length()

    def clock_ns(clock_id):
        return time.clock_gettime_ns(clock_id)

    def eventfd_signal(fd):
        os.eventfd_write(fd, 1)
        return 8

    def sched_yield():
        os.sched_yield()


ALL_BITS = np.uint64(0xFFFFFFFFFFFFFFFF)


def lower_ir(ir_text: str, triple: str) -> str:
    """Return the assembly of optimised IR for another machine: how memory order is kept there."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    machine = binding.Target.from_triple(triple).create_target_machine(opt=2)
    foreign = ("target triple", "target datalayout")
    text = "\n".join(line for line in ir_text.splitlines() if not line.startswith(foreign))
    module = binding.parse_assembly(text)
    module.triple = triple
    module.data_layout = str(machine.target_data)
    return str(machine.emit_assembly(module))


# ------------------------------------------------------------------------------------- tables of
# arrays

# With the JIT off a kernel finds the arrays of a table by address here.
# By address and size of an element: a ring and its words lie at one address.
_arrays: "weakref.WeakValueDictionary[tuple[int, int], np.ndarray]" = weakref.WeakValueDictionary()


def table_enter(table, word, array):
    """Write the address and length of `array` at table[word], table[word + 1] for the kernels'
    `table_array`.

    The caller keeps `array` alive. Addresses hold in this process only.
    """
    table[word] = array.ctypes.data
    table[word + 1] = array.shape[0]
    _arrays[int(table[word]), array.itemsize] = array


def table_array(dtype, word):
    """A function for kernels: table -> the one-dimensional `dtype` array entered at `word`.

    Passing one table instead of two dozen arrays makes calls between kernel functions one argument
    instead of 175, which divides compile time by four; the loads are marked invariant, so the
    compiler keeps addresses in registers.
    """
    itemsize = np.dtype(dtype).itemsize
    if numba.config.DISABLE_JIT:
        return lambda table: _arrays[int(table[word]), itemsize]
    array_type = types.Array(numba.from_dtype(np.dtype(dtype)), 1, "C", aligned=True)

    def load(context, builder, sig, args, index):
        table = context.make_array(sig.args[0])(context, builder, args[0])
        value = builder.load(builder.gep(table.data, [ir.Constant(_I64, index)]))
        value.set_metadata("invariant.load", builder.module.add_metadata([]))
        return value

    @intrinsic
    def array(typingctx, table):
        def codegen(context, builder, sig, args):
            address, length = (load(context, builder, sig, args, word + i) for i in range(2))
            view = context.make_array(array_type)(context, builder)
            data = builder.inttoptr(address, view.data.type)
            size = context.get_constant(types.intp, itemsize)
            context.populate_array(
                view, data=data, shape=[length], strides=[size], itemsize=size, meminfo=None
            )
            return view._getvalue()

        return array_type(table), codegen

    return array
