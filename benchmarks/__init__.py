"""What takes long or is timed: run by hand, never by the tests."""
