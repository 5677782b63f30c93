"""Routes of a cluster: agents and their enrolment, what is used of nodes, tokens, the audit."""
