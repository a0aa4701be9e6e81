"""Who may do what: users, projects with roles, tokens, and the one policy module."""
