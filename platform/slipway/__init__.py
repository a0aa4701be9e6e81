"""The project package: settings, addresses, processes and the rooms every app builds on."""
