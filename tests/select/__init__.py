"""Tests of the room select."""
