"""`make up`: the environment, the embedded services and the supervisor. Imports nothing of the apps."""
