"""How a URL is requested: proxies, trusted certificates, credentials, cookies and mirrors.

Nothing here depends on files or on running downloads.
"""
