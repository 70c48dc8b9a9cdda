"""Rewrites of a frozen network's graph that leave its result as it is, for `benchmarks.variants`.

In each, a convolution is a Conv2D of constants followed by BiasAdd and Relu, as `training.export` makes it.
"""

from collections import defaultdict
from typing import Any

import numpy as np
import tensorflow as tf

Nodes = dict[str, Any]  # name → NodeDef
FLOAT = tf.float32.as_datatype_enum


def merge_siblings(graph: Any) -> int:
    """Replaces 1×1 convolutions of the same tensor by one convolution and a split.

    Args:
        graph: GraphDef, changed in place.

    Returns:
        The number of convolutions that replace others.
    """
    nodes, consumers = _nodes(graph), _consumers(graph)
    siblings = defaultdict(list)
    for node in graph.node:
        if _is_pointwise(node, nodes):
            siblings[_source(nodes, node.input[0])].append(node)
    groups = {source: convolutions for source, convolutions in siblings.items() if len(convolutions) > 1}
    for number, (source, convolutions) in enumerate(groups.items()):
        _merge(graph, f"merged_{number}", source, [(node, *_tail(node, consumers)) for node in convolutions])
    return len(groups)


def pool_late(graph: Any) -> int:
    """Moves average pooling from before a 1×1 convolution, which makes fewer channels, to after it.

    Both are linear, and the mean of a constant bias is the bias.

    Args:
        graph: GraphDef, changed in place.

    Returns:
        The number of poolings that were moved.
    """
    nodes, consumers = _nodes(graph), _consumers(graph)
    moved = 0
    for pool in [node for node in graph.node if node.op == "AvgPool"]:
        convolution, *others = consumers[pool.name]
        if others or not _is_pointwise(convolution, nodes):
            continue
        bias, relu = _tail(convolution, consumers)
        convolution.input[0], pool.input[0], relu.input[0] = pool.input[0], bias.name, pool.name
        moved += 1
    return moved


def sorted_graph(graph: Any) -> Any:
    """A copy of a GraphDef in which every node comes after its inputs."""
    nodes, done = _nodes(graph), set()
    ordered = tf.compat.v1.GraphDef(versions=graph.versions)
    for last in nodes:
        waiting = [last]
        while waiting:
            inputs = [_name(tensor) for tensor in nodes[waiting[-1]].input]
            missing = [name for name in inputs if name not in done]
            if missing:
                waiting.append(missing[0])
            else:
                name = waiting.pop()
                if name not in done:
                    ordered.node.add().CopyFrom(nodes[name])
                    done.add(name)
    return ordered


def _merge(graph: Any, name: str, source: str, convolutions: list[tuple]) -> None:
    """Adds one convolution for several, [(Conv2D, BiasAdd, Relu), …]. Each Relu becomes its part of the result."""
    nodes = _nodes(graph)
    kernels = [_constant(nodes, node.input[1]) for node, _, _ in convolutions]
    biases = [_constant(nodes, bias.input[1]).ravel() for _, bias, _ in convolutions]
    inputs = (
        (source, _add_constant(graph, f"{name}/kernel", np.concatenate(kernels, axis=-1))),
        (f"{name}/0", _add_constant(graph, f"{name}/biases", np.concatenate(biases))),
        (f"{name}/1",),
    )
    for number, (node, tensors) in enumerate(zip(convolutions[0], inputs, strict=True)):
        copy = graph.node.add()
        copy.CopyFrom(node)
        copy.name, copy.input[:] = f"{name}/{number}", tensors
    sizes = _add_constant(graph, f"{name}/sizes", np.array([kernel.shape[-1] for kernel in kernels], np.int32))
    axis = _add_constant(graph, f"{name}/axis", np.int32(3))
    split = graph.node.add(op="SplitV", name=f"{name}/split", input=[f"{name}/2", sizes, axis])
    split.attr["T"].type, split.attr["Tlen"].type = FLOAT, tf.int32.as_datatype_enum
    split.attr["num_split"].i = len(kernels)
    for number, (_, _, relu) in enumerate(convolutions):
        relu.op, relu.input[0] = "Identity", f"{name}/split:{number}"


def _nodes(graph: Any) -> Nodes:
    return {node.name: node for node in graph.node}


def _consumers(graph: Any) -> dict[str, list[Any]]:
    """Name → the nodes that read one of its outputs."""
    found = defaultdict(list)
    for node in graph.node:
        for tensor in node.input:
            found[_name(tensor)].append(node)
    return found


def _name(tensor: str) -> str:
    """The node of a tensor, of which it may be a later output, or of a control dependency."""
    return tensor.split(":")[0].removeprefix("^")


def _source(nodes: Nodes, tensor: str) -> str:
    """The node that computes a tensor; an Identity only passes it on."""
    node = nodes[_name(tensor)]
    return _source(nodes, node.input[0]) if node.op == "Identity" else node.name


def _constant(nodes: Nodes, tensor: str) -> np.ndarray:
    """The value of a constant that may be stored at half precision and reshaped: float32."""
    node = nodes[_name(tensor)]
    if node.op == "Const":
        return tf.make_ndarray(node.attr["value"].tensor).astype(np.float32)
    return _constant(nodes, node.input[0])


def _add_constant(graph: Any, name: str, array: np.ndarray) -> str:
    node = graph.node.add(op="Const", name=name)
    node.attr["dtype"].type = tf.as_dtype(array.dtype).as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(array))
    return name


def _is_pointwise(node: Any, nodes: Nodes) -> bool:
    """Whether a node is a 1×1 convolution with stride 1."""
    if node.op != "Conv2D" or list(node.attr["strides"].list.i) != [1, 1, 1, 1]:
        return False
    return _constant(nodes, node.input[1]).shape[:2] == (1, 1)


def _tail(convolution: Any, consumers: dict[str, list[Any]]) -> tuple[Any, Any]:
    """The BiasAdd and the Relu that follow a convolution."""
    (bias,) = consumers[convolution.name]
    (relu,) = consumers[bias.name]
    while relu.op == "Identity":
        (relu,) = consumers[relu.name]
    return bias, relu
