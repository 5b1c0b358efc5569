"""The numbers by which a step asks for the full trading rules (engine/full_entry.py)."""

# With a command.
FULL_NEW = 1  # (symbol, row of the text id)
FULL_REPLACE = 2  # (slot)
FULL_RULE = 3  # (symbol)
FULL_PHASE = 4  # (symbol)
FULL_QUOTE = 5  # (symbol)
FULL_LIMITS = 6  # (symbol)
# Without.
FULL_WITHOUT = 32  # from here on
FULL_WORK = 32  # go on with the open work
FULL_CANCEL = 33  # (slot, reason)
FULL_EXPIRE = 34  # (slot)
FULL_SETTLE = 35  # the command is done: what follows from it
FULL_TIMED = 36  # (symbol): its cross or indicative price is due
FULL_ACTIVATE = 37  # the first of `activations`
