"""What a check of select is (`check.py`), and checks that have a module of their own."""
