"""The engine by itself: what `_engine` promises, without the rest of the package."""
