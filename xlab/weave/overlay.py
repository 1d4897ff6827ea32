"""The sleeve overlay: frames between the weave bridge and the other peers, in one thread.

    bridge ── TAP ──> captured ──> Switch: which peers? ──> one datagram train a neighbour ──> UDP
    bridge <── TAP ── inject  <── Switch: for us, or on? <── frames <── datagram trains <───── UDP

A frame that is IPv4 with DF travels with DF, so that a path too narrow for it shows; everything
else may be fragmented on the way, or is fragmented here where the way does not carry fragments.

`ready` and `run_timers` do a bounded piece of work and return; neither they nor `control` raise on
what comes from outside.  What is dropped is counted, under the reason.
"""

from __future__ import annotations

import errno
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from xlab.errors import XlabError
from xlab.kernel.clock import Clock
from xlab.weave import sleeve
from xlab.weave.fastdp import Admitted, Overlay
from xlab.weave.forward import (
    MAC_AGE_S,
    Decision,
    PathMtu,
    Switch,
    fragmentation_needed,
    fragments,
    has_df,
    is_ipv4,
    too_large,
)
from xlab.weave.routes import Routes
from xlab.weave.segments import PREFIX_BYTES, Merger, Segmenter, read_segment
from xlab.weave.sleeve import (
    ETHERNET_HEADER_BYTES,
    IPV4_AND_UDP_BYTES,
    NAME_BYTES,
    OVERHEAD_BYTES,
    FragmentationTest,
    Heartbeat,
    MtuProbe,
    Packer,
    Special,
    Train,
)
from xlab.weave.tap import (
    BUFFER_BYTES,
    LARGEST_PACKET_BYTES,
    PLAIN,
    VNET_HEADER_BYTES,
    VnetHeader,
    complete_checksum,
    is_plain,
    open_device,
    read_vnet_header,
)
from xlab.weave.udp import UdpSocket

FAST_HEARTBEAT_S, SLOW_HEARTBEAT_S, DEAD_AFTER_S = 0.5, 10.0, 60.0
FRAGMENTATION_TEST_S = 300.0

#: What one call of `ready` reads at most, in packets or datagram trains, and in bytes.
_BATCH, _BATCH_BYTES = 64, 256 * 1024
#: Trains of fewer datagrams are not worth numpy.
_FEWEST_MERGED = 3


@dataclass(slots=True)
class _Neighbour:
    """A peer with a connection of its own."""

    peer: bytes
    admitted: Admitted
    #: Where its datagrams go; None until its first heartbeat has come.
    remote: tuple[str, int] | None
    next_heartbeat_s: float
    dead_at_s: float
    with_df: Packer
    without_df: Packer
    #: The peer has said that our heartbeats arrive.
    established: bool = False
    #: We have said so of the peer's.
    acknowledged: bool = False
    #: The network carries fragments to it.
    fragments_arrive: bool = False
    path: PathMtu = field(default_factory=PathMtu)
    next_fragmentation_test_s: float | None = None

    @property
    def limit_bytes(self) -> int:
        """The largest datagram that needs no fragmentation."""
        return self.path.effective + OVERHEAD_BYTES - IPV4_AND_UDP_BYTES

    def next_timer(self) -> float:
        heartbeat_s = None if self.remote is None else self.next_heartbeat_s
        # Who dialled us has a path to be searched as of its first heartbeat, but no probe before.
        probe_s = self.path.deadline_s if self.established else None
        times = (self.dead_at_s, heartbeat_s, self.next_fragmentation_test_s, probe_s)
        return min(at_s for at_s in times if at_s is not None)


class SleeveOverlay(Overlay):
    """The data plane of one router: a TAP device, a UDP socket, and a state for each neighbour.

    All calls must be made in the network namespace in which it was created.
    """

    def __init__(
        self,
        *,
        name: bytes,
        tap: str,
        bind: IPv4Address,
        clock: Clock,
        port: int = sleeve.PORT,
    ) -> None:
        """In the caller's network namespace; `name` are the 6 bytes of our peer name.

        Raises CapabilityError without /dev/net/tun, XlabError if device name or port are taken.
        """
        self._name = name
        self._clock = clock
        self._switch = Switch(name)
        self._neighbours: dict[bytes, _Neighbour] = {}
        self._counters: Counter[str] = Counter()
        self._next_expiry_s = clock() + MAC_AGE_S / 10
        #: When `run_timers` has something to do; None: it has to be worked out again.
        self._next_timer_s: float | None = None
        #: The last heartbeat of a connection that is not here, or not yet: (peer, UID, from where).
        self._early: tuple[bytes, int, tuple[str, int]] | None = None
        #: Neighbours with frames that wait for the end of the batch.
        self._waiting: dict[bytes, _Neighbour] = {}
        self._packet = bytearray(BUFFER_BYTES)
        self._packet_view = memoryview(self._packet)
        self._packet_target = [self._packet_view[:LARGEST_PACKET_BYTES]]
        self._train = bytearray(BUFFER_BYTES)
        self._segmenter: Segmenter | None = None
        self._merger: Merger | None = None
        # The port first: it shows whether another router runs here, whose device it would be.
        self._udp = UdpSocket(bind, port, buffer=self._train)
        try:
            self._tap = open_device(tap)
        except XlabError:
            self._udp.close()
            raise

    # -- the event loop ----------------------------------------------------------------------------

    def files(self) -> tuple[int, ...]:
        return self._tap.descriptor, self._udp.descriptor

    def ready(self, descriptor: int) -> None:
        now_s = self._clock()
        if descriptor == self._tap.descriptor:
            self._read_tap(now_s)
        else:
            self._read_socket(now_s)
        waiting, self._waiting = self._waiting, {}
        for neighbour in waiting.values():
            self._flush(neighbour, now_s)

    def next_timer(self) -> float | None:
        if self._next_timer_s is None:
            times = (neighbour.next_timer() for neighbour in self._neighbours.values())
            self._next_timer_s = min((self._next_expiry_s, *times))
        return self._next_timer_s

    def run_timers(self) -> None:
        """Do what is due: heartbeats, probes, tests, and giving up on the silent."""
        now_s = self._clock()
        self._next_timer_s = None
        if now_s >= self._next_expiry_s:
            self._switch.macs.expire(now_s)
            self._next_expiry_s = now_s + MAC_AGE_S / 10
        for neighbour in list(self._neighbours.values()):
            if now_s >= neighbour.dead_at_s:
                self.remove(neighbour.peer)
                neighbour.admitted.on_dead(f"no heartbeat over UDP for {DEAD_AFTER_S:.0f} s")
            else:
                self._run_timers_of(neighbour, now_s)

    def close(self) -> None:
        self._neighbours.clear()
        self._tap.close()
        self._udp.close()

    # -- what the control plane says ---------------------------------------------------------------

    def add(self, peer: bytes, admitted: Admitted) -> None:
        now_s = self._clock()
        neighbour = _Neighbour(
            peer,
            admitted,
            remote=admitted.remote,
            next_heartbeat_s=now_s,
            dead_at_s=now_s + DEAD_AFTER_S,
            with_df=Packer(self._name),
            without_df=Packer(self._name),
        )
        self._neighbours[peer] = neighbour
        self._waiting.pop(peer, None)
        self._next_timer_s = None
        self._run_timers_of(neighbour, now_s)
        if self._early is not None and self._early[:2] == (peer, admitted.uid):
            # The control plane had it wait: the next heartbeat is half a second away.
            self._receive_special(neighbour, Heartbeat(admitted.uid), self._early[2], now_s)

    def control(self, peer: bytes, subtag: int, data: bytes) -> None:
        neighbour = self._neighbours.get(peer)
        if neighbour is None:
            self._counters["control_without_connection"] += 1
            return
        now_s = self._clock()
        self._next_timer_s = None
        if subtag == sleeve.ESTABLISHED and neighbour.remote is not None:
            self._establish(neighbour, now_s)
        elif subtag == sleeve.FRAGMENTATION_TEST_RECEIVED:
            neighbour.fragments_arrive = True
        elif subtag == sleeve.MTU_VERIFIED and (mtu := sleeve.decode_mtu(data)) is not None:
            neighbour.path.verify(mtu, now_s)
            self._run_timers_of(neighbour, now_s)
        else:
            # Or "established" of heartbeats that we could not have sent yet.
            self._counters["control_unknown"] += 1

    def remove(self, peer: bytes) -> None:
        self._neighbours.pop(peer, None)
        self._waiting.pop(peer, None)
        self._next_timer_s = None

    def mtu(self, peer: bytes) -> int | None:
        neighbour = self._neighbours.get(peer)
        return neighbour.path.effective if neighbour and neighbour.path.verified else None

    def set_routes(self, routes: Routes) -> None:
        self._switch.set_routes(routes)

    def counters(self) -> dict[str, int]:
        return dict(self._counters)

    # -- from the bridge ---------------------------------------------------------------------------

    def _read_tap(self, now_s: float) -> None:
        """Forward what the bridge has for other hosts, a batch of it."""
        read_into, target, packet = self._tap.read_into, self._packet_target, self._packet_view
        #: By destination and source address: a batch is mostly of one flow.
        decisions: dict[bytes, Decision] = {}
        total = frames = 0
        while frames < _BATCH and total < _BATCH_BYTES:
            try:
                size = read_into(target)
            except BlockingIOError:
                break
            frames += 1
            total += size
            if size < VNET_HEADER_BYTES + ETHERNET_HEADER_BYTES:
                self._counters["captured_runt"] += 1
                continue
            addresses = bytes(packet[VNET_HEADER_BYTES : VNET_HEADER_BYTES + 12])
            decision = decisions.get(addresses)
            if decision is None:
                decision = self._switch.captured(addresses[:6], addresses[6:], now_s)
                decisions[addresses] = decision
            if decision.dropped:
                self._counters[decision.dropped] += 1
            elif is_plain(packet):
                self._forward(self._name, bytes(packet[VNET_HEADER_BYTES:size]), decision)
            else:
                self._forward_offloaded(size, decision, now_s)
        self._counters["captured"] += frames

    def _forward_offloaded(self, size: int, decision: Decision, now_s: float) -> None:
        """Forward what the kernel has left something to do about."""
        header = read_vnet_header(self._packet)
        if header.is_segment:
            self._forward_segment(size, header, decision, now_s)
            return
        frame: bytes | None = bytes(self._packet_view[VNET_HEADER_BYTES:size])
        if frame and header.needs_checksum:
            frame = complete_checksum(frame, header)
        if frame is None:
            self._counters["captured_malformed"] += 1
        else:
            self._forward(self._name, frame, decision)

    def _forward_segment(
        self, size: int, header: VnetHeader, decision: Decision, now_s: float
    ) -> None:
        """Send a TCP segment as the packets it stands for."""
        segment = read_segment(self._packet, size, header)
        if segment is None:
            self._counters["captured_malformed"] += 1
            return
        if self._segmenter is None:
            self._segmenter = Segmenter(self._packet)
        for peer, destination in decision.send:
            neighbour = self._neighbour_with_address(peer)
            if neighbour is None:
                continue
            head = self._packet_view[VNET_HEADER_BYTES : VNET_HEADER_BYTES + segment.payload]
            fits = segment.mtu <= neighbour.path.effective and segment.ip == ETHERNET_HEADER_BYTES
            if not fits and has_df(head):
                # As much of it as an error quotes.
                start = self._packet_view[VNET_HEADER_BYTES:][: segment.payload + 8]
                self._refuse(self._name, bytes(start), neighbour, decision.broadcast)
                continue
            train = self._segmenter.cut(segment, self._name, self._name, destination)
            if fits and has_df(head):
                # What is waiting for this neighbour may be of the same stream.
                self._flush(neighbour, now_s)
                self._send(neighbour, train, now_s, df=True)
            else:
                only = Decision(send=((peer, destination),), broadcast=decision.broadcast)
                for frame in train.split(PREFIX_BYTES):
                    self._forward(self._name, bytes(frame), only)

    # -- from the network --------------------------------------------------------------------------

    def _read_socket(self, now_s: float) -> None:
        """Take what neighbours sent, a batch of it."""
        total = 0
        for _ in range(_BATCH):
            try:
                received = self._udp.receive()
            except BlockingIOError:
                return
            except OSError:
                # An ICMP error about an earlier datagram; reading it clears it.
                self._counters["receive_errors"] += 1
                continue
            if received is None:
                self._counters["datagram_malformed"] += 1
                continue
            train, sender = received
            self._counters["datagrams_received"] += train.datagrams
            if len(train.data) < NAME_BYTES:
                self._counters["datagram_malformed"] += 1
            elif train.datagrams < _FEWEST_MERGED or not self._receive_train(train, now_s):
                for datagram in train.split():
                    self._receive(datagram, sender, now_s)
            total += len(train.data)
            if total > _BATCH_BYTES:
                return

    def _receive_train(self, train: Train, now_s: float) -> bool:
        """Handle a train of frames of one kind at once; False if it has to be taken apart."""
        data, size = train
        if size < PREFIX_BYTES + ETHERNET_HEADER_BYTES or bytes(data[:6]) not in self._neighbours:
            return False
        if self._merger is None:
            self._merger = Merger(self._train)
        if not self._merger.alike(train):
            return False
        source, destination = bytes(data[6:12]), bytes(data[12:18])
        destination_mac, source_mac = bytes(data[20:26]), bytes(data[26:32])
        if not any(destination_mac) and not any(source_mac):
            return False
        decision = self._switch.received(
            source, destination, destination_mac, source_mac, now_s, sender=bytes(data[:6])
        )
        if decision.dropped:
            self._counters[decision.dropped] += train.datagrams
            return True
        if decision.inject:
            merged = self._merger.merge(train)
            if merged is not None:
                self._write_tap(merged, train.datagrams)
            else:
                for frame in train.split(PREFIX_BYTES):
                    self._inject(frame)
        self._relay_train(train, source, decision, now_s)
        return True

    def _relay_train(self, train: Train, source: bytes, decision: Decision, now_s: float) -> None:
        """Send a train of frames of one kind on to those neighbours that the decision names."""
        data, size = train
        for peer, destination in decision.send:
            neighbour = self._neighbour_with_address(peer)
            if neighbour is None:
                continue
            frame = bytes(data[PREFIX_BYTES:size])
            self._counters["relayed"] += train.datagrams
            if not has_df(frame):
                only = Decision(send=((peer, destination),), broadcast=decision.broadcast)
                for piece in train.split(PREFIX_BYTES):
                    self._forward(source, bytes(piece), only)
            elif size > neighbour.limit_bytes:
                # One answer says it for all of them.
                self._refuse(source, frame, neighbour, decision.broadcast)
                self._counters["too_large_with_df"] += train.datagrams - 1
            else:
                self._flush(neighbour, now_s)
                relayed = bytearray(data)
                for start in range(0, len(data), size):
                    relayed[start : start + 18] = self._name + source + destination
                self._send(neighbour, Train(memoryview(relayed), size), now_s, df=True)

    def _receive(self, datagram: memoryview, sender: tuple[str, int], now_s: float) -> None:
        neighbour = self._neighbours.get(bytes(datagram[:NAME_BYTES]))
        if neighbour is None:
            # Also from a peer whose connection we have just lost.
            self._counters["unknown_sender"] += 1
            return
        frames, whole = sleeve.decode(datagram)
        if not whole:
            self._counters["datagram_malformed"] += 1
        for source, destination, frame in frames:
            special = sleeve.decode_special(frame)
            if special is not None:
                if source == neighbour.peer and destination == self._name:
                    self._receive_special(neighbour, special, sender, now_s)
                else:
                    self._counters["special_misdirected"] += 1
                continue
            decision = self._switch.received(
                source,
                destination,
                bytes(frame[:6]),
                bytes(frame[6:12]),
                now_s,
                sender=neighbour.peer,
            )
            if decision.dropped:
                self._counters[decision.dropped] += 1
                continue
            if decision.inject:
                self._inject(frame)
            if decision.send:
                self._counters["relayed"] += 1
                self._forward(source, bytes(frame), decision)

    def _receive_special(
        self, neighbour: _Neighbour, special: Special, sender: tuple[str, int], now_s: float
    ) -> None:
        if isinstance(special, Heartbeat):
            if special.connection_uid != neighbour.admitted.uid:
                self._counters["heartbeat_of_another_connection"] += 1
                self._early = (neighbour.peer, special.connection_uid, sender)
                return
            neighbour.dead_at_s = now_s + DEAD_AFTER_S
            if neighbour.remote != sender:
                neighbour.remote = sender
                neighbour.next_heartbeat_s = now_s
                self._next_timer_s = None
                self._learn_path(neighbour, now_s)
                self._run_timers_of(neighbour, now_s)
            if not neighbour.acknowledged:
                neighbour.acknowledged = True
                neighbour.admitted.send_control(sleeve.ESTABLISHED, b"")
        elif neighbour.remote is None or neighbour.remote[0] != sender[0]:
            # Heartbeats prove themselves by their UID.  Each of these makes us speak on the control
            # connection, and could make the peer believe in an MTU that its path has not.
            self._counters["special_from_elsewhere"] += 1
        elif isinstance(special, FragmentationTest):
            neighbour.admitted.send_control(sleeve.FRAGMENTATION_TEST_RECEIVED, b"")
        else:
            neighbour.admitted.send_control(sleeve.MTU_VERIFIED, sleeve.encode_mtu(special.mtu))

    def _inject(self, frame: memoryview) -> None:
        self._write_tap(PLAIN + frame, 1)

    def _write_tap(self, packet: bytes | memoryview, frames: int) -> None:
        try:
            self._tap.write(packet)
            self._counters["injected"] += frames
        except OSError:
            # EINVAL: headers it does not believe; EIO: it is down; EAGAIN: no memory.
            self._counters["inject_refused"] += frames

    # -- to neighbours -----------------------------------------------------------------------------

    def _neighbour_with_address(self, peer: bytes) -> _Neighbour | None:
        neighbour = self._neighbours.get(peer)
        if neighbour is None or neighbour.remote is None:
            self._counters["no_address_yet" if neighbour else "no_connection"] += 1
            return None
        return neighbour

    def _forward(self, source: bytes, frame: bytes, decision: Decision) -> None:
        """Queue a frame for those neighbours that the decision names."""
        for peer, destination in decision.send:
            neighbour = self._neighbour_with_address(peer)
            if neighbour is None:
                continue
            self._waiting[peer] = neighbour
            df = has_df(frame)
            large = too_large(frame, neighbour.path.effective)
            if df and large:
                self._refuse(source, frame, neighbour, decision.broadcast)
                continue
            pieces = [frame]
            if not df and not neighbour.fragments_arrive and is_ipv4(frame):
                # The network has not shown that it carries fragments: it gets none.
                df = True
                if large:
                    pieces = fragments(frame, neighbour.path.effective)
            packer = neighbour.with_df if df else neighbour.without_df
            for piece in pieces:
                if not packer.add(source, destination, piece, neighbour.limit_bytes):
                    self._counters["too_large"] += 1
            if not pieces:
                self._counters["not_fragmentable"] += 1

    def _refuse(self, source: bytes, frame: bytes, neighbour: _Neighbour, broadcast: bool) -> None:
        """Answer a frame that is too large with ICMP, back the way it came."""
        self._counters["too_large_with_df"] += 1
        answer = None if broadcast else fragmentation_needed(frame, neighbour.path.effective)
        if answer is None:
            return
        self._counters["fragmentation_needed_sent"] += 1
        if source == self._name:
            self._inject(memoryview(answer))
        elif back := self._switch.routes.unicast.get(source):
            self._forward(self._name, answer, Decision(send=((back, source),)))

    def _flush(self, neighbour: _Neighbour, now_s: float) -> None:
        """Send what is packed for a neighbour."""
        for packer, df in ((neighbour.with_df, True), (neighbour.without_df, False)):
            for train in sleeve.trains(packer.take()):
                whole = train.size <= neighbour.limit_bytes
                for part in (train,) if whole else train.singly():
                    self._send(neighbour, part, now_s, df=df)

    def _send(self, neighbour: _Neighbour, train: Train, now_s: float, *, df: bool) -> None:
        assert neighbour.remote is not None
        for datagrams, error in self._udp.send(train, neighbour.remote, df=df):
            if error is None:
                self._counters["datagrams_sent"] += datagrams
            elif error.errno == errno.EMSGSIZE:
                self._counters["larger_than_path"] += datagrams
                self._learn_path(neighbour, now_s)
            else:
                # EAGAIN, ENOBUFS: no room; ENETUNREACH, EPERM: the host's routes and firewall.
                self._counters["send_errors"] += datagrams

    # -- a neighbour's life ------------------------------------------------------------------------

    def _run_timers_of(self, neighbour: _Neighbour, now_s: float) -> None:
        if neighbour.remote is None:
            return
        if now_s >= neighbour.next_heartbeat_s:
            interval_s = SLOW_HEARTBEAT_S if neighbour.established else FAST_HEARTBEAT_S
            neighbour.next_heartbeat_s = now_s + interval_s
            self._send_special(neighbour, Heartbeat(neighbour.admitted.uid), now_s, df=True)
        test_s = neighbour.next_fragmentation_test_s
        if test_s is not None and now_s >= test_s:
            self._test_path(neighbour, now_s)
        if neighbour.established:
            mtu = neighbour.path.due(now_s)
            if mtu is not None:
                self._send_special(neighbour, MtuProbe(mtu), now_s, df=True)

    def _establish(self, neighbour: _Neighbour, now_s: float) -> None:
        if neighbour.established:
            return
        neighbour.established = True
        neighbour.next_heartbeat_s = now_s + SLOW_HEARTBEAT_S
        neighbour.admitted.on_established()
        self._test_path(neighbour, now_s)
        self._run_timers_of(neighbour, now_s)

    def _test_path(self, neighbour: _Neighbour, now_s: float) -> None:
        """See whether fragments arrive, and what the kernel knows of the path."""
        neighbour.next_fragmentation_test_s = now_s + FRAGMENTATION_TEST_S
        neighbour.fragments_arrive = False
        self._send_special(neighbour, FragmentationTest(), now_s, df=False)
        self._learn_path(neighbour, now_s)

    def _learn_path(self, neighbour: _Neighbour, now_s: float) -> None:
        """Ask the kernel for the MTU to a neighbour, and see whether that arrives."""
        if neighbour.remote is None:
            return
        self._next_timer_s = None
        try:
            mtu = self._udp.path_mtu(neighbour.remote)
        except OSError:
            self._counters["path_unknown"] += 1
            return
        neighbour.path.begin(mtu, now_s)

    def _send_special(
        self, neighbour: _Neighbour, special: Special, now_s: float, *, df: bool
    ) -> None:
        frame = sleeve.encode_special(special)
        header = sleeve.frame_header(self._name, neighbour.peer, len(frame))
        datagram = memoryview(self._name + header + frame)
        self._send(neighbour, Train(datagram, len(datagram)), now_s, df=df)
