"""The second backend: a supervised ``aria2c`` that runs downloads behind the same interface.

It is for where the engine cannot run, and for what the engine does not fetch: FTP, magnet links, torrents, Metalink.
``backend.Aria2Backend`` is what a manager uses, and ``daemon.Aria2Daemon`` an aria2c that is kept alive.
"""
