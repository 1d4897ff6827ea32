"""Which way is better, and what has no ratios."""

from __future__ import annotations

import pytest

from xlab.record import metrics


@pytest.mark.parametrize(
    ("metric", "better"),
    [
        ("icmp_rtt_ms", False),
        ("loaded_rtt_ms", False),
        ("tcp_bits_per_second", True),
        ("tcp_connections_per_second", True),
        ("path_mtu_bytes", True),
        ("cpu_seconds_per_gigabyte", False),
        ("udp_loss_ratio", False),
        ("link_flap_recovery_s", False),
    ],
)
def test_what_is_better(metric: str, better: bool) -> None:
    assert metrics.of(metric).higher_is_better is better


def test_what_is_near_zero_or_offered_has_no_ratios() -> None:
    for metric in ("udp_loss_ratio", "udp_bits_per_second", "host_reboot_recovery_s"):
        assert not metrics.of(metric).has_ratios
    assert metrics.of("tcp_bits_per_second").has_ratios
    assert metrics.of("first_packet_s").has_ratios
