"""Questions about a URL: how it is reached, through which proxy, with what trust and credentials, and what mirrors it.

What is here knows nothing of files or of downloads at work.
"""
