"""The work itself: one module per queue. A task parses its parameters, calls services, and answers."""
