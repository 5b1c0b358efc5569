"""The command line where no exchange runs: help that teaches, sentences instead of tracebacks."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = "up demo replay listen client top bench doctor check test".split()
HELP_S = 0.3


def run(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *words],
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env={**os.environ, "TERM": "dumb", "COLUMNS": "100"},
    )


@pytest.fixture(scope="module")
def lonely(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a configuration whose instance, ports and group nobody uses."""
    path = tmp_path_factory.mktemp("lonely") / "lonely.toml"
    path.write_text(
        'instance = "lonely"\n[network]\nport = 1\nfeed_group = "239.255.70.9"\n'
        "feed_port = 49310\ndirectory_port = 49309\n"
    )
    return str(path)


def test_help_lists_every_command_with_examples() -> None:
    result = run("--help")
    assert result.returncode == 0
    for command in COMMANDS:
        assert f"  {command}" in result.stdout
    assert "run.py demo" in result.stdout
    assert "_supervisor" not in result.stdout
    listed = result.stdout.split("Commands:")[1].split("First steps")[0]
    assert "..." not in listed, "a summary was cut off"


def test_run_alone_shows_the_same_help() -> None:
    assert "Usage: run.py" in run().stdout


def test_help_answers_at_once() -> None:
    # Processor time, the best of some: other tests may be running beside this one.
    best = 9.0
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        best = min(best, used)
    assert best < HELP_S


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in ("bench", "check", "test")])
def test_help_of_every_command_says_what_it_does(command: str) -> None:
    words = (command, "lobster") if command == "replay" else (command,)
    result = run(*words, "--help")
    assert result.returncode == 0
    assert "Usage: run.py" in result.stdout


def test_no_help_loads_the_compiler() -> None:
    code = "import sys, run; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert not {"numba", "numpy", "rich", "orjson"} & set(result.stdout.split())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("client",), "no exchange at 127.0.0.1:1"),
        (("top", "--once"), "does not exist: is the instance up?"),
        (("listen", "AAPL"), "is an exchange running?"),
        (("client", "--account", "nobody"), "no account 'nobody'"),
        (("up", "--role", "kitchen"), "--role is all, shard, gateway, feed; not 'kitchen'"),
    ],
)
@pytest.mark.later
def test_what_goes_wrong_is_one_sentence(
    lonely: str, words: tuple[str, ...], sentence: str
) -> None:
    result = run(*words, "--config", lonely)
    assert result.returncode == 1
    assert sentence in result.stderr
    assert result.stderr.startswith("ringbook: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""


def test_a_replay_of_something_else_names_file_and_line(tmp_path: Path, lonely: str) -> None:
    path = tmp_path / "messages.csv"
    path.write_text("34200.1,1,1,1,1,1\nnot,a,message\n")
    result = run("replay", "lobster", str(path), "--config", lonely)
    assert result.returncode == 1
    assert "messages.csv: line 2 is not a LOBSTER message" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_bad_configuration_names_the_key(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('colour = "blue"\n')
    result = run("up", "--config", str(path))
    assert result.returncode == 1
    assert "unknown key colour" in result.stderr


@pytest.mark.parametrize("words", [("fly",), ("up", "--shards", "many"), ("listen",)])
def test_a_wrong_command_line_ends_with_2(words: tuple[str, ...]) -> None:
    assert run(*words).returncode == 2


def test_the_doctor_says_ready_on_this_machine() -> None:
    result = run("doctor")
    assert result.returncode == 0, result.stdout
    for name in ("platform", "cores", "/dev/shm", "ulimits", "multicast", "packages"):
        assert f" {name} " in result.stdout
    assert "Ready" in result.stdout
