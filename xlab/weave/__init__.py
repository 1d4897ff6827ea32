"""A weave router of our own, speaking Weave Net's wire protocol.

    __main__    the process: options, signals
    transport   sockets and the one loop          web, status   what the router says of itself
    router      the control plane, without a socket in it
      connection  one TCP connection: handshake, frames, liveness
      gossip      the topology's updates, and the relaying of other channels
      targets     whom to dial, and when again
      topology    who is connected to whom        routes        which way from here
      messages    what is said                    gob           in which encoding

Everything from `router` down is pure: bytes, names and times come in, bytes go out.  The data plane
(`xlab.weave.overlay`) moves the frames; `fastdp.Overlay` is what the control plane asks of it.
"""
