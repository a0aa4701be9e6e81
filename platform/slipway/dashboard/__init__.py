"""The pages that belong to no single room: home, search, the shell and the live event stream."""
