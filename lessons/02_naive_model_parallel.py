"""
Lesson 2: naive model parallel
==============================

**What you will learn**

1. Decide from a memory estimate whether a model must be split over several devices.
2. Explain why a model that is split by layers uses one device at a time.
3. Compute the bubble fraction of such a split, and say what the split buys anyway.

**You need** lesson 1 (rank, stream, bubble fraction).

**Time:** 20 minutes to read; the script runs for about a quarter of a minute.
"""

# %%
# The question
# ------------
# Data parallel training keeps a whole model on every rank. If the model does not fit, the
# obvious remedy is to cut it: the first layers on rank 0, the next on rank 1, and so on.
# These pieces are called *stages*. Activations travel forward from stage to stage,
# gradients travel back. In PyTorch that is a few ``.to("cuda:1")`` in the model.
#
# **With p stages on p devices, how much of the hardware works at any moment?** ::
#
#     utilisation     = 1 ÷ p
#     bubble fraction = (p − 1) ÷ p
#
# Stage 1 cannot begin before stage 0 hands over its output, and stage 0 cannot start its
# backward pass before stage 1 hands back the gradient. One rank computes, p − 1 wait. The
# bubble fraction is idle compute time ÷ (ranks × step time), as in lesson 1.

from lessons import lesson_tools
from twinline import Workers, lower, nbytes, parse, percent, predict, seconds

# %%
# Predict
# -------
# In a moment two processes of this machine will train a GPT of four blocks, two blocks on
# each rank, with two microbatches (portions of the batch) one after the other. Which
# fraction of the two ranks' time will pass **without** compute? Change the number before
# you run anything.

MY_GUESS = 0.25  # between 0 (both always compute) and 1


def here(**parallel):
    """The plan for this machine: eight sequences a step in two microbatches."""
    return parse(
        {
            "workload": {"model": "gpt", "layers": 4, "hidden": 256, "heads": 4, "sequence": 32},
            "parallel": {"microbatches": 2, "schedule": "naive"} | parallel,
            "run": {"iterations": 8, "warmup": 1},
        }
    )


# %%
# Simulate
# --------
# The program in words, for two ranks and one microbatch. Rank 0 runs its stage forward
# (``0F0``), sends the activation, and waits for the gradient before it can go backward
# (``0B0``). A receive is queued early, so that the message has a place to arrive.

tiny = {"workload": {"model": "mlp"}, "parallel": {"pipeline": 2, "schedule": "naive"}}
lesson_tools.show_program(lower(parse(tiny)))

# %%
# First a failure that teaches: a plan that is out of memory. A GPT of 30 billion
# parameters, one sequence of 2048 tokens, one H100. Its memory is 85.9 GB (makers write 80 GB
# and mean 80 · 1024³ bytes; here a GB is always 1000³ bytes). Parameters and gradients in
# bf16 are 2 + 2 bytes a parameter, the fp32 master weights 4 more, and the activations wait
# for the backward pass. (The optimizer here is SGD. Adam would add 8 bytes a parameter.)


def on_h100(stages):
    """One step of the model with one sequence, its layers split over `stages` H100s."""
    plan = {"pipeline": stages, "schedule": "naive"}
    workload = lesson_tools.GPT_30B | {"global_batch": 1}
    return predict(
        parse({"workload": workload, "parallel": plan, "cluster": {"preset": "dgx-h100"}})
    )


print("one H100:", *on_h100(1).notes)

# %%
# Now cut it. A node that nobody has at home has eight of these GPUs.

rows = []
for stages in (1, 2, 4, 8):
    prediction = on_h100(stages)
    result = prediction
    rows.append(
        [str(stages), nbytes(result.peak_memory_bytes),
         "yes" if lesson_tools.fits(prediction) else "no", seconds(result.iteration_time_s),
         f"{(stages - 1) / stages:.3f}", f"{result.bubble_fraction:.3f}"]
    )  # fmt: skip

lesson_tools.show_table(
    ["H100s", "peak memory", "fits", "step", "bubble: formula", "simulated"], *rows
)
lesson_tools.draw(
    "02-simulated.png", "A 30-billion GPT on 8 H100: one at a time", on_h100(8).timeline
)

# %%
# Read the table downwards. Memory falls with every cut, and the model fits. The step hardly
# gets faster: eight GPUs take almost as long as one GPU with enough memory would. On the
# picture a single staircase goes down (forward) and up again (backward); all that is grey
# is paid for and idle. Only the optimizer steps, the black bars, run beside the backward
# pass of another rank, and so the simulated bubble is a little below the formula.
#
# Run
# ---
# The same program for real: two processes on this machine.

with Workers(2) as workers:
    outcome = lesson_tools.run_here("naive", here(pipeline=2), workers)

# %%
# Compare
# -------
# Predicted above measured. ``speed-up`` compares with one rank that does all the work; a
# rank cannot be busy without doing some of it, so it is p × (1 − bubble fraction). Errors
# are simulated − measured; of times and bytes relative to measured, of the bubble fraction
# as it is. ``noise`` is the noise floor of the measured step in the same unit; bytes are
# counted, not timed, and have none.

predicted, measured = outcome.prediction, outcome.execution
lesson_tools.draw(
    "02-compare.png",
    "Naive model parallel, two ranks on this machine",
    outcome.prediction.timeline,
    outcome.execution.timeline,
)

noise = outcome.comparison.noise_floor
bubbles = [MY_GUESS, 1 / 2, predicted.bubble_fraction, measured.bubble_fraction]
speedups = [2 * (1 - bubble) for bubble in bubbles]
peaks = [predicted.peak_memory_bytes, measured.peak_memory_bytes]
lesson_tools.show_table(
    ["naive, 2 ranks", "guess", "formula", "simulated", "measured", "error", "noise"],
    ["bubble fraction", *(f"{value:.3f}" for value in bubbles),
     f"{bubbles[2] - bubbles[3]:+.3f}", f"{(1 - bubbles[3]) * noise:.3f}"],
    ["speed-up over 1 rank", *(f"{value:.2f}" for value in speedups),
     percent((speedups[2] - speedups[3]) / speedups[3], signed=True), percent(noise)],
    ["peak memory", "–", "–", *map(nbytes, peaks),
     percent((peaks[0] - peaks[1]) / peaks[1], signed=True), "none"],
)  # fmt: skip
alone = predict(here()).peak_memory_bytes
print(f"one rank with the whole model would need {nbytes(alone)} (predicted)")

# %%
# Explain the gap
# ---------------
# *From formula to simulated.* The formula leaves out messages, optimizer steps and stages
# of unequal cost; the simulator has them.
#
# *From simulated to measured.* Each line says how much longer the measured step is for one
# cause:
#
# * *compute*: passes took longer or shorter than in calibration, which times them on both
#   ranks at once and on each rank alone. Here only one rank computes at a time, so the
#   simulator takes the times alone: the core has the caches, the memory and the clock rate
#   to itself, and where two "cores" are two threads of one, the units too. Other programs
#   slow it.
# * *communication*: a message here is a copy of 131 kB through the loopback network.
# * *host gaps*: a rank that waited in a receive must be woken. Every handover is such a
#   wait, and since nobody else computes meanwhile, each one lengthens the step.
# * *late in turn*: in each step another rank is the last one, and all others wait for it.
# * *remainder*: medians of many steps do not add up exactly.

lesson_tools.show_gap("naive", outcome)

# %%
# Exercises
# ---------
# Fill in the functions in ``lessons/exercises_02.py``, then
# ``python -m lessons.check 02``.
#
# 1. *The formula.* Write ``bubble_fraction(ranks)``. Target: **0.875** for 8 ranks.
# 2. *How many GPUs?* Write ``stages_for_gpt3()``. GPT-3 is ``lesson_tools.GPT_30B`` with
#    96 layers, hidden size 12288 and 96 heads. With this lesson's memory rules it needs
#    1557 GB, and 1557 ÷ 85.9 is just above 18. Why do 19 H100s not suffice, and which is
#    the **smallest** number of stages that does?
# 3. *Unequal stages.* Write ``uneven_bubble()``. Four stages take 1, 1, 1 and 5 seconds, one
#    after the other as in this lesson. Compare the bubble fraction with that of four equal
#    stages, and return the **number**.
#
# Key points
# ----------
# * Splitting by layers divides memory by about p, and leaves p − 1 of p ranks idle.
# * More microbatches change nothing as long as one must finish before the next begins.
# * Compare with lesson 1: there idle time came from communication, here from dependency.
#   A faster network would not help.
#
# Lesson 3 keeps the cut and fills the idle ranks with other microbatches.
#
# Further reading
# ---------------
# * Huang et al. 2019, "GPipe: Efficient Training of Giant Neural Networks using Pipeline
#   Parallelism" (figure 2b is this lesson).
# * Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward Training Trillion Parameter
#   Models" (section 3: where the memory goes).
# * Shoeybi et al. 2019, "Megatron-LM: Training Multi-Billion Parameter Language Models
#   Using Model Parallelism" (another way to cut a model).
