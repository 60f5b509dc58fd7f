"""Notices that the connection of a channel was cut."""

from __future__ import annotations

import threading
from collections.abc import Callable

from grpc import Channel, ChannelConnectivity

from scheduler.rpc.channel import IDLE_TIMEOUT_SECONDS

#: Seconds after which grpc's thread has stopped watching an unsubscribed channel. It fails if the channel closes
#: earlier.
_UNWATCHED_AFTER_SECONDS = 0.25

#: Seconds by which the end of an idle connection may seem too early.
_TOLERANCE_SECONDS = 1.0


class Connection:
    """The connection of a channel. ``changed_thd`` must be subscribed to the channel's connectivity."""

    def __init__(self, cut_thd: Callable[[], None], clock: Callable[[], float]) -> None:
        """``cut_thd`` is called on a thread of grpc's when the other end, or the network, has ended the connection."""
        self._cut_thd = cut_thd
        self._clock = clock
        self._used_at = clock()
        self.up = False
        self._closed = False

    def used(self) -> None:
        """A call is made. After a long time without calls the channel itself ends the connection: no cut."""
        self._used_at = self._clock()

    def close_thd(self, channel: Channel) -> None:
        """Close the channel, and report nothing more. Blocks for a moment."""
        self._closed = True
        channel.unsubscribe(self.changed_thd)
        threading.Event().wait(_UNWATCHED_AFTER_SECONDS)  # time.sleep fails where libfaketime steps the clock meanwhile
        channel.close()

    def changed_thd(self, state: ChannelConnectivity) -> None:
        """The channel is now in this state."""
        was_up, self.up = self.up, state is ChannelConnectivity.READY
        idle = self._clock() - self._used_at >= IDLE_TIMEOUT_SECONDS - _TOLERANCE_SECONDS
        if was_up and not self.up and not idle and not self._closed:
            self._cut_thd()
