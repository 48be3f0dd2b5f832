"""Fetch: pairs to images by polite downloads."""
