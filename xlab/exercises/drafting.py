"""A new exercise: every file of it, small and whole, to be changed into what is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from xlab.errors import UsageError, quoted
from xlab.exercises import exercise
from xlab.kernel import disk

_README = """# {number} {title}

20 minutes. 4 points, of which 0 stand at the start.

## What you can do afterwards
Give two hosts a way to each other's second network.

## The picture
```
        h1 eth0 {{h1}}            h2 eth0 {{h2}}
           lo   {{net1}}             lo   {{net2}}
        ─────┴──── the physical network ────┴───── gw
```

## Your values
| what | value |
|---|---|
| h1's own network | `{{net1}}`, on its lo the address `{{own1}}` |
| h2's own network | `{{net2}}`, on its lo the address `{{own2}}` |

## Predict
1. h1 has no route to `{{net2}}`. Where does it send a packet for it?

## Task 1: a way there and a way back
Each host has an address of its own network on lo. Let h1 reach `{{own2}}`, and h2 reach `{{own1}}`.

```
$ bin/xlab shell h1
h1:~# ip route add 10.99.0.0/24 via 10.98.0.7
```

is how a route is written; the addresses are not yours. `bin/xlab trace h1 {{own2}}` shows where a
ping goes.

## Questions
Write your answers to `answers.yaml`.
- `next-hop`: to whom did h1 send packets for `{{net2}}` before you began?
"""

_LAB = """title: {title}
minutes: 20
machines:
  hosts: 2
  underlay: "{{underlay}}"
variants:
  underlay: {{network: 10.0.0.0/8, prefix: 24}}
  net1: {{network: 192.168.0.0/16, prefix: 24}}
  net2: {{network: 192.168.0.0/16, prefix: 24}}
  h1: {{address: [underlay, 3]}}
  h2: {{address: [underlay, 4]}}
  own1: {{address: [net1, 1]}}
  own2: {{address: [net2, 1]}}
typed_before:
  h1: ip address add {{own1}}/32 dev lo
  h2: ip address add {{own2}}/32 dev lo
"""

_CHECKS = """- id: there
  task: 1
  points: 2
  reaches: {{from: h1, to: "{{own2}}"}}
  pass: h1 reaches {{own2}}.
  fail: h1 gets no answer from {{own2}}.
  look: "`xlab trace h1 {{own2}}` shows where the ping stops."
- id: back
  task: 1
  points: 1
  reaches: {{from: h2, to: "{{own1}}"}}
  pass: h2 reaches {{own1}}.
  fail: h2 gets no answer from {{own1}}.
  look: "`xlab trace h2 {{own1}}` shows where the ping stops."
- id: next-hop
  task: 1
  points: 1
  answer:
    question: To whom did h1 send packets for the other network before you began?
    choice: [the gateway, h2, nobody]
"""

_HINTS = """there:
  - Which line of `ip route` on h1 decides about {{own2}}?
  - A route names a network and a next hop that is a neighbour. Which neighbour has {{own2}}?
  - "`ip route add {{net2}} via {{h2}}` on h1; the reply goes to {{h1}}, which h2 knows."
back:
  - It is the same the other way.
  - Which line of `ip route` on h2 decides about {{own1}}?
  - "`ip route add {{net1}} via {{h1}}` on h2."
"""

_SOLUTION: Mapping[str, str] = {
    "h1.sh": "# task 1\nip route add {{net2}} via {{h2}}\n",
    "h2.sh": "# task 1\nip route add {{net1}} via {{h1}}\n",
    "answers.yaml": "next-hop: {{choice: the gateway}}\n",
    "faults.yaml": """- fault: h1 has lost its route
  do: {{h1: "ip route del {{net2}}"}}
  undo: {{h1: "ip route add {{net2}} via {{h2}}"}}
  fails: [there]
- fault: h1 has lost the address of its own network
  do: {{h1: "ip address del {{own1}}/32 dev lo"}}
  undo: {{h1: "ip address add {{own1}}/32 dev lo"}}
  fails: [back]
""",
    "other/h1.sh": "# task 1\nroute add -net {{net2}} gw {{h2}} dev eth0\n",
    "other/h2.sh": "# task 1\nroute add -net {{net1}} gw {{h1}} dev eth0\n",
    "teacher.md": "# {number} {title}: for the teacher\n\nWhat students get wrong.\n",
}


def draft(name: str, into: Path) -> Path:
    """A folder `name` ("21-my-exercise") that is valid and passes its selftest."""
    folder = into / name
    if not exercise.is_name(name):
        raise UsageError(f"{quoted(name)}: a number and words are wanted, as 21-two-ways-out")
    if folder.exists():
        raise UsageError(f"{folder} is there already")
    words = {"number": name[:2], "title": name[3:].replace("-", " ").capitalize()}
    texts = {
        "README.md": _README,
        "lab.yaml": _LAB,
        "checks.yaml": _CHECKS,
        "hints.yaml": _HINTS,
        **{f"solution/{file}": text for file, text in _SOLUTION.items()},
    }
    disk.make_folder(folder)
    disk.write(folder, {file: text.format(**words).encode() for file, text in texts.items()})
    return folder
