"""The closed form of DiLoCo beside the figures of another simulator.

    python tests/benchmarks/diloco.py

H steps of t seconds and one all-reduce of the parameters keep a replica busy for
H·t ÷ (H·t + T) of the time, as tests hold predictions to do. Douillard et al. 2025 ("Streaming
DiLoCo", arXiv 2501.18512) simulated the bandwidth at which that is so many per cent, for two
replicas in bf16 (table 4, on a grid of steps of × 1.2), and the hours at 1 Gbit/s (table 1). The
bandwidth follows here from T = parameters · 16 bit ÷ bandwidth, a part of which a step may hide.
"""

from __future__ import annotations

GRID = 1.2
"""The steps of the published bandwidths: what is that near cannot be told apart."""

UTILISATIONS = (0.5, 0.8, 0.9, 0.95, 0.99)
MODELS = {
    # parameters, seconds of a step: Gbit/s of data parallelism, and of DiLoCo with H = 100
    (1e9, 0.1): ((86.8, 152.6, 184.2, 222.3, 569.0), (1.4, 6.2, 13.3, 23.3, 86.8)),
    (1e10, 0.8): ((104.8, 222.3, 222.3, 268.3, 471.5), (1.7, 7.5, 16.0, 33.9, 104.8)),
    (1e11, 4.9): ((184.2, 323.8, 390.7, 390.7, 471.5), (3.0, 11.0, 23.3, 49.4, 184.2)),
}
HOURS = {0.67: 109.0, 2.7: 438.0, 6.75: 1097.0}
"""Hours of data parallelism with 1B parameters, by those with no communication."""


def bandwidth(parameters: float, step: float, period: int, busy: float, hidden: float) -> float:
    """Return the Gbit/s at which replicas are busy for a share of the time.

    Args:
        parameters: of the model.
        step: seconds of a training step.
        period: H.
        busy: the share.
        hidden: the part of a step that the all-reduce may go on beside.
    """
    waiting = period * step * (1 - busy) / busy
    return parameters * 16 / (waiting + hidden * step) / 1e9


def main() -> None:
    print(
        "| parameters | method | busy | published, Gbit/s | nothing hidden | 5/6 of a step hidden |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for (parameters, step), (synchronous, local) in MODELS.items():
        for name, period, published in (("all-reduce", 1, synchronous), ("DiLoCo", 100, local)):
            for busy, gbit in zip(UTILISATIONS, published, strict=True):
                cells = []
                for hidden in (0.0, 5 / 6):
                    found = bandwidth(parameters, step, period, busy, hidden)
                    ratio = max(found / gbit, gbit / found)
                    cells.append(
                        f"{found:.3g}{'' if ratio <= GRID else f' (× {found / gbit:.2f})'}"
                    )
                print(
                    f"| {parameters / 1e9:g}B | {name} | {busy:.0%} | {gbit:g} | "
                    f"{' | '.join(cells)} |"
                )
    for alone, published in HOURS.items():
        steps = alone * 3600 / 0.1
        hours = alone + steps * 1e9 * 16 / 1e9 / 3600
        print(f"{alone} h without communication: {hours:.1f} h, published {published:g} h")


if __name__ == "__main__":
    main()
