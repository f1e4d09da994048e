"""Where the command `topicd` begins.

Owns the first moments, in which everything else is loaded: Ctrl-C there is Ctrl-C, not a traceback. Imports nothing
before it can be interrupted.
"""

INTERRUPTED = 130


def main() -> int:
    """Load the command line, run one verb and return the exit code."""
    try:
        from topicd import cli  # noqa: PLC0415 - in reach of the `except`

        return cli.main()
    except KeyboardInterrupt:
        return INTERRUPTED
