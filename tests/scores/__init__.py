"""Tests of pipeline/scores and models/scoring."""
