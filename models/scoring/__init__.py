"""Scores of an image and its caption: plain measures, and models from the user's own folders."""
