"""What the store holds of the trainer's calls for ranks."""

from __future__ import annotations

from dataclasses import dataclass

# The number of the newest call.
ROUND = "round"
# Counts the times that a rank began to wait to be called.
ARRIVALS = "arrivals"


@dataclass(frozen=True, slots=True)
class Call:
    """The keys of one call."""

    number: int

    @property
    def opened(self) -> str:
        """Set once ranks may answer."""
        return f"call-{self.number}"

    @property
    def answers(self) -> str:
        """Counts answers; whoever makes it n is rank n."""
        return f"answers-{self.number}"

    @property
    def size(self) -> str:
        """How many ranks the group has, the trainer included; later answers are not in it."""
        return f"size-{self.number}"

    @property
    def failure(self) -> str:
        """Why a rank left the group."""
        return f"failure-{self.number}"

    @property
    def group(self) -> str:
        """The prefix of what the group itself keeps."""
        return f"group-{self.number}"
