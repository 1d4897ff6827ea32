"""Mininet as Debian packages it, timed: hosts on one LinuxBridge switch, no controller.

Run by the Python that has Debian's `mininet`, inside a sandbox; it knows nothing of xlab.

    python3 stock_mininet.py HOSTS

stdout: one JSON object, times in seconds of CLOCK_MONOTONIC, which is the same for all processes.
What is built is what `mn --topo single,HOSTS --switch lxbr --controller none` builds.
"""

from __future__ import annotations

import json
import sys
import time

from mininet.log import setLogLevel
from mininet.net import VERSION, Mininet
from mininet.nodelib import LinuxBridge
from mininet.topo import SingleSwitchTopo


def main() -> None:
    """Build, let the first host ping the last, take down."""
    setLogLevel("error")
    topo = SingleSwitchTopo(k=int(sys.argv[1]))
    times = {"begun": time.monotonic()}
    net = Mininet(topo=topo, switch=LinuxBridge, controller=None)
    net.start()
    times["built"] = time.monotonic()
    lost_percent = net.ping([net.hosts[0], net.hosts[-1]], timeout="5")
    times["stopping"] = time.monotonic()
    net.stop()
    times["stopped"] = time.monotonic()
    print(json.dumps({"version": VERSION, "works": lost_percent == 0, **times}))


if __name__ == "__main__":
    main()
