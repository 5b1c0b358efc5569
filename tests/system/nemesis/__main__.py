"""`python -m tests.system.nemesis`: runs by hand; exit status 1 when something was wrong."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.system.nemesis.campaign import NoJournalError, run_nemesis
from tests.system.nemesis.settings import ALL_KINDS, KINDS, Settings


def arguments_of(words: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.nemesis", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=0, help="0: only load and checker")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"of {', '.join(ALL_KINDS)}")
    parser.add_argument("--seconds", type=float, default=20.0, help="under load")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--rate", type=float, default=80.0, help="requests/s of one client")
    parser.add_argument("--mode", default="batch", help="journal mode: os, batch or sync")
    parser.add_argument("--repeat", type=int, default=1, help="that many runs, seed by seed")
    parser.add_argument("--folder", type=Path, help="keep the runs here (empty or new)")
    return parser.parse_args(words)


def one_run(told: argparse.Namespace, seed: int) -> bool:
    """Run one seed, print the result; whether all was good. A bad run's files are kept."""
    settings = Settings(
        seed=seed, seconds=told.seconds, kills=told.kills, shards=told.shards,
        kinds=tuple(told.kinds.split(",")), rate=told.rate, journal_mode=told.mode,
    )  # fmt: skip
    folder = told.folder or Path(tempfile.mkdtemp(prefix="ringbook-nemesis-"))
    folder = folder / f"seed{seed}"
    try:
        result = run_nemesis(settings, folder)
    except NoJournalError as error:
        sys.stdout.write(f"not run: {error}\n")
        return False
    sys.stdout.write(f"{result.text()}\nfiles: {folder}\n")
    sys.stdout.flush()
    if result.good and told.folder is None:
        shutil.rmtree(folder.parent)
    return result.good


def main(words: list[str]) -> int:
    """Run seed by seed until one is bad."""
    told = arguments_of(words)
    good = all(one_run(told, seed) for seed in range(told.seed, told.seed + told.repeat))
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
