"""Tests of engines other than the local runner."""
