"""The TCP door: JSON lines in, command rings, private reports out (see docs/protocol.md)."""
