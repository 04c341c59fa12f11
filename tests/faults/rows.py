"""The fault matrix: what may happen, and what is promised. Each row has a test that records its figures, or a reason why not.

The numbers are those that ``record(…, row=N)`` names; docs/reliability.md is made of these words and of those figures.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One row.

    Attributes:
        what: What happens.
        promise: What holds all the same.
    """

    what: str
    promise: str


ROWS: dict[int, Fault] = {
    1: Fault(
        what="SIGKILL to workers and runners at random moments",
        promise="nothing acknowledged is lost, nothing counts twice, nothing is stuck; the run goes on within the lease + 35 s",
    ),
    2: Fault(what="A kill between claim and first heartbeat", promise="reclaimed like any other"),
    3: Fault(
        what="A kill before or after the commit that ends a run, or before a checkpoint has its name",
        promise="each end counts once; a checkpoint is whole or not there",
    ),
    4: Fault(what="SIGTERM in the middle of an epoch", promise="the run waits with its checkpoint, exit 0 within 20 s"),
    5: Fault(
        what="SIGTERM, then SIGKILL while it drains", promise="as for a kill; no damaged checkpoint is gone on from"
    ),
    6: Fault(
        what="A worker is stopped for longer than its lease, then goes on",
        promise="its late writes change nothing; it drops the run, lives on and takes the next",
    ),
    7: Fault(what="Eight processes claim the same waiting runs", promise="each is claimed once"),
    8: Fault(what="Eight processes open an empty database at once", promise="all wait for the schema, none fails"),
    9: Fault(
        what="The database server crashes and restarts", promise="no trial fails, no lease is lost, no worker dies"
    ),
    10: Fault(
        what="The database is gone for longer than a lease",
        promise="training goes on; what was measured is told when it is back",
    ),
    11: Fault(
        what="The database is gone for longer than the outage budget",
        promise="the worker ends by itself and keeps the checkpoint; the next goes on from it",
    ),
    12: Fault(what="A connection breaks around a commit", promise="all or nothing, and never twice"),
    13: Fault(
        what="A network that is slow, resets connections, or swallows everything for a while",
        promise="it takes longer, nothing is wrong",
    ),
    14: Fault(
        what="Twelve workers, ten connections", promise="they wait in turn, each says so in one line; no trial fails"
    ),
    15: Fault(what="Deadlocks, lock timeouts, conflicts of transactions", promise="tried again, none is told"),
    16: Fault(what="Somebody else holds SQLite's lock", promise="a write waits up to a minute for its turn"),
    17: Fault(
        what="The disk is full",
        promise="the checkpoint before is whole, the run is given back, nothing is claimed until there is room",
    ),
    18: Fault(
        what="The kernel kills a runner for lack of memory", promise="told apart from other deaths; the worker lives on"
    ),
    19: Fault(
        what="A device's memory is too small for the micro-batch",
        promise="halved at equal effective batch, remembered; infeasible if one row does not fit a fresh runner either",
    ),
    20: Fault(
        what="A device fails, and every later call in that process",
        promise="a fresh runner, a check of the device, quarantine after three in a row",
    ),
    21: Fault(
        what="Loss or gradient is not finite", promise="diverged, never tried again, nothing non-finite is stored"
    ),
    22: Fault(what="A step hangs", promise="ended, the stacks kept, tried again; a slow run is left alone"),
    24: Fault(
        what="Configurations that kill every process which trains them",
        promise="three attempts each, others unaffected; ten of the last twenty trials pause the study",
    ),
    25: Fault(what="A runner that never comes up", promise="tried five times with growing pauses; no trial is burnt"),
    26: Fault(
        what="A checkpoint is cut off, or a bit of it flips", promise="noticed, set aside, the one before is used"
    ),
    27: Fault(what="A kill at any step of writing a checkpoint", promise="nobody sees a part of it"),
    28: Fault(
        what="A box's clock jumps by an hour, boxes in different time zones",
        promise="no effect: all times are the database server's",
    ),
    29: Fault(what="Database sessions in different time zones", promise="no lease ends early or late"),
    30: Fault(
        what="The database is restored from an older backup under running workers",
        promise="they notice and stop; nothing is written to it",
    ),
    31: Fault(
        what="A run that is interrupted at any epoch",
        promise="on a CPU its curve is that of the uninterrupted one, bit for bit",
    ),
    32: Fault(what="Eight processes, one budget", promise="never a trial too many; device hours within 2 %"),
    33: Fault(what="Runs of dead workers when the sampler is asked", promise="swept before, so that none repels it"),
    34: Fault(what="All workers die", promise="the first to come repairs everything"),
    35: Fault(
        what="A worker of another version, or a database of another schema",
        promise="it refuses to claim and says which",
    ),
    36: Fault(
        what="A study is paused, stopped or deleted while it is trained",
        promise="seen at the next heartbeat, the runner stopped within 30 s; nothing comes back",
    ),
    37: Fault(
        what="Hours of trials",
        promise="memory grows by less than 5 %; descriptors, threads and connections stay as they are",
    ),
    38: Fault(
        what="The server and all workers are killed at once (PostgreSQL with fsync)",
        promise="what was acknowledged is there; a kill cannot show what a disk forgets that lies about its cache",
    ),
    39: Fault(
        what="A box is cut off from the network for longer than its lease, and comes back",
        promise="its run goes on elsewhere, its late writes change nothing; it lives on and takes the next",
    ),
    40: Fault(
        what="Each of a worker's messages to the database is lost, or each answer",
        promise="it says them again, and leaves as if nothing had been",
    ),
    41: Fault(
        what="A worker dies at each of its messages, or before each answer",
        promise="another finishes the study, with the very trials that the first would have tried",
    ),
}

LEFT_OUT: dict[int, str] = {
    23: "A collective operation hangs: a trial is trained by one process on one device, so there is none.",
}
