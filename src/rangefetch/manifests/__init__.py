"""Manifests: lists of files to fetch, in the formats in which they are published.

``reading`` opens a manifest, recognises its format and checks its content; each format is a module of its own.
"""
