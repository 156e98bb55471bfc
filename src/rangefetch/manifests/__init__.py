"""Manifests: lists of what is to be fetched, in the formats in which people publish them.

``reading`` opens one, recognises its format and checks what it says; each format is a module of its own.
"""
