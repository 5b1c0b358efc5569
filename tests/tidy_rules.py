"""The house rules that a machine can check, as functions from a parsed file to complaints. Cold.

Each rule is a function `(source, project) -> iterator of complaints`. tests/test_tidy.py applies
every rule to every file of the tree, and to planted violations, so that no rule can silently stop
seeing. Words a rule forbids are written here in two halves: the rules read this file too.

The map of the house: the engine is the ground. The doors stand on its public faces and do not know
each other. Above them are the wiring rooms, which may know everything: run.py, the tests, the
benchmarks and, inside its functions only, engine/topology.py. Nothing but run.py and the tests
imports `ringbook`, the public face.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

FACES = frozenset(
    "engine.records engine.config engine.jit engine.atomics engine.shm_ring engine.counters"
    " engine.idle engine.event_log engine.journal_reader engine.views".split()
)
DOORS = frozenset("gateway feed api store strategy bridge".split())
EXTRA_FACES = {"strategy": frozenset({"engine.local"})}
PACKAGES = DOORS | {"engine", "bench", "ringbook", "tests", "run", "cli"}
COMPILER_FILES = frozenset({"engine/jit.py", "engine/jit_library.py", "engine/atomics.py"})
CODE_GENERATORS = frozenset({"engine/jit_library.py", "engine/atomics.py"})
COMPILER = frozenset({"numba", "llvmlite"})
WIRING_ROOM = "engine/topology.py"
KERNEL_DECORATORS = frozenset({"kernel", "helper", "library", "subroutine"})
FILE_LINES_MAX = 600
KERNEL_LINES_MAX = 40
KERNEL_ARGUMENTS_MAX = 6
# What an array or a scalar answers inside a kernel, beside the fields of the state tuples.
ARRAY_ATTRIBUTES = frozenset({"size", "shape", "ndim"})
KERNEL_MODULES = frozenset({"np", "math"})


@dataclass(frozen=True)
class Source:
    """One file: its path from the root with slashes, and its text."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @cached_property
    def package(self) -> str:
        return self.path.split("/")[0].removesuffix(".py")

    @cached_property
    def module(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    @property
    def is_python(self) -> bool:
        return self.path.endswith(".py")

    @property
    def is_product(self) -> bool:
        return self.is_python and self.package in PACKAGES - {"tests"}


@dataclass(frozen=True)
class Project:
    """All files, for rules that need to know the others."""

    sources: tuple[Source, ...]

    @cached_property
    def tuple_fields(self) -> frozenset[str]:
        """Field names of every NamedTuple of the project: what `state.field` may be in a kernel."""
        fields: set[str] = set()
        for source in self.sources:
            if source.is_python:
                for node in source.nodes:
                    fields.update(_fields_of(node))
        return frozenset(fields)

    @cached_property
    def mentioned_modules(self) -> frozenset[str]:
        """Every module another product file imports, or names in a string to start it by `-m`."""
        found: set[str] = set()
        for source in self.sources:
            if source.package == "tests":
                continue  # what only tests use is dead
            if not source.is_python:
                found.update(
                    re.findall(r"[\w.]+", source.text) if source.path == "Makefile" else []
                )
                continue
            names = {name for name, _ in imports_of(source)}
            names |= {
                node.value
                for node in source.nodes
                if isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and re.fullmatch(r"[\w.]+", node.value)
            }
            found |= names - {source.module}
        return frozenset(found)


Rule = Callable[[Source, Project], Iterator[str]]
RULES: dict[str, Rule] = {}


def rule(function: Rule) -> Rule:
    RULES[function.__name__] = function
    return function


# -------------------------------------------------------------------------------- reading the tree
def _name_of(node: ast.AST) -> str:
    # The last word of a name, an attribute or a call of either: `engine.jit.kernel(...)` -> kernel.
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _fields_of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.ClassDef) and any(_name_of(b) == "NamedTuple" for b in node.bases):
        for item in node.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                yield item.target.id
    elif isinstance(node, ast.Call) and _name_of(node) in ("namedtuple", "NamedTuple"):
        for part in ast.walk(node):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield from part.value.replace(",", " ").split()


def imports_of(source: Source) -> Iterator[tuple[str, ast.AST]]:
    """Every module a file imports, as full names; `from a import b` counts as a.b."""
    for node in source.nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = list(PurePosixPath(source.path).parts[: -node.level])
                base = ".".join([*parts, base] if base else parts)
            for alias in node.names:
                yield f"{base}.{alias.name}", node
        elif isinstance(node, ast.Call) and _name_of(node) in ("import_module", "__import__"):
            if node.args and isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value), node


def functions_of(source: Source) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in source.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def kernels_of(source: Source) -> Iterator[ast.FunctionDef]:
    for node in functions_of(source):
        if isinstance(node, ast.FunctionDef) and any(
            _name_of(d) in KERNEL_DECORATORS for d in node.decorator_list
        ):
            yield node


def _body_without_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.stmt]:
    return node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body


def _is_empty(statements: list[ast.stmt]) -> bool:
    return all(
        isinstance(s, ast.Pass | ast.Continue)
        or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
        for s in statements
    )


def _at(source: Source, node: ast.AST, complaint: str) -> str:
    return f"{source.path}:{getattr(node, 'lineno', 1)}: {complaint}"


def _inside_functions(source: Source) -> set[int]:
    return {id(inner) for f in functions_of(source) for inner in ast.walk(f)}


# ----------------------------------------------------------------------------- the dependency rule
def _forbidden(source: Source, name: str, *, lazy: bool) -> str:
    """Why `source` may not import `name`; empty when it may."""
    target = name.split(".")[0]
    own = source.package
    if target in COMPILER and source.path not in COMPILER_FILES:
        return "only engine/jit.py, jit_library.py and atomics.py import the compiler"
    if target not in PACKAGES or own in ("tests", "run", "cli"):
        return ""
    if target == "ringbook" and own != "ringbook":
        return "nothing imports the public face"
    if target in ("run", "cli", "tests") and own != "bench":
        return "the top of the house is imported by nobody below it"
    if own == "engine" and target in DOORS | {"bench"}:
        if source.path == WIRING_ROOM and target in DOORS and lazy:
            return ""
        return "the engine is the ground: it imports no door (topology.py only inside functions)"
    if own in DOORS and target not in (own, "engine"):
        return "doors do not know each other, nor what is above them"
    if own in DOORS and target == "engine" and name != "engine":
        faces = FACES | EXTRA_FACES.get(own, frozenset())
        if not any(name == face or name.startswith(face + ".") for face in faces):
            return "not a public face of the engine"
    return ""


@rule
def dependency_rule(source: Source, project: Project) -> Iterator[str]:
    """Ground, doors, wiring room; the compiler behind two files."""
    if source.is_python:
        lazy = _inside_functions(source)
        for name, node in imports_of(source):
            reason = _forbidden(source, name, lazy=id(node) in lazy)
            if reason:
                yield _at(source, node, f"imports {name}: {reason}")


@rule
def no_dead_module(source: Source, project: Project) -> Iterator[str]:
    """A module that nobody imports or starts is not part of the product."""
    if source.is_product and not source.path.endswith(("__init__.py", "run.py", "__main__.py")):
        if source.module not in project.mentioned_modules and not any(
            name.startswith(source.module + ".") for name in project.mentioned_modules
        ):
            if not PurePosixPath(source.path).name.startswith("test_"):
                yield f"{source.path}: nobody imports or starts this module"


# ------------------------------------------------------------------------------- sizes and kernels
@rule
def sizes(source: Source, project: Project) -> Iterator[str]:
    """Files of at most 600 lines; kernels of at most 40 lines (docstring apart) and 6 arguments."""
    lines = source.text.count("\n")
    if source.is_python and lines > FILE_LINES_MAX:
        yield f"{source.path}: {lines} lines, more than {FILE_LINES_MAX}"
    for node in kernels_of(source) if source.is_product else ():
        length = (node.end_lineno or 0) - node.lineno + 1
        if ast.get_docstring(node, clean=False) is not None:
            length -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
        if length > KERNEL_LINES_MAX:
            yield _at(source, node, f"{node.name} has {length} lines, at most {KERNEL_LINES_MAX}")
        count = len(node.args.posonlyargs + node.args.args + node.args.kwonlyargs)
        if count > KERNEL_ARGUMENTS_MAX:
            yield _at(source, node, f"{node.name} has {count} arguments")


_BANNED_IN_KERNEL: dict[type[ast.AST], str] = {
    ast.Raise: "raises: return a code",
    ast.Assert: "asserts: return FATAL",
    ast.Try: "has a try",
    ast.With: "has a with",
    ast.Yield: "yields",
    ast.Lambda: "has a lambda",
    ast.List: "builds a list",
    ast.ListComp: "builds a list",
    ast.GeneratorExp: "has a generator",
    ast.Dict: "builds a dict",
    ast.DictComp: "builds a dict",
    ast.Set: "builds a set",
    ast.SetComp: "builds a set",
    ast.JoinedStr: "formats a string",
    ast.Global: "writes a global",
    ast.Import: "imports",
    ast.ImportFrom: "imports",
}


@rule
def kernels_only_compute(source: Source, project: Project) -> Iterator[str]:
    """No raise, assert, try, print, list, dict, string building in compiled code."""
    for kernel in kernels_of(source) if source.is_python else ():
        for node in ast.walk(kernel):
            complaint = _BANNED_IN_KERNEL.get(type(node))
            if isinstance(node, ast.Call) and _name_of(node) == "print":
                complaint = "prints"
            if complaint:
                yield _at(source, node, f"kernel {kernel.name} {complaint}")


def _record_names(kernel: ast.FunctionDef) -> set[str]:
    # Names bound to one element of an array, `order = pool[slot]`: records. A slice is an array.
    return {
        target.id
        for node in ast.walk(kernel)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript)
        if not isinstance(node.value.slice, ast.Slice)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _attribute_allowed(node: ast.Attribute, records: set[str], known: frozenset[str]) -> bool:
    base = node.value
    if isinstance(base, ast.Name):
        if base.id in records:
            return False
        if base.id in KERNEL_MODULES or (base.id[0].isupper() and not base.id.isupper()):
            return True  # NumPy, or an Enum class
    elif isinstance(base, ast.Attribute):
        root = base.value
        if isinstance(root, ast.Name) and root.id[0].isupper() and not root.id.isupper():
            return True  # Side.BUY.value
    else:
        return False  # pool[slot].qty, f(x).qty
    return node.attr in known


@rule
def records_by_key_in_kernels(source: Source, project: Project) -> Iterator[str]:
    """`rec['qty']`, never `rec.qty`: the attribute form breaks when the JIT is off.

    Attributes are for the fields of state tuples, NumPy, Enum classes and the size of an array.
    """
    for kernel in kernels_of(source) if source.is_python else ():
        records = _record_names(kernel)
        known = project.tuple_fields | ARRAY_ATTRIBUTES
        decorators = {id(n) for d in kernel.decorator_list for n in ast.walk(d)}
        annotations = {
            id(n)
            for a in [*(arg.annotation for arg in kernel.args.args), kernel.returns]
            if a is not None
            for n in ast.walk(a)
        }
        for node in ast.walk(kernel):
            if isinstance(node, ast.Attribute) and id(node) not in decorators | annotations:
                if not _attribute_allowed(node, records, known):
                    text = ast.unparse(node)
                    yield _at(source, node, f"kernel {kernel.name} reads {text}: a record? use []")


@rule
def annotations_outside_kernels(source: Source, project: Project) -> Iterator[str]:
    """mypy lets un-annotated functions pass because of kernels; everything else is annotated."""
    if not source.is_product or source.path in CODE_GENERATORS:
        return  # code generators in the compiler's own calling convention
    kernels = {id(inner) for kernel in kernels_of(source) for inner in ast.walk(kernel)}
    for node in functions_of(source):
        if id(node) in kernels:
            continue
        arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
        arguments += [a for a in (node.args.vararg, node.args.kwarg) if a]
        bare = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
        if node.returns is None:
            bare.append("return")
        if bare:
            yield _at(source, node, f"{node.name} lacks annotations: {', '.join(bare)}")


# ------------------------------------------------------------------------------ what may not stand
@rule
def no_print(source: Source, project: Project) -> Iterator[str]:
    """Engine and doors report by counters and return values; printing is run.py's business."""
    if source.is_python and source.package in DOORS | {"engine"}:
        for node in source.nodes:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                if node.func.id == "print":
                    yield _at(source, node, "prints")


_LEFTOVERS = re.compile(r"\b(FIX" + r"ME|TO" + r"DO|XX" + r"X|NotImplemented" + r"Error)\b")


@rule
def no_leftovers(source: Source, project: Project) -> Iterator[str]:
    """No promise in place of code; no stub; no test switched off."""
    for number, line in enumerate(source.text.splitlines(), 1):
        found = _LEFTOVERS.search(line)
        if found:
            yield f"{source.path}:{number}: {found[0]}"
    if not source.is_python:
        return
    protocols = {
        id(inner)
        for node in source.nodes
        if isinstance(node, ast.ClassDef) and any(_name_of(b) == "Protocol" for b in node.bases)
        for inner in ast.walk(node)
    }
    for function in functions_of(source):
        marks = {_name_of(d) for d in function.decorator_list}
        if id(function) in protocols or marks & {"overload", "abstractmethod"}:
            continue
        if _is_empty(function.body) and ast.get_docstring(function) is None:
            yield _at(source, function, f"{function.name} is empty and no docstring says why")
        if marks & {"skip", "xfail"}:
            yield _at(source, function, f"{function.name} is switched off")


@rule
def no_swallowed_errors(source: Source, project: Project) -> Iterator[str]:
    """No bare except; no catching of everything to do nothing."""
    everything = ("Exception", "BaseException")
    for node in source.nodes if source.is_python else ():
        if isinstance(node, ast.ExceptHandler):
            if node.type is None:
                yield _at(source, node, "bare except")
            else:
                kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
                if any(_name_of(k) in everything for k in kinds) and _is_empty(node.body):
                    yield _at(source, node, "catches everything and does nothing")
        elif isinstance(node, ast.Call) and _name_of(node) == "suppress":
            if any(_name_of(a) in everything for a in node.args):
                yield _at(source, node, "suppresses everything")


@rule
def no_dangerous_calls(source: Source, project: Project) -> Iterator[str]:
    """No pickle, eval, exec, yaml.load, shell; no multiprocessing.shared_memory.

    Its resource tracker unlinks segments of others before Python 3.13; posix_ipc is used instead.
    """
    if not source.is_python:
        return
    for name, node in imports_of(source):
        if name.split(".")[0] in ("pickle", "marshal", "shelve", "dill"):
            yield _at(source, node, f"imports {name}")
        if name.startswith("multiprocessing.shared_memory"):
            yield _at(source, node, f"imports {name}")
    for node in source.nodes:
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
            yield _at(source, node, f"calls {node.func.id}")
        if ast.unparse(node.func) in ("yaml.load", "os.system", "os.popen"):
            yield _at(source, node, f"calls {ast.unparse(node.func)}")
        for word in node.keywords:
            if word.arg == "shell" and getattr(word.value, "value", False) is True:
                yield _at(source, node, "starts a shell")


# Hosts of package registries, index options, and absolute paths of somebody's machine.
_PLACES = re.compile(
    r"py" + r"pi\.org|python" + r"hosted|--(?:extra-)?index" + r"-url\s|/sim" + r"ple/"
    r"|(?<![\w.~$}])/(?:wo" + r"rk|ro" + r"ot|ho" + r"me/\w+)/"
)


@rule
def no_places(source: Source, project: Project) -> Iterator[str]:
    """Nothing committed names a registry host or a path of the machine it was written on."""
    for number, line in enumerate(source.text.splitlines(), 1):
        found = _PLACES.search(line)
        if found:
            yield f"{source.path}:{number}: names {found[0]!r}"


@rule
def one_title_per_document(source: Source, project: Project) -> Iterator[str]:
    """A Markdown document has exactly one H1."""
    if source.path.endswith(".md"):
        prose = re.sub(r"^(```|~~~).*?^\1", "", source.text, flags=re.M | re.S)
        count = len(re.findall(r"^# ", prose, flags=re.M))
        if count != 1:
            yield f"{source.path}: {count} titles (lines beginning with '# '), one expected"


@rule
def locks_are_hashed(source: Source, project: Project) -> Iterator[str]:
    """A lock pins every package with hashes and carries no address and no option line."""
    if not source.path.endswith(".lock"):
        return
    if "://" in source.text or re.search(r"^-", source.text, flags=re.M):
        yield f"{source.path}: carries an address or an option"
    entries = [e for e in re.split(r"\n(?=\S)", source.text.strip()) if not e.startswith("#")]
    for entry in entries:
        head = entry.split("\n")[0].rstrip(" \\")
        if not re.match(r"[\w.\[\]-]+==\S+", head):
            yield f"{source.path}: {head!r} is not pinned"
        if not re.search(r"--hash=sha256:[0-9a-f]{64}", entry):
            yield f"{source.path}: {head!r} has no hash"
    if not entries:
        yield f"{source.path}: is empty"


# ----------------------------------------------------------------------- documents against records
def _table_rows(text: str) -> Iterator[tuple[list[str], list[str]]]:
    """(header cells, row cells) of every Markdown table row, markup removed, in upper case."""
    header: list[str] | None = None
    for line in text.splitlines():
        if not line.startswith("|"):
            header = None
            continue
        cells = [
            c.strip().strip("`*").replace(" ", "_").upper() for c in line.strip("|").split("|")
        ]
        if header is None:
            header = cells
        elif not all(re.fullmatch(r":?-+:?", c) for c in cells):
            yield header, cells


def compare_codes(text: str, codes: dict[str, int]) -> Iterator[str]:
    """Tables with a column `code` list each reject code once, with its number and name."""
    seen: set[str] = set()
    for header, cells in _table_rows(text):
        if "CODE" not in header or len(cells) != len(header):
            continue
        number = cells[header.index("CODE")]
        names = [c for c in cells if c in codes]
        if not number.isdigit():
            continue
        if len(names) != 1 or codes[names[0]] != int(number):
            yield f"row {number} names {names or 'no code'} of records.py"
        seen.update(names)
    for name in codes:
        if codes[name] and name not in seen:
            yield f"{codes[name]} {name} is in records.py and in no table"


def compare_kinds(text: str, kinds: dict[str, int]) -> Iterator[str]:
    """Each event kind is a cell of a table; a table with a column `kind` lists nothing else."""
    seen: set[str] = set()
    for header, cells in _table_rows(text):
        seen.update(kinds.keys() & set(cells))
        if "KIND" in header and len(cells) == len(header):
            name = cells[header.index("KIND")]
            if name not in kinds:
                yield f"{name} is no event kind of records.py"
            numbers = [int(c) for c in cells if c.isdigit()]
            if name in kinds and numbers and kinds[name] not in numbers:
                yield f"{name} is {kinds[name]} in records.py, not {numbers}"
    for name in kinds:
        if name not in seen:
            yield f"{name} is in records.py and in no table"
