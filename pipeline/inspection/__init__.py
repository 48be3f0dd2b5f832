"""A dataset seen by people: stats, show, diff, verify, repair."""
