"""What the tests run against: a server that misbehaves on purpose, a real nginx, certificates for both."""
