"""``python -m tests.launch.ray_nodes CPUS...``: a Ray cluster of a few nodes on the loopback address, until stdin closes.

A process of its own, because Ray reads its environment once. Prints a line of JSON when it stands: the address, and the process
of each node. A number on stdin is one more node with so many CPUs, answered by a line with its process.
"""

from __future__ import annotations

import json
import sys
from typing import Any

# Loopback, but not 127.0.0.1: Ray would take that for "this machine" and use its address in the network instead.
_ADDRESS = "127.0.0.2"


def main(cpus: list[int]) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=False)

    def _add(number: int) -> int:
        node = cluster.add_node(
            num_cpus=number,
            node_ip_address=_ADDRESS,
            include_dashboard=False,
            object_store_memory=80 * 1024 * 1024,
        )
        return int(node.all_processes["raylet"][0].process.pid)

    raylets = [_add(number) for number in cpus]
    _say({"address": cluster.address, "raylets": raylets})
    for line in sys.stdin:
        _say({"raylet": _add(int(line))})
    cluster.shutdown()


def _say(something: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(something) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]])
