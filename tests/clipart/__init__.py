"""Tests of the clip-art model and its prompts."""
