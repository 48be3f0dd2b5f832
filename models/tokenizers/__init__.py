"""Image tokenizers by SPEC, byte-pair encoding, and what a manifest says of them."""
