"""The same models in other servers, to compare their columns: run with those servers' own Python."""
