"""The engine by itself: the promises of `_engine`, without the rest of the package."""
