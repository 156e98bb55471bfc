"""What is tried at random or at every point: system calls that fail, kills, operations at any moment."""
