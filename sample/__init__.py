"""Real images free of copyright, listed in the sources' published formats, and a loopback server for them."""
