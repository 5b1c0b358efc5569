"""Reads optimised LLVM IR: which memory accesses a kernel makes, and in which order they can come.

Cold, test only. A kernel is compiled anew (Numba shows no IR of a cached one), its native body is
cut out of the module, every access is attributed to the array argument its pointer comes from, and
questions of order are answered over the control-flow graph, path by path: the order of the text
means nothing.

    Access kinds: "load", "store" (plain), "load acquire", "load monotonic", "store release",
    "store monotonic", "fence acquire", "fence seq_cst", "swap", "return"
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.jit import subroutine

_BLOCK = re.compile(r"^(?:\"([^\"]+)\"|([\w.$-]+)):")
_NAME = r"%(?:\"[^\"]+\"|[\w.$-]+)"
_LABEL = re.compile(rf"label ({_NAME})")
_ARGUMENT = re.compile(r"^%\"?arg\.(\w+)\.4\"?$")  # .4 is the data pointer of an array argument


@dataclass(frozen=True)
class Access:
    """One memory operation: what it is, on which array arguments, and its line."""

    kind: str
    arrays: frozenset[str]
    text: str


Wanted = Callable[[Access], bool]


def on(kind: str, array: str = "") -> Wanted:
    """Select accesses of a kind, and of an array if one is named."""
    return lambda access: access.kind == kind and (not array or array in access.arrays)


class Body:
    """The native body of one kernel."""

    def __init__(self, function: Any, arguments: tuple[Any, ...]) -> None:
        compiled = subroutine(getattr(function, "py_func", function))
        compiled(*arguments)
        (signature,) = compiled.signatures
        self.ir: str = compiled.inspect_llvm(signature)
        self.accesses: list[Access] = []
        self._following: list[list[int]] = []
        self._read(_native_body(self.ir))

    def _read(self, lines: list[str]) -> None:
        pointers = _pointer_sources(lines)
        first_of: dict[str, int] = {}
        jumps: list[tuple[int, list[str]]] = []
        for line in lines:
            block = _BLOCK.match(line)
            if block:
                first_of["%" + (block[1] or block[2])] = len(self.accesses)
                continue
            self.accesses.extend(_accesses_of(line, pointers))
            targets = [t.replace('"', "") for t in _LABEL.findall(line)]
            if targets:
                self.accesses.append(Access("jump", frozenset(), line))
                jumps.append((len(self.accesses) - 1, targets))
            elif line.lstrip().startswith(("ret ", "unreachable")):
                self.accesses.append(Access("return", frozenset(), line))
        for index, access in enumerate(self.accesses):
            ends = access.kind in ("jump", "return")
            self._following.append([] if ends else [index + 1])
        for index, targets in jumps:
            self._following[index] = [first_of[target] for target in targets]

    def find(self, wanted: Wanted) -> list[int]:
        """Return where such accesses stand."""
        return [i for i, access in enumerate(self.accesses) if wanted(access)]

    def path_exists(self, start: Wanted | None, end: Wanted, avoiding: Wanted) -> bool:
        """Whether one can get from a `start` (None: the entry) to an `end` past no `avoiding`."""
        if start is None:
            todo = [0]
        else:
            todo = [n for i in self.find(start) for n in self._following[i]]
        seen = set(todo)
        while todo:
            index = todo.pop()
            access = self.accesses[index]
            if end(access):
                return True
            if not avoiding(access):
                for following in self._following[index]:
                    if following not in seen:
                        seen.add(following)
                        todo.append(following)
        return False

    def always_between(self, start: Wanted | None, between: Wanted, end: Wanted) -> bool:
        """Whether every way from `start` to `end` passes a `between`; all three must exist."""
        for wanted in filter(None, (start, between, end)):
            assert self.find(wanted), "nothing to be in order: the kernel changed"
        return not self.path_exists(start, end, between)

    def never_after(self, start: Wanted, end: Wanted) -> bool:
        """Whether no `end` can follow a `start`."""
        return not self.path_exists(start, end, lambda _: False)


def _native_body(ir: str) -> list[str]:
    # The first function defined is the native one; the wrappers for Python and C follow.
    lines = ir.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("define "))
    assert "cpython" not in lines[start][:200]
    end = next(i for i in range(start, len(lines)) if lines[i] == "}")
    text = "\n".join(["entry:", *lines[start + 1 : end]])
    # A switch stands on several lines; one jump with all its labels is what it means.
    text = re.sub(r"switch [^\[]*\[[^\]]*\]", lambda m: m[0].replace("\n", " "), text)
    return text.splitlines()


def _pointer_sources(lines: list[str]) -> dict[str, frozenset[str]]:
    # Per pointer: the array arguments it may come from, through arithmetic, phi and select.
    operands: dict[str, list[str]] = {}
    for line in lines:
        made = re.match(
            rf"\s*({_NAME}) = (getelementptr|phi ptr|select|inttoptr|ptrtoint|add|sub|freeze)\b",
            line,
        )
        if made:
            operands[made[1]] = re.findall(_NAME, line.split("=", 1)[1])
    sources: dict[str, frozenset[str]] = {}

    def find(name: str, above: frozenset[str]) -> frozenset[str]:
        if name in sources:
            return sources[name]
        argument = _ARGUMENT.match(name)
        if argument:
            return frozenset([argument[1]])
        if name in above:
            return frozenset()
        parts = [find(n, above | {name}) for n in operands.get(name, ())]
        found: frozenset[str] = frozenset().union(*parts)
        if not above:
            sources[name] = found
        return found

    names = {n for line in lines for n in re.findall(_NAME, line)}
    return {name: find(name, frozenset()) for name in names}


_KINDS = [
    (re.compile(rf"= load atomic \S+, ptr ({_NAME}) (\w+), align (\d+)"), "load"),
    (re.compile(rf"store atomic \S+ \S+, ptr ({_NAME}) (\w+), align (\d+)"), "store"),
]
_SWAP = re.compile(rf"= cmpxchg ptr ({_NAME}), .* seq_cst seq_cst, align 8")
_COPY = re.compile(rf"call void @llvm\.mem(?:cpy|move)\S* *\(ptr[^%]*({_NAME}), ptr[^%]*({_NAME})")
_SET = re.compile(rf"call void @llvm\.memset\S*\(ptr[^%]*({_NAME})")


def _accesses_of(line: str, pointers: dict[str, frozenset[str]]) -> list[Access]:
    def made(kind: str, pointer: str) -> Access:
        return Access(kind, pointers[pointer], line)

    text = line.strip()
    for pattern, what in _KINDS:
        found = pattern.search(line)
        if found:
            assert found[3] == "8", f"atomic access that is not 8-byte aligned: {text}"
            return [made(f"{what} {found[2]}", found[1])]
    assert " atomic " not in line, f"unknown atomic access: {text}"
    swap = _SWAP.search(line)
    if swap:
        return [made("swap", swap[1])]
    copy = _COPY.search(line)
    if copy:
        return [made("load", copy[2]), made("store", copy[1])]
    filled = _SET.search(line)
    if filled:
        return [made("store", filled[1])]
    fence = re.match(r"fence (\w+)", text)
    if fence:
        return [Access(f"fence {fence[1]}", frozenset(), line)]
    plain = re.search(rf"(?:= load |^store ).*ptr ({_NAME}),", text)
    if plain:
        return [made("load" if "= load" in text else "store", plain[1])]
    return []
