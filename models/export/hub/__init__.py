"""The code that goes with an exported model: classes of transformers around the network."""
