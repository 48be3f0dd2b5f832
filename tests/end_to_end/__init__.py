"""Whole jobs, kills, runners, object stores, the sample and the docs."""
