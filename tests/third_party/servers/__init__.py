"""Servers that others have written, each serving one directory, and what we ask of all of them."""
