"""Who may do what: principals, the table of roles, tokens, and what the engine admits."""
