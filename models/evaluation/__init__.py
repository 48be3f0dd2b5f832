"""How good a transformer or an image tokenizer is: losses, similarity of images, distances between sets of images."""
