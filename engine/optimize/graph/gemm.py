"""Gemm as MatMul and Add, for kernels that know MatMul only."""

from __future__ import annotations

from typing import Any

from engine.optimize.graph.weights import attribute


def split_gemms(model: Any) -> int:
    """Turns each Gemm without transA whose B is a stored float matrix into MatMul and Add; how many.

    Gemm is alpha * A B + beta * C: alpha goes into the matrix, beta into C, or a Mul where C is not stored. The Add
    keeps the Gemm's output, the MatMul its name.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    stored = {each.name: each for each in graph.initializer if each.data_type == TensorProto.FLOAT}
    nodes, made, changed = [], set(), 0
    for node in graph.node:
        if node.op_type != "Gemm" or attribute(node, "transA", 0) or node.input[1] not in stored:
            nodes.append(node)
            continue
        changed += 1
        alpha, transposed = attribute(node, "alpha", 1.0), attribute(node, "transB", 0)
        name = node.input[1]
        if transposed or alpha != 1:
            matrix = numpy_helper.to_array(stored[name])
            name = f"{name}/matrix_{int(transposed)}_{alpha:g}"
            if name not in made:
                matrix = np.ascontiguousarray((matrix.T if transposed else matrix) * np.float32(alpha))
                graph.initializer.append(numpy_helper.from_array(matrix, name))
                made.add(name)
        added = node.input[2] if len(node.input) > 2 else ""
        product = f"{node.output[0]}/product" if added else node.output[0]
        nodes.append(helper.make_node("MatMul", [node.input[0], name], [product], name=node.name))
        if not added:
            continue
        if attribute(node, "beta", 1.0) != 1:
            factor = f"{node.name}/beta"
            graph.initializer.append(
                numpy_helper.from_array(np.array(attribute(node, "beta", 1.0), np.float32), factor)
            )
            nodes.append(helper.make_node("Mul", [added, factor], [f"{factor}_added"], name=f"{node.name}/mul"))
            added = f"{factor}_added"
        nodes.append(helper.make_node("Add", [product, added], list(node.output), name=f"{node.name}/add"))
    del graph.node[:]
    graph.node.extend(nodes)
    return changed
