"""The trainers of the transformer, the dVAE and the BPE, and what they share."""
