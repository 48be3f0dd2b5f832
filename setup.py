"""For Beam's `--setup_file=./setup.py`, which builds a source distribution for remote workers. All is in setup.cfg."""

from setuptools import setup

setup()
