"""What does the generating. Embedded in the process tree, or a server spoken to by HTTP; all behind the Protocols of `base`."""
