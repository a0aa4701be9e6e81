"""What gRPC's core is told, and how a refusal's HTTP status is said in gRPC's words."""

from __future__ import annotations

from grpc import StatusCode

CODES = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    408: StatusCode.DEADLINE_EXCEEDED,
    413: StatusCode.RESOURCE_EXHAUSTED,
    429: StatusCode.RESOURCE_EXHAUSTED,
    501: StatusCode.UNIMPLEMENTED,
    502: StatusCode.UNAVAILABLE,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}
MAX_STREAMS = 256  # of one connection
MAX_CALLS = 4096  # of one process


def core_options(max_body: int) -> list[tuple[str, int]]:
    """Channel arguments for messages of up to so many bytes."""
    return [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", max_body),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        # How much of a message may come in before anybody asks for it; measured, as is that probing the line for
        # more costs a large message more than it brings.
        ("grpc.http2.lookahead_bytes", 4 << 20),
        ("grpc.http2.bdp_probe", 0),
        # Only uncompressed messages: a small one could become any size.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        ("grpc.server_handshake_timeout_ms", 30_000),
        ("grpc.max_connection_idle_ms", 300_000),
        # Find out about dead peers, and end those that ping for nothing.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 2),
    ]
