"""Image codes that were computed elsewhere, with their captions, to records."""
