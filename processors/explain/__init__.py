"""Why an execution is where it is: the facts, gathered; the findings, drawn from them purely."""
