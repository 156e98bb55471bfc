"""Every fault of a server, at every place of a download, over every protocol, with all that may go on meanwhile."""
