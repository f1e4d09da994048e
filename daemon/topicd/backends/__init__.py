"""What does the generating: embedded in the process tree, or a server; all behind the Protocols of `base`."""
