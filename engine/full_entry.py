"""The door from a step to the full trading rules: `full_command`, `full_go` (engine/full_rules.py).

Hot for instruments with RuleSet.FULL. Where libraries are compiled apart a step does not have the
full rules in it; a flow of plain instruments never comes here.
"""

from engine.jit import APART

if APART:
    from engine.jit_library import library_caller

    full_command, full_go = library_caller("engine.full_rules", "full_rules")
else:
    from engine.full_rules import full_command, full_go

__all__ = ["full_command", "full_go"]
