"""When the kernel has freed the network namespaces that were given up, which it does by itself.

One work item frees them, in the order in which they were given up and those that wait at the same
time together (cleanup_net, net/core/net_namespace.c).  So one more is given up, whose interface is
one end of a veth pair: when the other end vanishes, all before are gone.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

from xlab.kernel import namespaces
from xlab.kernel.netlink import Rtnl
from xlab.sandbox import controller
from xlab.sandbox.launching import launch

_RTM_DELLINK, _RTMGRP_LINK = 17, 1
_PATIENCE_S = 600.0


@contextmanager
def cleanup() -> Iterator[Callable[[], object]]:
    """What returns when all namespaces given up until then are freed, those of other labs too.

    TimeoutError after ten minutes.  A sandbox of its own knows, which holds next to nothing.
    """
    with (
        launch(lambda: {"await": _give_one_up}) as box,
        closing(controller.Client(box.channel)) as client,
    ):
        yield lambda: client.call("await", {})


def _give_one_up(_: Mapping[str, Any], __: controller.Emit) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as links:
        links.bind((0, _RTMGRP_LINK))
        links.settimeout(_PATIENCE_S)
        marker, inside = namespaces.create("marker")
        inside.close()
        here = Rtnl()
        here.now.add_veth("marker", "marker", peer_namespace=marker.net)
        here.close()
        marker.close()
        while struct.unpack_from("=4xH", links.recv(1 << 16))[0] != _RTM_DELLINK:
            pass
