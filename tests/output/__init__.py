"""Tests of `pipeline.output`."""
