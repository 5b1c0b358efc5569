"""Compile every kernel of the chosen roles before children start, so that they only load.

Cold. Modules register their own warm-up (engine/jit.py); importing a role's modules registers them.
What an earlier start compiled is recognised by a marker in the kernels' cache directory and
skipped. A cold start uses two processes: the engine's kernels here (the step, which several of them
have in them, is lowered once a process), the libraries and the doors' kernels in a helper process;
the two share no kernel.

`python -m engine.warmup` compiles what tests and processes of this flavour need, so that none has
to wait for it.
"""

import importlib
import subprocess
import sys
from collections.abc import Callable

from engine.jit import (
    JIT_DISABLED,
    libraries,
    load_libraries,
    prune_cache,
    warm_pending,
    warm_up,
)

Progress = Callable[[int, int, str, float], None]
MODULES = {
    "shard": (
        "engine.shard_process",
        "engine.live_book",
        "engine.journal_process",
        "engine.follower_process",
        "engine.full_rules",
    ),
    "gateway": ("gateway.tcp_entry", "engine.live_book"),
    "feed": ("feed.publisher", "feed.listener"),
    "local": ("engine.local", "engine.full_rules", "engine.fork_step"),
}


def import_roles(roles: set[str]) -> None:
    """Import what registers the kernels of these roles."""
    for role in sorted(roles):
        for module in MODULES[role]:
            importlib.import_module(module)


def warm_roles(roles: set[str], progress: Progress) -> None:
    """Warm all kernels of `roles`; silent when there is nothing to compile."""
    if JIT_DISABLED:
        return
    import_roles(roles)
    pending = warm_pending()
    if not pending:
        return
    prune_cache()
    apart = [name for name in pending if name in libraries or not name.startswith("engine.")]
    helper = _start_helper(roles, apart) if apart and len(apart) < len(pending) else None
    load_libraries(later=helper is not None)
    warm_up(progress, [name for name in pending if helper is None or name not in apart])
    if helper is not None:
        helper.wait()
        if helper.returncode:
            raise RuntimeError(f"compiling in the helper failed with exit code {helper.returncode}")
        load_libraries(later=False)


def _start_helper(roles: set[str], names: list[str]) -> "subprocess.Popen[bytes]":
    code = (
        f"from engine.warmup import warm_names_only; warm_names_only({sorted(roles)!r}, {names!r})"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL)


def warm_names_only(roles: list[str], names: list[str]) -> None:
    """Be the helper process."""
    import_roles(set(roles))
    warm_up(None, names)


def _main() -> None:
    def progress(number: int, count: int, name: str, _seconds: float) -> None:
        if name:
            sys.stdout.write(f"compiling {number + 1} of {count}: {name}\n")
            sys.stdout.flush()

    warm_roles(set(MODULES), progress)


if __name__ == "__main__":
    _main()
