"""Trading scenarios as text files, and the language they are written in (README.md)."""
