"""The one door to Numba: how every kernel is compiled, cached and warmed.

Cold. Two decorators, nothing else compiles code here:

* ``@kernel``: an entry called from Python once per batch. Cached on disk, releases the GIL.
* ``@helper``: a small function of a kernel, inlined by the compiler. Plain ``@njit`` helpers cost
  8x (reference counts on every array argument); ``_nrt=False`` removes that and turns an allocation
  into a compile error.

Cache: Numba looks only at the file of the cached function, so a changed constant in another module
would leave stale code running (measured). Here each module's kernels live in a directory named by a
hash of that module and of every project module it imports, directly or not, plus library versions,
CPU and flavour. A change anywhere below a kernel gives a new directory.

Flavours (RINGBOOK_FLAVOUR): ``prod``; ``check`` adds bounds checking and VERIFY; ``failpoint`` is
prod with crash points. NUMBA_DISABLE_JIT=1 runs everything as plain Python. Numba has no bounds
checking in its own cache key, ours has the flavour.
"""

import ast
import functools
import hashlib
import importlib.metadata
import os
import platform
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("engine", "gateway", "feed", "bench", "strategy", "tests")
FLAVOUR = os.environ.get("RINGBOOK_FLAVOUR", "prod")
FLAVOURS = ("prod", "check", "failpoint")
VERIFY = FLAVOUR == "check"
FAIL_POINTS = FLAVOUR == "failpoint"
CACHE_DIRECTORIES_KEPT = 64  # superseded ones are removed oldest first
CACHE_AGE_KEPT_S = 7 * 86400
YARDSTICK = "5bench6floors"  # the package bench.floors in a mangled name

if FLAVOUR not in FLAVOURS:
    raise SystemExit(f"RINGBOOK_FLAVOUR must be one of {', '.join(FLAVOURS)}, not {FLAVOUR!r}")
if not __debug__:
    raise SystemExit("python -O removes checks the engine relies on; start without it")

import numba  # noqa: E402  (the environment is judged before a heavy import)
from numba import njit, types  # noqa: E402
from numba.core import codegen  # noqa: E402
from numba.np import arrayobj  # noqa: E402

JIT_DISABLED = bool(numba.config.DISABLE_JIT)
APART = not JIT_DISABLED and not VERIFY  # libraries are compiled apart (engine/jit_library.py)

_kernels: list[Any] = []
_warmups: dict[str, Callable[[], object]] = {}
libraries: dict[str, Callable[[], None]] = {}  # by module: what loads it
_closures: dict[Path, frozenset[Path]] = {}
_directories: dict[Path, Path] = {}


def cache_root() -> Path:
    """Directory of all compiled kernels: $RINGBOOK_CACHE, else ~/.cache/ringbook (0700: a cache is
    executable code).
    """
    base = os.environ.get("RINGBOOK_CACHE")
    root = Path(base) if base else Path.home() / ".cache" / "ringbook"
    return root / "jit"


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    # All statements at any depth; expressions, most of a tree, hold no import. A library is a
    # source of who calls it only where it is not compiled apart.
    todo = [tree]
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "APART":
            todo += node.body if APART else node.orelse
            continue
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            inner = getattr(node, field, None)
            if isinstance(inner, list):
                todo += inner


@functools.cache
def _imported_modules(path: Path) -> set[Path]:
    # Project files that `path` imports, at any depth of its syntax tree.
    names: set[str] = set()
    for node in _statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    files: set[Path] = set()
    for name in names:
        if name.split(".")[0] in PACKAGES:
            stem = ROOT.joinpath(*name.split("."))
            files.update(p for p in (stem.with_suffix(".py"), stem / "__init__.py") if p.is_file())
    return files


def source_closure(path: Path) -> frozenset[Path]:
    """`path` and every project file it imports, directly or not."""
    if path not in _closures:
        seen, todo = {path}, [path]
        while todo:
            for found in _imported_modules(todo.pop()):
                if found not in seen:
                    seen.add(found)
                    todo.append(found)
        seen.add(Path(__file__).resolve())
        _closures[path] = frozenset(seen)
    return _closures[path]


def cache_key(path: Path) -> str:
    """Name of the cache directory for the kernels of `path`."""
    digest = hashlib.sha256()
    for source in sorted(source_closure(path)):
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    for library in ("numba", "llvmlite", "numpy"):
        digest.update(f"{library}={importlib.metadata.version(library)};".encode())
    flavour = _flavour_of(path)
    digest.update(
        f"{sys.version_info[:2]}{platform.machine()}{platform.processor()}{flavour}".encode()
    )
    return f"{path.stem}-{flavour}-{digest.hexdigest()[:20]}"


def _flavour_of(path: Path) -> str:
    # Without a crash point in it a kernel is the same in flavour `failpoint` as in `prod`.
    own = [source for source in source_closure(path) if source != Path(__file__).resolve()]
    if FAIL_POINTS and not any(b"FAIL_POINTS" in source.read_bytes() for source in own):
        return "prod"
    return FLAVOUR


def _cache_directory(path: Path) -> Path:
    if path not in _directories:
        root = cache_root()
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = root.stat()
        if info.st_uid != os.getuid() or stat.S_IMODE(info.st_mode) & 0o022:
            raise SystemExit(
                f"kernel cache {root} is writable by others (compiled code lives there):"
                " chmod 700 it"
            )
        directory = root / cache_key(path)
        directory.mkdir(mode=0o700, exist_ok=True)
        os.utime(directory)
        _directories[path] = directory
    return _directories[path]


def prune_cache() -> int:
    """Remove superseded kernel directories, oldest first; returns how many went."""
    root = cache_root()
    if not root.is_dir():
        return 0
    used = set(_directories.values())
    found = sorted(
        (p for p in root.iterdir() if p.is_dir() and p not in used), key=lambda p: p.stat().st_mtime
    )
    horizon = time.time() - CACHE_AGE_KEPT_S
    excess = len(found) - CACHE_DIRECTORIES_KEPT
    gone = [p for i, p in enumerate(found) if i < excess or p.stat().st_mtime < horizon]
    for path in gone:
        shutil.rmtree(path, ignore_errors=True)
    return len(gone)


def kernel(function: Callable[..., Any]) -> Any:
    """Compile an entry point: cached, GIL released, no reference counting, nothing may allocate."""
    if JIT_DISABLED:
        return function
    numba.config.CACHE_DIR = str(_cache_directory(Path(function.__code__.co_filename).resolve()))
    compiled = njit(cache=True, nogil=True, _nrt=False, boundscheck=VERIFY)(function)
    _kernels.append(compiled)
    first_call = compiled._compile_for_args

    def load_and_compile(*args: object, **kwargs: object) -> object:
        load_libraries()
        return first_call(*args, **kwargs)

    if libraries:
        compiled._compile_for_args = load_and_compile
    return compiled


def compile_apart(function: Callable[..., Any], signature: Any) -> Any:
    """Compile or load a library's function; its `address` is what the cell gets."""
    numba.config.CACHE_DIR = str(_cache_directory(Path(function.__code__.co_filename).resolve()))
    return numba.cfunc(signature, cache=True, _nrt=False)(function)


_deferred = False


def load_libraries(later: bool | None = None) -> None:
    """Load the libraries that kernels of this process may call. `later`: from now on (True) kernels
    are made without them, because another process compiles them; (False) they are there.
    """
    global _deferred
    if later is not None:
        _deferred = later
    if not _deferred:
        for load in list(libraries.values()):
            load()


_helper_names: set[str] = set()
_subroutine_names: set[str] = set()


def _name_note(function: Callable[..., Any], names: set[str], others: set[str]) -> None:
    # Libraries are known by these names alone: one name for both kinds would give a helper the
    # treatment of a subroutine.
    if function.__qualname__ in others:
        raise TypeError(f"{function.__qualname__} is a helper here and a subroutine there")
    names.add(function.__qualname__)


def helper(function: Callable[..., Any]) -> Any:
    """Compile a part of a kernel; always inlined into its callers, but in the check flavour.
    Python cannot call it (TypeError), kernels can.
    """
    if JIT_DISABLED:
        return function
    if not VERIFY:
        _name_note(function, _helper_names, _subroutine_names)
    # Bounds checks make each function several times longer: all of them inlined took over 300 s to
    # compile, calls take 27 s.
    compiled = njit(
        forceinline=not VERIFY,
        _nrt=False,
        boundscheck=VERIFY,
        no_cpython_wrapper=True,
        no_cfunc_wrapper=True,
    )(function)

    def refuse(*_: object, **__: object) -> None:
        raise TypeError(f"{function.__qualname__} is part of kernels: call it from one")

    compiled._compile_for_args = refuse
    compiled.add_overload = lambda result: compiled.overloads.__setitem__(
        tuple(result.signature.args), result
    )
    return compiled


def _lighten_helpers() -> None:
    # Numba optimises every function by itself and makes machine code of it before it links it into
    # its callers: for helpers both are thrown away, level by level. Here a helper gets one cheap
    # pass, no machine code; the kernel that takes it in gets the full treatment. This halves the
    # time of a first start. (Numba's classes are private: the lock pins them.)
    library = codegen.JITCodeLibrary
    functions, module, finish = (
        library._optimize_functions,
        library._optimize_final_module,
        library._finalize_final_module,
    )
    pointer, set_env = library.get_pointer_to_function, codegen.JITCPUCodegen.set_env

    def optimize_functions(self: Any, ir_module: Any) -> None:
        if self.name in _subroutine_names:
            for function in ir_module.functions:
                if not function.is_declaration:
                    function.add_function_attribute("noinline")
        if self.name in _helper_names:
            ir_module.data_layout = self._codegen._data_layout
        else:
            functions(self, ir_module)

    def optimize_final_module(self: Any) -> None:
        if self.name in _helper_names:
            passes, builder = self._codegen._module_pass_manager(
                loop_vectorize=False, slp_vectorize=False, opt=1, cost="cheap"
            )
            passes.run(self._final_module, builder)
        else:
            module(self)

    def finalize_final_module(self: Any) -> None:
        if self.name in _helper_names:
            self._finalize_dynamic_globals()
            self._finalized = True
        else:
            finish(self)

    def get_pointer_to_function(self: Any, name: str) -> int:
        if self.name in _helper_names:
            self._ensure_finalized()
            return 0
        return int(pointer(self, name))

    def set_environment(self: Any, name: str, environment: Any) -> None:
        if self._engine.is_symbol_defined(name):
            set_env(self, name, environment)

    library._optimize_functions, library._optimize_final_module = (
        optimize_functions,
        optimize_final_module,
    )
    library._finalize_final_module, library.get_pointer_to_function = (
        finalize_final_module,
        get_pointer_to_function,
    )
    codegen.JITCPUCodegen.set_env = set_environment


_lighten_helpers()


def _index_as_written() -> None:
    # Python's a[-1] costs every access by a signed index a test, a select and a load of the length:
    # a fifth of the instructions of a step (measured). Kernels count from zero; under the check
    # flavour a negative index is out of bounds. The floors of the benchmarks stay what stock Numba
    # makes of them: published ratios of other engines refer to that.
    stock = arrayobj.fix_integer_index

    def fix_integer_index(context: Any, builder: Any, kind: Any, index: Any, size: Any) -> Any:
        if YARDSTICK in builder.function.name:
            return stock(context, builder, kind, index, size)
        return context.cast(builder, index, kind, types.intp if kind.signed else types.uintp)

    arrayobj.fix_integer_index = fix_integer_index


_index_as_written()


def subroutine(function: Callable[..., Any]) -> Any:
    """Compile a larger part that stays a call of its own: bounds compile time and code size."""
    if JIT_DISABLED:
        return function
    # Said twice: Numba hands a caller's forceinline on, LLVM takes short functions in by itself.
    _name_note(function, _subroutine_names, _helper_names)
    return njit(forceinline=False, _nrt=False, boundscheck=VERIFY)(function)


def register_warmup(name: str, call: Callable[[], object]) -> None:
    """Say how the kernels of a module are called once with their real types."""
    _warmups[name] = call


def _marker(name: str) -> Path | None:
    # File that says: this module's kernels are all in the cache. Numba discards what is older than
    # the source file.
    path = Path(str(sys.modules[name].__file__)).resolve() if name in sys.modules else None
    if path is None or path not in _directories:
        return None
    return _directories[path] / f"warm-{path.stat().st_mtime_ns}"


def warm_pending() -> list[str]:
    """Names of the registered warm-ups that no earlier process has completed."""
    markers = {name: _marker(name) for name in _warmups}
    return [name for name, marker in markers.items() if marker is None or not marker.exists()]


def warm_up(
    progress: Callable[[int, int, str, float], None] | None = None, names: list[str] | None = None
) -> float:
    """Run registered warm-ups, by default all; compiles or loads every kernel. Returns seconds.

    `progress(done, total, name, seconds)` is called before each (seconds of the previous one) and
    once at the end.
    """
    start = last = time.monotonic()
    names = list(_warmups) if names is None else names
    for done, name in enumerate(names):
        if progress:
            progress(done, len(names), name, time.monotonic() - last)
        last = time.monotonic()
        _warmups[name]()
        marker = None if JIT_DISABLED else _marker(name)
        if marker is not None:
            marker.touch()
    if progress:
        progress(len(names), len(names), "", time.monotonic() - last)
    return time.monotonic() - start


def freeze_kernels() -> None:
    """Forbid compiling and loading from now on (after warm_up): a process that trades never waits
    for LLVM.
    """
    for compiled in _kernels:
        compiled._can_compile = False  # disable_compile() refuses kernels this process does not use


def kernel_signatures() -> dict[str, int]:
    """How many argument types each kernel was compiled for; more than one is a bug in a caller."""
    return {f"{k.py_func.__module__}.{k.__name__}": len(k.signatures) for k in _kernels}
