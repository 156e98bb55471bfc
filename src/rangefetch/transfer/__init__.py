"""One download at work, whichever backend fetches it: its lifecycle, retries, verification and end.

Code that only one backend needs belongs to that backend.
"""
