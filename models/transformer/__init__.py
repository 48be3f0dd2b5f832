"""The network and its attention patterns."""
