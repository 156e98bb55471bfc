"""Every server fault, at every place in a download, over every protocol, combined with other things that may happen."""
