"""What a workflow's definition is made of: model, shape, rules, graph, YAML; see `definition`."""
