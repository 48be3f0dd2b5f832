"""What every stage writes: files, Parquet, ledger, unfinished work, progress."""
