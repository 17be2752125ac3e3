"""
Lesson 5: talk less
===================

**What you will learn**

1. Tell from a model's bytes and a network's bandwidth whether synchronous steps are worth it.
2. Choose how many local steps, or which fragments, make up for a slow network.
3. Say what gossip saves and what it does not, and measure how far replicas drift apart.

**You need** lesson 1 (all-reduce, bandwidth and latency, exposed communication).

**Time:** 30 minutes to read; the script runs for about half a minute.
"""

# %%
# The question
# ------------
# In lesson 1 all ranks sum their gradients in every step, over a fast network. Between
# rented machines, or between two buildings, there may be 1 Gbit/s. With a model of V bytes,
# a step that computes for t seconds, and B bytes/s and α seconds of latency at each of n
# machines, a synchronous step waits for ::
#
#     T_sum(V) = 2(n−1)/n × V ÷ B + 2(n−1) × α
#
# Buckets that overlap the backward pass do not help when T_sum is ten times t. Three other
# things do. **Local steps**: every *replica*, which is a copy of the model, takes H
# optimizer steps with its own gradients; then all average their *parameters*. **Streaming**:
# the model is averaged in P fragments, each beside the τ steps that follow. **Gossip**: in
# every step a replica takes the mean of its own parameters and one neighbour's.
#
# **How long is a step then, on average?** ::
#
#     synchronous        t + T_sum(V)
#     local steps        t + T_sum(V) ÷ H        H steps take H × t + T_sum(V)
#     streaming          t                       if T_sum(V ÷ P) ≤ τ × t, and T_sum(V) ≤ H × t
#     gossip             t + V ÷ B + α           whatever n is
#
# Gossip has at most half of the bandwidth term, and no term that grows with n. (A machine
# sends and receives at the same time.)

from lessons import lesson_tools
from twinline import (
    Op,
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
# In a moment two processes will train lesson 1's GPT of 3.3 million parameters, with one
# sequence of 16 tokens a step each, so that summing 13 MB takes about as long as
# computing. With eight steps from one average to the next, eight times less is sent.
# Gossip has one neighbour, the other process. By which factor are the two faster than one?
# Change the numbers **before** you run anything.

MY_GUESS = {"all-reduce": 1.0, "every 8 steps": 1.9, "gossip": 1.5}  # between 0 and 2

STEPS = 8
PLANS = {
    "all-reduce": {},
    "every 8 steps": {"data_style": "local-sgd", "sync_period": STEPS},
    "gossip": {"data_style": "gossip", "topology": "one-peer-exponential"},
}


def here(plan, **cluster):
    """Eight steps of two ranks on this machine, the model in one bucket."""
    workload = {"model": "gpt", "layers": 4, "hidden": 256, "heads": 4, "sequence": 16}
    return parse(
        {
            "workload": workload | {"global_batch": 2},
            "parallel": {"data": 2, "bucket_mb": 1e6} | plan,
            "run": {"horizon": STEPS, "iterations": 6, "warmup": 1},
            "cluster": cluster,
        }
    )


# %%
# Simulate
# --------
# The program in words. It now has several training steps, its *horizon*: ``s1:`` is the
# second. First local steps with an average after every second one (rank 0 of two); then
# streaming, with a period of three steps and an average that goes on beside one of them.

tiny = {"workload": {"model": "mlp", "layers": 1}}
local = {"data": 2, "data_style": "local-sgd", "sync_period": 2}
lesson_tools.show_program(lower(parse(tiny | {"parallel": local, "run": {"horizon": 4}})), [0])
stream = {"data": 2, "data_style": "diloco", "sync_period": 3, "overlap_steps": 1}
lesson_tools.show_program(lower(parse(tiny | {"parallel": stream, "run": {"horizon": 3}})), [0])

# %%
# A local step has no exchange: nobody waits for anybody until the average. To average
# beside the next step, a replica first copies its parameters (``SNAPSHOT``), for that step
# changes them. ``OUTER`` applies what came back. Streaming belongs to **DiLoCo**, which does
# not just adopt the average: what a period has changed, seen over all replicas, is the
# gradient of an *outer optimizer*, SGD with momentum. That costs a little memory and no
# communication.
#
# Now four machines that nobody has at home, with one V100 each and 1 Gbit/s between them.
# They train a GPT-2 whose parameters have 652 MB, eight sequences of 1024 tokens a machine.

SLOW = {
    "synchronous": {},
    "local, H = 4": {"data_style": "local-sgd", "sync_period": 4},
    "local, H = 16": {"data_style": "local-sgd", "sync_period": 16},
    "local, H = 64": {"data_style": "local-sgd", "sync_period": 64},
    "streaming, H = 16": {
        "data_style": "diloco", "sync_period": 16, "fragments": 4, "overlap_steps": 4,
    },
    "gossip, one neighbour": {"data_style": "gossip", "topology": "one-peer-exponential"},
    "gossip, ring": {"data_style": "gossip", "topology": "ring"},
}  # fmt: skip
slow = {name: lesson_tools.on_slow_network(plan) for name, plan in SLOW.items()}

cluster = slow["synchronous"].cluster
size = sum(lesson_tools.buckets(slow["synchronous"].program))
compute = lesson_tools.work_seconds(slow["synchronous"])[0]
summing = cluster.collective(Op.ALL_REDUCE, (0, 1, 2, 3), size).mean_s
sending = cluster.message(0, 1, size).mean_s
extra = [summing, summing / 4, summing / 16, summing / 64, 0.0, sending, 2 * sending]
print(f"\nV = {nbytes(size)}, t = {seconds(compute)}, T_sum(V) = {seconds(summing)}")
lesson_tools.show_table(
    ["4 × V100, 1 Gbit/s", "formula", "simulated", "speed-up", "bubble"],
    *(
        [name, seconds(compute + waiting), seconds(lesson_tools.step_seconds(prediction)),
         f"{lesson_tools.speed_up(prediction):.2f}", f"{prediction.bubble_fraction:.2f}"]
        for (name, prediction), waiting in zip(slow.items(), extra, strict=True)
    ),
)  # fmt: skip
lesson_tools.draw_panels(
    "05-simulated.png",
    "16 steps of 4 machines over 1 Gbit/s: one average at the end, or four fragments beside steps",
    {name: slow[name].timeline for name in ("local, H = 16", "streaming, H = 16")},
)

# %%
# The first line: four machines are **worth less than a third of one**, because nine tenths
# of the time they wait. ``speed-up`` is n × T_compute ÷ T_step as in lesson 1. Local steps
# divide the wait by H, as the formula says, but H must be large before little is left of it.
# Streaming sends the same bytes as local steps with its H, and waits for almost none of
# them: above in the picture the network is idle while machines compute, and then the
# machines while the network works; below, both work at once. Gossip with one neighbour
# saves a third of the synchronous wait (half of it with many machines) and is still slower
# than one machine: whoever sends the model *in every step* needs a network for it. A ring
# has two neighbours, and sends more than an all-reduce.
#
# **Why is streaming slower than its formula?** As in lesson 1, what moves data takes a part
# of the GPU from the passes beside it. And fragments are not equal. They have whole buckets,
# and the third has two of the five: it comes back a moment late, at the white gap.
#
# A failure that teaches
# ----------------------
# Replicas that talk less must still end as one model. A program that ends between two
# averages would leave several different ones. And each replica must hear of each other, if
# through others: here are the weights of four replicas, a row each, that mix in two pairs,
# two trainings that never meet. Nothing would hang, and no loss would look odd. So both are
# refused before any process starts.

odd = {"data": 2, "data_style": "local-sgd", "sync_period": 3}
lesson_tools.show_refused_plan(tiny | {"parallel": odd, "run": {"horizon": STEPS}})
pairs = lesson_tools.write(
    "05-pairs.csv", "0.5,0.5,0,0", "0.5,0.5,0,0", "0,0,0.5,0.5", "0,0,0.5,0.5"
)
apart = {"data": 4, "data_style": "gossip", "topology": f"csv:{pairs}"}
lesson_tools.show_refused_plan(tiny | {"parallel": apart, "run": {"horizon": STEPS}})

# %%
# Run
# ---
# The plans of the guess for real: two processes on this machine, eight steps an iteration.
# The loopback network is not slow, but the model is large for the little that is computed
# with it, and that comes to the same.

with Workers(2) as workers:
    outcomes = {
        name: lesson_tools.run_here(name, here(plan), workers) for name, plan in PLANS.items()
    }

# %%
# Compare
# -------
# Predicted above measured: eight local steps, and one average. All of the table is per
# step. ``formula`` knows nothing of your machine: it uses the built-in ``laptop`` (1.5 GB/s,
# 150 µs). ``error`` is that of the step time, (simulated − measured) ÷ measured; ``noise`` is
# half the distance from the 10th to the 90th percentile of the measured iterations.

laptop = clusters()["laptop"].topology.island
size = sum(lesson_tools.buckets(outcomes["all-reduce"].prediction.program))
summing = ring_seconds(Op.ALL_REDUCE, 2, size, laptop.latency_s, laptop.speed)
sending = size / laptop.speed + laptop.latency_s
rows = []
for (name, outcome), waiting in zip(
    outcomes.items(), (summing, summing / STEPS, sending), strict=True
):
    compute = lesson_tools.work_seconds(predict(here(PLANS[name], preset="laptop")))[0] / STEPS
    formula = 2 * compute / (compute + waiting)
    compute = lesson_tools.work_seconds(outcome.prediction)[0] / STEPS
    step = outcome.execution.iteration_time_s / STEPS
    rows.append(
        [name, f"{MY_GUESS[name]:.2f}", f"{formula:.2f}",
         f"{lesson_tools.speed_up(outcome.prediction):.2f}", f"{2 * compute / step:.2f}",
         percent(outcome.comparison.iteration_time_error, signed=True),
         percent(outcome.comparison.noise_floor), seconds(compute), seconds(step)]
    )  # fmt: skip

local = outcomes["every 8 steps"]
lesson_tools.draw(
    "05-compare.png",
    "Two ranks on this machine, an average every eight steps",
    local.prediction.timeline,
    local.execution.timeline,
)
lesson_tools.show_table(
    ["speed-up of 2 ranks", "guess", "formula", "simulated", "measured", "step error", "noise",
     "T_compute", "T_step"],
    *rows,
)  # fmt: skip

# %%
# *Eight times less is sent, and nothing is eight times faster.* What can be gained is what
# was waited for: nine tenths of a step on the slow network, here about half.
#
# *Gossip gains nothing with two.* An all-reduce of two ranks sends 2(2−1)/2 = 1 × V each way,
# as much as gossip; of four ranks 1.5 × V, of many almost 2 × V.
#
# Who talks less pays with replicas that drift apart. Their *consensus distance* is
# √(1/n × Σ ‖xᵢ − x̄‖²): how far the parameters xᵢ of a replica are from the mean x̄ of all, as the
# root of a mean of squares. It is measured at the update of each step, and at the end.

for name in ("every 8 steps", "gossip"):
    apart = outcomes[name].execution.statistics.consensus_distance
    print(f"{name:<14}", *(f"{distance:.3f}" for distance in apart))

# %%
# With local steps the distance grows until the average makes it zero. With gossip each of
# two replicas takes half of its own and half of the other's parameters, which *is* the
# average. Of four, each has heard of all after two steps, but all have gone on training
# meanwhile: the distance settles above zero.
#
# Explain the gap
# ---------------
# *From formula to simulated.* The formula has the speed of ``laptop``, the simulator what
# calibration measured here, and what the formula leaves out: ranks that slow each other,
# passes that never take equally long, Python between instructions. One of these becomes
# smaller with local steps: ranks wait for the slower one once in eight steps, and over
# eight steps good and bad luck partly cancel.
#
# *From simulated to measured.* Each line says how much longer the eight measured steps are
# for one cause; the causes are those of lesson 1. Compare *communication* and *late in turn*
# of a plan that meets in every step with those of the plan that meets once: who talks less
# also has less to be wrong about. *Compute* is what is left, and other programs on this
# machine change it as ever.

for name, outcome in outcomes.items():
    lesson_tools.show_gap(name, outcome)

# %%
# Exercises
# ---------
# Fill in the functions in ``lessons/exercises_05.py``, then
# ``python -m lessons.check 05``.
#
# 1. *The formula.* Write ``step_seconds``, the mean over a period of H local steps. Target:
#    0.656 s of compute, 652 MB, 4 machines with 120 MB/s and 100 µs, H = 16: **1.17 s**.
# 2. *Hide it.* Write ``plan`` for the four machines of this lesson: DiLoCo with a period of 16
#    and a speed-up of **at least 3.45**. What travels for τ steps is τ steps old when it is
#    applied, so take **at most 3** ``overlap_steps``. How large may a fragment be?
# 3. *Write gossip.* ``neighbour(step, rank, ranks)`` is whose parameters a replica takes, with
#    a weight of 1/2; each gives its own to exactly one. Target: 8 replicas that do not train
#    all have the **exact mean after 3 steps**.
#
# Key points
# ----------
# * A synchronous step over a slow network waits for up to 2 V ÷ B. If that is longer than
#   (n − 1) × t, n machines are slower than one.
# * H local steps divide it by H. Only streaming hides what is left, if V ÷ B is well below
#   H × t, and never for free.
# * Gossip halves the bytes at best, and keeps sending in every step. It spares the latency
#   of many ranks and the wait for the slowest, not the network.
# * Fewer words, more distance: what is saved in time must not be lost in learning.
#
# Further reading
# ---------------
# * Stich 2019, "Local SGD Converges Fast and Communicates Little".
# * Lin et al. 2020, "Don't Use Large Mini-Batches, Use Local SGD".
# * Douillard et al. 2023, "DiLoCo: Distributed Low-Communication Training of Language Models";
#   2025, "Streaming DiLoCo with overlapping communication".
# * Lian et al. 2017, "Can Decentralized Algorithms Outperform Centralized Algorithms?".
# * Assran et al. 2019, "Stochastic Gradient Push for Distributed Deep Learning".
