"""Bodies of run.py's commands, one file each: a wiring room, it may import every part."""
