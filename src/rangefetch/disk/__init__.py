"""A file's place on disk: its name, its part file, its saved state in both formats, and giving it its final name.

Nothing here knows about requests or about running downloads.
"""
