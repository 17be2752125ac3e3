"""
Lesson 6: send less
===================

**What you will learn**

1. Count the bytes that each way to compress gradients really moves, for any number of ranks.
2. Tell when compression makes a step shorter, and when it only makes it longer.
3. Say why what was not sent must be kept, and what compression costs in learning.

**You need** lesson 1 (all-reduce, buckets, exposed communication).

**Time:** 30 minutes to read; the script runs for about half a minute.
"""

# %%
# The question
# ------------
# In lesson 1 n ranks sum d gradients of 4 bytes each. They may send less. **fp16** rounds each
# value to two bytes, **int8** to one, with a scale for each bucket. **Top-k** sends the k values
# of largest magnitude and their places, 8 bytes together. **PowerSGD** replaces a gradient of R
# rows and C columns by a product of two narrow matrices, R × r and r × C, and sends those.
#
# An all-reduce adds up on the way. int8 values have another scale on each rank, those of top-k
# other places: they cannot be added as they are. So all ranks *gather* what every rank has
# sent, and add up by themselves. In a ring a rank receives ::
#
#     none       2(n−1)/n × 4d           int8     (n−1) × d
#     fp16       2(n−1)/n × 2d           top-k    (n−1) × 8k
#     PowerSGD   2(n−1)/n × 4r(R + C)    for each matrix, in two rounds: the second needs the first
#
# What is summed stays below 2 × its bytes, what is gathered grows with n. So top-k receives less
# than ``none`` only for k/d < 1/n, and int8 only for n < 8. But fp16 costs next to nothing, and
# is the one to beat: top-k then needs k/d < 1/(2n), int8 n < 4.
#
# **Is a step shorter if less is sent?** Only if ::
#
#     encoding + what is exposed then + decoding  <  what is exposed of the plain all-reduce

from bisect import bisect_left

from lessons import lesson_tools
from twinline import (
    Op,
    Workers,
    clusters,
    learn,
    learning_figure,
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
# In a moment two processes will train lesson 1's GPT of 3.3 million parameters, with one
# sequence of 16 tokens a step each, and 13 MB of gradients. How long is a step with compression,
# as a multiple of one without? Top-k sends one value in a hundred, 50 times fewer bytes.
# Change the numbers **before** you run anything.

MY_GUESS = {"none": 1.0, "fp16": 0.8, "top-k, 1 %": 0.6}

FP16, INT8 = {"compression": "fp16"}, {"compression": "int8"}
TOP_K = {"compression": "top-k", "density": 0.01}
POWER_SGD = {"compression": "power-sgd", "compression_rank": 4}
METHODS = {
    "none": {}, "fp16": FP16, "int8": INT8, "top-k, 1 %": TOP_K,
    "top-k, 30 %": TOP_K | {"density": 0.3}, "PowerSGD, r = 4": POWER_SGD,
}  # fmt: skip


def here(plan, **cluster):
    """Two ranks on this machine, the model in one bucket."""
    workload = {"model": "gpt", "layers": 4, "hidden": 256, "heads": 4, "sequence": 16}
    return parse(
        {
            "workload": workload | {"global_batch": 2},
            "parallel": {"data": 2, "bucket_mb": 1e6} | plan,
            "run": {"iterations": 6, "warmup": 1},
            "cluster": cluster,
        }
    )


# %%
# Simulate
# --------
# The program in words, for a model of one layer: first top-k, then PowerSGD.

for plan in (TOP_K, POWER_SGD):
    tiny = {"workload": {"model": "mlp", "layers": 1}, "parallel": {"data": 2} | plan}
    lesson_tools.show_program(lower(parse(tiny)), ranks=[0])

# %%
# Coding is on the stream ``compute``, like passes: *nothing hides it*, whereas an all-reduce may
# hide under the backward pass. PowerSGD sends what is no large matrix as it is (``REST``), sums
# all ``P``, and can only then make ``Q``.
#
# Now three clusters that nobody has at home, of four GPUs that train GPT-2, of 652 MB, with
# eight sequences of 1024 tokens each. Two have machines with one V100, and 1 or 10 Gbit/s
# between them. The third is four H100 of one server, joined by NVLink. ``waits`` is how much
# longer a step takes than its passes and its update: both sides of the question.


def waits(prediction):
    """The time that coding and exposed communication add to a step, as text."""
    return seconds(prediction.iteration_time_s - lesson_tools.work_seconds(prediction)[0])


timelines, rows = {}, []
for name, plan in METHODS.items():
    slow = predict(lesson_tools.on_slow_network(plan))
    middle = predict(lesson_tools.on_slow_network(plan, gbit=10.0))
    fast = predict(lesson_tools.on_h100(plan))
    timelines[name] = middle.timeline
    rows.append(
        [name, nbytes(lesson_tools.received(slow.program)), waits(slow), waits(middle),
         seconds(lesson_tools.coding_seconds(middle)), waits(fast),
         seconds(lesson_tools.coding_seconds(fast))]
    )  # fmt: skip
header = ["4 GPUs", "received", "1 Gbit/s: waits", "10 Gbit/s: waits", "of it coding"]
lesson_tools.show_table([*header, "H100: waits", "of it coding"], *rows)
del timelines["int8"], timelines["PowerSGD, r = 4"]  # too many for one picture
title = "A step of 4 machines over 10 Gbit/s: what is exposed, and what coding takes"
lesson_tools.draw_panels("06-simulated.png", title, timelines)

# %%
# With 1 Gbit/s bytes decide: the waits are in the order of ``received``. With 10 Gbit/s most of
# what top-k waits is coding, which no faster network makes shorter. On the H100s the backward
# pass hides all but a millisecond of the plain all-reduce, and **every compression makes the
# step longer**. Overlap has won before compression begins.
#
# A failure that teaches: *30 % of the values are more bytes than all of them*, on four ranks.
# Nothing warns, the program runs, the loss looks well. Where exactly is the limit? Search for
# the largest density at which a step with top-k is shorter than one with ``rival``.


def step(plan, machines, gbit):
    """The seconds of a step of so many machines with so many Gbit/s."""
    experiment = lesson_tools.on_slow_network(plan, machines=machines, gbit=gbit)
    return predict(experiment).iteration_time_s


def largest_density(rival, machines, gbit):
    """The density up to which top-k is faster than `rival`, rounded down."""

    def with_density(thousandths):
        return step(TOP_K | {"density": thousandths / 1000}, machines, gbit)

    return bisect_left(range(1, 1001), step(rival, machines, gbit), key=with_density) / 1000


rows = []
for n in (2, 4, 8, 16):
    limits = [1 / n, *(largest_density({}, n, gbit) for gbit in (1.0, 25.0))]
    limits += [1 / (2 * n), *(largest_density(FP16, n, gbit) for gbit in (1.0, 25.0))]
    rows.append([f"n = {n}", *(f"{density:.3f}" for density in limits)])
networks = ["1 Gbit/s", "25 Gbit/s"]
lesson_tools.show_table(["top-k pays below", "1/n", *networks, "1/(2n)", *networks], *rows)
rows = []
for n in (3, 4, 7, 8):
    rows.append([f"n = {n}", *(seconds(step(plan, n, 1.0)) for plan in ({}, FP16, INT8))])
lesson_tools.show_table(["step, 1 Gbit/s", "none", "fp16", "int8"], *rows)

# %%
# The first three columns are against none, the others against fp16. The formulas of bytes are
# right where only bytes count. The faster the network, the more coding weighs, and the lower the
# density at which top-k still pays: down to zero, as on the H100s. int8 is faster than fp16 on
# three machines and not on four, faster than none on seven and not on eight.
#
# Run
# ---
# The plans of the guess for real, on two processes of this machine.

with Workers(2) as workers:
    outcomes = {
        name: lesson_tools.run_here(name, here(METHODS[name]), workers) for name in MY_GUESS
    }

# %%
# Compare
# -------
# Predicted above measured: a step with top-k. The table has multiples of the step without
# compression. ``formula`` knows the bytes and the speed of the built-in ``laptop`` (1.5 GB/s,
# 150 µs), and nothing of coding. ``error`` is that of the step time, (simulated − measured) ÷
# measured, ``noise`` half the distance from the 10th to the 90th percentile of measured steps,
# ``coding`` what calibration timed of a rank that has its core to itself.

laptop = clusters()["laptop"].topology.island
plain = outcomes["none"]
size = sum(lesson_tools.buckets(plain.prediction.program))
compute = lesson_tools.work_seconds(predict(here({}, preset="laptop")))[0]
link = laptop.latency_s, laptop.speed
exchange = {
    "none": ring_seconds(Op.ALL_REDUCE, 2, size, *link),
    "fp16": ring_seconds(Op.ALL_REDUCE, 2, size // 2, *link),
    "top-k, 1 %": 2 * ring_seconds(Op.ALL_GATHER, 2, 2 * size // 100, *link),  # values, places
}
rows = []
for name, outcome in outcomes.items():
    predicted, step_s = outcome.prediction, outcome.execution.iteration_time_s
    formula = (compute + exchange[name]) / (compute + exchange["none"])
    rows.append(
        [name, f"{MY_GUESS[name]:.2f}", f"{formula:.2f}",
         f"{predicted.iteration_time_s / plain.prediction.iteration_time_s:.2f}",
         f"{step_s / plain.execution.iteration_time_s:.2f}",
         percent(outcome.comparison.iteration_time_error, signed=True),
         percent(outcome.comparison.noise_floor), nbytes(lesson_tools.received(predicted.program)),
         seconds(lesson_tools.coding_seconds(predicted)), seconds(step_s)]
    )  # fmt: skip

outcome = outcomes["top-k, 1 %"]
pair = outcome.prediction.timeline, outcome.execution.timeline
lesson_tools.draw("06-compare.png", "Two ranks here, one value in a hundred is sent", *pair)
header = ["step ÷ plain step", "guess", "formula", "simulated", "measured", "error", "noise"]
lesson_tools.show_table([*header, "received", "coding", "T_step"], *rows)

# %%
# *50 times fewer bytes, and a step that takes longer by far.* The long bar is the reason: to
# find the largest of 3.3 million values, a core works much longer than loopback needs to
# send them all. A GPU selects faster, but its network is faster, too. And half the bytes need
# not take half the time: on a CPU gloo adds fp16 values slowly. Compare ``REDUCE_CAST`` below
# with ``REDUCE_GRAD``, and try ``bf16``. Bytes can be counted, seconds must be measured.
#
# Explain the gap
# ---------------
# *From formula to simulated.* The formula promises a gain where there is a loss: it has no term
# for coding. The simulator has what calibration measured here: encoding and decoding, as if
# they were passes, and sums of fp16 values apart from those of fp32.
#
# *From simulated to measured.* Each line says how much longer the measured step is for one
# cause, as in lesson 1. *Compute* includes coding, which shares caches with the other rank.

for name, outcome in outcomes.items():
    lesson_tools.show_gap(name, outcome)

# %%
# The price
# ---------
# Ninety-nine of a hundred values are not sent. If they are thrown away, those parameters never
# learn. **Error feedback** keeps them: what a rank has not sent it adds to its gradients of the
# next step, until it is among the largest. Nothing is lost, it comes later.
#
# Four machines with 1 Gbit/s train a model so small that one process can compute all replicas
# here: the losses are real, their times the cluster's, as in lesson 5.

small = {"model": "mlp", "layers": 2, "hidden": 64, "sequence": 8, "global_batch": 4}
trainings = {name: METHODS[name] for name in ("none", "fp16", "top-k, 1 %", "PowerSGD, r = 4")}
trainings["top-k, errors lost"] = TOP_K | {"error_feedback": False}
on_slow = lesson_tools.on_slow_network
plans = [on_slow(plan, small, learning_rate=3.0) for plan in trainings.values()]
learning = learn(plans, steps=80, names=list(trainings), target_loss=0.02)
lesson_tools.show_table(["to a loss of 0.02", "time", "samples", "sent"], *learning.target_rows())
for curve in learning.curves:
    print(f"{curve.name:<20} loss after {curve.steps} steps: {curve.smoothed[-1]:.3f}")
title = "Losses of four machines with 1 Gbit/s between them, that send less"
lesson_tools.save("06-learning.png", learning_figure(learning, title))

# %%
# In samples fp16 is as good as fp32 here, and top-k and PowerSGD almost: errors come back.
# Without them top-k stays far behind, though its steps are as short: *a shorter step is worth
# nothing if it learns too little*. PowerSGD sends a tenth and is still slower than fp16: the
# messages of so small a model are mostly latency, and it has most of them, one after another.
# (With rank 1 it does not come to the target in these steps. Try it.)
#
# Exercises
# ---------
# Fill in the functions in ``lessons/exercises_06.py``, then
# ``python -m lessons.check 06``.
#
# 1. *Count.* Write ``received_bytes``. Target: of a million values, eight ranks receive **7.0 MB**
#    each without compression, 3.5 MB with fp16, 7.0 MB with int8, 0.56 MB with top-k of 1 %.
# 2. *Who needs it?* Write ``enough_gbit``: for this lesson's four machines with GPT-2, the
#    **smallest whole number** of Gbit/s at which a step without compression is no longer than
#    one with int8. What is left of the wait when the bandwidth doubles?
# 3. *Keep the rest.* Write ``top_k`` with error feedback. Target: of the gradients 8, 4, 2, 1,
#    the same in every step, one value a step is sent, and the mean of what was sent in 1000
#    steps is **8, 4, 2, 1, to one percent**.
#
# Key points
# ----------
# * What is summed costs at most twice its bytes; what is gathered grows with the ranks. Top-k
#   needs k/d < 1/n, and k/d < 1/(2n) to beat fp16; int8 beats fp16 for n < 4 only.
# * Coding is never hidden, an all-reduce mostly is. Compare coding + the rest with what is
#   *exposed*, not with all that is sent. On fast networks overlap wins.
# * Compare with fp16, not with fp32, and the time to a loss, not that of a step.
# * Keep what is not sent, and send it later: error feedback.
#
# Further reading
# ---------------
# * Agarwal et al. 2022, "On the Utility of Gradient Compression in Distributed Training Systems".
# * Lin et al. 2018, "Deep Gradient Compression".
# * Vogels et al. 2019, "PowerSGD: Practical Low-Rank Gradient Compression".
# * Karimireddy et al. 2019, "Error Feedback Fixes SignSGD and other Gradient Compression Schemes".
