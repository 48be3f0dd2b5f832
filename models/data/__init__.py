"""The dataset's format, and shards to batches."""
