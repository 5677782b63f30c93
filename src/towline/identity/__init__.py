"""Who is who between machines: certificates, join links, API tokens and roles."""
