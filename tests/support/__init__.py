"""What tests of several folders share, one idea to a module. What serves or relays is in ``servers``."""
