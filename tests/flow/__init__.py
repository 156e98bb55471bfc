"""Whole downloads from real servers: the promises to callers, checked against the bytes on disk."""
