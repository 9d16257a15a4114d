"""Shared by the tests of app definitions: a context for a PM2_HOME, and definitions of every kind."""
