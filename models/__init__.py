"""What a training machine needs: tokenizers, the dataset's format, the stream, the transformer. Imports no Beam."""

import os

# Large tensors in huge pages, which PyTorch asks the system for if this is set when it first allocates: clearing and
# mapping new pages of 4 kB took a third of the time of some layers.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
