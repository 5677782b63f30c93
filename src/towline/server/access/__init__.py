"""Who may ask this server what: its authority, tokens, enrolled nodes, the guard of its routes, the audit."""
