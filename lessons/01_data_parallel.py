"""
Lesson 1: data parallel
=======================

**What you will learn**

1. Estimate what it costs to sum the gradients, from the bandwidth and the latency of a network.
2. Tell *hidden* communication from *exposed* communication on a timeline.
3. Choose a bucket size, and say why neither extreme is right.

**You need** a PyTorch training loop that you understand; no GPU, no second computer.

**Time:** 25 minutes to read; the script runs for about half a minute.
"""

# %%
# The question
# ------------
# A *rank* is a process with a device of its own. In data parallel training every rank
# holds the whole model and computes the gradients of its own share of the batch. Then
# the gradients are summed over all ranks (an *all-reduce*), and every rank takes the same
# optimizer step. Nothing else is exchanged.
#
# **n ranks do n times the work of one. How much of that factor is left when every step
# must also sum the gradients?** ::
#
#     speed-up = n × T_compute ÷ T_step
#     T_step   = T_compute + exposed communication
#
# ``T_compute`` is the time that one rank computes in a step; communication is *exposed*
# while a rank has nothing to compute meanwhile. A network is described by two numbers: its
# *bandwidth*, bytes per second once they flow, and its *latency*, seconds until the first
# byte arrives. An all-reduce around a ring of n ranks takes ::
#
#     T_ring(bytes) = 2(n−1)/n × bytes ÷ bandwidth + 2(n−1) × latency
#
# With one *bucket* for all gradients it begins when the backward pass has ended: all of
# it is exposed. But the last layer's gradients are ready first. Send them while the layers
# before are still in their backward pass, bucket by bucket, and at best only the last
# bucket is exposed.

from lessons import lesson_tools
from twinline import (
    Instruction,
    Op,
    Program,
    Stream,
    Task,
    TensorName,
    Workers,
    clusters,
    lower,
    nbytes,
    parse,
    percent,
    predict,
    ring_seconds,
    seconds,
)

# %%
# Predict
# -------
# In a moment two processes of this machine will train a GPT of 3.3 million parameters,
# each on 64 tokens a step. That is some tens of milliseconds of compute, and then 13 MB of
# gradients must be summed over the loopback network, all in one bucket. By which factor
# are the two faster than one? Change the number **before** you run anything.

MY_GUESS = 1.9  # between 0 (much slower) and 2 (summing is free)

MODEL = {"model": "gpt", "layers": 4, "hidden": 256, "heads": 4, "sequence": 16}
ONE_BUCKET = 1e6  # megabytes: more than any model has here


def here(bucket_mb, **cluster):
    """The plan for this machine: two ranks, four sequences each."""
    return parse(
        {
            "workload": MODEL | {"global_batch": 8},
            "parallel": {"data": 2, "bucket_mb": bucket_mb},
            "run": {"iterations": 8, "warmup": 1},
            "cluster": cluster,
        }
    )


# %%
# Simulate
# --------
# First the program in words. A strategy is written once, as a list of instructions per
# rank; the simulator and the real processes both follow it. Here is rank 0 of a model of
# two layers with a bucket for each (rank 1 does the same). ``0B0.1`` reads: pipeline stage
# 0, backward, microbatch 0, piece 1 of the stage. Instructions on one *stream* run one
# after the other, different streams run side by side, and ``after`` makes one wait.

tiny = {"workload": {"model": "mlp", "layers": 2}, "parallel": {"data": 2, "bucket_mb": 0.01}}
lesson_tools.show_program(lower(parse(tiny)), ranks=[0])

# %%
# The backward pass goes through the pieces in reverse. As soon as piece 1 has its
# gradients, their all-reduce starts on the stream ``data``, beside the backward pass of
# piece 0. Only the optimizer step waits for both.
#
# Now a cluster that nobody has at home: a GPT of 1.4 billion parameters on 16 H100 GPUs,
# two nodes with a slow 400 Gbit/s between them. Above, one bucket; below, 100 MB a bucket.
# Libraries choose among several algorithms by size; the ring is the one of the formula.

CLUSTER = {"preset": "dgx-h100", "node_bandwidth_gbit": 400.0, "algorithm": "ring"}

timelines, rows = [], []
for name, bucket_mb in (("one bucket", ONE_BUCKET), ("buckets of 100 MB", 100.0)):
    workload = lesson_tools.GPT_1B | {"global_batch": 64}
    plan = {"data": 16, "bucket_mb": bucket_mb}
    prediction = predict(parse({"workload": workload, "parallel": plan, "cluster": CLUSTER}))
    prediction.timeline.meta["source"] = name
    timelines.append(prediction.timeline)
    step, compute = prediction.iteration_time_s, lesson_tools.work_seconds(prediction)[0]
    sizes = lesson_tools.buckets(prediction.program)
    exposed = prediction.cluster.collective(Op.ALL_REDUCE, tuple(range(16)), sizes[-1]).mean_s
    rows.append(
        [name, str(len(sizes)), nbytes(sum(sizes)), seconds(compute), seconds(step),
         f"{16 * compute / (compute + exposed):.2f}", f"{16 * compute / step:.2f}",
         f"{prediction.bubble_fraction:.2f}"]
    )  # fmt: skip

lesson_tools.draw(
    "01-simulated.png", "Data parallel on 16 H100: where does the sum go?", *timelines
)
lesson_tools.show_table(
    ["16 × H100", "buckets", "gradients", "T_compute", "T_step", "formula", "speed-up", "bubble"],
    *rows,
)

# %%
# In the upper half of the picture every rank waits for the sum. In the lower half the sum
# runs under the backward pass, and only its tail shows. ``formula`` is the speed-up if
# just the last bucket is exposed; with one bucket that is all there is.
#
# **Why is ``speed-up`` below ``formula``?** With one bucket the two agree. With buckets the
# formula assumes that an overlapped all-reduce costs nothing. In the simulation it takes a
# part of the GPU: some of its 132 multiprocessors move data, and the backward pass beside
# them is slower. ``T_compute`` is the compute time without that. That is most of the
# difference; the rest is a bucket that is still under way when the last one is ready, so
# that more than the last bucket is exposed.
#
# Two numbers go by the name "bubble". Throughout these lessons it is the **bubble
# fraction**: time without compute ÷ (ranks × step time). The other, the *bubble ratio*,
# divides the same time by the time spent computing.
#
# Run
# ---
# The same kind of program for real: two processes on this machine, PyTorch tensors,
# ``torch.distributed`` with gloo. Calibration is part of it: between the measured steps
# both ranks time their passes without communication, and the simulator uses those times.

plans = {"one bucket": here(ONE_BUCKET), "buckets of 1 MB": here(1.0)}
with Workers(2) as workers:
    outcomes = {name: lesson_tools.run_here(name, plan, workers) for name, plan in plans.items()}

# %%
# Compare
# -------
# Predicted above measured, on one time axis. ``formula`` in the table knows nothing of
# your machine: it uses the built-in ``laptop`` (1.5 GB/s, 150 µs). ``error`` is that of the
# step time, (simulated − measured) ÷ measured, here and in the list below: a positive error
# means that the simulated step is too long, and so the simulated speed-up too small.
# ``noise`` is half the distance from the 10th to the 90th percentile of the measured steps;
# an error below it cannot be told from chance. ``T_compute`` is the sum of a rank's passes
# and its optimizer step as calibration timed them, without communication, for a rank that
# has its core to itself; each plan has its own, because the pace of a machine may change.

laptop = clusters()["laptop"].topology.island
rows = []
for (name, outcome), guess in zip(outcomes.items(), (f"{MY_GUESS:.2f}", "–"), strict=True):
    bucket_mb = outcome.prediction.experiment.parallel.bucket_mb
    compute = lesson_tools.work_seconds(predict(here(bucket_mb, preset="laptop")))[0]
    last = lesson_tools.buckets(outcome.prediction.program)[-1]
    exposed = ring_seconds(Op.ALL_REDUCE, 2, last, laptop.latency_s, laptop.speed)
    formula = 2 * compute / (compute + exposed)

    compute = lesson_tools.work_seconds(outcome.prediction)[0]
    step = outcome.execution.iteration_time_s
    predicted_step = outcome.prediction.iteration_time_s
    simulated = 2 * compute / predicted_step
    measured = 2 * compute / step
    rows.append(
        [name, guess, f"{formula:.2f}", f"{simulated:.2f}", f"{measured:.2f}",
         percent((predicted_step - step) / step, signed=True),
         percent(outcome.comparison.noise_floor), seconds(compute), seconds(step)]
    )  # fmt: skip
    pair = outcome.prediction.timeline, outcome.execution.timeline
    lesson_tools.draw(f"01-compare-{len(rows)}.png", f"Two ranks on this machine, {name}", *pair)

lesson_tools.show_table(
    ["speed-up of 2 ranks", "guess", "formula", "simulated", "measured", "step error", "noise",
     "T_compute", "T_step"],
    *rows,
)  # fmt: skip

# %%
# Explain the gap
# ---------------
# *From formula to simulated.* The formula sums one bucket at the bandwidth of ``laptop``;
# the simulator uses what calibration measured here, which may well take twice as long. It
# also has what the formula leaves out. Two ranks that compute at once slow each other, as
# far as their cores share caches, memory or a clock. No pass takes equally long twice, and
# every step waits for the slower of the two ranks. Passes get slower while an all-reduce
# runs beside them, and Python needs time between instructions. So the simulated speed-up is
# mostly smaller.
#
# *From simulated to measured.* The program is replayed with predicted times, then with
# measured ones put in, cause by cause: each line says how much longer the measured step is
# for that cause. Then come the medians of each operation. What the causes mean here:
#
# * *compute*: the passes took longer, or shorter, than when calibration timed them. Two
#   ranks share caches, memory bandwidth and perhaps your browser. And gloo's all-reduce
#   is itself work for a CPU: overlapped with the backward pass, it takes core time from
#   it. (On an H100 a few of 132 multiprocessors move the data, the rest compute on.) So
#   small buckets may help less here than on the cluster; calibration measures the share.
# * *communication*: all-reduces slower than in calibration, alone or beside passes.
# * *host gaps*: from the moment an instruction could start to the moment it did. The rank
#   that starts late makes the other wait: look for the thin grey line before an all-reduce.
# * *late in turn*: in each step another rank is the last one, and all others wait for it.
# * *remainder*: medians of many steps do not add up exactly.

for name, outcome in outcomes.items():
    lesson_tools.show_gap(name, outcome)
profile = outcomes["buckets of 1 MB"].prediction.cluster.profile
if profile.transfer_loss is not None:  # with more cores than ranks there is nothing to lose
    print(f"calibration: beside all-reduces passes lose {profile.transfer_loss:.0%} of their speed")

# %%
# A failure that teaches
# ----------------------
# Collectives have no names: the k-th all-reduce of a rank meets the k-th of every other.
# Suppose rank 1 sums bucket B first. With real libraries the ranks may hang, or, worse,
# if the sizes agree, quietly add gradients of different layers. The validator looks at
# all ranks before any process starts.


def reduce_in_order(names):
    """A rank that all-reduces the buckets `names` in turn."""
    return [
        Instruction(
            Task(
                Op.ALL_REDUCE, stage=0, mnemonic=f"REDUCE_{name}", stream=Stream.along("data"),
                group=(0, 1), tensor=TensorName.other(name), nbytes=1000,
            )
        )
        for name in names
    ]  # fmt: skip


lesson_tools.show_refusal(Program([reduce_in_order("AB"), reduce_in_order("BA")]))

# %%
# Exercises
# ---------
# Fill in the functions in ``lessons/exercises_01.py``, then
# ``python -m lessons.check 01``.
#
# 1. *The formula.* Write ``all_reduce_seconds``. Target: 1 GB over 8 ranks with 360 GB/s
#    and 3 µs takes **4.90 ms**.
# 2. *Neither extreme.* Write ``bucket_mb``. The model is ``lesson_tools.GPT_1B``, the GPT of
#    1.4 billion parameters of this lesson, on 256 H100 GPUs with their full network, one
#    sequence each, in a ring: the usual 25 MB buckets take 109.3 ms a step, one bucket takes
#    91.6 ms. Find a size that needs **at most 82 ms**. Which term of the formula hurts small
#    buckets? (A bucket ends where a layer ends, so it is never smaller than a layer. Here
#    attention has 34 MB of gradients and an MLP 67 MB: 50 and 100 MB give equal numbers
#    of buckets.)
# 3. *Sum less often.* Write ``microbatches``. With ``GPT_1B`` on this lesson's 16 GPUs, but
#    just 100 Gbit/s a node, the speed-up drops below 7. Accumulate gradients over several
#    microbatches of four sequences and sum once a step. What is the **smallest number** of
#    microbatches with a speed-up of **12**? ``lesson_tools.work_seconds(prediction)[0]`` is
#    ``T_compute``.
#
# Key points
# ----------
# * An all-reduce costs once to twice the bytes ÷ bandwidth, however many ranks there are,
#   and a latency that grows with their number.
# * Only exposed communication costs time. Buckets let it overlap the backward pass.
# * Buckets too large leave nothing to overlap; too small, and latency is paid too often.
# * Overlap is free only where moving data does not need the units that compute.
#
# Further reading
# ---------------
# * Li et al. 2020, "PyTorch Distributed: Experiences on Accelerating Data Parallel Training".
# * Patarasuk and Yuan 2009, "Bandwidth Optimal All-reduce Algorithms for Clusters of
#   Workstations".
# * Goyal et al. 2017, "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour".
