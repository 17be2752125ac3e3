"""
Lesson 5: talk less
===================

**What you will learn**

1. Tell from a model's bytes and a network's bandwidth whether synchronous steps are worth it.
2. Choose how many local steps, or which fragments, make up for a slow network.
3. Say what gossip saves and what it does not, and what talking less costs in learning.

**You need** lesson 1 (all-reduce, bandwidth and latency, exposed communication).

**Time:** 30 minutes to read; the script runs for about half a minute.
"""

# %%
# The question
# ------------
# In lesson 1 all ranks sum their gradients in every step, over a fast network. Between
# rented machines there may be 1 Gbit/s. With V bytes of gradients, t seconds of compute a
# step, and B bytes/s and α seconds of latency at each of n machines, a step waits for ::
#
#     T_sum(V) = 2(n−1)/n × V ÷ B + 2(n−1) × α
#
# Buckets do not hide that from a backward pass of a tenth of it. Three other things help.
# **Local steps**: every *replica*, a copy of the model, takes H optimizer steps with its own
# gradients; then all average their *parameters*. **Streaming**: the model is averaged in P
# fragments, each beside the τ steps that follow. **Gossip**: in every step a replica takes
# the mean of its own parameters and one neighbour's.
#
# **How long is a step then, on average?** ::
#
#     synchronous        t + T_sum(V)
#     local steps        t + T_sum(V) ÷ H        H steps take H × t + T_sum(V)
#     streaming          t                       if T_sum(V ÷ P) ≤ τ × t, and T_sum(V) ≤ H × t
#     gossip             t + V ÷ B + α           whatever n is

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
# sequence of 16 tokens a step each, so that summing 13 MB takes about as long as computing.
# By which factor are the two faster than one: if they sum in every step, if they average
# every eighth, if they gossip, each being the other's neighbour? Change the numbers
# **before** you run anything.

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
# The program in words. It has several training steps, its *horizon*: ``s1:`` is the second.
# First local steps, averaged after every second one; then streaming, with a period of three
# steps and an average that goes on beside one of them.

tiny = {"workload": {"model": "mlp", "layers": 1}}
local = {"data": 2, "data_style": "local-sgd", "sync_period": 2}
lesson_tools.show_program(lower(parse(tiny | {"parallel": local, "run": {"horizon": 4}})), [0])
stream = {"data": 2, "data_style": "diloco", "sync_period": 3, "overlap_steps": 1}
lesson_tools.show_program(lower(parse(tiny | {"parallel": stream, "run": {"horizon": 3}})), [0])

# %%
# A local step has no exchange: nobody waits before the average. To average beside the next
# step, a replica first copies its parameters (``SNAPSHOT``), for that step changes them;
# ``OUTER`` applies what came back. Streaming belongs to **DiLoCo**, which does not adopt the
# average as it is: what a period has changed, over all replicas, is the gradient of an *outer
# optimizer*, SGD with momentum. That costs memory and no communication.
#
# Now four machines that nobody has at home, a V100 each, with 1 Gbit/s each way. They train
# a GPT-2 whose parameters have 652 MB, with eight sequences of 1024 tokens a machine.

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
slow = {name: predict(lesson_tools.on_slow_network(plan)) for name, plan in SLOW.items()}

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
# The first line: four machines are **worth less than a third of one**, for they wait nine
# tenths of the time. (``speed-up`` is n × T_compute ÷ T_step, as in lesson 1.) Local steps
# divide the wait by H, but H must be large before little is left of it. Streaming sends the
# same bytes and waits for almost none: above in the picture machines and network work in
# turn, below at once. Gossip with one neighbour saves a third of the wait (half with many
# machines) and is still slower than one machine: whoever sends the model *in every step*
# needs a network for it. On a ring, with two neighbours, it sends more than an all-reduce.
#
# **Why is streaming slower than its formula?** As in lesson 1, what moves data takes a part
# of the GPU from passes beside it. And fragments have whole buckets, so they are not equal:
# the third has two of the five, and comes back a moment late, at the white gap.
#
# A failure that teaches
# ----------------------
# Replicas that talk less must still end as one model. A program that ends between two
# averages would leave several. And each replica must hear of each other, if through others:
# here are the weights of four, a row each, that mix in two pairs, two trainings that never
# meet. Nothing would hang, no loss would look odd. So both are refused beforehand.

odd = {"data": 2, "data_style": "local-sgd", "sync_period": 3}
lesson_tools.show_refused_plan(tiny | {"parallel": odd, "run": {"horizon": STEPS}})
pairs = lesson_tools.write("05-pairs.csv", *2 * ["0.5,0.5,0,0"], *2 * ["0,0,0.5,0.5"])
apart = {"data": 4, "data_style": "gossip", "topology": f"csv:{pairs}"}
lesson_tools.show_refused_plan(tiny | {"parallel": apart, "run": {"horizon": STEPS}})

# %%
# Run
# ---
# The plans of the guess for real, on two processes of this machine. The loopback network is
# not slow, but the model is large for what is computed with it: that comes to the same.

with Workers(2) as workers:
    outcomes = {
        name: lesson_tools.run_here(name, here(plan), workers) for name, plan in PLANS.items()
    }

# %%
# Compare
# -------
# Predicted above measured: eight local steps and an average. The table is per step.
# ``formula`` knows nothing of your machine: it uses the built-in ``laptop`` (1.5 GB/s, 150 µs).
# ``error`` is that of the step time, (simulated − measured) ÷ measured, ``noise`` half the
# distance from the 10th to the 90th percentile of the measured iterations.

laptop = clusters()["laptop"].topology.island
size = sum(lesson_tools.buckets(outcomes["all-reduce"].prediction.program))
summing = ring_seconds(Op.ALL_REDUCE, 2, size, laptop.latency_s, laptop.speed)
sending = size / laptop.speed + laptop.latency_s
waiting = {"all-reduce": summing, "every 8 steps": summing / STEPS, "gossip": sending}
rows = []
for name, outcome in outcomes.items():
    compute = lesson_tools.work_seconds(predict(here(PLANS[name], preset="laptop")))[0] / STEPS
    formula = 2 * compute / (compute + waiting[name])
    compute = lesson_tools.work_seconds(outcome.prediction)[0] / STEPS
    step = outcome.execution.iteration_time_s / STEPS
    rows.append(
        [name, f"{MY_GUESS[name]:.2f}", f"{formula:.2f}",
         f"{lesson_tools.speed_up(outcome.prediction):.2f}", f"{2 * compute / step:.2f}",
         percent(outcome.comparison.iteration_time_error, signed=True),
         percent(outcome.comparison.noise_floor), seconds(compute), seconds(step)]
    )  # fmt: skip

outcome = outcomes["every 8 steps"]
pair = outcome.prediction.timeline, outcome.execution.timeline
lesson_tools.draw("05-compare.png", "Two ranks here, an average every eight steps", *pair)
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
# Meanwhile replicas drift apart. Their *consensus distance* √(1/n × Σ ‖xᵢ − x̄‖²) is how far
# the parameters xᵢ of each are from the mean x̄ of all, at each update and at the end.

for name in ("every 8 steps", "gossip"):
    apart = outcomes[name].execution.statistics.consensus_distance
    print(f"{name:<14}", *(f"{distance:.3f}" for distance in apart))

# %%
# With local steps it grows until the average makes it zero. Two replicas that gossip take
# half of each other's parameters, which *is* the average. Of four, each has heard of all
# after two steps, but all have trained on meanwhile: the distance settles above zero.
#
# Explain the gap
# ---------------
# *From formula to simulated.* The formula has the speed of ``laptop``, the simulator what
# calibration measured here, and what the formula leaves out: ranks that slow each other,
# passes that never take equally long, Python between instructions. One of these gets
# smaller: over eight local steps good and bad luck cancel in part before ranks meet.
#
# *From simulated to measured.* Each line says how much longer the eight measured steps are
# for one cause, as in lesson 1. Compare *communication* and *late in turn* of the plans that
# meet in every step with those of the one that meets once; *compute* is left.

for name, outcome in outcomes.items():
    lesson_tools.show_gap(name, outcome)

# %%
# The price
# ---------
# Faster steps are not the aim. Now the four slow machines train a model so small that one
# process can compute all replicas here, in the order in which their instructions end in the
# *simulation*: the losses are real, their times the cluster's. (For this model, too, the
# network takes nine tenths of a synchronous step.) The learning rate is high, and a replica
# has one sample a step.

RATE = 3.0
small = {"model": "mlp", "layers": 2, "hidden": 64, "sequence": 8, "global_batch": 4}
names = ["synchronous", "local, H = 4", "local, H = 16", "gossip, one neighbour"]
plans = [lesson_tools.on_slow_network(SLOW[name], small, learning_rate=RATE) for name in names]
learning = learn(plans, steps=112, names=names, target_loss=0.02)
lesson_tools.show_table(["to a loss of 0.02", "time", "samples", "sent"], *learning.target_rows())
figure = learning_figure(learning, "Losses of four machines with 1 Gbit/s between them")
lesson_tools.save("05-learning.png", figure)

# %%
# In samples, who talks less learns less: a replica follows the noise of its own gradients,
# and an average afterwards does not undo all of it. In seconds the order is reversed, by
# far. But there is a limit: with ``RATE = 4.0`` an average after four steps is still in time,
# and one after sixteen comes too late for replicas that run away on their own. Try it.
#
# Exercises
# ---------
# Fill in the functions in ``lessons/exercises_05.py``, then
# ``python -m lessons.check 05``.
#
# 1. *The formula.* Write ``step_seconds``, the mean over a period of H local steps. Target:
#    0.656 s of compute, 652 MB, 4 machines with 120 MB/s and 100 µs, H = 16: **1.17 s**.
# 2. *Hide it.* Write ``plan`` for this lesson's four machines and DiLoCo with H = 16: a speed-up
#    of **at least 3.45**. What travels for τ steps is τ steps old when it is applied, so take
#    **at most 3** ``overlap_steps``. How large may a fragment be?
# 3. *Write gossip.* ``neighbour(step, rank, ranks)`` is whose parameters a replica takes half
#    of; each gives to exactly one. Target: 8 replicas have the **exact mean after 3 steps**.
#
# Key points
# ----------
# * A synchronous step waits for up to 2 V ÷ B. If that is longer than (n − 1) × t, n
#   machines are slower than one.
# * Local steps divide it by H. Streaming hides the rest, if 2 V ÷ B is well below H × t.
# * Gossip halves the bytes at best, and sends in every step. It spares the latency of many
#   ranks and the wait for the slowest, not the network.
# * Who talks less needs more samples. Compare the time to a loss, not to a step.
#
# Further reading
# ---------------
# * Stich 2019, "Local SGD Converges Fast and Communicates Little".
# * Lin et al. 2020, "Don't Use Large Mini-Batches, Use Local SGD".
# * Douillard et al. 2023, "DiLoCo: Distributed Low-Communication Training of Language Models";
#   2025, "Streaming DiLoCo with overlapping communication".
# * Lian et al. 2017, "Can Decentralized Algorithms Outperform Centralized Algorithms?".
