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
    assert metrics.higher_is_better(metric) is better


def test_what_is_near_zero_or_offered_has_no_ratios() -> None:
    for metric in ("udp_loss_ratio", "udp_bits_per_second", "host_reboot_recovery_s"):
        assert not metrics.has_ratios(metric)
    assert metrics.has_ratios("tcp_bits_per_second")
    assert metrics.has_ratios("first_packet_s")
