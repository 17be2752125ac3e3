"""
Lesson 4: the barrier and who waits at it
=========================================

**What you will learn**

1. Compute how long n workers wait for the slowest, from how much their times vary.
2. Tell which remedy helps against bad luck, and which against a machine that is always slow.
3. Say what it costs not to wait, in staleness and in learning, before you rent a cluster.

**You need** lesson 1 (rank, step, what a synchronous step is).

**Time:** 30 minutes to read; the script runs for about half a minute.
"""

# %%
# The question
# ------------
# In lesson 1 every step ends with a sum over all ranks. That is a *barrier*: nobody passes
# before the last one is there. Real machines are not equally fast. Some vary from step to
# step, which is *jitter*; and one may be slow in all of them, a *straggler*.
#
# **What does a step cost with n workers that need t seconds on average?** ::
#
#     jitter               E[max] = t × (1 − σ + σ × H(n))     H(n) = 1 + 1/2 + … + 1/n
#     straggler            f × t                               whatever the others do
#
# The first line is for times of a *shifted exponential* distribution: (1 − σ) × t at least,
# then a delay that has no memory, of mean σ × t. It grows with log n, without an end: the
# mean of all workers stays t, but the maximum is what counts. Three remedies relax the
# barrier. All have a *server* with the parameters, to which workers *push* gradients and
# from which they *pull* parameters.
#
# * **Backup workers**: the server takes the first n − b gradients and drops the rest.
#   E = t × (1 − σ + σ × (H(n) − H(b))).
# * **Stale-synchronous**: each push is an update. A worker may be s pushes ahead of the
#   slowest, then it waits.
# * **Asynchronous**: each push is an update, and nobody ever waits for another worker. n
#   workers use λ₁ + … + λₙ = Λ gradients a second, if worker i computes λᵢ.
#
# The last two pay: while a worker computes, others update. Its gradient is of parameters
# that are no longer there. *Staleness* counts the updates in between ::
#
#     worker i         (Λ − λᵢ) ÷ λᵢ       updates of the others in the time of one of its own
#     all pushes       n − 1               on average, however fast they are

from lessons import lesson_tools
from lessons import uneven_machines as machines
from twinline import Workers, learn, learning_figure, lower, parse, percent, predict, seconds

# %%
# Predict
# -------
# In a moment two processes of this machine will train with a third as their server. One of
# the two needs three times as long as the other. How many times more gradients a second
# will they use than with a barrier, if the fast one may be two pushes ahead, and if it never
# waits? Change the numbers **before** you run anything.

MY_GUESS = {"stale-synchronous": 1.5, "asynchronous": 1.5}  # 1: no more than with a barrier

SLOWER = 3.0  # how many times longer the straggler computes, here and in all of the lesson
STEPS = 12
SYNCHRONOUS = {"data_style": "parameter-server"}
BOUNDED = {"data_style": "stale-synchronous", "staleness_bound": 2}
ASYNCHRONOUS = {"data_style": "asynchronous"}

# %%
# Simulate
# --------
# The program in words: two asynchronous workers, ranks 0 and 1, and one step.

tiny = {"workload": {"model": "mlp", "layers": 1}, "parallel": {"data": 2} | ASYNCHRONOUS}
lesson_tools.show_program(lower(parse(tiny)))

# %%
# Nothing of rank 0 waits for rank 1, or the other way round. The server (rank 2) accepts
# two pulls and two pushes. *Whose* is not in the list: whoever comes first. ``STEP`` after an
# accepted pull does nothing.
#
# Now machines that nobody has at home, joined by 10 Gbit/s. They will train a model in a
# moment, and you wait for it, so it is tiny; but every worker computes a thousand times
# slower than it could, as if the model had so much to compute. First four machines, of which
# the last is a straggler, for six steps. (The pictures call a worker a trainer.) Red arrows
# lead from the parameters that a worker has read to the update with its gradient; the number
# is the staleness.

four = {
    "synchronous": SYNCHRONOUS,
    "stale-synchronous, bound 1": BOUNDED | {"staleness_bound": 1},
    "asynchronous": ASYNCHRONOUS,
}
for name, plan in four.items():
    four[name] = predict(machines.on_machines(plan, 4, straggler=SLOWER, horizon=6)).timeline
lesson_tools.draw_panels(
    "04-simulated.png", "Four workers, one of them three times slower: who waits?", four
)

# %%
# At the top three workers wait two thirds of their time. In the middle they begin with two
# steps at their own speed; **then they wait as before**, because the bound lets them be ahead
# once, not every time. At the bottom they never wait. (Each does six steps here; the slow one
# does its last four alone.)
#
# Then sixteen workers, 100 steps each. In one column their times jitter with σ = 0.5, in
# another the last worker is a straggler. A number is the time in which the gradients of 16
# steps are used, in units of t, once all has settled.

REMEDIES = {
    "synchronous": SYNCHRONOUS,
    "2 backup workers": {"data_style": "soft-synchronous", "backup_workers": 2},
    "stale-synchronous, bound 4": BOUNDED | {"staleness_bound": 4},
    "asynchronous": ASYNCHRONOUS,
}
SPREAD, N = 0.5, 16
TOTAL = N - 1 + 1 / SLOWER  # the gradients that all compute in t, if one is a straggler
longest = machines.slowest(N, SPREAD)
formulas = [
    (f"{longest:.2f}", SLOWER),
    (f"{machines.slowest(N, SPREAD, backup=2) * N / (N - 2):.2f}", N / (N - 2)),
    (f"1 to {longest:.2f}", SLOWER),
    ("1.00", N / TOTAL),
]
settings, rows = ({"spread": SPREAD}, {"straggler": SLOWER}), []
for (name, plan), (luck, slow) in zip(REMEDIES.items(), formulas, strict=True):
    cases = [predict(machines.on_machines(plan, N, **setting)) for setting in settings]
    t = machines.compute_seconds(cases[1])
    found = [f"{machines.batch_seconds(prediction) / t:.2f}" for prediction in cases]
    rows.append([name, luck, found[0], f"{slow:.2f}", found[1]])
print(f"t = {seconds(t)}")
lesson_tools.show_table(
    ["16 workers", "jitter: formula", "simulated", "straggler: formula", "simulated"], *rows
)
fast, slow = (machines.mean_staleness(cases[1], *of) for of in ((0,), (N - 1, 33)))
lesson_tools.show_table(
    ["asynchronous, with a straggler", "staleness: formula", "simulated"],
    ["a fast worker", f"{TOTAL - 1:.2f}", f"{fast:.2f}"],
    ["the slow worker", f"{TOTAL * SLOWER - 1:.2f}", f"{slow:.2f}"],
)

# %%
# Read the columns, not the lines. **Against jitter** all three help: with a bound of 4 hardly
# anybody waits, since who is late now is early later. **Against a straggler** the bound is
# worth nothing: the rate is 1 ÷ max t for *every* finite s, only later. Backup workers drop
# what the straggler computes, always the same worker's; if it has data of its own, nobody
# ever learns from them. Only asynchronous workers use everything.
#
# (Two gaps. Who waits for the slowest is above the formula by the time of the network. *Backup
# workers* are above theirs with jitter, because it supposes that who is late gives up at once.
# Here, as in real programs, a pass is not broken off, and the late start late. Of the slow
# worker's staleness only its 33 pushes count that it makes while the others still work.)
#
# What this cluster does not show: the server has one network card. With a model of V bytes
# and B bytes/s it serves at most B ÷ V gradients a second. If n × V ÷ B is more than t, all
# wait for *it*, and more workers help nobody.
#
# Learning in virtual time
# ------------------------
# More gradients are worth nothing if they teach less. The prediction says who reads and who
# writes, and when. So one process can execute the passes of all sixteen workers in that order,
# with real gradients. ``learn`` does that, and draws the losses over the time of the cluster.
# Here are 12 seconds of it, with jitter and a straggler at once, as in life.
#
# One rule beforehand. A synchronous step moves parameters by the *mean* of sixteen
# gradients, asynchronous workers sixteen times by one. To move as far, they take a sixteenth
# of the learning rate.

RATE = 2.0
rates = dict(zip(REMEDIES, (RATE, RATE, RATE / N, RATE / N), strict=True))
case = {"straggler": SLOWER, "spread": SPREAD, "horizon": 10}
learning = learn(
    [machines.on_machines(REMEDIES[name], N, learning_rate=rates[name], **case) for name in rates],
    until_s=12.0,
    target_loss=0.08,
    names=[f"{name}, rate {rate:g}" for name, rate in rates.items()],
)
columns = ["steps", "time", "samples", "sent", "loss"]
lesson_tools.show_table(["in 12 s on the cluster", *columns], *learning.rows())
lesson_tools.show_table(["to a loss of 0.08", *columns[1:-1]], *learning.target_rows())
figure = learning_figure(learning, "Sixteen workers with jitter, one of them three times slower")
lesson_tools.save("04-learning.png", figure)

# %%
# Left: over the time of the cluster, the barrier is worst, and the bound is as good as no
# barrier until it is reached. Middle: over *samples* all plans are alike, and need about 610
# to reach the target. So with this rate a stale gradient teaches as much as a fresh one, and
# what is left is how many of them there are in a second. (Samples that backup workers drop
# are counted, too.)
#
# A failure that teaches
# ----------------------
# Forget the rule, and give asynchronous workers the rate that was fine with the barrier.
# Is it too large, because they update sixteen times as often? Then one worker that takes
# many small steps all alone could not have it either.

alone = machines.on_machines({}, 1, learning_rate=RATE)
together = machines.on_machines(ASYNCHRONOUS, N, learning_rate=RATE, spread=SPREAD)
failure = learn([alone, together], steps=50, names=["one worker, alone", "sixteen, asynchronous"])
lesson_tools.show_table([f"learning rate {RATE:g}", *columns], *failure.rows())
print(*failure.notes, sep="\n")

# %%
# One worker can. Sixteen diverge within three steps, and not because they update often: at
# each update there are 15 gradients under way that know nothing of it, and each asks for the
# same correction again. **The larger the staleness, the smaller the rate must be.** So look
# at the loss before you look at the clock.
#
# Run
# ---
# Now the plans of the guess for real: two workers and a server, three processes with real
# messages and gradients. This machine has no straggler, so one is planted: every pass is
# *paced*, which means that a process sleeps until a pass has taken as long as the plan says.

plans = {"synchronous": SYNCHRONOUS, "stale-synchronous": BOUNDED, "asynchronous": ASYNCHRONOUS}
plans = {name: machines.here(plan, STEPS, SLOWER) for name, plan in plans.items()}
with Workers(3) as workers:
    outcomes = {name: lesson_tools.run_here(name, plan, workers) for name, plan in plans.items()}

# %%
# Compare
# -------
# Predicted above measured, without a barrier. How many times more gradients a second are
# used than with a barrier, once all has settled; and how stale they are. ``error`` is that of
# gradients a second, (simulated − measured) ÷ measured; ``noise`` is half the distance from
# the 10th to the 90th percentile of the times of the measured iterations, ÷ their median. As
# before, staleness counts until the fast worker has finished: of the slow one 4 pushes.

both = {name: (outcome.prediction, outcome.execution) for name, outcome in outcomes.items()}
times = {name: [machines.batch_seconds(result) for result in both[name]] for name in both}
rows = []
for name, formula in (("stale-synchronous", 1.0), ("asynchronous", (SLOWER + 1) / 2)):
    ratios = [base / mine for base, mine in zip(times["synchronous"], times[name], strict=True)]
    simulated, measured = times[name]
    rows.append(
        [name, *(f"{ratio:.2f}" for ratio in (MY_GUESS[name], formula, *ratios)),
         percent((measured - simulated) / simulated, signed=True),
         percent(outcomes[name].comparison.noise_floor)]
    )  # fmt: skip
columns = ["guess", "formula", "simulated", "measured", "error", "noise"]
lesson_tools.show_table(["gradients a second, with a barrier: 1", *columns], *rows)
rows = []
for name, formula, of in (("fast", 1 / SLOWER, (0,)), ("slow", SLOWER, (1, STEPS // 3))):
    means = [machines.mean_staleness(result, *of) for result in both["asynchronous"]]
    rows.append([f"the {name} worker", *(f"{mean:.2f}" for mean in (formula, *means))])
lesson_tools.show_table(["staleness, asynchronous", *columns[1:4]], *rows)
predicted, measured = (result.timeline for result in both["asynchronous"])
title, panels = "Two workers without a barrier", {"predicted": predicted, "measured": measured}
lesson_tools.draw_panels("04-compare.png", title, panels)

# %%
# Explain the gap
# ---------------
# *From formula to simulated.* The lead of three pushes that the bound allows comes before
# all has settled, so it is not counted. Staleness is, from the start: at the first push of the
# slow worker the fast one has not yet made its third, so it begins with 2 and then is 3.
#
# *From simulated to measured.* Paced passes take what the plan says, or longer if this machine
# is busy. Messages are real, and three processes share its cores. Each line says how much
# longer the twelve measured steps are for one cause, as in lesson 1. They end with the slow
# worker in all three plans, so asynchrony does not shorten them: what differs is how much the
# *fast* one has done meanwhile. What it loses shows in gradients a second, not in this list.
#
# Real clocks decide who comes first, so no two runs are equal, nor are their losses. The
# prediction of an asynchronous plan is of a possible run.

for name, outcome in outcomes.items():
    lesson_tools.show_gap(name, outcome)

# %%
# Exercises
# ---------
# Fill in the functions in ``lessons/exercises_04.py``, then
# ``python -m lessons.check 04``.
#
# 1. *The formula.* Write ``slowest``, the mean time of the (n − b)-th of n workers with jitter,
#    in units of t. Target: 16 workers, σ = 0.5, and 2 backup workers: **1.44**.
# 2. *Who is how stale?* Write ``staleness``, of each of several asynchronous workers, from the
#    seconds that their steps take. Target: 1, 1, 1 and 3 seconds: **2.33** for the first
#    three and **9** for the last. What is the mean over all *pushes*?
# 3. *Between the two.* With ``gradients_per_update`` = c a server takes the mean of the first
#    c gradients, however old, and who has given one waits for the update. c = 1 is
#    asynchronous, c = 16 synchronous. Write ``gradients_per_update`` for the sixteen workers
#    with jitter: the gradients of 16 steps in at most **1.15 t**, with a mean staleness of at
#    most **3**.
#
# Key points
# ----------
# * A barrier costs E[max] − E[mean]: with jitter it grows with log n; one straggler costs f × t.
# * A bound on staleness evens out luck. It only delays the wait for a straggler.
# * Backup workers help against both, and throw work away; asynchrony helps against both, and
#   uses gradients that are n − 1 updates old on average, a slow worker's far older.
# * Never compare by steps, and never at one learning rate: compare losses over time.
#
# Further reading
# ---------------
# * Dean et al. 2012, "Large Scale Distributed Deep Networks" (Downpour SGD).
# * Ho et al. 2013, "More Effective Distributed ML via a Stale Synchronous Parallel Parameter
#   Server".
# * Chen et al. 2016, "Revisiting Distributed Synchronous SGD" (backup workers).
# * Gupta et al. 2016, "Model Accuracy and Runtime Tradeoff in Distributed Deep Learning: A
#   Systematic Study" (staleness and learning rates).
