"""Passes through one segment, cut off from its neighbours."""

from __future__ import annotations

import gc
import weakref

import torch

from runtime.executor.graph import Entry, Graph, backward_pass, forward_pass, pass_without_graph
from runtime.executor.parameters import Parameters
from runtime.models.batches import microbatch
from runtime.models.segment import Segment
from simulator.workloads.describe import describe

CPU = torch.device("cpu")


def test_an_output_is_let_go_once_it_is_sent(experiment):
    """Of a sent activation only its place in the graph is kept, not its memory."""
    tiny = experiment()
    segment = Segment(tiny, 0, 3, torch.device("cpu"))
    flat = Parameters(tiny, [segment])
    batch, target = microbatch(tiny, 0, 0, torch.device("cpu"))
    outputs, graph = forward_pass(segment, {0: batch}, target, 1.0)
    output = outputs.pop(3)
    gradient, storage = torch.ones_like(output), weakref.ref(output.untyped_storage())
    del output
    gc.collect()
    assert storage() is None
    backward_pass(graph, {3: gradient})
    assert float(flat.gradients.abs().max()) > 0


def test_a_pass_without_graph_has_the_same_outputs(experiment):
    tiny = experiment()
    segment = Segment(tiny, 0, 2, CPU)
    batch, target = microbatch(tiny, 0, 0, CPU)
    outputs, _ = forward_pass(segment, {0: batch}, target, 1.0)
    again = pass_without_graph(segment, {0: batch}, target)
    assert outputs.keys() == again.keys()
    assert all(torch.equal(outputs[b], again[b]) for b in outputs)
    assert not any(output.requires_grad for output in again.values())


def test_gradients_of_inputs_add_up_and_have_memory_of_their_own():
    entries = {1: Entry(), 2: Entry()}
    x = torch.ones(3)
    total = entries[1](x) + entries[2](x)  # a sum hands the same gradient to both
    edge = torch.autograd.graph.get_gradient_edge(total)
    before = torch.full((3,), 10.0)
    results = backward_pass(Graph(entries, {3: edge}, None), {3: torch.ones(3)}, {1: before})
    assert results[1].tolist() == [11.0] * 3
    assert results[2].tolist() == [1.0] * 3
    assert results[1].data_ptr() == before.data_ptr() != results[2].data_ptr()


def test_a_loss_is_weighted_and_its_way_back_begins_with_the_loss_scale(experiment):
    tiny = experiment(model="mlp", layers=2)
    count = len(describe(tiny))
    segment = Segment(tiny, 0, count, CPU)
    flat = Parameters(tiny, [segment])
    batch, target = microbatch(tiny, 0, 0, CPU)
    found = []
    for weight, scale in ((1.0, None), (0.25, torch.tensor(8.0))):
        flat.zero_gradients()
        _, graph = forward_pass(segment, {0: batch}, target, weight, loss_scale=scale)
        backward_pass(graph, {})
        found.append(flat.gradients.clone())
    assert torch.equal(2 * found[0], found[1])
