"""The data of the bundled model of emoji (docs/clipart.md)."""
