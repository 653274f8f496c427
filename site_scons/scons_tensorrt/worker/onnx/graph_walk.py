"""Walks through an ONNX: its graphs, the graphs inside its nodes, tensors, names and types."""

STANDARD = ("", "ai.onnx")


def graphs(graph):
    """The graph and the graphs inside its nodes, outer ones first."""
    yield graph
    for node in graph.node:
        for inner in bodies(node):
            yield from graphs(inner)


def bodies(node):
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def all_nodes(model):
    for graph in graphs(model.graph):
        yield from graph.node


def tensors(model):
    """(tensor, is it in an attribute?) of all initializers and attributes."""
    yield from ((tensor, False) for tensor in model.graph.initializer)
    yield from tensors_in(model.graph.node)


def tensors_in(nodes):
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t, True
            yield from ((tensor, True) for tensor in attribute.tensors)
        for inner in bodies(node):
            yield from ((tensor, False) for tensor in inner.initializer)
            yield from tensors_in(inner.node)


def opset(model):
    return max((o.version for o in model.opset_import if o.domain in STANDARD), default=1)


def domain(node):
    return "" if node.domain in STANDARD else node.domain


def defined(graph):
    """Names that a graph defines itself."""
    for item in [*graph.input, *graph.initializer]:
        yield item.name
    for node in graph.node:
        yield from (name for name in node.output if name)


def captured(graph):
    """Names that a graph and those inside it use of the graphs around it, in order of use."""
    own = set(defined(graph))
    for node in graph.node:
        for name in node.input:
            if name and name not in own:
                yield name
        for inner in bodies(node):
            yield from (name for name in captured(inner) if name not in own)
    yield from (o.name for o in graph.output if o.name not in own)


def read_by(node):
    """All that a node reads: its inputs, and what graphs inside it use of those around."""
    yield from (name for name in node.input if name)
    for inner in bodies(node):
        yield from captured(inner)


def replace(graph, names):
    """Read other tensors in a graph, and in those inside it: {name: name instead}."""
    for inner in graphs(graph):
        for node in inner.node:
            for index, name in enumerate(node.input):
                if name in names:
                    node.input[index] = names[name]


def types(model):
    """{tensor: element type} of everything that is known. 0: known, but no plain tensor."""
    found = {}
    for graph in graphs(model.graph):
        for info in [*graph.value_info, *graph.input, *graph.output]:
            kind = info.type.WhichOneof("value")
            if kind:
                found[info.name] = info.type.tensor_type.elem_type if kind == "tensor_type" else 0
        found.update((t.name, t.data_type) for t in graph.initializer)
    return found
