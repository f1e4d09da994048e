"""Drawn cards: the image backend that needs no model.

Owns the way from a scene's words to an illustration of their ideas: a large icon and its companions on glass, in the
job's colours. `backend` is light and lives in the daemon; `draw` and what it imports live in the worker process.
"""

from topicd.backends.embedded.cards.backend import Cards

__all__ = ["Cards"]
