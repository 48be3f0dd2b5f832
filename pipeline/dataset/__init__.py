"""Records to a dataset: shards, index, manifest, cards; near-duplicates; additions."""
