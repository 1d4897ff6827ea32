"""machines-ovs: hosts as they come, on which Open vSwitch runs, too."""

import dataclasses

from xlab.exercises import machines

SCENARIO = dataclasses.replace(machines.SCENARIO, name="machines-ovs", needs=("Open vSwitch",))
