"""The frozen backbone: sizes, network, decoding, and checkpoints in and out."""
