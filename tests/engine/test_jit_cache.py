"""A compiled kernel never outlives its sources (fault D12): whatever it imports, at any depth.

Numba looks at the file of the kernel alone: after a change of a constant in another module it goes
on serving the old code. engine/jit.py names its cache by all sources below a kernel instead.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine import jit
from engine.jit import JIT_DISABLED, ROOT, cache_key, source_closure

RUN = """
import json
import engine.reader as reader
value = reader.read(0)
hits = sum(reader.read.stats.cache_hits.values())
print(json.dumps({"value": value, "hits": hits}))
"""
FILES = {
    "engine/__init__.py": "",
    "engine/layout.py": "OFFSET = 3\n",
    "engine/middle.py": (
        "from engine.jit import helper\n"
        "from engine.layout import OFFSET\n\n"
        "@helper\n"
        "def offset():\n"
        "    return OFFSET\n"
    ),
    "engine/reader.py": (
        "from engine.jit import kernel\n"
        "from engine.middle import offset\n\n"
        "@kernel\n"
        "def read(base):\n"
        "    return base + offset()\n"
    ),
    "engine/stranger.py": "LIMIT = 1\n",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of its own: our jit.py, a layout, a kernel that reads it through a third file."""
    for name, text in FILES.items():
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    shutil.copy(ROOT / "engine" / "jit.py", tmp_path / "project" / "engine" / "jit.py")
    return tmp_path / "project"


def run(project: Path) -> dict[str, int]:
    environ = os.environ | {
        "PYTHONPATH": str(project),
        "RINGBOOK_CACHE": str(project.parent / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=project, env=environ, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, int] = json.loads(done.stdout)
    return found


@pytest.mark.skipif(JIT_DISABLED, reason="there is no cache without the compiler")
@pytest.mark.slow
def test_edited_layout_module_gives_its_new_value_and_an_unedited_one_the_cache(
    project: Path,
) -> None:
    assert run(project) == {"value": 3, "hits": 0}
    assert run(project) == {"value": 3, "hits": 1}
    (project / "engine" / "layout.py").write_text("OFFSET = 5\n")
    assert run(project) == {"value": 5, "hits": 0}
    (project / "engine" / "stranger.py").write_text("LIMIT = 2\n")  # nobody imports it
    assert run(project) == {"value": 5, "hits": 1}
    (project / "engine" / "layout.py").write_text("OFFSET = 3\n")  # back: the first cache again
    assert run(project)["value"] == 3


@pytest.mark.slow
def test_cache_directory_is_for_the_owner_alone(project: Path) -> None:
    if JIT_DISABLED:
        pytest.skip("there is no cache without the compiler")
    run(project)
    root = project.parent / "cache" / "jit"
    assert root.stat().st_mode & 0o077 == 0
    root.chmod(0o777)
    environ = os.environ | {"PYTHONPATH": str(project), "RINGBOOK_CACHE": str(root.parent)}
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=project, env=environ, capture_output=True, timeout=60
    )
    assert done.returncode != 0
    assert b"is writable by others" in done.stderr


def test_source_closure_has_what_is_imported_at_any_depth_and_nothing_else() -> None:
    engine = ROOT / "engine"
    found = {p.relative_to(ROOT).as_posix() for p in source_closure(engine / "command_ring.py")}
    wanted = "command_ring codes records atomics jit ring_words segment".split()
    assert found == {f"engine/{name}.py" for name in wanted}


def test_source_closure_sees_imports_inside_functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jit, "ROOT", tmp_path)
    (tmp_path / "engine").mkdir()
    first, second = tmp_path / "engine" / "first.py", tmp_path / "engine" / "second.py"
    second.write_text("X = 1\n")
    first.write_text("def f():\n    import engine.second\n    return engine.second.X\n")
    assert second in source_closure(first)


@pytest.mark.flavour
@pytest.mark.nojit
def test_a_library_is_a_source_of_its_callers_only_where_it_is_not_compiled_apart() -> None:
    step, rules = (
        source_closure(ROOT / "engine" / f"{name}.py") for name in ("step", "full_rules")
    )
    inside = {
        ROOT / "engine" / f"{name}.py" for name in ("full_rules", "full_match", "full_orders")
    }
    assert inside <= rules
    assert not inside & step if jit.APART else inside <= step
    shared = {ROOT / "engine" / f"{name}.py" for name in ("book_state", "full_numbers", "codes")}
    assert shared <= step & rules


def test_cache_key_names_file_and_flavour(monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / "engine" / "command_ring.py"
    keys = []
    for flavour in jit.FLAVOURS:
        monkeypatch.setattr(jit, "FLAVOUR", flavour)
        keys.append(cache_key(path))
    assert len(set(keys)) == 3
    assert [k.split("-")[:2] for k in keys] == [["command_ring", f] for f in jit.FLAVOURS]


def test_cache_key_changes_with_a_library_version(monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / "engine" / "command_ring.py"
    before = cache_key(path)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "99." + name)
    assert cache_key(path) != before


@pytest.mark.parametrize("flavour", ["fast", ""])
def test_unknown_flavour_does_not_start(flavour: str) -> None:
    environ = os.environ | {"RINGBOOK_FLAVOUR": flavour}
    done = subprocess.run(
        [sys.executable, "-c", "import engine.jit"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert b"RINGBOOK_FLAVOUR must be one of prod, check, failpoint" in done.stderr


def test_optimised_python_does_not_start() -> None:
    done = subprocess.run(
        [sys.executable, "-O", "-c", "import engine.jit"],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert b"start without it" in done.stderr
