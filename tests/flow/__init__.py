"""Whole downloads from real servers: what a caller is promised, held against the bytes on disk."""
