"""The network in torch, one block a file, with the tensor names of the published checkpoints."""
