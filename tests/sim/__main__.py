"""Seeds of the simulation from the command line.

python -m tests.sim --seed 7 [--actions 2000] [--verbose]     one, reproduced
python -m tests.sim --seeds 0-199                             many, with a summary
"""

from __future__ import annotations

import argparse
import os
import sys
import time

os.environ.setdefault("RINGBOOK_FLAVOUR", "failpoint")  # before any kernel is loaded


def main() -> int:
    """Run what is asked for; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seeds", help="FIRST-LAST")
    parser.add_argument("--actions", type=int, default=2000)
    parser.add_argument("--verbose", action="store_true", help="faults and knobs as they come")
    parser.add_argument("--set", action="append", default=[], metavar="KNOB=VALUE")
    options = parser.parse_args()
    from tests.sim.world import World

    fixed = dict(knob.split("=", 1) for knob in options.set)

    first, _, last = (options.seeds or f"{options.seed or 0}-{options.seed or 0}").partition("-")
    seeds = range(int(first), int(last or first) + 1)
    begun, actions, bad = time.monotonic(), 0, []
    for seed in seeds:
        world = World(seed, fixed)
        if options.verbose or len(seeds) == 1:
            print(f"seed {seed}: {world.knobs.line()}")
        if options.verbose:
            world.log = Talk()
        outcome = world.run(options.actions)
        actions += outcome.actions
        if outcome.violation or len(seeds) == 1 or options.verbose:
            print(outcome.line())
        if outcome.violation:
            bad.append(seed)
            print(f"seed {seed}: BROKEN: {outcome.violation}")
            print(f"    python -m tests.sim --seed {seed} --actions {options.actions} --verbose")
    seconds = time.monotonic() - begun
    print(
        f"{len(seeds)} seeds, {actions} client actions in {seconds:.1f} s"
        f" ({actions / max(seconds, 1e-9):.0f}/s), {len(bad)} broken {bad or ''}"
    )
    return 1 if bad else 0


class Talk(list[str]):
    """A log that says everything at once."""

    def append(self, text: str) -> None:
        sys.stdout.write(f"    {text}\n")


if __name__ == "__main__":
    raise SystemExit(main())
