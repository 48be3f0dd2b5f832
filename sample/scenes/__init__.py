"""Scenes of one to three coloured shapes, with captions that are true of them, and a judge of sampled images."""
