"""The files of a snapshot: what lies in which, laid out, filled, and looked at."""
