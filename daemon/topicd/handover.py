"""From one lane into the next: what a job that is on its way needs of where it goes.

Owns the contract between who brings a job (intake, the lane before) and the lane that takes it over.
"""

from typing import Protocol

from topicd.job import Job


class Entrance(Protocol):
    """The way into a lane."""

    def reserve(self) -> bool:
        """Keep a place for a job that is on its way here, if it would be begun at once.

        A place that was kept is given up by `take_over`, or by `unreserve`.
        """

    def unreserve(self) -> None:
        """Give up a place that was kept."""

    async def take_over(self, job: Job) -> None:
        """Work on a job whose attempt is counted, in the place that was kept for it."""

    def expect(self) -> None:
        """Take note that a job waits in the stage's directory."""
