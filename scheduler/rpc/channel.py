"""Channels to gRPC servers, their options, and the notice that a channel's connection was cut."""

from __future__ import annotations

import threading
from collections.abc import Callable

import grpc

from scheduler.daemon.rotation import Current
from scheduler.daemon.servers import TlsFiles
from scheduler.net import split_address
from scheduler.rpc import credentials, reasons
from scheduler.rpc.compression import NO_COMPRESSION
from scheduler.security.identities import scheduler_dns_name

#: Seconds that a unary call may take, counted from the moment at which it was requested.
CALL_DEADLINE_SECONDS = 10.0

#: Bytes of the largest message that either side accepts.
MESSAGE_MAX_BYTES = 4 * 1024 * 1024

#: Bytes of the largest metadata of an answer. It contains the details of an error, percent-encoded.
METADATA_MAX_BYTES = 1024 * 1024

#: Jobs in one ``QueryJobs`` at most, as the proto says.
MAX_QUERIED_AT_ONCE = 64

#: Seconds without a call after which a connection is closed.
IDLE_TIMEOUT_SECONDS = 300.0

#: Calls that a worker serves at once, including those that wait for a thread. Its gRPC library refuses further ones.
MAX_WORKER_CALLS = 160

#: Seconds that a connection may take to come up, TLS included.
CONNECT_DEADLINE_SECONDS = 5.0

#: Seconds after which grpc's thread has stopped watching an unsubscribed channel. The thread fails if the channel
#: closes earlier.
_UNWATCHED_AFTER_SECONDS = 0.25

#: Seconds by which the end of an idle connection may come before ``IDLE_TIMEOUT_SECONDS``.
_TOLERANCE_SECONDS = 1.0

Metadata = tuple[tuple[str, str], ...]

OPTIONS = (
    # the default backs off to two minutes: a worker that is back would stay unreachable as long
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # despite its name, this is the time that a connection may take to come up
    ("grpc.min_reconnect_backoff_ms", round(1000 * CONNECT_DEADLINE_SECONDS)),
    # a dead peer is noticed after 40 s; without ping_timeout the keepalive timeout never goes below 60 s
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # idle connections are closed, and opened again by the next call
    ("grpc.client_idle_timeout_ms", round(1000 * IDLE_TIMEOUT_SECONDS)),
    # an address is dialled directly, whatever proxy the environment names
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    # channels to one address must not share a connection: a new channel starts with a new one
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", MESSAGE_MAX_BYTES),
    ("grpc.max_send_message_length", MESSAGE_MAX_BYTES),
    # by default 16 KiB, and from 8 KiB on refused at random: a longer error would arrive as one of gRPC's own
    ("grpc.max_metadata_size", METADATA_MAX_BYTES),
    ("grpc.absolute_max_metadata_size", METADATA_MAX_BYTES),
    *NO_COMPRESSION,
)


def target(address: str) -> str:
    """``host:port`` as gRPC expects it. gRPC decodes percent-encoding, so the ``%`` of an IPv6 zone must be encoded."""
    return address.replace("%", "%25")


def dial_target(address: str) -> str:
    """``host:port`` as a channel expects it. Without ``dns:``, a host called ``unix`` or ``dns`` would be a scheme."""
    return f"dns:///{target(address)}"


class Dialler:
    """Makes channels. All of them present the same certificate and require the same authority."""

    def __init__(self, tls: TlsFiles | None) -> None:
        """Raises ``OSError`` or ``Invalid`` if the certificates can't be read."""
        self._certificates = None if tls is None else Current(tls, credentials.for_client)
        self._identity = None if self._certificates is None else self._certificates.identity

    def certificates(self) -> grpc.ChannelCredentials | None:
        """The current certificates: a new object if they changed; ``None`` for plain text."""
        return None if self._certificates is None else self._certificates.get()

    def dial_scheduler(self, address: str) -> Channel:
        """Make a channel to the scheduler at ``host:port``. It connects with the first call."""
        return Channel(self, address, "" if self._identity is None else scheduler_dns_name(self._identity.cluster))

    def dial_worker(self, address: str, name: str) -> Channel:
        """Make a channel to the worker of that name at ``host:port``. It connects with the first call."""
        return Channel(self, address, self.worker_dns_name(name))

    def worker_dns_name(self, name: str) -> str:
        """The name that the certificate of a worker must have; ``""``: the host that is dialled."""
        return "" if self._identity is None else self._identity.worker_dns_name(name)


class Channel:
    """A ``grpc_channel`` to one address, with the certificates that were current when it was made."""

    def __init__(self, dialler: Dialler, address: str, dns_name: str) -> None:
        """The server's certificate must be for ``dns_name``; if it is ``""``, for the host in ``address``."""
        self.address = address
        self.dns_name = dns_name
        self._dialler = dialler
        self._certificates = dialler.certificates()
        if self._certificates is None:
            self.grpc_channel = grpc.insecure_channel(dial_target(address), options=OPTIONS)
        else:
            override = (("grpc.ssl_target_name_override", dns_name),) if dns_name else ()
            options = OPTIONS + override
            self.grpc_channel = grpc.secure_channel(dial_target(address), self._certificates, options=options)

    def why(self, failure: grpc.RpcError) -> str:
        secure = self._certificates is not None
        verified = self.dns_name or split_address(self.address)[0]
        return reasons.reason(failure.details() or "", verified, secure, CONNECT_DEADLINE_SECONDS)

    @property
    def is_outdated(self) -> bool:
        """Whether the certificates have changed since the channel was made."""
        return self._dialler.certificates() is not self._certificates

    def close(self) -> None:
        """Close the channel. All calls in flight end."""
        self.grpc_channel.close()


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
        """Note that a call is made. A channel without calls for ``IDLE_TIMEOUT_SECONDS`` closes itself: no cut."""
        self._used_at = self._clock()

    def close_thd(self, channel: grpc.Channel) -> None:
        """Close the channel, without a report of a cut. Blocks for a moment."""
        self._closed = True
        channel.unsubscribe(self.changed_thd)
        threading.Event().wait(_UNWATCHED_AFTER_SECONDS)  # time.sleep fails where libfaketime steps the clock meanwhile
        channel.close()

    def changed_thd(self, state: grpc.ChannelConnectivity) -> None:
        """Take the new state of the channel."""
        was_up, self.up = self.up, state is grpc.ChannelConnectivity.READY
        idle = self._clock() - self._used_at >= IDLE_TIMEOUT_SECONDS - _TOLERANCE_SECONDS
        if was_up and not self.up and not idle and not self._closed:
            self._cut_thd()
