"""Select: rows to pairs, one for each URL."""
