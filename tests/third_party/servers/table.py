"""All servers. FTP servers come last, so that a server has the same place in every test's list."""

from third_party.servers import debian, npm, pypi

__all__ = ["SERVERS"]

SERVERS = sorted(debian.SERVERS + pypi.SERVERS + npm.SERVERS, key=lambda server: server.scheme == "ftp")
