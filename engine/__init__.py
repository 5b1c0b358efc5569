"""The exchange engine: records, rings, books and the loop of one shard (see ARCHITECTURE.md)."""
