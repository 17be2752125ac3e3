"""The command ``calibrate``, and the table of a profile."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from runtime.cli.running import OUT, progress_bar, run_errors
from runtime.execution import calibrating
from runtime.keep_profile import with_older
from simulator.cli.console import stdout_console
from simulator.cli.options import File, Sets
from simulator.cli.outputs import Output, check_outputs, deliver
from simulator.cli.results import print_parts
from simulator.cluster.profile import Profile
from simulator.cluster.profile_file import default_path, save_profile
from simulator.cluster.timing import Points, Timing
from simulator.experiment_file import load
from simulator.program.operations import Op
from simulator.units import counted, nbytes, seconds

LEGEND = """\
A segment is a piece of the model between two communications; a pass goes through
   it forward (F), backward (B), or updates it (STEP).
p10, p90: a tenth of the samples was faster, a tenth slower.
effective cores: how many cores' worth of work all ranks get done together."""


@run_errors
def calibrate(
    file: File = None,
    set_: Sets = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PROFILE.json",
            help="Save the profile here, instead of in this user's cache.",
        ),
    ] = None,
    plot: Annotated[
        Path,
        typer.Option("--plot", metavar="PICTURE", help="Draw the profile: .png, .svg or .pdf."),
    ] = OUT / "calibration.png",
) -> None:
    """Measure what this machine takes for an experiment: passes, transfers, host overhead.

    Without -o the profile goes where predictions look for it: twinline/profile.json in
    $XDG_CACHE_HOME or ~/.cache (of GPUs profile-cuda-1.json, 1 being the ranks on each GPU).
    The picture shows what was measured, and fitted curves.

    Examples:
        twinline calibrate FILE.toml
        twinline calibrate FILE.toml -o here.json
        twinline predict FILE.toml --set cluster.profile=here.json
    """
    experiment = load(file, set_ or ())
    path = output or default_path(experiment)
    check_outputs(plot, path, options=("--plot", "--output"), inputs=[file])
    with progress_bar() as on_progress:
        profile = with_older(calibrating.calibrate(experiment, on_progress), path)

    def draw(picture: Path) -> None:
        from simulator.charts.profile import profile_figure

        profile_figure(profile).save(picture)

    report_profile(profile, path, (plot, draw))


def report_profile(profile: Profile, path: Path, *pictures: Output) -> None:
    """Show what was measured, then save it."""

    def save(target: Path) -> None:
        save_profile(profile, target)

    deliver(lambda: show_profile(stdout_console(), profile), [(path, save), *pictures])


def show_profile(console: Console, profile: Profile) -> None:
    """Print what was measured, with its spread."""
    table = Table("pass of a segment", "mean", "p10", "p90", "samples")
    for key, timing in profile.passes.items():
        times = (timing.mean_s, timing.p10_s, timing.p90_s)
        table.add_row(key, *(seconds(time) for time in times), str(timing.samples))
    console.print(table)
    measured = {"message": profile.messages} | _by_name(profile.collectives, "")
    for dtype, of_type in profile.narrow_collectives.items():
        measured |= _by_name(of_type, f" of {dtype}")
    if profile.ranks_per_host is not None:
        measured["message between hosts"] = profile.remote_messages
        measured |= _by_name(profile.remote_collectives, " between hosts")
    loss = profile.transfer_loss
    how = " (alone / beside passes)" if loss is not None else ""
    sizes = Table("bytes", *(f"{name}{how}" for name in measured))
    columns = [dict(points) for points in measured.values()]
    for size in sorted(set().union(*columns)):
        sizes.add_row(nbytes(size), *(_both_ways(column.get(size)) for column in columns))
    console.print(sizes)
    host = [
        f"launch overhead {seconds(profile.issue_s)} an instruction "
        f"(+{seconds(profile.queue_s)} after a queued transfer)",
        f"wake-up {seconds(profile.wake_s)}",
        f"a transfer occupies {profile.transfer_cores:.2f} of a core",
    ]
    if loss is not None:
        host.append(f"passes beside transfers lose {loss:.0%} of their speed")
    if profile.capacity is not None:
        if profile.device == "cpu":
            host.append(f"effective cores {profile.capacity:.2f} of {profile.machine['cores']}")
        else:
            many = counted(profile.busy_ranks, "rank")
            host.append(f"effective devices {profile.capacity:.2f} for {many} on one")
    print_parts(console, host)
    console.print(LEGEND, soft_wrap=True)


def _by_name(collectives: dict[Op, dict[int, Points]], where: str) -> dict[str, Points]:
    """Return the points of collectives by operation and group."""
    return {
        f"{op.lower().replace('_', '-')}, {size} ranks{where}": points
        for op, sizes in collectives.items()
        for size, points in sizes.items()
    }


def _both_ways(timing: Timing | None) -> str:
    """Return a transfer's time alone and, if it was measured, while all ranks compute."""
    if timing is None:
        return ""
    times = [timing.mean_s, timing.busy_s]
    return " / ".join(seconds(time) for time in times if time is not None)
