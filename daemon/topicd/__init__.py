"""topicd turns a topic file into a folder you can publish."""

__version__ = "0.1.0"
