"""
Lesson 3: pipelining, GPipe and 1F1B
====================================

**What you will learn**

1. Choose the number of microbatches that brings a pipeline's bubble below a target.
2. Tell from the schedule how many microbatches every rank must remember.
3. Say what 1F1B improves over GPipe, and what it does not.

**You need** lesson 2 (stage, microbatch, bubble fraction).

**Time:** 30 minutes to read; the script runs for about half a minute.
"""

# %%
# The question
# ------------
# In lesson 2 one rank computed and the others waited. *Pipelining* cuts the batch into m
# microbatches: while rank 1 works on the first, rank 0 starts the second. There are two
# classic orders. **GPipe** runs all forward passes, then all backward passes. **1F1B**
# begins with a few forward passes and then alternates, one forward, one backward.
#
# **How much idleness is left with p ranks and m microbatches, and what must a rank
# remember for it?** ::
#
#     bubble fraction = (p − 1) ÷ (m + p − 1)        GPipe and 1F1B
#     in flight       = m                            GPipe
#     in flight       = min(m, p − rank)             1F1B
#
# *In flight* are the microbatches whose forward pass has run on a rank and whose backward
# pass has not: their activations are kept in memory. The bubble fraction divides idle
# compute time by ranks × step time. Papers often give the bubble *ratio* instead, idle ÷
# ideal compute time, which is (p − 1) ÷ m here.

from lessons import lesson_tools
from twinline import (
    Program,
    Workers,
    lower,
    nbytes,
    parse,
    percent,
    predict,
    seconds,
    to_csv,
)

# %%
# Predict
# -------
# In a moment two processes will train a GPT with four microbatches, first with GPipe, then
# with 1F1B. Which bubble fraction has each? Lesson 2 had 0.5. Change the numbers before
# you run anything.

MY_GUESS = {"gpipe": 0.30, "1f1b": 0.15}


def here(schedule):
    """The plan for this machine: two stages, four microbatches of four sequences."""
    return parse(
        {
            "workload": {"model": "gpt", "layers": 4, "hidden": 256, "heads": 4, "sequence": 32},
            "parallel": {"pipeline": 2, "microbatches": 4, "schedule": schedule},
            "run": {"iterations": 8, "warmup": 1},
        }
    )


# %%
# Simulate
# --------
# The program in words: the passes of each rank for four stages and four microbatches, a
# row a rank. ``2F0`` is stage 2, forward, microbatch 0. (The full lists have the sends and
# receives in between.)


def tiny(schedule):
    """Four stages of equal cost, four microbatches."""
    plan = {"pipeline": 4, "microbatches": 4, "schedule": schedule}
    return lower(parse({"workload": {"model": "unit"}, "parallel": plan}))


for schedule in ("gpipe", "1f1b"):
    print(schedule)
    print(to_csv(tiny(schedule), compute_only=True))

# %%
# In 1F1B the last rank goes backward at once, ``3F0,3B0``. Rank 0 runs four forward passes
# before its first backward, because the gradient of microbatch 0 takes that long to come
# back. Every backward pass frees the activations of a microbatch, so rank 0 never holds more
# than four, and the last rank never more than one.
#
# Now the 30-billion GPT of lesson 2 on eight H100 GPUs.


def on_h100(schedule, microbatches):
    """One sequence a microbatch, eight stages."""
    plan = {"pipeline": 8, "microbatches": microbatches, "schedule": schedule}
    workload = lesson_tools.GPT_30B | {"global_batch": microbatches}
    return predict(
        parse({"workload": workload, "parallel": plan, "cluster": {"preset": "dgx-h100"}})
    )


rows, timelines = [], []
for microbatches in (1, 8, 16, 64):
    for schedule in ("gpipe", "1f1b"):
        prediction = on_h100(schedule, microbatches)
        result = prediction
        rows.append(
            [f"{schedule}, m = {microbatches}", seconds(result.iteration_time_s),
             f"{7 / (microbatches + 7):.3f}", f"{result.bubble_fraction:.3f}",
             lesson_tools.in_flight(result), nbytes(result.peak_memory_bytes),
             "yes" if lesson_tools.fits(prediction) else "no"]
        )  # fmt: skip
        if microbatches == 16:
            prediction.timeline.meta["source"] = schedule
            timelines.append(prediction.timeline)

lesson_tools.show_table(
    ["8 × H100", "step", "bubble: formula", "simulated", "in flight, rank 0 to 7", "peak", "fits"],
    *rows,
)
lesson_tools.draw("03-simulated.png", "16 microbatches on 8 H100: GPipe above 1F1B", *timelines)

# %%
# Look at the two halves of the picture: another order, and **the same length**. That is
# why 1F1B does not shrink the bubble. Whatever the order, the last rank has nothing to do
# until the first microbatch has come through p − 1 forward passes, and when it has
# finished, the last microbatch must still go back through p − 1 backward passes.
#
# The memory differs. Out of memory is the failure that teaches here: with 16 microbatches
# GPipe does not fit into the 85.9 GB of an H100. 1F1B holds the same with 64 as with 8, so
# it can *afford* more microbatches, and those shrink the bubble.
#
# With many microbatches the simulated bubble stays above the formula, which assumes equal
# stages. The last stage also computes the 51,200 logits, and the others wait for it.
#
# A second failure that teaches: a deadlock. Both orders are right, but not together. Rank
# 0 runs ``F0 B0 F1 …`` as in lesson 2, rank 1 expects all forward passes first, as in
# GPipe. Rank 0 waits for a gradient before it sends the next activation; rank 1 waits for
# that activation. On real GPUs this hangs until a timeout, perhaps half an hour later.

naive, gpipe = lower(here("naive")), lower(here("gpipe"))
lesson_tools.show_refusal(Program([naive.ranks[0], gpipe.ranks[1]]))

# %%
# Run
# ---
# The right programs for real: two processes on this machine, each schedule in turn.

with Workers(2) as workers:
    outcomes = {
        name: lesson_tools.run_here(name, here(name), workers) for name in ("gpipe", "1f1b")
    }

# %%
# Compare
# -------
# Errors are simulated − measured, of bytes relative to measured. ``noise`` is the noise
# floor of the measured step, for a bubble fraction in its unit. The bytes are counted, so
# they have none.

rows = []
for name, outcome in outcomes.items():
    predicted, measured = outcome.prediction, outcome.execution
    bubbles = [r.bubble_fraction for r in (predicted, measured)]
    noise = (1 - bubbles[1]) * outcome.comparison.noise_floor
    held = [lesson_tools.in_flight(r) for r in (predicted, measured)]
    peaks = [r.peak_memory_bytes for r in (predicted, measured)]
    rows += [
        [f"{name}: bubble fraction", f"{MY_GUESS[name]:.3f}", f"{1 / 5:.3f}",
         *(f"{value:.3f}" for value in bubbles), f"{bubbles[0] - bubbles[1]:+.3f}",
         f"{noise:.3f}"],
        ["    in flight, rank 0/1", "–", "4/4" if name == "gpipe" else "2/1", *held, "–", "none"],
        ["    peak memory", "–", "–", *map(nbytes, peaks),
         percent((peaks[0] - peaks[1]) / peaks[1], signed=True), "none"],
    ]  # fmt: skip
    lesson_tools.draw(
        f"03-compare-{name}.png",
        f"{name} on two ranks of this machine",
        outcome.prediction.timeline,
        outcome.execution.timeline,
    )

lesson_tools.show_table(
    ["2 ranks, m = 4", "guess", "formula", "simulated", "measured", "error", "noise"], *rows
)

# %%
# Explain the gap
# ---------------
# *From formula to simulated.* The formula leaves out messages, the optimizer step, and
# unequal stages: rank 1 has the loss.
#
# *From simulated to measured.* Each line says how much longer the measured step is for one
# cause:
#
# * *compute*: passes slower or faster than when calibration timed them. In a pipeline one
#   slow pass delays every rank behind it.
# * *communication*: messages that took longer, or shorter, than in calibration, which times
#   them alone and beside busy ranks.
# * *host gaps*: a rank wakes up late from a receive. 1F1B usually has more of them on its
#   critical path: in its steady state each rank waits for what the other has just finished,
#   while GPipe's messages mostly arrive before they are needed.
# * *late in turn*: in each step another rank is the last one, and all others wait for it.
# * *remainder*: medians of many steps do not add up exactly.

for name, outcome in outcomes.items():
    lesson_tools.show_gap(name, outcome)

# %%
# Exercises
# ---------
# Fill in the functions in ``lessons/exercises_03.py``, then
# ``python -m lessons.check 03``.
#
# 1. *How many microbatches?* Write ``microbatches_for(ranks, bubble)``. Target: 8 ranks
#    with a bubble fraction of at most 0.05 need **133**.
# 2. *Write 1F1B.* ``order(ranks, rank, microbatches)`` returns the passes of a rank as
#    text: ``["F0", "F1", "B0", …]``. Target: the step time of the formula, **(m + p − 1) ×
#    (F + B)**, with at most **p − rank** microbatches in flight.
# 3. *A plan that fits.* ``plan()`` returns schedule and microbatches for the 30-billion GPT
#    (``lesson_tools.GPT_30B``) on eight H100s, one sequence a microbatch: no more than the
#    85.9 GB of an H100 and a bubble fraction of **at most 0.16**.
#
# Key points
# ----------
# * The bubble fraction is (p − 1) ÷ (m + p − 1): only m against p counts.
# * GPipe and 1F1B have the same bubble. 1F1B holds p − rank microbatches instead of m.
# * Less memory is what lets 1F1B use more microbatches; those make the bubble small.
# * Ranks must agree on the order. A wrong pair of right orders is a deadlock.
#
# Further reading
# ---------------
# * Huang et al. 2019, "GPipe: Efficient Training of Giant Neural Networks using Pipeline
#   Parallelism".
# * Narayanan et al. 2019, "PipeDream: Generalized Pipeline Parallelism for DNN Training".
# * Narayanan et al. 2021, "Memory-Efficient Pipeline-Parallel DNN Training" (1F1B with a
#   flush).
# * Narayanan et al. 2021, "Efficient Large-Scale Language Model Training on GPU Clusters
#   Using Megatron-LM" (section 2.2: both schedules, and one with a smaller bubble).
