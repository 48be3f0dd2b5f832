"""What a training machine needs: tokenizers, the dataset's format, the stream, the transformer. Imports no Beam."""
