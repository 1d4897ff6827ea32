"""Small transactions over TCP, one after the other: by netperf, or by us where it is not installed.

The two are not to be compared: of ours one thread drives both ends, and its latencies hold no
waking up of a process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from xlab.errors import XlabError
from xlab.kernel.processes import command_line
from xlab.kernel.programs import locate
from xlab.probes.facts import Sampled, Trial, two_cores
from xlab.probes.iperf import until_listening
from xlab.probes.parse import NETPERF_KEYS, RequestResponse, parse_netperf
from xlab.record import stats
from xlab.record.record import Measurement

_NETPERF_PORT = 12865
#: Latencies of transactions are averaged over so long: a run has tens of thousands of them.
INTERVAL_S = 0.05

#: What a probe makes of the transactions, and of how they were made.
Summing = Callable[[Trial, RequestResponse, Mapping[str, str]], Measurement]


def has_netperf() -> bool:
    return bool(locate("netperf") and locate("netserver"))


def by_netperf(
    trial: Trial,
    test: str,
    *options: str,
    length: int,
    timeout_s: float,
    failing: Mapping[str, str],
    summing: Summing,
) -> Sampled:
    """One run of a test of netperf; a metric of `failing`, with its unit, if it fails."""
    pair, cores = trial.pair, two_cores()
    argv = [
        "netperf", "-4", "-P", "0", *(("-T", cores) if cores else ()),
        "-t", test, "-H", str(pair.target.address),
        "-l", str(length), "-D", f"-{INTERVAL_S:g}",
        "--", *options, "-r", "1,1", "-k", ",".join(NETPERF_KEYS),
    ]  # fmt: skip
    detail = {"tool": "netperf", "command": command_line(argv), "cores": cores or "not pinned"}
    try:
        with pair.target.start(["netserver", "-D", "-4"]) as server:
            until_listening(server, _NETPERF_PORT)
            result = pair.source.run(argv, timeout_s=timeout_s)
        trial.keep("netperf.txt", result.stdout)
        return Sampled((summing(trial, parse_netperf(result.stdout), detail),), trial.raw)
    except XlabError as error:
        return trial.failed(error, failing, **detail)


def netperf_patience_s(round_trip_s: float | None) -> float:
    """How long netperf may take beyond what it was told to.

    It counts transactions, each of which a busy machine makes last 100 times as long.  Where not
    even an echo came back there is nothing to wait for.
    """
    return 15.0 if round_trip_s is None else 12 * round_trip_s + 60


def by_ourselves(
    trial: Trial,
    durations_s: Callable[[], Sequence[float]],
    *,
    command: str,
    kept_as: str,
    failing: Mapping[str, str],
    summing: Summing,
) -> Sampled:
    """The same over sockets of ours; `durations_s` makes the transactions and times each."""
    detail = {"tool": "xlab", "command": command}
    try:
        found_s = durations_s()
        trial.keep(kept_as, json.dumps([round(s * 1e6, 2) for s in found_s]))
        return Sampled((summing(trial, summarise(found_s), detail),), trial.raw)
    except (XlabError, OSError) as error:
        return trial.failed(error, failing, **detail)


def summarise(latencies_s: Sequence[float]) -> RequestResponse:
    """What netperf would report of these transactions; XlabError if there are none."""
    if not latencies_s:
        raise XlabError("no transaction was completed")
    means: list[float] = []
    since, sum_s = 0, 0.0
    for position, latency_s in enumerate(latencies_s, 1):
        sum_s += latency_s
        if sum_s >= INTERVAL_S:
            means.append(1000 * sum_s / (position - since))
            since, sum_s = position, 0.0
    milliseconds = [1000 * s for s in latencies_s]
    latencies = {"mean_ms": sum(milliseconds) / len(milliseconds)}
    for percent in (50, 90, 99):
        latencies[f"p{percent}_ms"] = stats.percentile(milliseconds, percent) or 0.0
    return RequestResponse(tuple(means), latencies, len(latencies_s) / sum(latencies_s))
