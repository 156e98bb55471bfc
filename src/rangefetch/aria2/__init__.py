"""The second backend: a supervised ``aria2c`` that runs downloads behind the same interface.

It is used where the engine cannot run, and for what the engine does not fetch: FTP, magnet links, torrents, Metalink.
A manager uses ``backend.Aria2Backend``; ``daemon.Aria2Daemon`` runs one aria2c and restarts it when it dies.
"""
