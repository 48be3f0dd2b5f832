"""From published lists to shards: sources, filters, fetching, encoding, and the account of every row."""

from pipeline.version import VERSION as __version__  # noqa: F401 (read by users)
