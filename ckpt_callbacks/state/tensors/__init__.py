"""Tensors: what the libraries know of them, what safetensors calls them, the file that holds them."""
