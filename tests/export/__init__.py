"""Tests of models.export."""
