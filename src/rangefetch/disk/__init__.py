"""A file's place on disk: its name, its part file and saved state in both formats, and the step to its final name.

What is here knows nothing of URLs being asked or of downloads at work.
"""
