"""What one follower hears, from a place on: first what is stored, then what comes, without a seam.

The subscription joins the hub before the stored events are read up to the place where it joined.
What comes meanwhile waits in its queue; where that is too much, the queue is given up and the table
read further: it has everything.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from processors.following.belonging import Fetch
from processors.following.heard import Heard
from processors.following.hub import Hub
from processors.following.places import write_place
from processors.following.stored import Stored
from processors.following.subscription import Subscription

Said = list[Heard] | str
"""Some events, or a place: everything wanted up to there has been said."""


class Follower:
    """One subscription's consumer; iterate over `said`, and call `leave` at the end."""

    def __init__(self, hub: Hub, stored: Stored, fetch: Fetch, subscription: Subscription) -> None:
        self._hub = hub
        self._stored = stored
        self._fetch = fetch
        self._subscription = subscription

    async def said(self) -> AsyncIterator[Said]:
        """The place where it begins, events, and at times a place; raises Ended, LogUnavailable.

        Without a place to begin at, it begins now.
        """
        one, hub = self._subscription, self._hub
        begin = dict(one.after)
        goal = await hub.join(one)
        at = begin or dict(goal)
        yield write_place(at)
        while True:
            async for events in self._stored.events(self._fetch, one.wanted, at, goal):
                if events:
                    yield events
                if one.pulsed():
                    yield write_place(at)
            if not one.overflowed:
                break
            hub.leave(one)
            goal = await hub.join(one)
        one.catching_up = False
        while True:
            events = await one.take()
            if events:
                yield events
            elif one.empty:
                positions = hub.positions
                yield write_place({p: max(at[p], positions[p]) for p in sorted(one.partitions)})

    def leave(self) -> None:
        """Nothing more is wanted."""
        self._hub.leave(self._subscription)
