"""From published lists to shards: sources, filters, fetching, encoding, and the account of every row."""
