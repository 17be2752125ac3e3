"""The pairs of model and GPU on which predictions were validated; a note for all others.

A pair is here if published times of training steps were held against predictions
(``docs/validation.md``). Machines with a profile were measured, and CPUs are calibrated rather
than described, so neither needs to be here.
"""

from __future__ import annotations

from simulator.cluster.cluster import Cluster
from simulator.experiment.experiment import Experiment
from simulator.experiment.model_family import ModelFamily

VALIDATED = {
    ("gpt", "V100-SXM2-32GB"),
    ("gpt", "A100-SXM4-40GB"),
    ("gpt", "A100-SXM4-80GB"),
    ("gpt", "H100-SXM5-80GB"),
}
"""Models, and GPUs by the names that presets have for them."""


def caveats(experiment: Experiment, cluster: Cluster) -> list[str]:
    """Return a note if the model was not validated on a GPU of the cluster, else nothing."""
    model, family = experiment.workload.model, experiment.workload.family
    if cluster.profile is not None or not family.has_parameters:
        return []
    kinds = {kind: None for node in cluster.topology.nodes.distinct for kind in node.devices}
    devices = {cluster.kinds[kind].name: cluster.kinds[kind].kind for kind in kinds}
    new = [
        name for name, kind in devices.items() if kind == "gpu" and (model, name) not in VALIDATED
    ]
    if not new:
        return []
    where = " and ".join(new)
    return [f"predictions of {model} on {where} are not validated{_known(family)}"]


def _known(family: ModelFamily) -> str:
    """Return what the error was where single figures of such a model are known."""
    if family.has_experts:
        return "; a published step of a model with experts took 1.7 times the predicted time"
    if family.data == "images":
        return "; published steps of ResNet-50 took 0.7 to 0.8 times the predicted time"
    return ""
